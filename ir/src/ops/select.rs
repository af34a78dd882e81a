//! `select`: elementwise choice.

use super::rules::{accept, elementwise, map_elements, operands, same_types, tangent};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::{Operand, Tensor};
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{Scalar, ScalarBuilder};
use crate::types::{DType, TensorType};

op! {
    /// Elementwise `condition ? a : b`. `condition` is a bool tensor, `a` and `b` are of one type,
    /// any; all three have one shape. Gradients: `ct` to the operand chosen, an exact zero to the
    /// other (whatever `ct` is).
    ///
    /// That zero still runs through what the other operand was computed from, and zero times an
    /// infinite derivative is NaN: `x.gt(0.0).select(x.sqrt(), 0.0)` has a NaN gradient where `x` is 0.
    /// To keep such derivatives out, select the argument too: with `p = x.gt(0.0)`,
    /// `p.select(p.select(x, 1.0).sqrt(), 0.0)` has the gradient 0 there.
    pub struct Select {}
}

impl OpDef for Select {
    const NAME: &'static str = "select";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [condition, a, _] = operands::<3>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "bool", |d| d == DType::Bool)?;
        if x[1] != x[2] || condition.shape != a.shape {
            let message = "the condition and both values must have one shape, the values one element type";
            return Err(TypeError::new(Self::NAME, x, message));
        }
        same_types(Self::NAME, &x[1..])
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (condition, zero) = (cx.operands[0], ct.full_like(0.0));
        Ok(vec![None, Some(condition.select(ct, zero)), Some(condition.select(zero, ct))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok((t[1].is_some() || t[2].is_some()).then(|| {
            let [a, b] = [1, 2].map(|i| tangent(t[i], cx.operands[i]));
            cx.operands[0].select(a, b)
        }))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| if x[0] == Scalar::Bool(true) { x[1] } else { x[2] }))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.select(x[0], x[1], x[2]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, special, uniform};
        use proptest::prelude::*;
        let case = (prop::sample::select(DType::ALL.as_slice()), dims(6), any::<bool>());
        let sample = case.prop_flat_map(|(dtype, dims, smooth)| {
            let values = || {
                if smooth { uniform(dtype, dims.clone(), -3.0, 3.0) } else { special(dtype, dims.clone()) }
            };
            (special(DType::Bool, dims.clone()), values(), values()).prop_map(move |(c, a, b)| Sample {
                op: Self {}.into(),
                operands: vec![c, a, b],
                smooth,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// `self ? a : b`, elementwise, for a bool tensor. See [`Select`]. The three are brought to their
    /// common shape.
    #[track_caller]
    pub fn select(self, a: Tensor<'f>, b: impl Operand<'f>) -> Self {
        let (a, b) = a.broadcast_with(b.like(a));
        let (condition, a) = self.broadcast_with(a);
        let b = b.broadcast_to(a.shape());
        self.builder().push(Select {}, &[condition, a, b])
    }
}
