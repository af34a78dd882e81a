//! `stop_gradient`: the identity, through which no gradient passes.

use crate::builder::Tensor;

elementwise_op! {
    /// `x` itself, of any type. Gradient: exactly zero, so what `x` derives from counts as constant.
    pub struct StopGradient: 1 of ANY as "stop_gradient";
    vjp: |_, _| [None];
    eval: |x| x[0];
    body: |_, x| x[0];
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// The same value as a constant of differentiation.
    #[track_caller]
    pub fn stop_gradient(self) -> Self {
        self.builder().push(StopGradient {}, &[self])
    }
}
