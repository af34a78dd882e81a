//! Forward mode: tangents along with the values.
//!
//! [`jvp`] walks the nodes from the inputs to the outputs and asks each operation's rule for the
//! tangent of its result. It costs about as much as the function itself for each direction, whatever
//! the number of outputs, and keeps nothing for later.

use super::active_nodes;
use crate::builder::Tensor;
use crate::graph::NodeId;
use crate::ops::{Op, VjpCx};
use std::collections::BTreeMap;

/// Jacobian-vector product: for pairs (input, tangent of its type) the tangents of `outputs`, which
/// are directional derivatives: how the outputs change if all inputs move along their tangents.
///
/// An input may be any value of the function; if it derives from another input, its tangent is added
/// to what reaches it from there. The adjoint of [`crate::vjp`]: for cotangents `u` and tangents `v`,
/// `sum(u * jvp(v)) = sum(vjp(u) * v)`. An output that depends on no input, or that is not a float,
/// gets exact zeros; a tangent of an input that is not a float has no effect.
///
/// A missing rule, or a tangent of another type than its input, is recorded in the builder as a
/// mistake at the caller's line, and the results are poisoned.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, evaluate, jvp, Literal};
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let x = f.input("x", DType::F64, [2]);
///     let direction = f.constant(Literal::new(&[2], vec![1.0, 0.0]).unwrap());
///     f.output("derivative", jvp(&[x * x * x], &[(x, direction)])[0]);
/// });
/// let module = m.build().unwrap();
/// let x = Literal::new(&[2], vec![2.0, 5.0]).unwrap();
/// let out = evaluate(&module.functions[0], &[x], |_| unreachable!("no state")).unwrap().outputs;
/// assert_eq!(out[0], Literal::new(&[2], vec![12.0, 0.0]).unwrap());
/// ```
#[track_caller]
pub fn jvp<'f>(outputs: &[Tensor<'f>], inputs: &[(Tensor<'f>, Tensor<'f>)]) -> Vec<Tensor<'f>> {
    let Some(first) = outputs.first() else { return Vec::new() };
    let f = first.builder();
    let mut all = inputs.iter().flat_map(|&(x, t)| [x, t]).chain(outputs.iter().copied());
    if all.any(Tensor::is_poison) {
        return vec![f.poison(); outputs.len()];
    }
    for &(x, t) in inputs {
        if x.ty() != t.ty() {
            f.misuse(format!("jvp: the input is {}, its tangent {}", x.ty(), t.ty()));
            return vec![f.poison(); outputs.len()];
        }
    }
    let add = |earlier: Option<Tensor<'f>>, t: Tensor<'f>| Some(earlier.map_or(t, |e| e + t));
    let mut given: BTreeMap<NodeId, Tensor<'f>> = BTreeMap::new();
    for (id, t) in
        inputs.iter().filter(|(x, _)| x.dtype().is_float()).filter_map(|&(x, t)| Some((x.id()?, t)))
    {
        let sum = add(given.get(&id).copied(), t);
        given.extend(sum.map(|t| (id, t)));
    }
    let wrt: Vec<NodeId> = given.keys().copied().collect();
    let tops: Vec<NodeId> = outputs.iter().filter_map(|y| y.id()).collect();
    // By node and result.
    let mut tangents: BTreeMap<(NodeId, usize), Tensor<'f>> = BTreeMap::new();
    for id in active_nodes(f, &tops, &wrt) {
        let (op, operands, origin) =
            f.with_graph(|g| (g.op(id).clone(), g.operands(id), g.node(id).origin.clone()));
        let of_operands: Vec<Option<Tensor<'f>>> =
            operands.iter().map(|&o| tangents.get(&(o, 0)).copied()).collect();
        let own = if let Op::ResultOf(r) = &op {
            vec![tangents.get(&(operands[0], r.index)).copied()]
        } else if of_operands.iter().any(Option::is_some) {
            let tensors: Vec<Tensor<'f>> = operands.iter().map(|&o| f.tensor(o)).collect();
            let cx = VjpCx { operands: &tensors, result: f.tensor(id) };
            match f.at(&origin, || op.jvp_of_results(&cx, &of_operands)) {
                Ok(own) => own,
                Err(error) => {
                    f.no_gradient(error);
                    return vec![f.poison(); outputs.len()];
                }
            }
        } else {
            vec![None]
        };
        for (i, own) in own.into_iter().enumerate() {
            let sum = match given.get(&id).filter(|_| i == 0) {
                Some(&t) => f.at(&origin, || add(own, t)),
                None => own,
            };
            tangents.extend(sum.map(|t| ((id, i), t)));
        }
    }
    let of = |&y: &Tensor<'f>| {
        y.id().and_then(|id| tangents.get(&(id, 0)).copied()).unwrap_or_else(|| y.full_like(0.0))
    };
    outputs.iter().map(of).collect()
}
