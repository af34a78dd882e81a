//! What the examples on text share: the text, validation, and sampling.

use crate::{Args, in_repository};
use graphc::data::{Loader, TextWindows, Vocabulary, permutation};
use graphc::metrics::RunningMean;
use graphc::trainer::{Report, Trainer};
use graphc::{Module, Session};
use std::error::Error;

/// Characters of a window.
pub const WINDOW: usize = 64;
/// Windows of a batch.
pub const BATCH: usize = 32;

/// A text as numbers.
pub struct Text {
    /// Its characters.
    pub vocabulary: Vocabulary,
    /// What is learned.
    pub train: Vec<i32>,
    /// What is not.
    pub validation: Vec<i32>,
}

impl Text {
    /// The first nine tenths train, the others validate.
    pub fn load() -> Result<Self, Box<dyn Error>> {
        let text = std::fs::read_to_string(in_repository("text/pride-and-prejudice.txt"))?;
        let vocabulary = Vocabulary::of(&text);
        let mut train = vocabulary.encode(&text)?;
        let validation = train.split_off(train.len() * 9 / 10);
        Ok(Self { vocabulary, train, validation })
    }
}

/// Trains `train_step` in rounds of 250 steps, and validates `evaluate` (`loss`, of `x` and `y`) after each.
pub fn fit(module: Module, text: &Text, args: &Args, seed: u64) -> Result<(Session, Report), Box<dyn Error>> {
    let mut session = Session::new(module, seed)?;
    let windows = TextWindows::new(text.train.clone(), WINDOW, 1);
    let mut loader = Loader::new(windows, BATCH).shuffled(seed).limit(250).workers(1);
    // Windows without a character in common, each from a fresh state.
    let windows = TextWindows::new(text.validation.clone(), WINDOW, WINDOW);
    let mut validation = Loader::new(windows, WINDOW);
    let report = Trainer::new(args.epochs.unwrap_or(6))
        .validate(|session| {
            validation.start(0);
            let mut mean = RunningMean::default();
            while let Some(batch) = validation.next_batch()? {
                mean.add(
                    session.run("evaluate", &batch.inputs())?.scalar::<f32>("loss")?.into(),
                    batch.rows(),
                );
            }
            Ok(vec![("validation", mean.get())])
        })
        .run(&mut session, &mut loader)?;
    println!("{report}");
    Ok((session, report))
}

/// Numbers at random, the same for each run.
pub struct Chance(u64);

impl Chance {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed << 32)
    }

    /// Uniform on `[0, 1)`.
    fn next(&mut self) -> f64 {
        let mut order = Vec::new();
        self.0 += 1;
        permutation(self.0, 0, 1 << 12, &mut order);
        (order[0] as f64 * 4096.0 + order[1] as f64) / f64::from(1 << 24)
    }

    /// A character by its probability, with logits divided by `temperature`.
    pub fn pick(&mut self, logits: &[f32], temperature: f64) -> i32 {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |&l: &f32| (f64::from(l - largest) / temperature).exp();
        let mut left = self.next() * logits.iter().map(weight).sum::<f64>();
        let found = logits.iter().position(|l| {
            left -= weight(l);
            left < 0.0
        });
        found.unwrap_or(logits.len() - 1) as i32
    }
}
