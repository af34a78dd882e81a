//! `input`: an argument of the function.

use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// An argument of the function, of type `ty`. The text form writes it in the function's header.
    pub struct Input {
        /// Its type.
        pub ty: TensorType,
    }
}

impl OpDef for Input {
    const NAME: &'static str = "input";

    fn infer(&self, operands: &[TensorType]) -> Result<TensorType, TypeError> {
        super::rules::operands::<0>(Self::NAME, operands)?;
        super::rules::storable(Self::NAME, &self.ty)
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(Vec::new())
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn eval(&self, _: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        unreachable!("the interpreter binds inputs to values")
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Leaf
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
