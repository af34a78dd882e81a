//! Passes over operations with regions.

mod batch_loop;
mod inline;
mod merge_scans;
mod move_out;

pub use batch_loop::BatchLoop;
pub use inline::Inline;
pub use merge_scans::MergeScans;
pub use move_out::MoveOut;

use crate::error::CompileError;
use crate::pass::Rebuilder;
use graphc_ir::ops::{Input, ResultOf};
use graphc_ir::{Function, Graph, Node, NodeId, Op, Origin, Output, TensorType};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A region's function over other inputs: `inputs` are nodes of `old`, which become the inputs in this
/// order, `aliases` further nodes that are the same as one of them. What `outputs` need is copied.
fn extract(
    old: &Function,
    inputs: &[NodeId],
    aliases: &FxHashMap<NodeId, NodeId>,
    outputs: &[NodeId],
) -> Function {
    let mut needed: BTreeSet<NodeId> = BTreeSet::new();
    let mut open: Vec<NodeId> = outputs.to_vec();
    while let Some(id) = open.pop() {
        if !inputs.contains(&id) && !aliases.contains_key(&id) && needed.insert(id) {
            open.extend(old.graph.operands(id));
        }
    }
    let mut graph = Graph::default();
    let mut map: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    for (i, &id) in inputs.iter().enumerate() {
        let node = old.graph.node(id);
        // Names are unique in a function; only inputs keep theirs.
        let name = match &node.op {
            Op::Input(_) => node.origin.name.clone(),
            _ => Some(format!("moved{i}").into()),
        };
        let origin = Origin { name, ..node.origin.clone() };
        map.insert(id, push_input(&mut graph, node.ty.clone(), origin));
    }
    for (&id, same) in aliases {
        map.insert(id, map[same]);
    }
    for &id in &needed {
        let operands: Vec<NodeId> = old.graph.operands(id).iter().map(|o| map[o]).collect();
        map.insert(id, graph.push(old.graph.node(id).clone(), &operands));
    }
    let nodes = |ids: &[NodeId]| ids.iter().map(|id| map[id]).collect();
    region_function(old.name.clone(), graph, nodes(inputs), nodes(outputs))
}

/// Appends an input to the graph of a region.
fn push_input(graph: &mut Graph, ty: TensorType, origin: Origin) -> NodeId {
    graph.push(Node { op: Input { ty: ty.clone() }.into(), ty, origin }, &[])
}

/// The function of a region; outputs are numbered.
fn region_function(name: Arc<str>, graph: Graph, inputs: Vec<NodeId>, outputs: Vec<NodeId>) -> Function {
    let outputs = outputs.into_iter().enumerate();
    let outputs = outputs.map(|(i, node)| Output { name: format!("out{i}").into(), node }).collect();
    Function { name, inputs, outputs, updates: Vec::new(), graph }
}

/// Which results of a node are used, by number.
fn used_results(f: &Function, id: NodeId, count: usize) -> Vec<bool> {
    let mut used = vec![false; count];
    used[0] = f.results().any(|r| r == id);
    for (user, _) in f.graph.users(id) {
        match f.graph.op(user) {
            Op::ResultOf(r) => used[r.index] = true,
            _ => used[0] = true,
        }
    }
    used
}

/// Appends the nodes for all results of the last node pushed, whose types are `types`.
fn push_results(
    rebuilder: &mut Rebuilder<'_>,
    first: NodeId,
    types: &[TensorType],
    origin: &Origin,
) -> Result<Vec<NodeId>, CompileError> {
    let mut results = vec![first];
    for (index, ty) in types.iter().enumerate().skip(1) {
        results.push(rebuilder.push(ResultOf { index, ty: ty.clone() }, &[first], origin)?);
    }
    Ok(results)
}
