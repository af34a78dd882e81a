//! A variational autoencoder of digits. Draws reconstructions, digits that it makes up, and the plane of a two-dimensional code.
//!
//! `cargo run --release --example vae`

use common::{Args, Outcome, over_seeds};
use graphc::data::{Loader, Table};
use graphc::loss::{bce_with_logits, gaussian_kl};
use graphc::nn::{Activation, Dense, Layer, Sequential, random_stream};
use graphc::optim::{Adam, train_step};
use graphc::plot::{Chart, Grey, save_grid};
use graphc::trainer::Trainer;
use graphc::{DType, FunctionBuilder, Module, ModuleBuilder, Session, Tensor, shape};
use std::process::ExitCode;

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;

/// 64 - 128 - (code + code), code - 128 - 64.
struct Vae {
    encoder: Sequential,
    decoder: Sequential,
    code: usize,
}

impl Vae {
    fn new(m: &ModuleBuilder, code: usize) -> Self {
        let net = |name: &str, n_in: usize, n_out: usize| {
            Sequential::new()
                .then(Dense::new(m, &format!("{name}/0"), n_in, 128))
                .then(Activation::Tanh)
                .then(Dense::new(m, &format!("{name}/1"), 128, n_out))
        };
        Self { encoder: net("encoder", PIXELS, 2 * code), decoder: net("decoder", code, PIXELS), code }
    }

    /// Mean and logarithm of the variance of the code.
    fn encode<'f>(&self, x: Tensor<'f>) -> [Tensor<'f>; 2] {
        let both = self.encoder.apply(x).split(&[self.code, self.code], 1);
        [both[0], both[1]]
    }

    /// Nats per image: what reconstruction and code cost.
    fn loss<'f>(&self, f: &'f FunctionBuilder, x: Tensor<'f>, sampled: bool) -> Tensor<'f> {
        let [mean, log_variance] = self.encode(x);
        let noise = sampled.then(|| random_stream(f, "code").normal(DType::F32, mean.shape(), 0.0, 1.0));
        let z = noise.map_or(mean, |noise| mean + (log_variance * 0.5).exp() * noise);
        bce_with_logits(self.decoder.apply(z), x) * PIXELS as f64 + gaussian_kl(mean, log_variance)
    }
}

fn module(code: usize) -> Result<Module, Box<dyn std::error::Error>> {
    let m = ModuleBuilder::new("vae");
    let vae = Vae::new(&m, code);
    let pixels = shape!["B", PIXELS];
    train_step(&m, "train_step", &Adam::new(1e-3), |f| vae.loss(f, f.input("x", DType::F32, &pixels), true));
    m.function("evaluate", |f| {
        let x = f.input("x", DType::F32, &pixels);
        let [mean, _] = vae.encode(x);
        f.output("loss", vae.loss(f, x, false));
        f.output("code", mean);
        f.output("y", vae.decoder.apply(mean).sigmoid());
    });
    m.function("decode", |f| {
        f.output("y", vae.decoder.apply(f.input("z", DType::F32, shape!["B", code])).sigmoid());
    });
    Ok(m.build()?)
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    if train.dims() != [SIDE, SIDE] {
        return Err(format!("the images are {:?}, this example is of {SIDE} x {SIDE}", train.dims()).into());
    }
    let table = Table::new().with("x", &[PIXELS], train.features().to_vec())?;
    let run = |code: usize, seed: u64| -> Result<Session, Box<dyn std::error::Error>> {
        let mut session = Session::new(module(code)?, seed)?;
        let mut loader = Loader::new(table.clone(), 50).shuffled(seed);
        Trainer::new(args.epochs.unwrap_or(50)).run(&mut session, &mut loader)?;
        Ok(session)
    };

    // A code of two numbers is a plane.
    let mut plane = run(2, 1)?;
    let code = plane.run("evaluate", &[("x", test.features().into())])?.get::<f32>("code")?.to_vec();
    let mut chart = Chart::new("Codes of the test digits", "first", "second");
    for class in 0..10 {
        let of_class = code.chunks(2).zip(test.labels()).filter(|(_, label)| **label == class);
        chart = chart.points(&class.to_string(), of_class.map(|(z, _)| (f64::from(z[0]), f64::from(z[1]))));
    }
    chart.save(args.picture("vae_plane.svg"))?;
    let steps = || (-7..=7).map(|i| i as f32 * 0.35);
    let places: Vec<f32> = steps().rev().flat_map(|y| steps().flat_map(move |x| [x, y])).collect();
    let made = plane.run("decode", &[("z", (&places[..]).into())])?.get::<f32>("y")?.to_vec();
    let rows: Vec<Grey<'_>> =
        made.chunks(15 * PIXELS).map(|pixels| Grey { pixels, height: SIDE, width: SIDE }).collect();
    save_grid(args.picture("vae_digits.png"), &rows, 4)?;

    let loss = over_seeds("nats per image", args.seeds.unwrap_or(5), |seed| {
        let mut session = run(8, seed)?;
        let outputs = session.run("evaluate", &[("x", test.features().into())])?;
        let grey = |pixels| Grey { pixels, height: SIDE, width: SIDE };
        let shown = 20 * PIXELS;
        let rows = [grey(&test.features()[..shown]), grey(&outputs.get("y")?[..shown])];
        save_grid(args.picture("vae_reconstructions.png"), &rows, 5)?;
        Ok(f64::from(outputs.scalar::<f32>("loss")?))
    })?;
    println!("plane, digits and reconstructions in {}", args.out.display());
    println!("test loss {loss:.3} nats per image");
    Ok(())
}
