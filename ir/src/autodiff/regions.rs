//! What differentiation does with regions: copies them, and makes regions of their gradients.

use super::vjp;
use crate::builder::{FunctionBuilder, Tensor};
use crate::graph::{Graph, NodeId};
use crate::ops::{Op, VjpCx};
use crate::region::Region;
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
