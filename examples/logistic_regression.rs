//! Logistic regression and a small network on three tables: irises, wines, and tumours.
//!
//! `cargo run --release --example logistic_regression [-- --model linear]`

use common::{Args, Outcome, classifier, fit, over_seeds, tabular};
use graphc::data::Table;
use graphc::metrics::{Confusion, auroc};
use graphc::nn::{Activation, Dense, Sequential};
use graphc::optim::Adam;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let linear = args.model.as_deref() == Some("linear");
    let mut results = Vec::new();
    for (name, classes) in [("iris", 3), ("wine", 3), ("breast_cancer", 2)] {
        let [(x, train), (x_test, test)] = tabular(&format!("{name}.csv"))?;
        let width = x.len() / train.len();
        let table = |x: Vec<f32>, part: &graphc::data::Csv| -> Result<Table, Box<dyn std::error::Error>> {
            Ok(Table::new().with("x", &[width], x)?.with("y", &[], part.integers("class")?)?)
        };
        let (train, test) = (table(x, &train)?, table(x_test, &test)?);
        train.check_labels("y", classes)?;
        let accuracy = over_seeds(name, args.seeds.unwrap_or(5), |seed| {
            let module = classifier(&Adam::new(5e-3), &[width], |m| {
                if linear {
                    return Box::new(Dense::new(m, "out", width, classes));
                }
                let net = Sequential::new().then(Dense::new(m, "hidden", width, 16)).then(Activation::Tanh);
                Box::new(net.then(Dense::new(m, "out", 16, classes)))
            })?;
            let (mut session, report) = fit(module, &train, &test, 16, args.epochs.unwrap_or(100), seed)?;
            if seed == 1 {
                let labels = test.get::<i32>("y").unwrap_or_default();
                let outputs = session.run("predict", &[test.inputs()[0]])?;
                let logits: &[f32] = outputs.get("logits")?;
                let mut confusion = Confusion::new(classes);
                confusion.add_logits(logits, labels);
                println!("{confusion}");
                if classes == 2 {
                    let scores: Vec<f32> = logits.chunks(2).map(|row| row[1] - row[0]).collect();
                    println!("area under the curve {:.4}", auroc(&scores, labels));
                }
            }
            Ok(report.last("accuracy"))
        })?;
        results.push(format!("{name} {accuracy:.4}"));
    }
    println!("test accuracy {}", results.join(", "));
    Ok(())
}
