//! Makes one loop of several that run alike.

use super::push_results;
use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::ops::Scan;
use graphc_ir::{Dim, Function, NodeId, Op, Output, Region, TensorType};
use rustc_hash::FxHashMap;

/// Merges scans of the same operands whose carries go through the same values: one of them stacks what
/// all did. Differentiation leaves such pairs, the scan that the user declared and one that also saves
/// values for the backward pass.
pub struct MergeScans;

/// Scans that may be merged: the same operands, direction and numbers of carries and sequences.
type Key = (Vec<NodeId>, Dim, usize, usize, bool);

/// One scan for several.
struct Group {
    /// The scans, the first of which is replaced.
    members: Vec<NodeId>,
    /// Their common body.
    body: Function,
    /// For each member the number of the common output that each of its outputs is.
    outputs: Vec<Vec<usize>>,
    numbers: Numbers,
    /// Numbers of the common outputs.
    values: Vec<usize>,
}

/// Numbers values of bodies with the same inputs such that equal ones have equal numbers.
#[derive(Default)]
struct Numbers {
    /// By operation and operands.
    known: FxHashMap<(Op, Vec<usize>), usize>,
    /// The node of the common body for each number.
    nodes: Vec<NodeId>,
}

impl Numbers {
    /// Numbers of the nodes of `f`. What is new is appended to `body`, if `f` is not the body itself.
    fn number(&mut self, f: &Function, body: Option<&mut Function>) -> FxHashMap<NodeId, usize> {
        let mut map: FxHashMap<NodeId, usize> = f.inputs.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let mut body = body;
        if self.nodes.is_empty() {
            self.nodes.clone_from(&f.inputs);
        }
        for id in f.graph.ids().filter(|&id| !matches!(f.graph.op(id), Op::Input(_))) {
            let operands: Vec<usize> = f.graph.operands(id).iter().map(|o| map[o]).collect();
            let key = (f.graph.op(id).clone(), operands);
            let number = match self.known.get(&key) {
                Some(&number) => number,
                None => {
                    let node = match &mut body {
                        Some(body) => {
                            let operands: Vec<NodeId> = key.1.iter().map(|&n| self.nodes[n]).collect();
                            let mut node = f.graph.node(id).clone();
                            // Names are unique in a function.
                            node.origin.name = None;
                            body.graph.push(node, &operands)
                        }
                        None => id,
                    };
                    self.nodes.push(node);
                    self.known.insert(key, self.nodes.len() - 1);
                    self.nodes.len() - 1
                }
            };
            map.insert(id, number);
        }
        map
    }
}

impl Group {
    fn new(id: NodeId, scan: &Scan) -> Self {
        let body = scan.body.function().clone();
        let mut numbers = Numbers::default();
        let map = numbers.number(&body, None);
        let values: Vec<usize> = body.outputs.iter().map(|o| map[&o.node]).collect();
        Self { members: vec![id], outputs: vec![(0..values.len()).collect()], body, numbers, values }
    }

    /// Takes a scan in, if its carries are those of the group.
    fn take(&mut self, id: NodeId, scan: &Scan) -> bool {
        let f = scan.body.function();
        let map = self.numbers.number(f, Some(&mut self.body));
        let values: Vec<usize> = f.outputs.iter().map(|o| map[&o.node]).collect();
        if values[..scan.carries] != self.values[..scan.carries] {
            return false;
        }
        let mut outputs: Vec<usize> = (0..scan.carries).collect();
        for &value in &values[scan.carries..] {
            let known = self.values[scan.carries..].iter().position(|&v| v == value);
            outputs.push(known.map_or_else(
                || {
                    self.values.push(value);
                    let name = format!("out{}", self.body.outputs.len()).into();
                    self.body.outputs.push(Output { name, node: self.numbers.nodes[value] });
                    self.values.len() - 1
                },
                |at| scan.carries + at,
            ));
        }
        self.members.push(id);
        self.outputs.push(outputs);
        true
    }
}

impl Pass for MergeScans {
    fn name(&self) -> &'static str {
        "merge_scans"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        let graph = &function.graph;
        // Only looked up, never iterated, so its order does not matter.
        let mut known: FxHashMap<Key, Vec<usize>> = FxHashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of: FxHashMap<NodeId, usize> = FxHashMap::default();
        for id in graph.ids() {
            let Op::Scan(s) = graph.op(id) else { continue };
            let key = (graph.operands(id).to_vec(), s.length.clone(), s.carries, s.sequences, s.reverse);
            let candidates = known.entry(key).or_default();
            let group = candidates.iter().copied().find(|&g| groups[g].take(id, s)).unwrap_or_else(|| {
                groups.push(Group::new(id, s));
                candidates.push(groups.len() - 1);
                groups.len() - 1
            });
            group_of.insert(id, group);
        }
        if groups.len() == group_of.len() {
            return Ok(function.clone());
        }
        let mut rebuilder = Rebuilder::new(function);
        let mut results: FxHashMap<usize, Vec<NodeId>> = FxHashMap::default();
        for id in graph.ids() {
            let merged = |id: &NodeId| group_of.get(id).filter(|&&g| groups[g].members.len() > 1).copied();
            match (graph.op(id), merged(&id)) {
                (Op::Scan(s), Some(g)) => {
                    let group = &groups[g];
                    let at = group.members.iter().position(|&m| m == id).expect("it is a member");
                    if at == 0 {
                        let (operands, origin) = (rebuilder.operands(id), &graph.node(id).origin);
                        let scan = Scan { body: Region::new(group.body.clone()), ..s.clone() };
                        let types: Vec<TensorType> =
                            operands.iter().map(|&o| rebuilder.graph().ty(o).clone()).collect();
                        let types = scan_results(&scan, &types)?;
                        let first = rebuilder.push(scan, &operands, origin)?;
                        results.insert(g, push_results(&mut rebuilder, first, &types, origin)?);
                    }
                    rebuilder.replace(id, results[&g][group.outputs[at][0]]);
                }
                (Op::ResultOf(r), _) => {
                    let of = graph.operands(id)[0];
                    match merged(&of) {
                        Some(g) => {
                            let group = &groups[g];
                            let at = group.members.iter().position(|&m| m == of).expect("it is a member");
                            rebuilder.replace(id, results[&g][group.outputs[at][r.index]]);
                        }
                        None => {
                            rebuilder.keep(id);
                        }
                    }
                }
                _ => {
                    rebuilder.keep(id);
                }
            }
        }
        Ok(rebuilder.finish())
    }
}

fn scan_results(scan: &Scan, operands: &[TensorType]) -> Result<Vec<TensorType>, CompileError> {
    Ok(graphc_ir::ops::OpDef::results(scan, operands)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::function;
    use crate::{passes::Dce, run_passes};
    use graphc_ir::{DType, gradients};

    #[test]
    fn a_loop_and_its_copy_that_saves_values_become_one() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [5, 3]);
            let h = f.input("h", DType::F32, [3]);
            let s = f.scan(&[h], &[x], |_, h, x| (vec![(h[0] * x[0]).tanh()], vec![h[0]]));
            let loss = s.carries[0].reduce_sum(&[0]) + s.stacked[0].reduce_sum(&[0, 1]);
            f.output("loss", loss);
            f.output("dx", gradients(loss, &[x])[0]);
        });
        let scans = |f: &Function| f.graph.ids().filter(|&id| matches!(f.graph.op(id), Op::Scan(_))).count();
        let (after, _) = run_passes(&f, &[&MergeScans, &Dce], &Default::default()).unwrap();
        assert_eq!((scans(&f), scans(&after)), (3, 2));
        crate::passes::testing::assert_same_results(&f, &after, 8);
    }
}
