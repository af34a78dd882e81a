//! Layers: parameters declared once, applied in any function of the module. Weights have PyTorch's
//! layouts, names and default initializers.

mod activation;
mod attention;
mod conv;
mod conv_transpose;
mod dense;
mod dropout;
mod embedding;
mod flatten;
mod norm;
mod pad;
mod pool;
mod positions;
mod recurrent;
mod residual;
mod transformer;

pub use activation::Activation;
pub use attention::{AttentionOptions, MultiHeadAttention};
pub use conv::{Conv, Conv1d, Conv2d, Conv3d, ConvOptions};
pub use conv_transpose::{ConvTranspose, ConvTranspose1d, ConvTranspose2d, ConvTransposeOptions};
pub use dense::Dense;
pub use dropout::{Dropout, RANDOM_SEED, RANDOM_STEP, random_stream};
pub use embedding::Embedding;
pub use flatten::{Flatten, Unflatten};
pub use norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm};
pub use pad::{Pad, Padding};
pub use pool::{AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, GlobalAvgPool, MaxPool, MaxPool2d};
pub use positions::{LearnedPositions, SinusoidalPositions};
pub use recurrent::{Cell, Recurrence, Recurrent, RecurrentOptions, RecurrentState, Run};
pub use residual::Residual;
pub use transformer::{TransformerBlock, TransformerOptions};

use graphc_ir::{Param, Tensor};

/// Something that maps a tensor to a tensor.
pub trait Layer {
    /// Declares its result for `x` in the function of `x`, as it is once trained. A wrong shape is recorded
    /// in the builder.
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f>;

    /// As [`Layer::apply`], while training: dropout drops, batch normalization takes the batch's mean and
    /// variance. The same for all other layers.
    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.apply(x)
    }
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        (**self).apply(x)
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        (**self).train(x)
    }
}

/// What `body` declares, in a scope named after the layer that `weight` belongs to. So work can be counted layer by layer.
#[track_caller]
fn in_layer<'f>(x: Tensor<'f>, weight: &Param, body: impl FnOnce() -> Tensor<'f>) -> Tensor<'f> {
    let f = x.builder();
    let name = f.param_name(weight.id);
    f.scope(name.rsplit_once('/').map_or("", |(layer, _)| layer), body)
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

    /// The layers, in order.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &dyn Layer> {
        self.0.iter().map(|layer| &**layer)
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.0.iter().fold(x, |x, layer| layer.apply(x))
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.0.iter().fold(x, |x, layer| layer.train(x))
    }
}
