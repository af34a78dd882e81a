//! `cond`: one of two regions, chosen at run time.

use super::rules::first_result;
use crate::autodiff::{backward_region, batched_region, float_cotangents, forward_region, spread};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
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

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        self.jvp_of_results(cx, tangents).map(|mut t| t.swap_remove(0))
    }

    fn jvp_of_results<'f>(
        &self,
        cx: &VjpCx<'_, 'f>,
        tangents: &[Option<Tensor<'f>>],
    ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
        let f = cx.result.builder();
        let active: Vec<bool> = tangents[1..].iter().map(Option::is_some).collect();
        let regions = [&self.then, &self.otherwise].map(|r| forward_region(f, r, &active));
        let outputs: Vec<DType> = self.then.outputs().map(|ty| ty.dtype).collect();
        let [Some(then), Some(otherwise)] = regions else {
            return Ok(vec![Some(f.poison()); outputs.len()]);
        };
        let inputs: Vec<Tensor<'f>> =
            cx.operands.iter().copied().chain(tangents[1..].iter().flatten().copied()).collect();
        let mut results = f.push_all(Self { then, otherwise }, &inputs).into_iter().skip(outputs.len());
        Ok(outputs.iter().map(|dtype| if dtype.is_float() { results.next() } else { None }).collect())
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        self.batch_of_results(cx).map(|mut t| t.swap_remove(0))
    }

    fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
        let f = cx.operands[0].builder();
        let regions = [&self.then, &self.otherwise].map(|r| batched_region(f, r, &cx.mapped[1..], cx.size));
        let [Some(then), Some(otherwise)] = regions else { return Ok(vec![f.poison()]) };
        if !cx.mapped[0] {
            let results = f.push_all(Self { then, otherwise }, cx.operands);
            return Ok(if results.is_empty() { vec![f.poison()] } else { results });
        }
        // Each example chooses: both branches run.
        let [a, b] = [then, otherwise].map(|r| f.call(&r, &cx.operands[1..]));
        let choose = |(a, b): (Tensor<'f>, Tensor<'f>)| cx.operands[0].broadcast(a.shape(), &[0]).select(a, b);
        Ok(a.into_iter().zip(b).map(choose).collect())
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
