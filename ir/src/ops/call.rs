//! `call`: a region applied to operands.

use super::rules::first_result;
use crate::autodiff::{backward_region, float_cotangents, spread};
use super::{OpDef, ResultOf, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::types::TensorType;

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
