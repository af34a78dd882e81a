//! `scan`: a loop of known length over the steps of sequences.

use super::rules::first_result;
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::types::{Dim, TensorType};

op! {
    /// Runs `body` once for each step `t` of `0..length`, or from the last to the first if `reverse`.
    ///
    /// Operands: initial values of the `carries`, then `sequences` with `length` as their first
    /// extent, then values that are the same in every step. Inputs of `body` in the same order: the
    /// carries as the step before left them, element `t` of each sequence (without its first axis), the
    /// constant values. Outputs of `body`: the next carries, of the types of the initial values, then
    /// any number of values to stack. Results: the last carries, then each stacked value as a
    /// sequence whose element `t` is that of step `t`, also if `reverse`.
    ///
    /// Gradient: a `scan` in the other direction. What it reads of the steps is saved for it; with
    /// `recompute` that is only the carries before each step, and the rest is computed again. The
    /// cotangent of a constant operand is summed over the steps: where it is a product or a sum, its
    /// factors are stacked and it is computed once, after the loop (not with `recompute`).
    pub struct Scan {
        /// What a step does.
        pub body: Region,
        /// Number of steps.
        pub length: Dim,
        /// Number of carries.
        pub carries: usize,
        /// Number of sequences.
        pub sequences: usize,
        /// Runs the steps from last to first.
        pub reverse: bool,
        /// Whether the gradient computes steps again instead of saving what it needs of them.
        pub recompute: bool,
    }
}

impl Scan {
    /// Number of operands that are the same in every step.
    pub fn constants(&self) -> usize {
        self.body.function().inputs.len() - self.carries - self.sequences
    }

    /// Number of values that are stacked.
    pub fn stacked(&self) -> usize {
        self.body.function().outputs.len() - self.carries
    }

    fn rule(&self, x: &[TensorType]) -> Result<Vec<TensorType>, String> {
        super::rules::region_is_legal("body", &self.body)?;
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            (self.body.inputs().cloned().collect(), self.body.outputs().cloned().collect());
        if inputs.len() != x.len() {
            return Err(format!("`body` has {} inputs for {} operands", inputs.len(), x.len()));
        }
        let ports = self.carries.checked_add(self.sequences).filter(|&n| n <= inputs.len());
        if ports.is_none() || self.carries > outputs.len() {
            return Err(format!(
                "{} carries and {} sequences, but `body` has {} inputs and {} outputs",
                self.carries,
                self.sequences,
                inputs.len(),
                outputs.len()
            ));
        }
        for (i, (x, input)) in x.iter().zip(&inputs).enumerate() {
            let sequence = (self.carries..self.carries + self.sequences).contains(&i);
            let expected = if sequence { stack(&self.length, input) } else { input.clone() };
            if *x != expected {
                let what = if sequence { "a sequence" } else { "operand" };
                return Err(format!("{what} {i} is {x}, `body` takes {input}, so it must be {expected}"));
            }
        }
        for (i, (output, input)) in outputs.iter().zip(&inputs).take(self.carries).enumerate() {
            if output != input {
                return Err(format!("carry {i} is {input}, its next value {output}"));
            }
        }
        if outputs.is_empty() {
            return Err("`body` has no outputs".to_owned());
        }
        let stacked = outputs[self.carries..].iter().map(|ty| stack(&self.length, ty));
        Ok(outputs[..self.carries].iter().cloned().chain(stacked).collect())
    }
}

/// The type of a sequence of `length` elements.
pub(crate) fn stack(length: &Dim, element: &TensorType) -> TensorType {
    let dims: Vec<Dim> = std::iter::once(length).chain(element.shape.iter()).cloned().collect();
    TensorType::new(element.dtype, dims)
}

impl OpDef for Scan {
    const NAME: &'static str = "scan";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        first_result(self, x)
    }

    fn results(&self, x: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let results = self.rule(x).map_err(|message| TypeError::new(Self::NAME, x, message))?;
        results.iter().try_for_each(|ty| super::rules::storable(Self::NAME, ty).map(|_| ()))?;
        Ok(results)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        self.vjp_of_results(cx, &[Some(ct)])
    }

    fn vjp_of_results<'f>(&self, cx: &VjpCx<'_, 'f>, cts: &[Option<Tensor<'f>>]) -> Vjp<'f> {
        Ok(crate::autodiff::scan_vjp(self, cx, cts))
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        self.jvp_of_results(cx, tangents).map(|mut t| t.swap_remove(0))
    }

    fn jvp_of_results<'f>(
        &self,
        cx: &VjpCx<'_, 'f>,
        tangents: &[Option<Tensor<'f>>],
    ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
        Ok(crate::autodiff::forward_scan(self, cx, tangents))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        self.batch_of_results(cx).map(|mut t| t.swap_remove(0))
    }

    fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
        Ok(crate::autodiff::batch_scan(self, cx))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        self.eval_results(x, out).map(|mut values| values.swap_remove(0))
    }

    fn eval_results(&self, x: &[&Literal], _: &StaticType) -> Result<Vec<Literal>, EvalError> {
        let length = self.length.as_const().expect("every dimension is bound before evaluation");
        let (start, rest) = x.split_at(self.carries);
        let (sequences, constants) = rest.split_at(self.sequences);
        let mut carries: Vec<Literal> = start.iter().map(|&l| l.clone()).collect();
        let outputs: Vec<StaticType> =
            self.body.outputs().map(|ty| StaticType::of(ty).expect("every dimension is bound")).collect();
        let mut stacked: Vec<Vec<Literal>> = vec![Vec::new(); self.stacked()];
        for step in 0..length {
            let t = if self.reverse { length - 1 - step } else { step };
            let elements = sequences.iter().map(|s| s.element(t));
            let constants = constants.iter().map(|&l| l.clone());
            let inputs: Vec<Literal> = carries.into_iter().chain(elements).chain(constants).collect();
            let mut values = self.body.evaluate(&inputs)?.into_iter();
            carries = values.by_ref().take(self.carries).collect();
            stacked.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
        }
        for (all, ty) in stacked.iter_mut().zip(&outputs[self.carries..]) {
            if self.reverse {
                all.reverse();
            }
            carries.push(Literal::stack(ty.dtype, &ty.dims, all));
        }
        Ok(carries)
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Region
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
