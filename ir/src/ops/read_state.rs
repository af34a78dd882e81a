//! `read_state`: the value of a state variable at the start of the function.

use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::module::StateId;
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// The value of state variable `state`, of type `ty`, before any update of this function. The
    /// text form writes no line for it: users name the variable.
    pub struct ReadState {
        /// Which variable.
        pub state: StateId,
        /// Its type.
        pub ty: TensorType,
    }
}

impl OpDef for ReadState {
    const NAME: &'static str = "read_state";

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
        unreachable!("the interpreter binds state variables to values")
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Leaf
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
