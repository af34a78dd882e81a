//! `reshape`: the same elements under other extents.

use super::rules::{index_vars, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::{Access, IndexExpr};
use crate::literal::{Literal, row_major_strides};
use crate::pattern::Pattern;
use crate::types::{Dim, Shape, TensorType};

op! {
    /// The elements of `x` in row-major order under the extents `shape`. The numbers of elements
    /// are equal for all values of named dimensions: `[B, T, 8]` has those of `[B*T, 8]`.
    /// Gradient: the cotangent reshaped back.
    pub struct Reshape {
        /// Shape of the result.
        pub shape: Shape,
    }
}

/// Whether both have the same number of elements, whatever their names are bound to.
fn same_volume(a: &Shape, b: &Shape) -> bool {
    let sorted = |shape: &Shape| {
        let mut dims: Vec<Dim> = shape.iter().filter(|d| **d != Dim::Const(1)).cloned().collect();
        dims.sort();
        dims
    };
    // Names that are no identifiers take part in no products.
    sorted(a) == sorted(b) || a.volume().is_some_and(|n| b.volume() == Some(n))
}

impl OpDef for Reshape {
    const NAME: &'static str = "reshape";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        if !same_volume(&x0.shape, &self.shape) {
            let message = format!("{} and {} differ in the number of elements", x0.shape, self.shape);
            return Err(TypeError::new(Self::NAME, x, message));
        }
        super::rules::storable(Self::NAME, &x0.with_shape(&self.shape))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(ct.reshape(cx.operands[0].shape()))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.reshape(&self.shape)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.operands[0].reshape(cx.with_batch(&self.shape)))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(x[0].reshaped(&out.dims))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let (cx, vars) = index_vars(&out.dims);
        let linear = IndexExpr::linear(&vars, &row_major_strides(&out.dims));
        let dims = &x[0].dims;
        let index = dims.iter().zip(row_major_strides(dims));
        let index = index.map(|(&d, s)| cx.rem(&cx.div(&linear, s as i64), d.max(1) as i64)).collect();
        Pattern::Injective(vec![Access { operand: 0, index, guards: Vec::new() }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        // Regroups the prime factors of the extents.
        let case = (number(), dims(6), proptest::collection::vec(0usize..6, 16), 0usize..7);
        let sample = case.prop_flat_map(|(dtype, dims, slots, rank)| {
            // Only one element fits into rank 0.
            let rank = if dims.iter().all(|&d| d == 1) { rank } else { rank.max(1) };
            let mut shape = vec![1usize; rank];
            let mut slot = slots.into_iter().cycle();
            for &d in &dims {
                let mut rest = d;
                let mut p = 2;
                while rest > 1 {
                    if rest % p == 0 {
                        shape[slot.next().unwrap_or(0) % rank] *= p;
                        rest /= p;
                    } else {
                        p += 1;
                    }
                }
                if d == 0 {
                    shape[0] = 0;
                }
            }
            let op = Self { shape: shape.as_slice().into() };
            uniform(dtype, dims, -3.0, 3.0)
                .prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth: true })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The same elements, in row-major order, under other extents of the same product.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if self.shape() == shape { self } else { self.builder().push(Reshape { shape }, &[self]) }
    }
}
