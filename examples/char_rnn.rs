//! A recurrent network learns to write like Jane Austen, character by character.
//!
//! `cargo run --release --example char_rnn [-- --model rnn|gru|lstm]`

use common::text::{self, Chance, Text, WINDOW};
use common::{Args, Outcome, over_seeds};
use graphc::nn::{Cell, Dense, Embedding, Layer, Recurrent, RecurrentState, Run};
use graphc::optim::{Adam, Clip, Clipped, train_step};
use graphc::summary::Summary;
use graphc::{DType, FunctionBuilder, ModuleBuilder, Session, Tensor, Value, cross_entropy, shape};
use std::process::ExitCode;

const WIDTH: usize = 32;
const HIDDEN: usize = 128;

struct Model {
    embedding: Embedding,
    rnn: Recurrent,
    out: Dense,
    cell: Cell,
}

impl Model {
    fn new(m: &ModuleBuilder, cell: Cell, characters: usize) -> Self {
        Self {
            embedding: Embedding::new(m, "embedding", characters, WIDTH),
            rnn: Recurrent::new(m, "rnn", cell, WIDTH, HIDDEN),
            out: Dense::new(m, "out", HIDDEN, characters),
            cell,
        }
    }

    /// Cross entropy of each character, given those before it in the window.
    fn loss<'f>(&self, f: &'f FunctionBuilder) -> Tensor<'f> {
        let x = f.input("x", DType::I32, shape!["B", WINDOW]);
        let y = f.input("y", DType::I32, shape!["B", WINDOW]);
        cross_entropy(self.out.apply(self.rnn.apply(self.embedding.apply(x))), y)
    }

    /// The logits of the next character after one more, and the states.
    fn step(&self, f: &FunctionBuilder) {
        let x = f.input("x", DType::I32, [1, 1]);
        let state = |name: &str| vec![f.input(name, DType::F32, [1, HIDDEN])];
        let cell = if self.cell == Cell::Lstm { state("c") } else { Vec::new() };
        let initial = Some(RecurrentState { hidden: state("h"), cell });
        let result = self.rnn.run(self.embedding.apply(x), &Run { initial, ..Run::default() });
        f.output("logits", self.out.apply(result.output));
        f.output("h", result.state.hidden[0]);
        result.state.cell.iter().for_each(|c| f.output("c", *c));
    }
}

/// Text that follows `start`.
fn sample(
    session: &mut Session,
    text: &Text,
    start: &str,
    n: usize,
    lstm: bool,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut ids = text.vocabulary.encode(start)?;
    let (mut h, mut c) = (vec![0.0f32; HIDDEN], vec![0.0f32; HIDDEN]);
    let mut chance = Chance::new(1);
    let mut at = 0;
    while ids.len() < start.chars().count() + n {
        let mut inputs = vec![("x", Value::I32(&ids[at..=at])), ("h", (&h[..]).into())];
        if lstm {
            inputs.push(("c", (&c[..]).into()));
        }
        let outputs = session.run("step", &inputs)?;
        let (next_h, logits) = (outputs.get::<f32>("h")?.to_vec(), outputs.get::<f32>("logits")?);
        let next = chance.pick(logits, 0.8);
        if lstm {
            c = outputs.get::<f32>("c")?.to_vec();
        }
        h = next_h;
        at += 1;
        if at == ids.len() {
            ids.push(next);
        }
    }
    Ok(text.vocabulary.decode(&ids))
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let cell = match args.model.as_deref() {
        None | Some("lstm") => Cell::Lstm,
        Some("rnn") => Cell::Tanh,
        Some("gru") => Cell::Gru,
        Some(other) => return Err(format!("--model {other}: rnn, gru or lstm").into()),
    };
    let text = Text::load()?;
    let m = ModuleBuilder::new("characters");
    let model = Model::new(&m, cell, text.vocabulary.len());
    train_step(&m, "train_step", &Clipped::new(Adam::new(2e-3), Clip::GlobalNorm(1.0)), |f| model.loss(f));
    m.function("evaluate", |f| f.output("loss", model.loss(f)));
    m.function("step", |f| model.step(f));
    let module = m.build()?;
    let loss = over_seeds("validation loss", args.seeds.unwrap_or(1), |seed| {
        let mut session = Session::new(module.clone(), seed)?;
        println!("{}", Summary::of(&mut session, "train_step", &[("B", text::BATCH)])?);
        let (mut session, report) = text::fit(module.clone(), &text, args, seed)?;
        println!("{}\n", sample(&mut session, &text, "It is a truth", 400, cell == Cell::Lstm)?);
        Ok(report.last("validation"))
    })?;
    println!("validation loss {loss:.4} nats per character");
    Ok(())
}
