//! Positions in a sequence, added to its elements.

use super::{Layer, in_layer};
use graphc_ir::{DType, Dim, FunctionBuilder, Initializer, ModuleBuilder, Param, Tensor, shape};

/// Adds a learned row for each position: `f32[B, T, width]` to the same shape, with `T` a number up to `longest`.
/// Parameter `<name>/weight` `f32[longest, width]`.
///
/// ```
/// # use graphc_ir::{DType, Initializer, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, LearnedPositions};
/// let m = ModuleBuilder::new("m");
/// let positions = LearnedPositions::new(&m, "positions", 64, 32);
/// m.function("f", |f| f.output("y", positions.apply(f.input("x", DType::F32, shape!["B", 16, 32]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct LearnedPositions {
    weight: Param,
}

impl LearnedPositions {
    /// With standard normal rows, as an embedding of PyTorch.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, longest: usize, width: usize) -> Self {
        Self::with_init(m, name, longest, width, Initializer::Normal { mean: 0.0, std: 1.0 })
    }

    /// With this initializer.
    #[track_caller]
    pub fn with_init(m: &ModuleBuilder, name: &str, longest: usize, width: usize, init: Initializer) -> Self {
        Self { weight: m.param(&format!("{name}/weight"), DType::F32, [longest, width], init) }
    }
}

impl Layer for LearnedPositions {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        let Some((steps, _)) = sequence("learned positions", x) else { return f.poison() };
        in_layer(x, &self.weight, || x + f.read(&self.weight).slice_axis(0, 0, steps))
    }
}

/// Adds sines and cosines of the position (Vaswani et al. 2017): `f32[B, T, width]` to the same shape, `width` an even
/// number. Column `2 i` gets `sin(t / 10000^(2 i / width))`, column `2 i + 1` the cosine.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, SinusoidalPositions};
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| f.output("y", SinusoidalPositions.apply(f.input("x", DType::F32, shape!["B", 16, 32]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinusoidalPositions;

impl Layer for SinusoidalPositions {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        let Some((steps, width)) = sequence("sinusoidal positions", x) else { return f.poison() };
        let Some(width) = width.as_const().filter(|w| w.is_multiple_of(2)) else {
            f.misuse(format!("sinusoidal positions: the width of {} must be an even number", x.ty()));
            return f.poison();
        };
        x + table(f, x.dtype(), steps, width)
    }
}

/// `[steps, width]`.
#[track_caller]
fn table(f: &FunctionBuilder, dtype: DType, steps: Dim, width: usize) -> Tensor<'_> {
    let pairs = shape![&steps, width / 2];
    let at = f.iota(DType::I32, &pairs, 0).cast(dtype);
    let pair = f.iota(DType::I32, &pairs, 1).cast(dtype);
    let angle = at * (pair * (-2.0 * 10_000f64.ln() / width as f64)).exp();
    f.stack(&[angle.sin(), angle.cos()], 2).reshape(shape![steps, width])
}

/// Number of steps and width of a batch of sequences.
#[track_caller]
fn sequence(op: &str, x: Tensor<'_>) -> Option<(Dim, Dim)> {
    if x.is_poison() {
        return None;
    }
    if x.rank() != 3 {
        x.builder().misuse(format!("{op}: {} must have axes of batch, steps and features", x.ty()));
        return None;
    }
    Some((x.dim(1), x.dim(2)))
}
