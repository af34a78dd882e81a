//! `transpose`: permutes axes.

use super::rules::{behind_batch, index_vars, operands, with_batch};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::{Access, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{Shape, TensorType};

op! {
    /// Axis `i` of the result is axis `permutation[i]` of `x`.
    /// Gradient: the cotangent under the inverse permutation.
    pub struct Transpose {
        /// Each axis of the operand once.
        pub permutation: Vec<usize>,
    }
}

/// The permutation that undoes `permutation`.
fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    for (i, &p) in permutation.iter().enumerate() {
        inverse[p] = i;
    }
    inverse
}

impl OpDef for Transpose {
    const NAME: &'static str = "transpose";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x0.rank()) {
            let message = format!("{:?} is not a permutation of {} axes", self.permutation, x0.rank());
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.with_shape(self.permutation.iter().map(|&p| x0.shape[p].clone()).collect::<Shape>()))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(ct.transpose(&inverse(&self.permutation)))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.transpose(&self.permutation)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.operands[0].transpose(&with_batch(0, &behind_batch(&self.permutation))))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let mut from = vec![0; index.len()];
            for (i, &p) in self.permutation.iter().enumerate() {
                from[p] = index[i];
            }
            x[0].get(linear_index(&from, x[0].dims()))
        }))
    }

    fn pattern(&self, _: &[StaticType], out: &StaticType) -> Pattern {
        let (_, vars) = index_vars(&out.dims);
        let index: Vec<IndexExpr> = inverse(&self.permutation).iter().map(|&i| vars[i].clone()).collect();
        Pattern::Injective(vec![Access { operand: 0, index, guards: Vec::new() }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let case = (number(), dims(6)).prop_flat_map(|(dtype, dims)| {
            let axes: Vec<usize> = (0..dims.len()).collect();
            (uniform(dtype, dims, -3.0, 3.0), Just(axes).prop_shuffle())
        });
        let sample = |(x, permutation)| Sample { op: Self { permutation }.into(), operands: vec![x], smooth: true };
        Some(case.prop_map(sample).boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Permutes axes: axis `i` of the result is axis `permutation[i]` of `self`.
    #[track_caller]
    pub fn transpose(self, permutation: &[usize]) -> Self {
        if permutation.iter().copied().eq(0..self.rank()) {
            return self;
        }
        self.builder().push(Transpose { permutation: permutation.to_vec() }, &[self])
    }
}
