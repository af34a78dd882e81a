//! `recip`: elementwise reciprocal.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::ScalarBuilder;

elementwise_op! {
    /// Elementwise reciprocal: `1 / x`, correctly rounded. Floats; `recip(0) = inf`, `recip(-0) = -inf`.
    /// Gradient: `-ct * r^2` with `r = 1 / x`, from the result.
    pub struct Recip: 1 of FLOAT as "recip";
    vjp: |cx, ct| [Some(-(ct * cx.result * cx.result))];
    jvp: |cx, t| Some(-(t[0]? * cx.result.square()));
    eval: |x| on_floats(x[0], |a| 1.0 / a, |a| 1.0 / a);
    body: |b, x| {
        let one = b.number(x[0], 1.0);
        b.div(one, x[0])
    };
    samples: [(-4.0, 4.0)], adjusted by |x| x[0] += 0.5f64.copysign(x[0]);
}

impl<'f> Tensor<'f> {
    /// `1 / x`. See [`Recip`].
    #[track_caller]
    pub fn recip(self) -> Self {
        self.builder().push(Recip {}, &[self])
    }
}
