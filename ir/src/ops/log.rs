//! `log`: elementwise natural logarithm.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise natural logarithm. Floats; accuracy and edges: [`math::log`].
    /// Gradient: `ct / x`.
    pub struct Log: 1 of FLOAT as "log";
    vjp: |cx, ct| [Some(ct / cx.operands[0])];
    jvp: |cx, t| Some(t[0]? / cx.operands[0]);
    eval: |x| math::log(&mut Native, x[0]);
    body: |b, x| math::log(b, x[0]);
    samples: [(0.5, 4.0)];
}

impl<'f> Tensor<'f> {
    /// The natural logarithm. See [`Log`].
    #[track_caller]
    pub fn log(self) -> Self {
        self.builder().push(Log {}, &[self])
    }
}
