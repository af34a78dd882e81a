//! `result`: a further result of an operation that has several.

use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::attr::{Attr, AttrError, AttrMap, AttrValue, Attrs};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::module::Bindings;
use crate::pattern::Pattern;
use crate::types::{Dim, TensorType};

/// Result `index` of its operand, a node of an operation with several results (`scan`, `while`,
/// `cond`, `call`). The node itself stands for result 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ResultOf {
    /// Which one, from 1.
    pub index: usize,
    /// Its type. Not written as an attribute: it is the type of the node.
    pub ty: TensorType,
}

impl Attrs for ResultOf {
    fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        vec![("index", self.index.to_attr())]
    }

    fn from_attrs(attrs: &mut AttrMap) -> Result<Self, AttrError> {
        // The parser puts the type of the node here.
        Ok(Self { index: attrs.take("index")?, ty: attrs.take("ty")? })
    }

    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        self.ty.visit_dims(visit);
    }

    fn bind(&mut self, bindings: &Bindings) {
        self.ty.bind(bindings);
    }
}

impl OpDef for ResultOf {
    const NAME: &'static str = "result";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        super::rules::operands::<1>(Self::NAME, x)?;
        super::rules::storable(Self::NAME, &self.ty)
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        unreachable!("differentiation handles all results of an operation at once")
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        unreachable!("differentiation handles all results of an operation at once")
    }

    fn eval(&self, _: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        unreachable!("the interpreter evaluates all results of an operation at once")
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Leaf
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
