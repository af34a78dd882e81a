//! Moves work out of loops.

use super::{extract, push_results, used_results};
use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::ops::{DotGeneral, OpDef, Scan};
use graphc_ir::{Function, NodeId, Op, Origin, Region, TensorType};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// How many times as many elements a value may have that is kept of all steps, instead of another, in a loop that takes time to take less
/// memory. The four gates of a recurrent network may be kept instead of an input that is as wide as its state.
const MORE: usize = 4;

/// Makes the bodies of scans smaller, without changing a bit:
///
/// - Results that nobody uses are not computed, and carries that only they need are not carried. A carry
///   that never changes becomes a constant operand. Operands given twice are given once, and what is
///   stacked twice is stacked once.
/// - What is the same in every step is computed once, before the loop.
/// - A product of an element of a sequence with such a value becomes one product for all steps before
///   the loop (the input projections of a recurrent network), and one that is only stacked becomes one
///   product after it. Each element of a product is one chain of multiply-adds in either case. Not in loops that compute again
///   what the gradient needs, if it takes much more memory.
pub struct MoveOut;

impl Pass for MoveOut {
    fn name(&self) -> &'static str {
        "move_out"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        let graph = &function.graph;
        let mut rebuilder = Rebuilder::new(function);
        let mut results: FxHashMap<NodeId, Vec<Option<NodeId>>> = FxHashMap::default();
        for id in graph.ids() {
            match graph.op(id) {
                Op::Scan(scan) => {
                    let used = used_results(function, id, scan.body.function().outputs.len());
                    if !used.contains(&true) {
                        // Left out: its further results are not used either.
                        results.insert(id, vec![None; used.len()]);
                        continue;
                    }
                    let operands = rebuilder.operands(id).to_vec();
                    let origin = graph.node(id).origin.clone();
                    let mut smaller = Smaller::new(scan, operands, &used);
                    let values = smaller.build(&mut rebuilder, &origin)?;
                    if let Some(first) = values[0] {
                        rebuilder.replace(id, first);
                    }
                    results.insert(id, values);
                }
                Op::ResultOf(r) => match results.get(&graph.operands(id)[0]) {
                    Some(values) => {
                        if let Some(value) = values[r.index] {
                            rebuilder.replace(id, value);
                        }
                    }
                    None => {
                        rebuilder.keep(id);
                    }
                },
                _ => {
                    rebuilder.keep(id);
                }
            }
        }
        Ok(rebuilder.finish())
    }
}

/// What a node of a body depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// The same in every step.
    Constant,
    /// On the step.
    Step,
}

/// A scan on the way to a smaller one. Nodes are those of the old body, operands new nodes around it.
struct Smaller<'a> {
    scan: &'a Scan,
    body: &'a Function,
    /// By input of the body.
    operands: Vec<NodeId>,
    /// Outputs that are computed in the loop, by number.
    live: Vec<bool>,
    /// Carries that never change.
    fixed: Vec<bool>,
    class: Vec<Class>,
}

impl<'a> Smaller<'a> {
    fn new(scan: &'a Scan, operands: Vec<NodeId>, used: &[bool]) -> Self {
        let body = scan.body.function();
        let fixed = (0..scan.carries).map(|i| body.outputs[i].node == body.inputs[i]).collect();
        let mut s = Self { scan, body, operands, live: used.to_vec(), fixed, class: Vec::new() };
        s.live_carries();
        s.classify();
        s
    }

    /// Carries that what is live needs are live.
    fn live_carries(&mut self) {
        for i in 0..self.scan.carries {
            self.live[i] &= !self.fixed[i];
        }
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        let mut open: Vec<NodeId> = self.live_outputs();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            open.extend(self.body.graph.operands(id));
            if let Some(i) = self.body.inputs[..self.scan.carries].iter().position(|&c| c == id)
                && !self.live[i]
                && !self.fixed[i]
            {
                self.live[i] = true;
                open.push(self.body.outputs[i].node);
            }
        }
    }

    fn live_outputs(&self) -> Vec<NodeId> {
        let outputs = self.body.outputs.iter().zip(&self.live);
        outputs.filter(|(_, live)| **live).map(|(o, _)| o.node).collect()
    }

    fn classify(&mut self) {
        let (carries, sequences) = (self.scan.carries, self.scan.sequences);
        let mut class = vec![Class::Constant; self.body.graph.len()];
        for (i, &id) in self.body.inputs.iter().enumerate() {
            let constant =
                i >= carries + sequences || self.fixed.get(i) == Some(&true) || fault!(25) && i < carries;
            class[id.index()] = if constant { Class::Constant } else { Class::Step };
        }
        for id in self.body.graph.ids() {
            // What can fail, or has regions that can, must not in a loop without steps.
            let op = self.body.graph.op(id);
            let can_fail = matches!(
                op,
                Op::Gather(_)
                    | Op::Scatter(_)
                    | Op::DynamicSlice(_)
                    | Op::DynamicUpdateSlice(_)
                    | Op::CheckIndex(_)
            );
            if can_fail || !op.regions().is_empty() {
                class[id.index()] = Class::Step;
            }
            for o in self.body.graph.operands(id) {
                class[id.index()] = class[id.index()].max(class[o.index()]);
            }
        }
        self.class = class;
    }

    fn is_constant(&self, id: NodeId) -> bool {
        self.class[id.index()] == Class::Constant
    }

    /// A product of an element of a sequence, the left factor, with a constant.
    fn product_of_element(&self, id: NodeId) -> Option<(usize, &DotGeneral)> {
        let (d, [element, factor]) = self.product(id)?;
        let (carries, sequences) = (self.scan.carries, self.scan.sequences);
        let at = self.body.inputs[carries..carries + sequences].iter().position(|&s| s == element)?;
        (self.is_constant(factor) && !self.takes_more(id, element)).then_some((carries + at, d))
    }

    fn product(&self, id: NodeId) -> Option<(&DotGeneral, [NodeId; 2])> {
        let Op::DotGeneral(d) = self.body.graph.op(id) else { return None };
        let operands = self.body.graph.operands(id);
        d.lhs_batch.is_empty().then(|| (d, [operands[0], operands[1]]))
    }

    /// Whether the loop is there to take less memory, and would take much more if `kept` were kept of all steps, and not `instead`.
    fn takes_more(&self, kept: NodeId, instead: NodeId) -> bool {
        let elements = |id: NodeId| self.body.graph.ty(id).shape.num_elements().unwrap_or(0);
        self.scan.recompute && elements(kept) > MORE * elements(instead)
    }

    /// The node around the loop that has the value of a constant node of the body.
    fn outside(
        &self,
        id: NodeId,
        rebuilder: &mut Rebuilder<'_>,
        moved: &mut FxHashMap<NodeId, NodeId>,
    ) -> Result<NodeId, CompileError> {
        if let Some(&known) = moved.get(&id) {
            return Ok(known);
        }
        let new = match self.body.inputs.iter().position(|&i| i == id) {
            Some(i) => self.operands[i],
            None => {
                let mut operands = Vec::new();
                for o in self.body.graph.operands(id) {
                    operands.push(self.outside(o, rebuilder, moved)?);
                }
                let node = self.body.graph.node(id);
                rebuilder.push(node.op.clone(), &operands, &node.origin)?
            }
        };
        moved.insert(id, new);
        Ok(new)
    }

    /// Appends the smaller loop and what has been moved out; gives the new node of each result that is
    /// used.
    fn build(
        &mut self,
        rebuilder: &mut Rebuilder<'_>,
        origin: &Origin,
    ) -> Result<Vec<Option<NodeId>>, CompileError> {
        let (carries, sequences) = (self.scan.carries, self.scan.sequences);
        let mut values: Vec<Option<NodeId>> = vec![None; self.body.outputs.len()];
        for i in (0..carries).filter(|&i| self.fixed[i]) {
            values[i] = Some(self.operands[i]);
        }
        // Stacked products are replaced by their left factor, and multiplied afterwards.
        let mut late: Vec<(usize, &DotGeneral)> = Vec::new();
        let mut outputs: Vec<(usize, NodeId)> = Vec::new();
        // What is stacked again, with the output that stacks it already.
        let mut repeated: Vec<(usize, usize)> = Vec::new();
        for i in (0..self.body.outputs.len()).filter(|&i| self.live[i]) {
            let mut node = self.body.outputs[i].node;
            let once = self.body.graph.users(node).next().is_none()
                && self.body.outputs.iter().filter(|o| o.node == node).count() == 1;
            if let Some((d, [factor, constant])) = self.product(node)
                && i >= carries
                && once
                && self.is_constant(constant)
                && !self.takes_more(factor, node)
            {
                late.push((i, d));
                node = factor;
            }
            match outputs.iter().find(|o| o.0.min(i) >= carries && o.1 == node) {
                Some(&(earlier, _)) => repeated.push((i, earlier)),
                None => outputs.push((i, node)),
            }
        }
        let needed = self.needed(&outputs);
        let mut moved: FxHashMap<NodeId, NodeId> = FxHashMap::default();

        let live_carries: Vec<usize> = (0..carries).filter(|&i| self.live[i]).collect();
        let mut inputs: Vec<NodeId> = live_carries.iter().map(|&i| self.body.inputs[i]).collect();
        let mut operands: Vec<NodeId> = live_carries.iter().map(|&i| self.operands[i]).collect();
        let mut aliases: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        // An operand that is given twice is one input.
        let mut given: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        let mut take = |id: NodeId, operand: NodeId, inputs: &mut Vec<NodeId>| match given.get(&operand) {
            Some(&same) => {
                aliases.insert(id, same);
                false
            }
            None => {
                given.insert(operand, id);
                inputs.push(id);
                true
            }
        };
        for &id in &needed {
            if let Some((at, d)) = self.product_of_element(id) {
                let factor = self.outside(self.body.graph.operands(id)[1], rebuilder, &mut moved)?;
                let lhs_contract = d.lhs_contract.iter().map(|a| a + 1).collect();
                let op = DotGeneral { lhs_contract, ..d.clone() };
                let all =
                    rebuilder.push(op, &[self.operands[at], factor], &self.body.graph.node(id).origin)?;
                if take(id, all, &mut inputs) {
                    operands.push(all);
                }
            }
        }
        for i in carries..carries + sequences {
            let id = self.body.inputs[i];
            if needed.contains(&id) && take(id, self.operands[i], &mut inputs) {
                operands.push(self.operands[i]);
            }
        }
        let new_sequences = inputs.len() - live_carries.len();
        given.clear();
        let mut constants: Vec<NodeId> = Vec::new();
        for &id in
            needed.iter().filter(|&&id| self.is_constant(id) && self.is_boundary(id, &needed, &outputs))
        {
            let operand = self.outside(id, rebuilder, &mut moved)?;
            match given.get(&operand) {
                Some(&same) => {
                    aliases.insert(id, same);
                }
                None => {
                    given.insert(operand, id);
                    inputs.push(id);
                    constants.push(operand);
                }
            }
        }
        operands.extend(constants);

        if !outputs.is_empty() {
            let nodes: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
            let body = extract(self.body, &inputs, &aliases, &nodes);
            let scan = Scan {
                body: Region::new(body),
                carries: live_carries.len(),
                sequences: new_sequences,
                ..self.scan.clone()
            };
            let types: Vec<TensorType> = operands.iter().map(|&o| rebuilder.graph().ty(o).clone()).collect();
            let types = scan.results(&types)?;
            let first = rebuilder.push(scan, &operands, origin)?;
            let results = push_results(rebuilder, first, &types, origin)?;
            for ((i, _), result) in outputs.into_iter().zip(results) {
                values[i] = Some(result);
            }
        }
        for (i, earlier) in repeated {
            values[i] = values[earlier];
        }
        for (i, d) in late {
            let [_, factor] = self.product(self.body.outputs[i].node).expect("it is a product").1;
            let factor = self.outside(factor, rebuilder, &mut moved)?;
            let lhs_contract = d.lhs_contract.iter().map(|a| a + 1).collect();
            let stacked = values[i].expect("it has been stacked");
            let op = DotGeneral { lhs_contract, ..d.clone() };
            values[i] = Some(rebuilder.push(op, &[stacked, factor], origin)?);
        }
        Ok(values)
    }

    /// Nodes that the outputs need, but not what only moved products do.
    fn needed(&self, outputs: &[(usize, NodeId)]) -> BTreeSet<NodeId> {
        let mut needed: BTreeSet<NodeId> = BTreeSet::new();
        let mut open: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
        while let Some(id) = open.pop() {
            if needed.insert(id) && self.product_of_element(id).is_none() {
                open.extend(self.body.graph.operands(id));
            }
        }
        needed
    }

    /// Whether a constant node becomes an input of the body: an input it is, or an operation that costs
    /// something, needed by something that stays in the body.
    fn is_boundary(&self, id: NodeId, needed: &BTreeSet<NodeId>, outputs: &[(usize, NodeId)]) -> bool {
        let op = self.body.graph.op(id);
        if matches!(op, Op::Constant(_)) {
            return false;
        }
        let stays = |user: NodeId| {
            needed.contains(&user)
                && self.product_of_element(user).is_none()
                && (!self.is_constant(user) || is_free(self.body.graph.op(user)))
        };
        let wanted =
            self.body.graph.users(id).any(|(user, _)| stays(user)) || outputs.iter().any(|o| o.1 == id);
        wanted && !is_free(op)
    }
}

/// True for operations that are cheaper to do in every step than to read the result of.
fn is_free(op: &Op) -> bool {
    matches!(op, Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Constant(_) | Op::Iota(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{assert_same_results, function};
    use crate::{passes::Dce, run_passes};
    use graphc_ir::{DType, ScanOptions};

    fn moved(f: &Function) -> (Function, Function) {
        let (after, _) = run_passes(f, &[&Dce, &MoveOut, &Dce], &Default::default()).unwrap();
        assert_same_results(f, &after, 8);
        let body = after
            .graph
            .ids()
            .find_map(|id| match after.graph.op(id) {
                Op::Scan(s) => Some(s.body.function().clone()),
                _ => None,
            })
            .expect("a scan is left");
        (after, body)
    }

    fn count(f: &Function, name: &str) -> usize {
        f.graph.ids().filter(|&id| f.graph.op(id).name() == name).count()
    }

    #[test]
    fn input_projections_become_one_product() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [5, 2, 3]);
            let h = f.input("h", DType::F32, [2, 4]);
            let w = f.input("w", DType::F32, [3, 4]);
            let u = f.input("u", DType::F32, [4, 4]);
            let s = f.scan(&[h], &[x], |_, h, x| {
                let h = (x[0].dot(w) + h[0].dot(u) * 2.0).tanh();
                (vec![h], vec![h.dot(u)])
            });
            f.output("h", s.carries[0]);
            f.output("y", s.stacked[0]);
        });
        let (after, body) = moved(&f);
        // One before the loop, one in it, one after it.
        assert_eq!((count(&after, "dot_general"), count(&body, "dot_general")), (2, 1));
    }

    #[test]
    fn a_loop_that_computes_again_keeps_nothing_large_of_all_steps() {
        let products = |save_every: usize, wide: usize| {
            let f = function(|f| {
                let x = f.input("x", DType::F32, [5, 2, 3]);
                let h = f.input("h", DType::F32, [2]);
                let w = f.input("w", DType::F32, [3, wide]);
                let v = f.input("v", DType::F32, [wide, 3]);
                let options = ScanOptions { save_every, ..ScanOptions::default() };
                let s = f.scan_with(&options, &[h], &[x], |_, h, x| {
                    let y = x[0].dot(w).exp();
                    (vec![h[0] + y.reduce_sum(&[1])], vec![y.dot(v)])
                });
                f.output("h", s.carries[0]);
                f.output("y", s.stacked[0]);
            });
            let (after, body) = moved(&f);
            (count(&after, "dot_general"), count(&body, "dot_general"))
        };
        assert_eq!(products(0, 50), (2, 0));
        assert_eq!(products(1, 12), (2, 0));
        assert_eq!(products(1, 13), (0, 2));
    }

    #[test]
    fn what_is_the_same_in_every_step_is_computed_once() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [5, 3]);
            let a = f.input("a", DType::F32, [3]);
            let s = f.scan(&[a], &[x], |_, h, x| (vec![h[0] * x[0] + a.exp().sin()], vec![x[0] + a]));
            f.output("h", s.carries[0]);
        });
        let (after, body) = moved(&f);
        assert_eq!((count(&after, "exp"), count(&body, "exp"), count(&body, "sin")), (1, 0, 0));
        assert_eq!(body.outputs.len(), 1);
    }

    #[test]
    fn what_is_stacked_twice_is_stacked_once() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [5, 3]);
            let a = f.input("a", DType::F32, [3]);
            let s = f.scan(&[a], &[x], |_, h, x| {
                let next = h[0] * x[0];
                (vec![next], vec![next, h[0], next])
            });
            (0..3).for_each(|i| f.output(&format!("y{i}"), s.stacked[i]));
        });
        let (after, body) = moved(&f);
        // The carry, and two different values to stack.
        assert_eq!((body.outputs.len(), after.outputs[0].node), (3, after.outputs[2].node));
    }

    #[test]
    fn carries_that_nothing_needs_or_changes_go() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [5, 3]);
            let a = f.input("a", DType::F32, [3]);
            let s = f.scan(&[a, a, a], &[x, x], |_, c, x| {
                (vec![c[0] + x[0] * c[1] * x[1], c[1], c[2] * 2.0], vec![])
            });
            f.output("h", s.carries[0]);
            f.output("same", s.carries[1]);
        });
        let (_, body) = moved(&f);
        // One carry, one sequence, one constant.
        assert_eq!((body.inputs.len(), body.outputs.len()), (3, 1));
    }
}
