//! `while`: a loop as long as a condition holds.

use super::rules::first_result;
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::scalar::Scalar;
use crate::types::{DType, TensorType};

op! {
    /// Runs `body` as long as `condition` holds.
    ///
    /// Operands: initial values of the `carries`, then values that are the same in every step. Both
    /// regions take the carries and the constant values. `condition` gives a bool scalar, `body` the
    /// next carries, of the types of the initial values. Results: the carries for which the condition
    /// no longer holds. How often it runs is known only at run time, so there is no reverse gradient: use
    /// `scan` with a bound on the number of steps, and `select` to keep the carries once done.
    pub struct While {
        /// Whether to go on.
        pub condition: Region,
        /// What a step does.
        pub body: Region,
        /// Number of carries.
        pub carries: usize,
    }
}

/// Why there is no gradient.
const UNBOUNDED: &str = "the number of steps is not known before it runs; use `scan` with the largest number \
                         of steps, and `select` to keep the carries once the condition fails";

impl While {
    fn rule(&self, x: &[TensorType]) -> Result<Vec<TensorType>, String> {
        super::rules::region_takes("condition", &self.condition, x)?;
        super::rules::region_takes("body", &self.body, x)?;
        let outputs: Vec<TensorType> = self.body.outputs().cloned().collect();
        if self.carries == 0 || self.carries > x.len() || outputs.len() != self.carries {
            return Err(format!(
                "{} carries of {} operands, and `body` has {} outputs: it must have one for each carry, at \
                 least one",
                self.carries,
                x.len(),
                outputs.len()
            ));
        }
        for (i, (output, x)) in outputs.iter().zip(x).enumerate() {
            if output != x {
                return Err(format!("carry {i} is {x}, its next value {output}"));
            }
        }
        let flags: Vec<&TensorType> = self.condition.outputs().collect();
        if flags != [&TensorType::scalar(DType::Bool)] {
            return Err("`condition` must have one output, a bool scalar".to_owned());
        }
        Ok(outputs)
    }
}

impl OpDef for While {
    const NAME: &'static str = "while";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        first_result(self, x)
    }

    fn results(&self, x: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        self.rule(x).map_err(|message| TypeError::new(Self::NAME, x, message))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Err(NoGradient { op: Self::NAME, why: UNBOUNDED })
    }

    fn vjp_of_results<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Vjp<'f> {
        Err(NoGradient { op: Self::NAME, why: UNBOUNDED })
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        self.jvp_of_results(cx, tangents).map(|mut t| t.swap_remove(0))
    }

    fn jvp_of_results<'f>(
        &self,
        cx: &VjpCx<'_, 'f>,
        tangents: &[Option<Tensor<'f>>],
    ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
        Ok(crate::autodiff::forward_while(self, cx, tangents))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        self.batch_of_results(cx).map(|mut t| t.swap_remove(0))
    }

    fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
        Ok(crate::autodiff::batch_while(self, cx))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        self.eval_results(x, out).map(|mut values| values.swap_remove(0))
    }

    fn eval_results(&self, x: &[&Literal], _: &StaticType) -> Result<Vec<Literal>, EvalError> {
        let mut values: Vec<Literal> = x.iter().map(|&l| l.clone()).collect();
        while self.condition.evaluate(&values)?[0].get(0) == Scalar::Bool(true) {
            let next = self.body.evaluate(&values)?;
            values.splice(..self.carries, next);
        }
        values.truncate(self.carries);
        Ok(values)
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Region
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
