//! `call`: a region applied to operands.

use super::rules::first_result;
use crate::autodiff::{backward_region, batched_gradient, batched_region, float_cotangents, forward_region, spread};
use super::{BatchCx, Batched, Jvp, OpDef, ResultOf, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::types::{DType, TensorType};

op! {
    /// The outputs of `function` for the operands. If `inline`, it is replaced by the nodes of the
    /// region when it is compiled; else the region is compiled on its own.
    ///
    /// Gradient: that of the region, which is computed again where it is needed (what an
    /// inlined call has computed already is not computed twice; what a call of its own has, is, so nothing
    /// inside it need be kept for the backward pass: a checkpoint). Or `gradient`, a region that takes the
    /// operands, the results and a cotangent of each float result, and gives the cotangents of the float
    /// operands, in order.
    pub struct Call {
        /// What is computed.
        pub function: Region,
        /// Whether it becomes part of the function around it.
        pub inline: bool,
        /// A gradient rule of its own.
        pub gradient: Option<Region>,
    }
}

impl Call {
    fn rule(&self, x: &[TensorType]) -> Result<Vec<TensorType>, String> {
        super::rules::region_takes("function", &self.function, x)?;
        let outputs: Vec<TensorType> = self.function.outputs().cloned().collect();
        if outputs.is_empty() {
            return Err("`function` has no outputs".to_owned());
        }
        if let Some(rule) = &self.gradient {
            let floats = |types: &[TensorType]| -> Vec<TensorType> {
                types.iter().filter(|ty| ty.dtype.is_float()).cloned().collect()
            };
            let inputs: Vec<TensorType> = [x.to_vec(), outputs.clone(), floats(&outputs)].concat();
            super::rules::region_takes("gradient", rule, &inputs)?;
            let (given, expected): (Vec<TensorType>, _) = (rule.outputs().cloned().collect(), floats(x));
            if given != expected {
                let show = |types: &[TensorType]| {
                    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                return Err(format!(
                    "`gradient` gives ({}), must give the types of the float operands ({})",
                    show(&given),
                    show(&expected)
                ));
            }
        }
        Ok(outputs)
    }
}

impl OpDef for Call {
    const NAME: &'static str = "call";

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
        let cts = float_cotangents(&self.function, cx, cts);
        let (function, inputs) = match &self.gradient {
            Some(rule) => {
                let further = self.function.outputs().enumerate().skip(1);
                let further: Vec<Tensor<'f>> = further
                    .map(|(index, ty)| f.push(ResultOf { index, ty: ty.clone() }, &[cx.result]))
                    .collect();
                (rule.clone(), [cx.operands, &[cx.result], &further, &cts].concat())
            }
            None => match backward_region(f, &self.function) {
                Some(region) => (region, [cx.operands, &cts].concat()),
                None => return Ok(vec![Some(f.poison()); cx.operands.len()]),
            },
        };
        let gradients = if function.outputs().len() == 0 {
            Vec::new()
        } else {
            f.push_all(Self { function, inline: self.inline, gradient: None }, &inputs)
        };
        Ok(spread(cx.operands, gradients).collect())
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        self.jvp_of_results(cx, tangents).map(|mut t| t.swap_remove(0))
    }

    fn jvp_of_results<'f>(
        &self,
        cx: &VjpCx<'_, 'f>,
        tangents: &[Option<Tensor<'f>>],
    ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
        if self.gradient.is_some() {
            let why = "its own gradient rule is for reverse mode only";
            return Err(NoGradient { op: Self::NAME, why });
        }
        let f = cx.result.builder();
        let active: Vec<bool> = tangents.iter().map(Option::is_some).collect();
        let outputs: Vec<DType> = self.function.outputs().map(|ty| ty.dtype).collect();
        let Some(function) = forward_region(f, &self.function, &active) else {
            return Ok(vec![Some(f.poison()); outputs.len()]);
        };
        let inputs: Vec<Tensor<'f>> =
            cx.operands.iter().copied().chain(tangents.iter().flatten().copied()).collect();
        let call = Self { function, inline: self.inline, gradient: None };
        let mut results = f.push_all(call, &inputs).into_iter().skip(outputs.len());
        Ok(outputs.iter().map(|dtype| if dtype.is_float() { results.next() } else { None }).collect())
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        self.batch_of_results(cx).map(|mut t| t.swap_remove(0))
    }

    fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
        let f = cx.operands[0].builder();
        let Some(function) = batched_region(f, &self.function, cx.mapped, cx.size) else {
            return Ok(vec![f.poison()]);
        };
        let gradient = match &self.gradient {
            None => None,
            Some(rule) => match batched_gradient(f, self, rule, cx) {
                None => return Ok(vec![f.poison()]),
                known => known,
            },
        };
        let call = Self { function, inline: self.inline, gradient };
        let results = f.push_all(call, cx.operands);
        Ok(if results.is_empty() { vec![f.poison()] } else { results })
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        self.eval_results(x, out).map(|mut values| values.swap_remove(0))
    }

    fn eval_results(&self, x: &[&Literal], _: &StaticType) -> Result<Vec<Literal>, EvalError> {
        let inputs: Vec<Literal> = x.iter().map(|&l| l.clone()).collect();
        self.function.evaluate(&inputs)
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Region
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        None
    }
}
