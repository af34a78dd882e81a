//! `and`: elementwise and.

use crate::builder::Tensor;
use crate::scalar::{Scalar, ScalarBuilder};

elementwise_op! {
    /// Elementwise and: bitwise on integers, logical on bool. Operands are of one type. The operator
    /// `&` of tensors.
    pub struct And: 2 of BITS as "and";
    vjp: |_, _| [None, None];
    jvp: |_, _| None;
    eval: |x| match (x[0], x[1]) {
        (Scalar::I32(a), Scalar::I32(b)) => Scalar::I32(a & b),
        (Scalar::I64(a), Scalar::I64(b)) => Scalar::I64(a & b),
        (Scalar::U8(a), Scalar::U8(b)) => Scalar::U8(a & b),
        (Scalar::Bool(a), Scalar::Bool(b)) => Scalar::Bool(a & b),
        (a, b) => unreachable!("and of {a} and {b}"),
    };
    body: |b, x| b.and(x[0], x[1]);
    samples: [(-9.0, 9.0), (-9.0, 9.0)];
}

impl<'f> std::ops::BitAnd for Tensor<'f> {
    type Output = Self;
    #[track_caller]
    fn bitand(self, rhs: Self) -> Self {
        let (a, b) = self.broadcast_with(rhs);
        a.builder().push(And {}, &[a, b])
    }
}
