//! Skip connection.

use super::Layer;
use graphc_ir::Tensor;

/// `y = body(x) + x`, or `y = body(x) + shortcut(x)` where the shape changes (He et al. 2016).
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Activation, Dense, Layer, Residual, Sequential};
/// let m = ModuleBuilder::new("m");
/// let body = Sequential::new().then(Dense::new(&m, "a", 8, 8)).then(Activation::Relu);
/// let block = Residual::new(body);
/// m.function("f", |f| f.output("y", block.apply(f.input("x", DType::F32, shape!["B", 8]))));
/// # m.build().unwrap();
/// ```
pub struct Residual {
    body: Box<dyn Layer>,
    shortcut: Option<Box<dyn Layer>>,
}

impl Residual {
    /// With the identity as shortcut: `body` keeps the shape.
    pub fn new(body: impl Layer + 'static) -> Self {
        Self { body: Box::new(body), shortcut: None }
    }

    /// With a projection as shortcut.
    pub fn with_shortcut(body: impl Layer + 'static, shortcut: impl Layer + 'static) -> Self {
        Self { body: Box::new(body), shortcut: Some(Box::new(shortcut)) }
    }
}

impl Layer for Residual {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.body.apply(x) + self.shortcut.as_ref().map_or(x, |s| s.apply(x))
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.body.train(x) + self.shortcut.as_ref().map_or(x, |s| s.train(x))
    }
}
