//! `check_index`: refuses indices out of range.

use super::rules::{accept, is_index, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::Scalar;
use crate::types::{Dim, TensorType};

op! {
    /// `x` itself, a tensor of i32 or i64, if every element is in `0..bound`; else a run-time error that
    /// names the first position in row-major order where it is not. No gradient.
    pub struct CheckIndex {
        /// Exclusive upper bound.
        pub bound: Dim,
    }
}

impl CheckIndex {
    fn bound(&self) -> usize {
        self.bound.as_const().expect("every dimension is bound before evaluation")
    }
}

impl OpDef for CheckIndex {
    const NAME: &'static str = "check_index";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "i32 or i64", is_index)?;
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        let bound = self.bound();
        for position in 0..x[0].len() {
            let value = match x[0].get(position) {
                Scalar::I32(v) => i64::from(v),
                Scalar::I64(v) => v,
                v => unreachable!("index {v}"),
            };
            if usize::try_from(value).is_ok_and(|v| v < bound) {
                continue;
            }
            return Err(EvalError::IndexOutOfRange { op: Self::NAME, position, value, bound });
        }
        Ok(x[0].clone())
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::CheckIndex { bound: self.bound() }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::DType;
        use crate::testing::{Sample, dims, uniform};
        use proptest::prelude::*;
        let case = (prop::sample::select(vec![DType::I32, DType::I64]), dims(6), 1usize..20);
        let sample = case.prop_flat_map(|(dtype, dims, bound)| {
            uniform(dtype, dims, 0.0, bound as f64).prop_map(move |x| Sample {
                op: Self { bound: bound.into() }.into(),
                operands: vec![x],
                smooth: false,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// `self`, an integer tensor, with a run-time error unless every element is in `0..bound`.
    #[track_caller]
    pub fn check_index(self, bound: impl Into<Dim>) -> Self {
        self.builder().push(CheckIndex { bound: bound.into() }, &[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bindings, DType, ModuleBuilder, evaluate, shape};

    fn check(values: Vec<i64>, bound: usize) -> Result<Literal, EvalError> {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::I64, shape!["N"]);
            f.output("y", x.check_index("C"));
        });
        let module = m.build().unwrap();
        let bindings = Bindings::new().with("N", values.len()).with("C", bound);
        let f = module.functions[0].bind(&bindings).unwrap();
        let x = Literal::new(&[values.len()], values).unwrap();
        evaluate(&f, &[x], |_| unreachable!("no state")).map(|e| e.outputs[0].clone())
    }

    #[test]
    fn the_first_bad_position_is_named() {
        assert_eq!(check(vec![0, 2, 1], 3).unwrap(), Literal::new(&[3], vec![0i64, 2, 1]).unwrap());
        let error = |position, value| {
            Err(EvalError::IndexOutOfRange { op: "check_index", position, value, bound: 3 })
        };
        assert_eq!(check(vec![0, 3, -1], 3), error(1, 3));
        assert_eq!(check(vec![0, 1, -1], 3), error(2, -1));
        assert_eq!(check(vec![i64::MIN], 3), error(0, i64::MIN));
        assert_eq!(check(vec![1 << 32], 3), error(0, 1 << 32));
    }
}
