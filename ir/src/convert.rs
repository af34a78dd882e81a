//! Functions in another precision, and without gradients of the user's own: what gradients are checked against.

use crate::attr::{AttrMap, AttrValue};
use crate::error::TypeError;
use crate::graph::Graph;
use crate::literal::Literal;
use crate::module::Function;
use crate::ops::{Call, Constant, Op};
use crate::region::Region;
use crate::types::{DType, TensorType};

impl Function {
    /// The function with all floats, those of its inputs and of state included, computed in `float`. Constants have the value
    /// they had, and names and places stay.
    ///
    /// # Errors
    /// If an operation refuses the type, such as one that looks at the bits of floats.
    pub fn in_floats(&self, float: DType) -> Result<Self, TypeError> {
        rewrite(self, &mut |op| to_float(op, float))
    }

    /// The function without gradients of the user's own, see
    /// [`FunctionBuilder::custom_gradient`](crate::FunctionBuilder::custom_gradient): its derivatives are those of what it
    /// computes.
    ///
    /// # Errors
    /// None for a verified function.
    pub fn without_custom_gradients(&self) -> Result<Self, TypeError> {
        rewrite(self, &mut |op| {
            Ok(match op {
                Op::Call(c) => Call { gradient: None, ..c }.into(),
                op => op,
            })
        })
    }
}

/// The function with every operation, those of its regions included, replaced; types are inferred anew.
fn rewrite(
    function: &Function,
    replace: &mut dyn FnMut(Op) -> Result<Op, TypeError>,
) -> Result<Function, TypeError> {
    let mut graph = Graph::default();
    for id in function.graph.ids() {
        let mut node = function.graph.node(id).clone();
        for region in node.op.regions_mut() {
            *region = Region::new(rewrite(region.function(), replace)?);
        }
        let operands = function.graph.operands(id);
        let types: Vec<TensorType> = operands.iter().map(|&o| graph.ty(o).clone()).collect();
        let new = replace(node.op).and_then(|op| Ok((op.infer(&types)?, op)));
        (node.ty, node.op) = new.map_err(|e| e.at(node.origin.loc.clone()))?;
        graph.push(node, &operands);
    }
    Ok(Function { graph, ..function.clone() })
}

fn to_float(mut op: Op, float: DType) -> Result<Op, TypeError> {
    let convert = |ty: &mut TensorType| {
        if ty.dtype.is_float() {
            ty.dtype = float;
        }
    };
    match &mut op {
        Op::Input(input) => convert(&mut input.ty),
        Op::ReadState(read) => convert(&mut read.ty),
        Op::ResultOf(result) => convert(&mut result.ty),
        Op::Constant(Constant { value }) if value.dtype().is_float() => {
            let converted = Literal::from_fn(float, value.dims(), |i| value.get(i));
            *value = converted;
        }
        _ => {
            let is_float = |word: &str| DType::ALL.iter().any(|d| d.is_float() && d.to_string() == word);
            let attrs = op.attrs();
            if !attrs.iter().any(|(_, v)| matches!(v, AttrValue::Word(w) if is_float(w))) {
                return Ok(op);
            }
            let attrs = attrs.into_iter().map(|(name, value)| match value {
                AttrValue::Word(w) if is_float(&w) => (name.to_owned(), AttrValue::Word(float.to_string())),
                value => (name.to_owned(), value),
            });
            let refused = |message: String| TypeError::new(op.name(), &[], message);
            return match Op::parse(op.name(), &mut AttrMap(attrs.collect())) {
                Some(parsed) => parsed.map_err(|e| refused(e.to_string())),
                None => Err(refused("is not written with attributes".to_owned())),
            };
        }
    }
    Ok(op)
}

#[cfg(test)]
mod tests {
    use crate::{DType, Literal, ModuleBuilder, Native, Scalar, evaluate, gradients, math};

    #[test]
    fn floats_become_wider_in_regions_too() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [3]);
            let steps = f.iota(DType::F32, [3], 0) * 0.1;
            let y =
                f.custom_gradient(&[x * steps], |_, x| vec![x[0].exp()], |_, _, y, ct| vec![ct[0] * y[0]])[0];
            f.output("y", y.cast(DType::BF16));
        });
        let f = &m.build().unwrap().functions[0];
        let wide = f.in_floats(DType::F64).unwrap();
        assert!(wide.graph.ids().all(|id| wide.graph.ty(id).dtype == DType::F64));
        let x = Literal::new(&[3], vec![1.0f64, 2.0, 3.0]).unwrap();
        let y = evaluate(&wide, &[x], |_| unreachable!("no state")).unwrap().outputs;
        // The constant is what it was: the closest f32 to a tenth. The last bit of `f64::exp` is the platform's choice.
        let product = |i: usize| (i + 1) as f64 * i as f64 * f64::from(0.1f32);
        let expected = |i| math::exp(&mut Native, Scalar::F64(product(i)));
        assert_eq!(y[0], Literal::from_fn(DType::F64, &[3], expected));
    }

    #[test]
    fn bits_of_floats_are_refused() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [3]);
            f.output("y", x.bitcast(DType::I32));
        });
        let f = &m.build().unwrap().functions[0];
        assert_eq!(f.in_floats(DType::F64).unwrap_err().op, "bitcast");
    }

    #[test]
    fn gradients_of_the_users_own_are_left_out() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, []);
            f.output("y", f.custom_gradient(&[x], |_, x| vec![x[0] * x[0]], |_, _, _, ct| vec![ct[0]])[0]);
        });
        let module = m.build().unwrap();
        let plain = module.functions[0].without_custom_gradients().unwrap();
        for (f, expected) in [(&module.functions[0], 1.0f32), (&plain, 6.0)] {
            let g = crate::FunctionBuilder::extend(&module, f, |b| {
                let (x, y) = (b.tensor(f.inputs[0]), b.tensor(f.outputs[0].node));
                b.output("g", gradients(y, &[x])[0]);
            });
            let x = Literal::new(&[], vec![3.0f32]).unwrap();
            let out = evaluate(&g.unwrap(), &[x], |_| unreachable!("no state")).unwrap().outputs;
            assert_eq!(out[1], Literal::new(&[], vec![expected]).unwrap());
        }
    }
}
