//! Mapping over a batch: what is computed for one example, for many of them at once.

use crate::builder::{FunctionBuilder, Tensor};
use crate::graph::NodeId;
use crate::ops::{BatchCx, Op};
use crate::types::{Dim, Shape};
use std::collections::BTreeMap;

/// Maps `body`, a function of one example, over a batch: each of `inputs` is a tensor with the axis
/// that counts its examples; `body` sees the tensors without that axis. Each result has the batch as
/// its axis 0. Values from outside that `body` uses are the same for all examples.
///
/// Every example gets the bits that it would get alone. All transformations may be used within
/// `body`: gradients of parameters from outside are then gradients of each example.
///
/// The extent of the batch may have a name, unless an operation says that it needs a number. An
/// operation without a batching rule, or inputs whose batches differ, are recorded in the builder as
/// mistakes that name the operation and its line, and the results are poisoned. The nodes of `body`
/// for one example stay behind without users.
///
/// ```
/// use graphc_ir::{DType, Literal, ModuleBuilder, evaluate, gradients, vmap};
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let (w, xs) = (f.input("w", DType::F64, [2]), f.input("xs", DType::F64, [3, 2]));
///     // The gradient of (w x)^2 for each row x of xs: [3, 2].
///     let per_example = vmap(&[(xs, 0)], |x| gradients(w.dot(x[0]).square(), &[w]));
///     f.output("gradients", per_example[0]);
/// });
/// let module = m.build().unwrap();
/// let w = Literal::new(&[2], vec![1.0, 10.0]).unwrap();
/// let xs = Literal::new(&[3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
/// let out = evaluate(&module.functions[0], &[w, xs], |_| unreachable!("no state")).unwrap().outputs;
/// assert_eq!(out[0], Literal::new(&[3, 2], vec![2.0, 0.0, 0.0, 20.0, 22.0, 22.0]).unwrap());
/// ```
#[track_caller]
pub fn vmap<'f>(
    inputs: &[(Tensor<'f>, usize)],
    body: impl FnOnce(&[Tensor<'f>]) -> Vec<Tensor<'f>>,
) -> Vec<Tensor<'f>> {
    let mut pairs = Vec::with_capacity(inputs.len());
    for &(x, axis) in inputs {
        let f = x.builder();
        let ty = x.ty();
        if axis >= ty.rank() {
            if !x.is_poison() {
                f.misuse(format!("vmap: axis {axis} of an input of type {ty}"));
            }
            pairs.push((f.poison(), f.poison()));
            continue;
        }
        let others: Vec<usize> = (0..ty.rank()).filter(|&a| a != axis).collect();
        let example: Shape = others.iter().map(|&a| &ty.shape[a]).collect();
        let order: Vec<usize> = std::iter::once(axis).chain(others).collect();
        pairs.push((f.full(ty.dtype, example, 0.0), x.transpose(&order)));
    }
    let examples: Vec<Tensor<'f>> = pairs.iter().map(|&(x, _)| x).collect();
    batch(&body(&examples), &pairs)
}

/// `outputs`, which are computed from values of one example, for a batch of them: for pairs (value,
/// batched value) with a batch as axis 0 of each second, the outputs with the batch as axis 0. What
/// does not derive from a first value is the same for all examples. See [`vmap`].
#[track_caller]
pub fn batch<'f>(outputs: &[Tensor<'f>], inputs: &[(Tensor<'f>, Tensor<'f>)]) -> Vec<Tensor<'f>> {
    let Some(first) = outputs.first() else { return Vec::new() };
    let f = first.builder();
    let poison = || vec![f.poison(); outputs.len()];
    let mut all = inputs.iter().flat_map(|&(x, xs)| [x, xs]).chain(outputs.iter().copied());
    if all.any(Tensor::is_poison) {
        return poison();
    }
    let Some(size) = inputs.first().and_then(|(_, xs)| xs.shape().first().cloned()) else {
        f.misuse("vmap: there is no input with a batch".to_owned());
        return poison();
    };
    for (x, xs) in inputs {
        let expected = x.ty().with_shape(with_batch(&size, &x.shape()));
        if xs.ty() != expected {
            f.misuse(format!(
                "vmap: a batch of {size} examples {} is {}, must be {expected}",
                x.ty(),
                xs.ty()
            ));
            return poison();
        }
    }
    if size == Dim::Const(0) {
        return outputs.iter().map(|y| f.full(y.dtype(), with_batch(&size, &y.shape()), 0.0)).collect();
    }
    let mut batched: BTreeMap<NodeId, Tensor<'f>> =
        inputs.iter().filter_map(|&(x, xs)| Some((x.id()?, xs))).collect();
    let tops: Vec<NodeId> = outputs.iter().filter_map(|y| y.id()).collect();
    // Results of a node from the second on.
    let mut further: BTreeMap<NodeId, Vec<Tensor<'f>>> = BTreeMap::new();
    for id in dependent_nodes(f, &tops, &batched) {
        let (op, operands, origin) =
            f.with_graph(|g| (g.op(id).clone(), g.operands(id), g.node(id).origin.clone()));
        if let Op::ResultOf(r) = &op {
            let result = further.get(&operands[0]).map_or_else(|| f.poison(), |results| results[r.index - 1]);
            batched.insert(id, result);
            continue;
        }
        let mapped: Vec<bool> = operands.iter().map(|o| batched.contains_key(o)).collect();
        let tensors: Vec<Tensor<'f>> =
            operands.iter().map(|o| batched.get(o).copied().unwrap_or_else(|| f.tensor(*o))).collect();
        let cx = BatchCx { operands: &tensors, mapped: &mapped, size: &size };
        match f.at(&origin, || op.batch_of_results(&cx)) {
            Ok(results) if results.iter().any(|t| t.is_poison()) => return poison(),
            Ok(mut results) => {
                further.insert(id, results.split_off(1));
                batched.insert(id, results[0])
            }
            Err(error) => {
                let at = origin.loc.map_or(String::new(), |loc| format!(", declared at {loc}"));
                f.misuse(format!("vmap: {error}{at}"));
                return poison();
            }
        };
    }
    let of = |&y: &Tensor<'f>| {
        let known = y.id().and_then(|id| batched.get(&id).copied());
        known.unwrap_or_else(|| {
            let axes: Vec<usize> = (1..=y.rank()).collect();
            y.broadcast(with_batch(&size, &y.shape()), &axes)
        })
    };
    outputs.iter().map(of).collect()
}

fn with_batch(size: &Dim, shape: &Shape) -> Shape {
    std::iter::once(size).chain(shape.iter()).collect()
}

/// Nodes on a path from the keys of `from`, which are left out, to `tops`, in creation order.
fn dependent_nodes(f: &FunctionBuilder, tops: &[NodeId], from: &BTreeMap<NodeId, Tensor<'_>>) -> Vec<NodeId> {
    f.with_graph(|g| {
        let (mut depends, mut needed) = (vec![false; g.len()], vec![false; g.len()]);
        for id in g.ids() {
            depends[id.index()] = from.contains_key(&id) || g.operands(id).iter().any(|o| depends[o.index()]);
        }
        tops.iter().for_each(|id| needed[id.index()] = true);
        for id in g.ids().rev() {
            if needed[id.index()] && depends[id.index()] && !from.contains_key(&id) {
                g.operands(id).iter().for_each(|o| needed[o.index()] = true);
            }
        }
        g.ids().filter(|id| depends[id.index()] && needed[id.index()] && !from.contains_key(id)).collect()
    })
}
