//! `rsqrt`: elementwise reciprocal square root.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::ScalarBuilder;

elementwise_op! {
    /// Elementwise reciprocal square root: `1 / sqrt(x)`, rounded after each of the two. Floats;
    /// `rsqrt(0) = inf`, `rsqrt(-0) = -inf`, NaN below 0, `rsqrt(inf) = 0`.
    /// Gradient: `-ct / 2 * r^3` with `r = rsqrt(x)`, from the result.
    pub struct Rsqrt: 1 of FLOAT as "rsqrt";
    vjp: |cx, ct| {
        let r = cx.result;
        [Some(ct * -0.5 * r * (r * r))]
    };
    jvp: |cx, t| Some(t[0]? * cx.result / (cx.operands[0] * -2.0));
    eval: |x| on_floats(x[0], |a| 1.0 / a.sqrt(), |a| 1.0 / a.sqrt());
    body: |b, x| {
        let (one, root) = (b.number(x[0], 1.0), b.sqrt(x[0]));
        b.div(one, root)
    };
    samples: [(0.5, 4.0)];
}

impl<'f> Tensor<'f> {
    /// `1 / sqrt(x)`. See [`Rsqrt`].
    #[track_caller]
    pub fn rsqrt(self) -> Self {
        self.builder().push(Rsqrt {}, &[self])
    }
}
