//! A GPT learns to write like Jane Austen, character by character: two layers of width 64, or with `--model nano` the size of nanoGPT's
//! configuration for CPUs, four layers of width 128.
//!
//! `cargo run --release --example gpt`

use common::text::{self, Chance, Text, WINDOW};
use common::{Args, Outcome, over_seeds};
use graphc::nn::{
    Dense, Embedding, Layer, LayerNorm, LearnedPositions, Sequential, TransformerBlock, TransformerOptions,
};
use graphc::optim::{Adam, Clip, Clipped, train_step};
use graphc::summary::Summary;
use graphc::{DType, FunctionBuilder, Initializer, ModuleBuilder, Session, Tensor, cross_entropy, shape};
use std::process::ExitCode;

const INIT: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

fn gpt(m: &ModuleBuilder, characters: usize, layers: usize, heads: usize, width: usize) -> Sequential {
    let options = TransformerOptions { causal: true, init: Some(INIT), ..TransformerOptions::default() };
    let net = Sequential::new()
        .then(Embedding::with_init(m, "tokens", characters, width, INIT))
        .then(LearnedPositions::with_init(m, "positions", WINDOW, width, INIT));
    (0..layers)
        .fold(net, |net, i| net.then(TransformerBlock::new(m, &format!("block{i}"), width, heads, options)))
        .then(LayerNorm::new(m, "norm", width))
        .then(Dense::with_init(m, "out", width, characters, INIT, None))
}

/// Cross entropy of each character, given those before it in the window.
fn loss<'f>(net: &Sequential, f: &'f FunctionBuilder) -> Tensor<'f> {
    let x = f.input("x", DType::I32, shape!["B", WINDOW]);
    cross_entropy(net.train(x), f.input("y", DType::I32, shape!["B", WINDOW]))
}

/// Text that follows `start`.
fn sample(
    session: &mut Session,
    text: &Text,
    start: &str,
    n: usize,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut ids = text.vocabulary.encode(start)?;
    let classes = text.vocabulary.len();
    let mut chance = Chance::new(1);
    for _ in 0..n {
        // What comes after does not matter: no position sees a later one.
        let first = ids.len().saturating_sub(WINDOW);
        let mut window = ids[first..].to_vec();
        let last = window.len() - 1;
        window.resize(WINDOW, 0);
        let outputs = session.run("predict", &[("x", (&window[..]).into())])?;
        let logits = outputs.get::<f32>("logits")?;
        ids.push(chance.pick(&logits[last * classes..(last + 1) * classes], 0.8));
    }
    Ok(text.vocabulary.decode(&ids))
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (layers, heads, width) = match args.model.as_deref() {
        None => (2, 4, 64),
        Some("nano") => (4, 4, 128),
        Some(other) => return Err(format!("--model {other}: nano or nothing").into()),
    };
    let text = Text::load()?;
    let m = ModuleBuilder::new("gpt");
    let net = gpt(&m, text.vocabulary.len(), layers, heads, width);
    let adam = Adam::with_decoupled_decay(1e-3, 0.1).betas(0.9, 0.95);
    train_step(&m, "train_step", &Clipped::new(adam, Clip::GlobalNorm(1.0)), |f| loss(&net, f));
    m.function("evaluate", |f| f.output("loss", loss(&net, f)));
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::I32, [1, WINDOW]))));
    let module = m.build()?;
    let loss = over_seeds("validation loss", args.seeds.unwrap_or(1), |seed| {
        let mut session = Session::new(module.clone(), seed)?;
        println!("{}", Summary::of(&mut session, "train_step", &[("B", text::BATCH)])?);
        let (mut session, report) = text::fit(module.clone(), &text, args, seed)?;
        println!("{}\n", sample(&mut session, &text, "It is a truth", 400)?);
        Ok(report.last("validation"))
    })?;
    println!("validation loss {loss:.4} nats per character");
    Ok(())
}
