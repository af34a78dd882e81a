//! `constant`: a tensor known when the graph is declared.

use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// The tensor `value`.
    pub struct Constant {
        /// Its elements.
        pub value: Literal,
    }
}

impl OpDef for Constant {
    const NAME: &'static str = "constant";

    fn infer(&self, operands: &[TensorType]) -> Result<TensorType, TypeError> {
        super::rules::operands::<0>(Self::NAME, operands)?;
        super::rules::storable(Self::NAME, &self.value.ty())
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(Vec::new())
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn eval(&self, _: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(self.value.clone())
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Leaf
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, special};
        use proptest::prelude::*;
        let values = (number(), dims(5)).prop_flat_map(|(dtype, dims)| special(dtype, dims));
        let sample = |value| Sample { op: Self { value }.into(), operands: Vec::new(), smooth: true };
        Some(values.prop_map(sample).boxed())
    }
}
