//! Gradients that vanish in a deep network of sigmoids, or explode, and what helps: ReLU, skip connections, clipping. Draws the norm of
//! each layer's gradient over depth.
//!
//! `cargo run --release --example vanishing_gradients`

use common::{Args, Outcome};
use graphc::data::{Loader, Table};
use graphc::nn::{Activation, Dense, Flatten, Layer, LayerNorm, Residual, Sequential};
use graphc::optim::{Clip, Clipped, Optimizer, Sgd, StepOptions, train_step_with};
use graphc::plot::Chart;
use graphc::{DType, Initializer, ModuleBuilder, Session, cross_entropy, metrics, shape};
use std::process::ExitCode;

const DEPTH: usize = 20;
const WIDTH: usize = 64;
/// A quarter more than the deviation that keeps the scale of what passes ReLU.
const LARGE: Initializer = Initializer::Normal { mean: 0.0, std: 0.22 };

/// One layer of a deep network.
type Block = fn(&ModuleBuilder, &str) -> Box<dyn Layer>;

fn dense(m: &ModuleBuilder, name: &str, weight: Initializer) -> Dense {
    Dense::with_init(m, name, WIDTH, WIDTH, weight, Some(Initializer::ZEROS))
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let test = Table::from(test);
    let train = Table::from(train);
    let networks: [(&str, Block, Box<dyn Optimizer>); 5] = [
        (
            "sigmoid",
            |m, name| {
                let init = Initializer::xavier_uniform(WIDTH, WIDTH);
                Box::new(Sequential::new().then(dense(m, name, init)).then(Activation::Sigmoid))
            },
            Box::new(Sgd::new(0.05).momentum(0.9)),
        ),
        (
            "ReLU",
            |m, name| {
                let init = Initializer::kaiming_normal(WIDTH, std::f64::consts::SQRT_2);
                Box::new(Sequential::new().then(dense(m, name, init)).then(Activation::Relu))
            },
            Box::new(Sgd::new(0.01).momentum(0.9)),
        ),
        (
            "sigmoid, skip",
            |m, name| {
                let init = Initializer::xavier_uniform(WIDTH, WIDTH);
                let norm = LayerNorm::new(m, &format!("{name}/norm"), WIDTH);
                let body = Sequential::new().then(norm).then(dense(m, name, init)).then(Activation::Sigmoid);
                Box::new(Residual::new(body))
            },
            Box::new(Sgd::new(0.05).momentum(0.9)),
        ),
        (
            "ReLU, large weights",
            |m, name| Box::new(Sequential::new().then(dense(m, name, LARGE)).then(Activation::Relu)),
            Box::new(Sgd::new(0.01).momentum(0.9)),
        ),
        (
            "ReLU, large weights, clipped",
            |m, name| Box::new(Sequential::new().then(dense(m, name, LARGE)).then(Activation::Relu)),
            Box::new(Clipped::new(Sgd::new(0.01).momentum(0.9), Clip::GlobalNorm(1.0))),
        ),
    ];

    let mut chart = Chart::new("Gradients over depth, first step", "layer", "norm of the gradient").log_y();
    let mut results = Vec::new();
    for (name, block, optimizer) in &networks {
        let m = ModuleBuilder::new("deep");
        let net = (0..DEPTH)
            .fold(Sequential::new().then(Flatten), |net, i| net.then(block(&m, &format!("layer{i:02}"))))
            .then(Dense::new(&m, "out", WIDTH, 10));
        m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, shape!["B", 8, 8]))));
        let options = StepOptions { gradient_norms: true, guard: true };
        let names = train_step_with(&m, "train_step", optimizer, options, |f| {
            let logits = net.train(f.input("x", DType::F32, shape!["B", 8, 8]));
            cross_entropy(logits, f.input("y", DType::I32, shape!["B"]))
        });
        let mut session = Session::new(m.build()?, 1)?;
        let mut loader = Loader::new(train.clone(), 50).shuffled(1);
        let mut first: Option<Vec<(f64, f64)>> = None;
        let mut refused = 0;
        for epoch in 0..args.epochs.unwrap_or(10) {
            loader.start(epoch);
            while let Some(batch) = loader.next_batch()? {
                let outputs = session.run("train_step", &batch.inputs())?;
                // A step whose gradients are not finite changes nothing.
                refused += usize::from(!outputs.get::<bool>("finite")?.iter().all(|&finite| finite));
                let norms: &[f32] = outputs.get("gradient_norms")?;
                let layers =
                    names.iter().zip(norms).filter(|(n, _)| n.starts_with("layer") && n.ends_with("/weight"));
                let layers = layers.filter(|(n, _)| !n.contains("norm"));
                first.get_or_insert_with(|| {
                    (0..).map(f64::from).zip(layers.map(|(_, &v)| f64::from(v))).collect()
                });
            }
        }
        let outputs = session.run("predict", &[test.inputs()[0]])?;
        let accuracy = metrics::accuracy(outputs.get("logits")?, 10, test.get("y").unwrap_or_default());
        let norms = first.unwrap_or_default();
        let (shallow, deep) = (norms.first().map_or(0.0, |n| n.1), norms.last().map_or(0.0, |n| n.1));
        println!(
            "{name:30} first layer {shallow:9.2e}, last {deep:9.2e}, ratio {:8.1e}, refused {refused}, accuracy {accuracy:.3}",
            shallow / deep
        );
        results.push(format!("{name} {accuracy:.4}"));
        chart = chart.curve(name, norms);
    }
    let picture = args.picture("vanishing_gradients.svg");
    chart.save(&picture)?;
    chart.save(args.picture("vanishing_gradients.png"))?;
    println!("gradients over depth in {}", picture.display());
    println!("test accuracy {}", results.join("; "));
    Ok(())
}
