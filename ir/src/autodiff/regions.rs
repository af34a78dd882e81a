//! What transformations do with regions: copy them, and make regions of their gradients, tangents and
//! batches.

use super::{batch, jvp, vjp};
use crate::builder::{FunctionBuilder, Tensor};
use crate::graph::{Graph, NodeId};
use crate::ops::{BatchCx, Call, Op, Scan, VjpCx, While};
use crate::region::Region;
use crate::types::{DType, Dim, Shape, TensorType};
use std::collections::HashMap;

/// Copies nodes of a graph into a function, in order; `map` has what stands for the nodes before them
/// and gets the copies.
pub(super) fn copy_nodes<'f>(
    f: &'f FunctionBuilder,
    graph: &Graph,
    nodes: impl IntoIterator<Item = NodeId>,
    map: &mut HashMap<NodeId, Tensor<'f>>,
) {
    for id in nodes {
        if !map.contains_key(&id) && !matches!(graph.op(id), Op::Input(_)) {
            let operands: Vec<Tensor<'f>> = graph.operands(id).iter().map(|o| map[o]).collect();
            let node = graph.node(id);
            map.insert(id, f.at(&node.origin, || f.push(node.op.clone(), &operands)));
        }
    }
}

/// The outputs of a region for `inputs`, by copies of its nodes.
pub(super) fn splice<'f>(f: &'f FunctionBuilder, region: &Region, inputs: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    let function = region.function();
    let mut map: HashMap<NodeId, Tensor<'f>> =
        function.inputs.iter().copied().zip(inputs.iter().copied()).collect();
    copy_nodes(f, &function.graph, function.graph.ids(), &mut map);
    function.outputs.iter().map(|o| map[&o.node]).collect()
}

/// A region that takes the inputs of `region` and a cotangent for each float output, and gives the
/// cotangents of the float inputs; `None` if there is a mistake, which has been recorded.
pub(crate) fn backward_region(f: &FunctionBuilder, region: &Region) -> Option<Region> {
    let b = f.closure("backward");
    let inputs: Vec<Tensor<'_>> = region.inputs().map(|ty| b.argument("x", ty.clone())).collect();
    let outputs = splice(b, region, &inputs);
    let float = |t: &Tensor<'_>| t.dtype().is_float();
    let pairs: Vec<(Tensor<'_>, Tensor<'_>)> =
        outputs.into_iter().filter(float).map(|y| (y, b.argument("ct", y.ty()))).collect();
    let wrt: Vec<Tensor<'_>> = inputs.into_iter().filter(float).collect();
    b.finish(&vjp(&pairs, &wrt))
}

/// A cotangent for each float output of `region`: those that are known, else zeros.
pub(crate) fn float_cotangents<'f>(
    region: &Region,
    cx: &VjpCx<'_, 'f>,
    cts: &[Option<Tensor<'f>>],
) -> Vec<Tensor<'f>> {
    let f = cx.result.builder();
    let of = |(i, ty): (usize, &crate::TensorType)| {
        cts.get(i).copied().flatten().unwrap_or_else(|| f.full(ty.dtype, ty.shape.clone(), 0.0))
    };
    region.outputs().enumerate().filter(|(_, ty)| ty.dtype.is_float()).map(of).collect()
}

/// Gives each float operand its cotangent, of which there is one for each in order.
pub(crate) fn spread<'f>(
    operands: &[Tensor<'f>],
    cotangents: Vec<Tensor<'f>>,
) -> impl Iterator<Item = Option<Tensor<'f>>> {
    let mut cotangents = cotangents.into_iter();
    operands.iter().map(move |t| if t.dtype().is_float() { cotangents.next() } else { None })
}

/// A region that takes the inputs of `region` and a tangent for each that is `active`, all floats, and
/// gives its outputs and a tangent for each float one; `None` if there is a mistake, which has been
/// recorded.
pub(crate) fn forward_region(f: &FunctionBuilder, region: &Region, active: &[bool]) -> Option<Region> {
    let b = f.closure("forward");
    let inputs: Vec<Tensor<'_>> = region.inputs().map(|ty| b.argument("x", ty.clone())).collect();
    let moved: Vec<Tensor<'_>> = inputs.iter().zip(active).filter(|(_, a)| **a).map(|(&x, _)| x).collect();
    let pairs: Vec<(Tensor<'_>, Tensor<'_>)> =
        moved.iter().map(|&x| (x, b.argument("tangent", x.ty()))).collect();
    let outputs = splice(b, region, &inputs);
    let floats: Vec<Tensor<'_>> = outputs.iter().copied().filter(|y| y.dtype().is_float()).collect();
    b.finish(&[outputs, jvp(&floats, &pairs)].concat())
}

/// Tangents of the results of a `scan`: a scan that carries tangents along.
pub(crate) fn forward_scan<'f>(
    scan: &Scan,
    cx: &VjpCx<'_, 'f>,
    tangents: &[Option<Tensor<'f>>],
) -> Vec<Option<Tensor<'f>>> {
    let f = cx.result.builder();
    let (first, last) = (scan.carries, scan.carries + scan.sequences);
    let b = f.closure("forward");
    let types: Vec<TensorType> = scan.body.inputs().cloned().collect();
    let (mut inputs, mut pairs, mut operands) = (Vec::new(), Vec::new(), Vec::new());
    for range in [0..first, first..last, last..types.len()] {
        let own: Vec<Tensor<'f>> =
            types[range.clone()].iter().map(|ty| b.argument("x", ty.clone())).collect();
        operands.extend_from_slice(&cx.operands[range.clone()]);
        for (i, &x) in range.clone().zip(&own) {
            // A carry may get a tangent on the way.
            let tangent = match tangents[i] {
                None if i < first && types[i].dtype.is_float() => Some(cx.operands[i].full_like(0.0)),
                given => given,
            };
            if let Some(tangent) = tangent {
                pairs.push((x, b.argument("tangent", types[i].clone())));
                operands.push(tangent);
            }
        }
        inputs.extend(own);
    }
    let outputs = splice(b, &scan.body, &inputs);
    let floats: Vec<Tensor<'f>> = outputs.iter().copied().filter(|y| y.dtype().is_float()).collect();
    let mut moved = jvp(&floats, &pairs).into_iter();
    let mut of: Vec<Option<Tensor<'f>>> =
        outputs.iter().map(|y| if y.dtype().is_float() { moved.next() } else { None }).collect();
    let stacked = of.split_off(first);
    let next: Vec<Tensor<'f>> =
        outputs[..first].iter().copied().chain(of.iter().flatten().copied()).collect();
    let carries = next.len();
    let sequences = scan.sequences + tangents[first..last].iter().flatten().count();
    let all: Vec<Tensor<'f>> = next
        .into_iter()
        .chain(outputs[first..].iter().copied())
        .chain(stacked.iter().flatten().copied())
        .collect();
    let Some(body) = b.finish(&all) else { return vec![Some(f.poison()); outputs.len()] };
    let results = f.push_all(Scan { body, carries, sequences, ..scan.clone() }, &operands);
    if results.is_empty() {
        return vec![Some(f.poison()); outputs.len()];
    }
    let mut of_carries = results[first..carries].iter().copied();
    let mut of_stacked = results[carries + outputs.len() - first..].iter().copied();
    let known = of.iter().map(|t| t.and_then(|_| of_carries.next())).collect::<Vec<_>>();
    known.into_iter().chain(stacked.iter().map(|t| t.and_then(|_| of_stacked.next()))).collect()
}

/// Tangents of the results of a `while`: a loop that carries tangents along.
pub(crate) fn forward_while<'f>(
    op: &While,
    cx: &VjpCx<'_, 'f>,
    tangents: &[Option<Tensor<'f>>],
) -> Vec<Option<Tensor<'f>>> {
    let f = cx.result.builder();
    let types: Vec<TensorType> = op.body.inputs().cloned().collect();
    let n = op.carries;
    let moved: Vec<bool> =
        (0..types.len()).map(|i| types[i].dtype.is_float() && (i < n || tangents[i].is_some())).collect();
    // Both regions take carries, their tangents, constants, their tangents.
    let arguments = |b: &'f FunctionBuilder| {
        let (mut x, mut pairs) = (Vec::new(), Vec::new());
        for range in [0..n, n..types.len()] {
            let own: Vec<Tensor<'f>> =
                types[range.clone()].iter().map(|ty| b.argument("x", ty.clone())).collect();
            for (i, &v) in range.clone().zip(&own).filter(|(i, _)| moved[*i]) {
                pairs.push((v, b.argument("tangent", types[i].clone())));
            }
            x.extend(own);
        }
        (x, pairs)
    };
    let (c, b) = (f.closure("while"), f.closure("forward"));
    let condition = c.finish(&splice(c, &op.condition, &arguments(c).0));
    let (x, pairs) = arguments(b);
    let y = splice(b, &op.body, &x);
    let floats: Vec<Tensor<'f>> = y.iter().copied().filter(|y| y.dtype().is_float()).collect();
    let body = b.finish(&[y.clone(), jvp(&floats, &pairs)].concat());
    let poison = vec![Some(f.poison()); n];
    let (Some(condition), Some(body)) = (condition, body) else { return poison };
    let mut operands = Vec::new();
    for range in [0..n, n..types.len()] {
        operands.extend_from_slice(&cx.operands[range.clone()]);
        let given = |i: usize| tangents[i].unwrap_or_else(|| cx.operands[i].full_like(0.0));
        operands.extend(range.filter(|&i| moved[i]).map(given));
    }
    let results = f.push_all(While { condition, body, carries: n + floats.len() }, &operands);
    if results.is_empty() {
        return poison;
    }
    let mut tangents = results[n..].iter().copied();
    (0..n).map(|i| if moved[i] { tangents.next() } else { None }).collect()
}

/// The batched outputs of `region` inside of builder `b`: of its inputs those that are mapped have the
/// batch in front.
fn batched<'f>(
    b: &'f FunctionBuilder,
    region: &Region,
    inputs: &[Tensor<'f>],
    mapped: &[bool],
    size: &Dim,
) -> Vec<Tensor<'f>> {
    let mut pairs = Vec::new();
    let mut example = |(x, (ty, &mapped)): (&Tensor<'f>, (&TensorType, &bool))| {
        if !mapped {
            return *x;
        }
        let example = b.full(ty.dtype, ty.shape.clone(), 0.0);
        pairs.push((example, *x));
        example
    };
    let examples: Vec<Tensor<'f>> =
        inputs.iter().zip(region.inputs().zip(mapped)).map(&mut example).collect();
    let outputs = splice(b, region, &examples);
    if pairs.is_empty() {
        // Nothing is mapped: all examples are alike.
        let with_batch =
            |y: &Tensor<'f>| -> Shape { std::iter::once(size).chain(y.shape().iter()).collect() };
        let repeat = |y: Tensor<'f>| y.broadcast(with_batch(&y), &(1..=y.rank()).collect::<Vec<_>>());
        return outputs.into_iter().map(repeat).collect();
    }
    batch(&outputs, &pairs)
}

/// The type with the batch in front.
fn with_batch(ty: &TensorType, size: &Dim) -> TensorType {
    TensorType::new(ty.dtype, std::iter::once(size).chain(ty.shape.iter()).cloned().collect::<Shape>())
}

/// A region that maps `region` over a batch of its mapped inputs; all outputs have the batch in front.
pub(crate) fn batched_region(
    f: &FunctionBuilder,
    region: &Region,
    mapped: &[bool],
    size: &Dim,
) -> Option<Region> {
    let b = f.closure("batched");
    let types = region.inputs().zip(mapped).map(|(ty, &m)| if m { with_batch(ty, size) } else { ty.clone() });
    let inputs: Vec<Tensor<'_>> = types.map(|ty| b.argument("x", ty)).collect();
    b.finish(&batched(b, region, &inputs, mapped, size))
}

/// The gradient `rule` of a call mapped over a batch: what comes to an operand that is the same for all
/// examples is summed over them.
pub(crate) fn batched_gradient(
    f: &FunctionBuilder,
    call: &Call,
    rule: &Region,
    cx: &BatchCx<'_, '_>,
) -> Option<Region> {
    let operands: Vec<&TensorType> = call.function.inputs().collect();
    let given = rule.inputs().len() - operands.len();
    let mapped: Vec<bool> = cx.mapped.iter().copied().chain(vec![true; given]).collect();
    let b = f.closure("batched");
    let types =
        rule.inputs().zip(&mapped).map(|(ty, &m)| if m { with_batch(ty, cx.size) } else { ty.clone() });
    let inputs: Vec<Tensor<'_>> = types.map(|ty| b.argument("x", ty)).collect();
    let gradients = batched(b, rule, &inputs, &mapped, cx.size).into_iter();
    let floats = operands.iter().zip(cx.mapped).filter(|(ty, _)| ty.dtype.is_float());
    let summed: Vec<Tensor<'_>> =
        gradients.zip(floats).map(|(g, (_, &mapped))| if mapped { g } else { g.reduce_sum(&[0]) }).collect();
    b.finish(&summed)
}

/// A `scan` mapped over a batch: all carries are mapped, sequences have the batch as their second axis
/// within the loop.
pub(crate) fn batch_scan<'f>(scan: &Scan, cx: &BatchCx<'_, 'f>) -> Vec<Tensor<'f>> {
    let f = cx.operands[0].builder();
    let mut mapped = cx.mapped.to_vec();
    mapped[..scan.carries].fill(true);
    let swapped = |t: Tensor<'f>| {
        let order: Vec<usize> = [1, 0].into_iter().chain(2..t.rank()).collect();
        t.transpose(&order)
    };
    let is_sequence = |i: usize| (scan.carries..scan.carries + scan.sequences).contains(&i);
    let operand = |i: usize| match i {
        i if i < scan.carries => cx.repeated(i),
        i if is_sequence(i) && mapped[i] => swapped(cx.operands[i]),
        i => cx.operands[i],
    };
    let operands: Vec<Tensor<'f>> = (0..cx.operands.len()).map(operand).collect();
    let Some(body) = batched_region(f, &scan.body, &mapped, cx.size) else { return vec![f.poison()] };
    let mut results = f.push_all(Scan { body, ..scan.clone() }, &operands);
    results.iter_mut().skip(scan.carries).for_each(|t| *t = swapped(*t));
    if results.is_empty() { vec![f.poison()] } else { results }
}

/// A `while` mapped over a batch: it runs as long as the condition holds for any example, and leaves
/// those alone for which it does not.
pub(crate) fn batch_while<'f>(op: &While, cx: &BatchCx<'_, 'f>) -> Vec<Tensor<'f>> {
    let f = cx.operands[0].builder();
    let mut mapped = cx.mapped.to_vec();
    mapped[..op.carries].fill(true);
    let types: Vec<TensorType> = op
        .body
        .inputs()
        .zip(&mapped)
        .map(|(ty, &m)| if m { with_batch(ty, cx.size) } else { ty.clone() })
        .collect();
    let arguments = |b: &'f FunctionBuilder| -> Vec<Tensor<'f>> {
        types.iter().map(|ty| b.argument("x", ty.clone())).collect()
    };
    let (c, b) = (f.closure("while"), f.closure("batched"));
    let holds = batched(c, &op.condition, &arguments(c), &mapped, cx.size)[0];
    let count = holds.cast(DType::I32).reduce_sum(&[0]);
    let condition = c.finish(&[count.gt(0.0)]);
    let x = arguments(b);
    let goes_on = batched(b, &op.condition, &x, &mapped, cx.size)[0];
    let next = batched(b, &op.body, &x, &mapped, cx.size);
    let next: Vec<Tensor<'f>> = next
        .into_iter()
        .zip(&x)
        .map(|(new, &old)| goes_on.broadcast(old.shape(), &[0]).select(new, old))
        .collect();
    let (Some(condition), Some(body)) = (condition, b.finish(&next)) else { return vec![f.poison()] };
    let operand = |i: usize| if i < op.carries { cx.repeated(i) } else { cx.operands[i] };
    let operands: Vec<Tensor<'f>> = (0..cx.operands.len()).map(operand).collect();
    let results = f.push_all(While { condition, body, carries: op.carries }, &operands);
    if results.is_empty() { vec![f.poison()] } else { results }
}
