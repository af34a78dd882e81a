//! `not`: elementwise complement.

use crate::builder::Tensor;
use crate::scalar::{Scalar, ScalarBuilder, ScalarOp};

elementwise_op! {
    /// Elementwise complement: bitwise on integers, logical on bool. The operator `!` of tensors.
    pub struct Not: 1 of BITS as "not";
    vjp: |_, _| [None];
    jvp: |_, _| None;
    eval: |x| match x[0] {
        Scalar::I32(a) => Scalar::I32(!a),
        Scalar::I64(a) => Scalar::I64(!a),
        Scalar::U8(a) => Scalar::U8(!a),
        Scalar::Bool(a) => Scalar::Bool(!a),
        a => unreachable!("not of {a}"),
    };
    body: |b, x| b.op(ScalarOp::Not, &[x[0]]);
    samples: [(-9.0, 9.0)];
}

impl std::ops::Not for Tensor<'_> {
    type Output = Self;
    #[track_caller]
    fn not(self) -> Self {
        self.builder().push(Not {}, &[self])
    }
}
