//! Recurrent layers.

mod cell;

pub use cell::Cell;

use super::{Dropout, Layer};
use cell::Weights;
use graphc_ir::{DType, Initializer, ModuleBuilder, ScanOptions, Tensor, shape};

/// A recurrent network over sequences `x: f32[B, T, n_in]`, of one or more layers, in one or both directions. Its
/// output is `f32[B, T, hidden]`, in both directions `f32[B, T, 2 * hidden]`: forward first. Each layer runs over
/// the output of the one below.
///
/// Parameters `<name>/weight_ih_l0` `f32[gates * hidden, n_in]`, `<name>/weight_hh_l0` `f32[gates * hidden, hidden]`,
/// `<name>/bias_ih_l0` and `<name>/bias_hh_l0` `f32[gates * hidden]`; those of the other direction end in `_reverse`,
/// those of the next layer in `l1`. Initially uniform in `+-1 / sqrt(hidden)`.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{Cell, Recurrent, RecurrentOptions, Run};
///
/// let m = ModuleBuilder::new("m");
/// let options = RecurrentOptions { bidirectional: true, ..RecurrentOptions::default() };
/// let gru = Recurrent::with(&m, "gru", Cell::Gru, 8, 16, &options);
/// m.function("f", |f| {
///     let x = f.input("x", DType::F32, shape!["B", 20, 8]);
///     let lengths = f.input("lengths", DType::I32, shape!["B"]);
///     let result = gru.run(x, &Run { lengths: Some(lengths), ..Run::default() });
///     assert_eq!(result.output.shape(), shape!["B", 20, 32]);
///     // The last state of each direction, for a classifier.
///     f.output("features", f.concatenate(&result.state.hidden, 1));
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Recurrent {
    cell: Cell,
    hidden: usize,
    options: RecurrentOptions,
    name: String,
    /// Per layer, per direction.
    layers: Vec<Vec<Weights>>,
}

/// How a [`Recurrent`] is built.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentOptions {
    /// Number of layers, one above the other: 1.
    pub layers: usize,
    /// Whether each layer runs in both directions: false.
    pub bidirectional: bool,
    /// While training, rate of dropout on the output of all layers but the last: 0.
    pub dropout: f64,
    /// See [`ScanOptions::save_every`]: 0, the gradient saves every step.
    pub save_every: usize,
    /// See [`ScanOptions::truncate_every`]: 0, the gradient goes back to the beginning.
    pub truncate_every: usize,
}

impl Default for RecurrentOptions {
    fn default() -> Self {
        Self { layers: 1, bidirectional: false, dropout: 0.0, save_every: 0, truncate_every: 0 }
    }
}

/// How a [`Recurrent`] runs.
#[derive(Clone, Debug, Default)]
pub struct Run<'f> {
    /// Number of valid steps of each row, `i32[B]`; all of them if `None`. Beyond its end a row's output is 0 and its
    /// state stays; in the other direction a row starts at its own end.
    pub lengths: Option<Tensor<'f>>,
    /// States before the first step; zeros if `None`.
    pub initial: Option<RecurrentState<'f>>,
    /// Whether dropout drops.
    pub training: bool,
}

/// States of a [`Recurrent`]: an `f32[B, hidden]` per layer and direction, `[forward, reverse]` of layer 0 first.
#[derive(Clone, Debug, Default)]
pub struct RecurrentState<'f> {
    /// Hidden states.
    pub hidden: Vec<Tensor<'f>>,
    /// Cell states; none but for [`Cell::Lstm`].
    pub cell: Vec<Tensor<'f>>,
}

/// What a [`Recurrent`] gives.
#[derive(Clone, Debug)]
pub struct Recurrence<'f> {
    /// The hidden states of the last layer after each step, `f32[B, T, directions * hidden]`.
    pub output: Tensor<'f>,
    /// The states after the last step; in the other direction that is the first of the sequence.
    pub state: RecurrentState<'f>,
}

impl Recurrent {
    /// One layer that runs forward.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, cell: Cell, n_in: usize, hidden: usize) -> Self {
        Self::with(m, name, cell, n_in, hidden, &RecurrentOptions::default())
    }

    /// With these options.
    #[track_caller]
    pub fn with(
        m: &ModuleBuilder,
        name: &str,
        cell: Cell,
        n_in: usize,
        hidden: usize,
        options: &RecurrentOptions,
    ) -> Self {
        let rows = cell.gates().saturating_mul(hidden);
        let suffixes: &[&str] = if options.bidirectional { &["", "_reverse"] } else { &[""] };
        let mut layers = Vec::new();
        for layer in 0..options.layers {
            let n_in = if layer == 0 { n_in } else { suffixes.len().saturating_mul(hidden) };
            let mut directions = Vec::new();
            for suffix in suffixes {
                let param = |part: &str, extents: &[usize]| {
                    let name = format!("{name}/{part}_l{layer}{suffix}");
                    m.param(&name, DType::F32, extents, Initializer::torch_default(hidden))
                };
                directions.push(Weights {
                    input: param("weight_ih", &[rows, n_in]),
                    hidden: param("weight_hh", &[rows, hidden]),
                    input_bias: param("bias_ih", &[rows]),
                    hidden_bias: param("bias_hh", &[rows]),
                });
            }
            layers.push(directions);
        }
        Self { cell, hidden, options: options.clone(), name: name.to_owned(), layers }
    }

    /// Declares output and states for `x: f32[B, T, n_in]`.
    #[track_caller]
    pub fn run<'f>(&self, x: Tensor<'f>, run: &Run<'f>) -> Recurrence<'f> {
        let f = x.builder();
        let broken = || Recurrence { output: f.poison(), state: self.states(f.poison()) };
        if x.is_poison() {
            return broken();
        }
        if x.rank() != 3 {
            f.misuse(format!("recurrent: {} must have axes of batch, steps and features", x.ty()));
            return broken();
        }
        let expected = self.states(f.full(x.dtype(), shape![x.dim(0), self.hidden], 0.0));
        let initial = run.initial.as_ref().unwrap_or(&expected);
        if (initial.hidden.len(), initial.cell.len()) != (expected.hidden.len(), expected.cell.len()) {
            f.misuse(format!(
                "recurrent: {} hidden and {} cell states are given, there are {} and {}",
                initial.hidden.len(),
                initial.cell.len(),
                expected.hidden.len(),
                expected.cell.len()
            ));
            return broken();
        }
        let mut last = RecurrentState::default();
        // Loops run along the first axis.
        let mut sequence = x.transpose(&[1, 0, 2]);
        for (i, directions) in self.layers.iter().enumerate() {
            if i > 0 && run.training {
                sequence = Dropout::new(&format!("{}/dropout_l{i}", self.name), self.options.dropout)
                    .train(sequence);
            }
            let mut outputs = Vec::new();
            for (d, weights) in directions.iter().enumerate() {
                let at = i * directions.len() + d;
                let mut state = vec![initial.hidden[at]];
                state.extend(initial.cell.get(at));
                let (output, state) =
                    f.scope(&self.name, || self.one(weights, sequence, run.lengths, &state, d == 1));
                outputs.push(output);
                last.hidden.push(state[0]);
                last.cell.extend(state.get(1));
            }
            sequence = if let [output] = outputs[..] { output } else { f.concatenate(&outputs, 2) };
        }
        Recurrence { output: sequence.transpose(&[1, 0, 2]), state: last }
    }

    /// One layer in one direction, on `x: [T, B, F]`.
    #[track_caller]
    fn one<'f>(
        &self,
        weights: &Weights,
        x: Tensor<'f>,
        lengths: Option<Tensor<'f>>,
        initial: &[Tensor<'f>],
        reverse: bool,
    ) -> (Tensor<'f>, Vec<Tensor<'f>>) {
        let RecurrentOptions { save_every, truncate_every, .. } = self.options;
        let options = ScanOptions { length: None, reverse, save_every, truncate_every };
        let projected = weights.project(self.cell, x);
        let step = |f, state: &[Tensor<'f>], projected: &[Tensor<'f>]| {
            let next = weights.step(f, self.cell, projected[0], state);
            let h = next[0];
            (next, vec![h])
        };
        let f = x.builder();
        let scanned = match lengths {
            Some(lengths) => f.scan_lengths(&options, lengths, initial, &[projected], step),
            None => f.scan_with(&options, initial, &[projected], step),
        };
        // None after a mistake, which is recorded.
        let output = scanned.stacked.first().copied().unwrap_or_else(|| f.poison());
        (output, scanned.carries)
    }

    /// `value` as every state.
    fn states<'f>(&self, value: Tensor<'f>) -> RecurrentState<'f> {
        let n = self.layers.iter().map(Vec::len).sum();
        let cells = if self.cell.has_cell() { n } else { 0 };
        RecurrentState { hidden: vec![value; n], cell: vec![value; cells] }
    }
}

impl Layer for Recurrent {
    /// The output alone.
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.run(x, &Run::default()).output
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.run(x, &Run { training: true, ..Run::default() }).output
    }
}
