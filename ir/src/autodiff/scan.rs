//! The gradient of `scan`: back-propagation through time as a `scan` in the other direction.
//!
//! The body and its gradient are first built as one function, the *joint* function. Its forward part is
//! the body; what its backward part reads of that is saved: the forward scan is declared a second
//! time, with those values stacked (the compiler makes one of both). The backward part becomes the
//! body of the backward scan.

use super::regions::copy_nodes;
use super::vjp;
use crate::builder::{FunctionBuilder, Tensor};
use crate::graph::{Graph, NodeId};
use crate::ops::{DotGeneral, Op, ReduceSum, Scan, VjpCx};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Cotangents of the operands of a `scan`, see [`crate::ops::OpDef::vjp_of_results`].
pub(crate) fn scan_vjp<'f>(
    scan: &Scan,
    cx: &VjpCx<'_, 'f>,
    cts: &[Option<Tensor<'f>>],
) -> Vec<Option<Tensor<'f>>> {
    let f = cx.result.builder();
    let joint = Joint::new(f, scan, cts);
    if joint.gradients.iter().flatten().any(|t| t.is_poison()) {
        return vec![Some(f.poison()); cx.operands.len()];
    }
    let graph = joint.builder.with_graph(Graph::clone);
    let split = Split::new(scan, &joint, &graph);
    Backward { f, scan, cx, cts, joint: &joint, graph: &graph, split: &split }.build()
}

/// The body of a scan and its gradient as one function.
struct Joint<'f> {
    builder: &'f FunctionBuilder,
    /// Inputs of the body.
    inputs: Vec<NodeId>,
    /// For each output of the body its cotangent, if it has one.
    cotangents: Vec<Option<NodeId>>,
    /// For each input of the body its cotangent, if it is a float.
    gradients: Vec<Option<Tensor<'f>>>,
    /// Outputs of the body.
    outputs: Vec<NodeId>,
    /// Number of nodes of the forward part.
    forward: usize,
}

impl<'f> Joint<'f> {
    fn new(f: &'f FunctionBuilder, scan: &Scan, cts: &[Option<Tensor<'f>>]) -> Self {
        let b = f.closure("joint");
        let body = scan.body.function();
        let inputs: Vec<Tensor<'f>> = scan.body.inputs().map(|ty| b.argument("x", ty.clone())).collect();
        let mut map: HashMap<NodeId, Tensor<'f>> =
            body.inputs.iter().copied().zip(inputs.iter().copied()).collect();
        copy_nodes(b, &body.graph, body.graph.ids(), &mut map);
        let forward = b.with_graph(Graph::len);
        let outputs: Vec<Tensor<'f>> = body.outputs.iter().map(|o| map[&o.node]).collect();
        // The cotangent of a carry may be non-zero even if that of the last one is zero.
        let given = |i: usize| i < scan.carries || cts.get(i).is_some_and(Option::is_some);
        let cotangent = |(i, y): (usize, &Tensor<'f>)| {
            (y.dtype().is_float() && given(i)).then(|| b.argument("ct", y.ty()))
        };
        let cotangents: Vec<Option<Tensor<'f>>> = outputs.iter().enumerate().map(cotangent).collect();
        let pairs: Vec<(Tensor<'f>, Tensor<'f>)> =
            outputs.iter().zip(&cotangents).filter_map(|(&y, ct)| Some((y, (*ct)?))).collect();
        let floats: Vec<Tensor<'f>> = inputs.iter().copied().filter(|t| t.dtype().is_float()).collect();
        let mut known = vjp(&pairs, &floats).into_iter();
        let gradients =
            inputs.iter().map(|t| if t.dtype().is_float() { known.next() } else { None }).collect();
        let id = |t: &Tensor<'f>| t.id();
        Self {
            builder: b,
            inputs: inputs.iter().filter_map(id).collect(),
            cotangents: cotangents.iter().map(|ct| ct.and_then(|t| t.id())).collect(),
            gradients,
            outputs: outputs.iter().filter_map(id).collect(),
            forward,
        }
    }

    fn is_forward(&self, id: NodeId) -> bool {
        id.index() < self.forward
    }

    fn is_input(&self, id: NodeId, of: std::ops::Range<usize>) -> bool {
        self.inputs[of].contains(&id)
    }
}

/// A term of the cotangent of a constant operand that is computed once after the loop, from stacked
/// values.
enum Term {
    /// A product of stacked values, then transposed.
    Product { lhs: NodeId, rhs: NodeId, dims: DotGeneral, transposes: Vec<Vec<usize>> },
    /// A sum over axes, then transposed.
    Sum { of: NodeId, axes: Vec<usize>, transposes: Vec<Vec<usize>> },
}

/// Which nodes of the joint function go where.
struct Split {
    /// Forward nodes whose values are saved, step by step.
    saved: Vec<NodeId>,
    /// All nodes of the backward body but its inputs, in order.
    nodes: Vec<NodeId>,
    /// Inputs of the body that the backward body reads.
    reads: BTreeSet<NodeId>,
    /// For each input of the body: terms of its cotangent that are left to the end.
    late: Vec<Vec<Term>>,
    /// For each input of the body: terms that the backward body adds up.
    early: Vec<Vec<NodeId>>,
}

impl Split {
    fn new(scan: &Scan, joint: &Joint<'_>, graph: &Graph) -> Self {
        let first_constant = scan.carries + scan.sequences;
        let mut late: Vec<Vec<Term>> = Vec::new();
        let mut early: Vec<Vec<NodeId>> = Vec::new();
        for (i, gradient) in joint.gradients.iter().enumerate() {
            let (mut after, mut within) = (Vec::new(), Vec::new());
            if let Some(id) = gradient.and_then(|t| t.id()) {
                if i < first_constant {
                    within.push(id);
                } else {
                    terms(graph, joint, id, scan.recompute, &mut after, &mut within);
                }
            }
            late.push(after);
            early.push(within);
        }
        let operands = |term: &Term| match term {
            Term::Product { lhs, rhs, .. } => vec![*lhs, *rhs],
            Term::Sum { of, .. } => vec![*of],
        };
        let roots = early.iter().flatten().copied().chain(late.iter().flatten().flat_map(operands));
        let mut split = Self {
            saved: Vec::new(),
            nodes: Vec::new(),
            reads: BTreeSet::new(),
            late: Vec::new(),
            early: Vec::new(),
        };
        split.place(scan, joint, graph, roots.collect());
        Self { late, early, ..split }
    }

    /// Decides for every node that `roots` need whether it is saved or computed in the backward body.
    fn place(&mut self, scan: &Scan, joint: &Joint<'_>, graph: &Graph, roots: Vec<NodeId>) {
        // Forward nodes that are the same in every step.
        let mut constant: HashSet<NodeId> =
            joint.inputs[scan.carries + scan.sequences..].iter().copied().collect();
        for id in graph.ids().take(joint.forward) {
            let is_input = matches!(graph.op(id), Op::Input(_));
            if !is_input && graph.operands(id).iter().all(|o| constant.contains(o)) {
                constant.insert(id);
            }
        }
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        let mut open = roots;
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if joint.is_input(id, 0..scan.carries) {
                self.saved.push(id);
            } else if matches!(graph.op(id), Op::Input(_)) {
                if joint.is_forward(id) {
                    self.reads.insert(id);
                }
            } else if joint.is_forward(id)
                && !scan.recompute
                && !constant.contains(&id)
                && !is_free(graph.op(id))
            {
                // A further result is saved by itself.
                self.saved.push(id);
            } else {
                self.nodes.push(id);
                open.extend(graph.operands(id));
            }
        }
        self.saved.sort();
        self.nodes.sort();
    }
}

/// True for operations that cost nothing to do again and whose operand is no larger than their result.
fn is_free(op: &Op) -> bool {
    matches!(op, Op::Broadcast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Constant(_) | Op::Iota(_))
}

/// Splits a cotangent into the terms of its sum: products and sums that can wait until after the
/// loop, and others.
fn terms(
    graph: &Graph,
    joint: &Joint<'_>,
    id: NodeId,
    all_within: bool,
    after: &mut Vec<Term>,
    within: &mut Vec<NodeId>,
) {
    if all_within || joint.is_forward(id) {
        within.push(id);
        return;
    }
    if let Op::Add(_) = graph.op(id) {
        for operand in graph.operands(id) {
            terms(graph, joint, operand, all_within, after, within);
        }
        return;
    }
    let (mut transposes, mut at) = (Vec::new(), id);
    while let (Op::Transpose(t), false) = (graph.op(at), joint.is_forward(at)) {
        transposes.push(t.permutation.clone());
        at = graph.operands(at)[0];
    }
    transposes.reverse();
    let operands = graph.operands(at);
    match graph.op(at) {
        _ if joint.is_forward(at) => within.push(id),
        Op::DotGeneral(d) if d.lhs_batch.is_empty() => {
            after.push(Term::Product { lhs: operands[0], rhs: operands[1], dims: d.clone(), transposes });
        }
        Op::ReduceSum(ReduceSum { axes }) => {
            after.push(Term::Sum { of: operands[0], axes: axes.clone(), transposes });
        }
        _ => within.push(id),
    }
}

/// Builds the two scans.
struct Backward<'a, 'f> {
    f: &'f FunctionBuilder,
    scan: &'a Scan,
    cx: &'a VjpCx<'a, 'f>,
    cts: &'a [Option<Tensor<'f>>],
    joint: &'a Joint<'f>,
    graph: &'a Graph,
    split: &'a Split,
}

impl<'f> Backward<'_, 'f> {
    fn build(&self) -> Vec<Option<Tensor<'f>>> {
        let poison = || vec![Some(self.f.poison()); self.cx.operands.len()];
        let Some(saved) = self.saved() else { return poison() };
        // Stacked values by node of the joint function.
        let mut stacks: HashMap<NodeId, Tensor<'f>> = self.split.saved.iter().copied().zip(saved).collect();
        let elements = self.scan.carries..self.scan.carries + self.scan.sequences;
        for i in elements.clone() {
            stacks.insert(self.joint.inputs[i], self.cx.operands[i]);
        }
        for (i, ct) in self.joint.cotangents.iter().enumerate().skip(self.scan.carries) {
            if let (Some(id), Some(&Some(ct))) = (ct, self.cts.get(i)) {
                stacks.insert(*id, ct);
            }
        }

        let b = self.f.closure("backward");
        let mut map: HashMap<NodeId, Tensor<'f>> = HashMap::new();
        let argument = |id: NodeId| b.argument("x", self.graph.ty(id).clone());
        // Carries: cotangents of the carries, sums of the cotangents of constants.
        let (mut init, mut next) = (Vec::new(), Vec::new());
        for i in (0..self.scan.carries).filter(|&i| self.joint.gradients[i].is_some()) {
            let ct = self.joint.cotangents[i].expect("a float carry has a cotangent");
            map.insert(ct, argument(ct));
            init.push(self.cts.get(i).copied().flatten().unwrap_or_else(|| self.zeros(ct)));
        }
        let summed: Vec<usize> =
            (elements.end..self.joint.inputs.len()).filter(|&i| !self.split.early[i].is_empty()).collect();
        let sums: Vec<Tensor<'f>> = summed.iter().map(|&i| argument(self.joint.inputs[i])).collect();
        init.extend(summed.iter().map(|&i| self.zeros(self.joint.inputs[i])));
        // Sequences: cotangents of what was stacked, saved values, elements that are read.
        let mut sequences = Vec::new();
        let stacked = self.joint.cotangents.iter().skip(self.scan.carries).flatten().copied();
        let read =
            self.joint.inputs[elements.clone()].iter().copied().filter(|id| self.split.reads.contains(id));
        for id in stacked.chain(self.split.saved.iter().copied()).chain(read) {
            map.insert(id, argument(id));
            sequences.push(stacks[&id]);
        }
        let mut constants = Vec::new();
        for i in elements.end..self.joint.inputs.len() {
            let id = self.joint.inputs[i];
            if self.split.reads.contains(&id) {
                map.insert(id, argument(id));
                constants.push(self.cx.operands[i]);
            }
        }
        copy_nodes(b, self.graph, self.split.nodes.iter().copied(), &mut map);

        for i in (0..self.scan.carries).filter(|&i| self.joint.gradients[i].is_some()) {
            next.push(map[&self.split.early[i][0]]);
        }
        for (&i, &sum) in summed.iter().zip(&sums) {
            next.push(self.split.early[i].iter().fold(sum, |sum, id| sum + map[id]));
        }
        let carries = next.len();
        let mut outputs = next;
        for i in elements.clone().filter(|&i| self.joint.gradients[i].is_some()) {
            outputs.push(map[&self.split.early[i][0]]);
        }
        // Factors of late terms that no stack has yet.
        let mut made: Vec<NodeId> = Vec::new();
        for term in self.split.late.iter().flatten() {
            let factors = match term {
                Term::Product { lhs, rhs, .. } => vec![*lhs, *rhs],
                Term::Sum { of, .. } => vec![*of],
            };
            for id in factors {
                if !stacks.contains_key(&id) && !made.contains(&id) {
                    made.push(id);
                    outputs.push(map[&id]);
                }
            }
        }
        if outputs.is_empty() {
            return vec![None; self.cx.operands.len()];
        }
        let Some(body) = b.finish(&outputs) else { return poison() };
        let backward = Scan {
            body,
            length: self.scan.length.clone(),
            carries,
            sequences: sequences.len(),
            reverse: !self.scan.reverse,
            recompute: self.scan.recompute,
        };
        let mut results = self.f.push_all(backward, &[init, sequences, constants].concat()).into_iter();
        if results.len() == 0 {
            return poison();
        }

        let mut cotangents: Vec<Option<Tensor<'f>>> = vec![None; self.cx.operands.len()];
        for i in (0..self.scan.carries).filter(|&i| self.joint.gradients[i].is_some()) {
            cotangents[i] = results.next();
        }
        for &i in &summed {
            cotangents[i] = results.next();
        }
        for i in elements.clone().filter(|&i| self.joint.gradients[i].is_some()) {
            cotangents[i] = results.next();
        }
        stacks.extend(made.into_iter().zip(results));
        for (cotangent, late) in cotangents.iter_mut().zip(&self.split.late) {
            for term in late {
                let value = term.evaluate(&stacks);
                *cotangent = Some(cotangent.map_or(value, |sum| sum + value));
            }
        }
        cotangents
    }

    fn zeros(&self, id: NodeId) -> Tensor<'f> {
        let ty = self.graph.ty(id);
        self.f.full(ty.dtype, ty.shape.clone(), 0.0)
    }

    /// Stacks of the saved values, by a scan like the one that is differentiated.
    fn saved(&self) -> Option<Vec<Tensor<'f>>> {
        if self.split.saved.is_empty() {
            return Some(Vec::new());
        }
        let b = self.f.closure("saving");
        let mut map: HashMap<NodeId, Tensor<'f>> = HashMap::new();
        for &id in &self.joint.inputs {
            map.insert(id, b.argument("x", self.graph.ty(id).clone()));
        }
        copy_nodes(b, self.graph, self.graph.ids().take(self.joint.forward), &mut map);
        let outputs = self.joint.outputs.iter().chain(&self.split.saved);
        let body = b.finish(&outputs.map(|id| map[id]).collect::<Vec<_>>())?;
        let results = self.f.push_all(Scan { body, ..self.scan.clone() }, self.cx.operands);
        (!results.is_empty()).then(|| results[self.joint.outputs.len()..].to_vec())
    }
}

impl Term {
    /// The term summed over the steps, from stacks of its factors.
    fn evaluate<'f>(&self, stacks: &HashMap<NodeId, Tensor<'f>>) -> Tensor<'f> {
        let (value, transposes) = match self {
            Self::Product { lhs, rhs, dims, transposes } => {
                let later = |axes: &[usize]| -> Vec<usize> {
                    std::iter::once(0).chain(axes.iter().map(|a| a + 1)).collect()
                };
                let (lhs, rhs) = (stacks[lhs], stacks[rhs]);
                let dims = DotGeneral {
                    lhs_batch: Vec::new(),
                    rhs_batch: Vec::new(),
                    lhs_contract: later(&dims.lhs_contract),
                    rhs_contract: later(&dims.rhs_contract),
                };
                (lhs.builder().push(dims, &[lhs, rhs]), transposes)
            }
            Self::Sum { of, axes, transposes } => {
                let axes: Vec<usize> = std::iter::once(0).chain(axes.iter().map(|a| a + 1)).collect();
                (stacks[of].reduce_sum(&axes), transposes)
            }
        };
        transposes.iter().fold(value, |value, permutation| value.transpose(permutation))
    }
}
