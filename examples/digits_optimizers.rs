//! A network reads digits: every optimizer side by side, with a picture of the curves.
//!
//! `cargo run --release --example digits_optimizers`

use common::{Args, Outcome, classifier, fit, over_seeds};
use graphc::data::Table;
use graphc::nn::{Activation, Dense, Flatten, Sequential};
use graphc::optim::{Adadelta, Adagrad, Adam, Adamax, Lion, Nadam, Optimizer, RmsProp, Sgd};
use graphc::plot::Chart;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let dims = train.dims().to_vec();
    let (train, test) = (Table::from(train), Table::from(test));
    let optimizers: [(&str, Box<dyn Optimizer>); 12] = [
        ("SGD", Box::new(Sgd::new(0.1))),
        ("momentum", Box::new(Sgd::new(0.1).momentum(0.9))),
        ("Nesterov", Box::new(Sgd::new(0.1).nesterov(0.9))),
        ("Adagrad", Box::new(Adagrad::new(0.05))),
        ("Adadelta", Box::new(Adadelta::new(1.0))),
        ("RMSProp", Box::new(RmsProp::new(1e-3))),
        ("Adam", Box::new(Adam::new(1e-3))),
        ("AdamW", Box::new(Adam::with_decoupled_decay(1e-3, 0.01))),
        ("AMSGrad", Box::new(Adam::new(1e-3).amsgrad())),
        ("Adamax", Box::new(Adamax::new(2e-3))),
        ("NAdam", Box::new(Nadam::new(1e-3))),
        ("Lion", Box::new(Lion::new(3e-4))),
    ];
    let mut curves = Chart::new("Digits: 64-128-10", "epoch", "training loss").log_y();
    let mut results = Vec::new();
    for (name, optimizer) in &optimizers {
        let mut losses = Vec::new();
        let accuracy = over_seeds(name, args.seeds.unwrap_or(5), |seed| {
            let module = classifier(optimizer, &dims, |m| {
                let hidden = Dense::new(m, "hidden", dims.iter().product(), 128);
                let net = Sequential::new().then(Flatten).then(hidden).then(Activation::Relu);
                Box::new(net.then(Dense::new(m, "out", 128, 10)))
            })?;
            let (_, report) = fit(module, &train, &test, 50, args.epochs.unwrap_or(30), seed)?;
            losses = report.losses();
            Ok(report.last("accuracy"))
        })?;
        curves = curves.curve_of(name, &losses);
        results.push((accuracy, *name));
    }
    let picture = args.picture("digits_optimizers.svg");
    curves.save(&picture)?;
    curves.save(args.picture("digits_optimizers.png"))?;
    println!("curves in {}", picture.display());
    results.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all: Vec<String> = results.iter().map(|(accuracy, name)| format!("{name} {accuracy:.4}")).collect();
    println!("test accuracy {}", all.join(", "));
    Ok(())
}
