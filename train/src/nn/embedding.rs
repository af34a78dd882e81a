//! Embedding.

use super::{Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor};

/// A row of a table for each index: integers `[..]` in `0..entries` to `f32[.., width]`. An index out of range is a
/// run-time error. Parameter `<name>/weight` `f32[entries, width]`, initially standard normal, as PyTorch's.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{Embedding, Layer};
///
/// let m = ModuleBuilder::new("m");
/// let embedding = Embedding::new(&m, "embedding", 65, 32);
/// m.function("f", |f| {
///     let y = embedding.apply(f.input("ids", DType::I32, shape!["B", "T"]));
///     assert_eq!(y.shape(), shape!["B", "T", 32]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// With standard normal rows.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, entries: usize, width: usize) -> Self {
        Self::with_init(m, name, entries, width, Initializer::Normal { mean: 0.0, std: 1.0 })
    }

    /// With this initializer.
    #[track_caller]
    pub fn with_init(m: &ModuleBuilder, name: &str, entries: usize, width: usize, init: Initializer) -> Self {
        Self { weight: m.param(&format!("{name}/weight"), DType::F32, [entries, width], init) }
    }

    /// The table, `f32[entries, width]`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }

    /// The products of rows of features `f32[.., width]` with every row of the table, `f32[.., entries]`: logits of
    /// a model whose output shares the table of its input.
    #[track_caller]
    pub fn logits<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let last = x.rank().saturating_sub(1);
        x.dot_general(x.builder().read(&self.weight), (&[], &[]), (&[last], &[1]))
    }
}

impl Layer for Embedding {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        in_layer(x, &self.weight, || x.builder().read(&self.weight).take(x, 0))
    }
}
