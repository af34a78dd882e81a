//! `cond`: one of two regions, chosen at run time.

use super::rules::first_result;
use crate::autodiff::{backward_region, float_cotangents, spread};
use super::{OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::scalar::Scalar;
use crate::types::{DType, TensorType};

op! {
    /// Runs region `then` if operand 0, a bool scalar, is true, else region `otherwise`; the other one does
    /// not run. Both take the remaining operands and give values of the same types, the results.
    /// Gradient: a `cond` of the gradients, which computes again what it needs of the branch.
    pub struct Cond {
        /// Runs if the predicate is true.
        pub then: Region,
        /// Runs if it is false.
        pub otherwise: Region,
    }
}

impl Cond {
    fn rule(&self, x: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let Some((predicate, x)) = x.split_first() else { return Err("no predicate".to_owned()) };
        if *predicate != TensorType::scalar(DType::Bool) {
            return Err(format!("the predicate is {predicate}, must be a bool scalar"));
        }
        super::rules::region_takes("then", &self.then, x)?;
        super::rules::region_takes("otherwise", &self.otherwise, x)?;
        let outputs: Vec<TensorType> = self.then.outputs().cloned().collect();
        let others: Vec<TensorType> = self.otherwise.outputs().cloned().collect();
        if outputs.is_empty() {
            return Err("`then` has no outputs".to_owned());
        }
        if outputs.len() != others.len() {
            return Err(format!("`then` has {} outputs, `otherwise` {}", outputs.len(), others.len()));
        }
        match outputs.iter().zip(&others).enumerate().find(|(_, (a, b))| a != b) {
            Some((i, (a, b))) => Err(format!("output {i} of `then` is {a}, of `otherwise` {b}")),
            None => Ok(outputs),
        }
    }
}

impl OpDef for Cond {
    const NAME: &'static str = "cond";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        first_result(self, x)
    }

    fn results(&self, x: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        self.rule(x).map_err(|message| TypeError::new(Self::NAME, x, message))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        self.vjp_of_results(cx, &[Some(ct)])
    }

    fn vjp_of_results<'f>(&self, cx: &VjpCx<'_, 'f>, cts: &[Option<Tensor<'f>>]) -> Vjp<'f> {
        let f = cx.result.builder();
        let (predicate, operands) = (cx.operands[0], &cx.operands[1..]);
        let cts = float_cotangents(&self.then, cx, cts);
        let regions = [&self.then, &self.otherwise].map(|r| backward_region(f, r));
        let [Some(then), Some(otherwise)] = regions else {
            return Ok(vec![Some(f.poison()); cx.operands.len()]);
        };
        let inputs = [&[predicate], operands, &cts].concat();
        let gradients = f.push_all(Self { then, otherwise }, &inputs);
        Ok(std::iter::once(None).chain(spread(operands, gradients)).collect())
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        self.eval_results(x, out).map(|mut values| values.swap_remove(0))
    }

    fn eval_results(&self, x: &[&Literal], _: &StaticType) -> Result<Vec<Literal>, EvalError> {
        let taken = if x[0].get(0) == Scalar::Bool(true) { &self.then } else { &self.otherwise };
        let inputs: Vec<Literal> = x[1..].iter().map(|&l| l.clone()).collect();
        taken.evaluate(&inputs)
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Region
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
