//! Layers: parameters declared once, applied in any function of the module. Weights have PyTorch's
//! layouts and default initializers.

mod activation;
mod conv;
mod dense;
mod flatten;
mod norm;

pub use activation::Activation;
pub use conv::{Conv2d, MaxPool2d};
pub use dense::Dense;
pub use flatten::Flatten;
pub use norm::BatchNorm;

use graphc_ir::Tensor;

/// Something that maps a tensor to a tensor.
pub trait Layer {
    /// Declares its result for `x` in the function of `x`. A wrong shape is recorded in the builder.
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f>;
}

/// Layers one after the other.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{Activation, Conv2d, Dense, Flatten, Layer, MaxPool2d, Sequential};
///
/// let m = ModuleBuilder::new("net");
/// let net = Sequential::new()
///     .then(Conv2d::new(&m, "conv", 1, 8, 3, 1, 1))
///     .then(Activation::Relu)
///     .then(MaxPool2d::new(2))
///     .then(Flatten)
///     .then(Dense::new(&m, "dense", 8 * 4 * 4, 10));
/// m.function("predict", |f| {
///     let x = f.input("x", DType::F32, shape!["B", 1, 8, 8]);
///     let logits = net.apply(x);
///     assert_eq!(logits.shape(), shape!["B", 10]);
///     f.output("logits", logits);
/// });
/// m.build()?;
/// # Ok::<(), graphc_ir::BuildErrors>(())
/// ```
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Layer>>);

impl Sequential {
    /// No layers: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a layer.
    pub fn then(mut self, layer: impl Layer + 'static) -> Self {
        self.0.push(Box::new(layer));
        self
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.0.iter().fold(x, |x, layer| layer.apply(x))
    }
}
