//! Shrinks a module while it keeps a property, such as a difference between interpreter and generated
//! code: to the few nodes that show it.
//!
//! Edits are tried from coarse to fine, again and again, until none is accepted: fewer functions,
//! outputs, updates and state; results nearer to the inputs; runs of nodes cut off by inputs of their
//! own (first half of the nodes at once, then quarters, .. as in delta debugging, Zeller and Hildebrandt
//! 2002); nodes replaced by operands; regions likewise; smaller extents. Nothing is random: the same module
//! and property give the same result.

use crate::compiler::{Rebuilder, remove_dead};
use crate::ir::ops::{Constant, Input};
use crate::ir::{NodeId, Op, Origin, Output, Region, StateId, Update, verify};
use crate::{Dim, Function, Literal, Module, Shape, TensorType};
use graphc_ir::Scalar;
use std::collections::BTreeSet;

/// The smallest module that was found to be valid and to have the property `fails`, which `module` has.
/// `fails` is asked about valid modules only, and must give the same answer for the same module.
pub fn reduce(module: &Module, fails: &mut dyn FnMut(&Module) -> bool) -> Module {
    let mut search = Search { best: module.clone(), fails };
    loop {
        let before = size(&search.best);
        search.drop_functions();
        for f in 0..search.best.functions.len() {
            search.function(f);
        }
        search.drop_state();
        if size(&search.best) >= before {
            return search.best;
        }
    }
}

/// What is to become small; the first numbers count most.
fn size(m: &Module) -> (usize, usize, usize, usize) {
    let nodes = m.functions.iter().map(nodes).sum();
    let results = m.functions.iter().map(|f| f.outputs.len() + f.updates.len() + f.inputs.len()).sum();
    let elements = m.functions.iter().map(elements).sum();
    (m.functions.len() + m.state.len(), nodes, results, elements)
}

/// Nodes of a function, those of its regions included.
pub fn nodes(f: &Function) -> usize {
    let inner = |id| f.graph.op(id).regions().into_iter().map(Region::nodes).sum::<usize>();
    f.graph.ids().map(|id| 1 + inner(id)).sum()
}

/// Sum of the extents of all nodes.
fn elements(f: &Function) -> usize {
    let extents = |id| f.graph.ty(id).shape.as_static().unwrap_or_default().iter().sum::<usize>();
    let inner = |id| f.graph.op(id).regions().into_iter().map(|r| elements(r.function())).sum::<usize>();
    f.graph.ids().map(|id| extents(id) + inner(id)).sum()
}

struct Search<'a> {
    best: Module,
    fails: &'a mut dyn FnMut(&Module) -> bool,
}

impl Search<'_> {
    /// Takes a candidate if it is smaller, valid, and has the property.
    fn offer(&mut self, candidate: Module) -> bool {
        let good =
            size(&candidate) < size(&self.best) && verify(&candidate).is_ok() && (self.fails)(&candidate);
        if good {
            self.best = candidate;
        }
        good
    }

    /// Offers the module with function `i` replaced.
    fn offer_function(&mut self, i: usize, f: Function) -> bool {
        let mut candidate = self.best.clone();
        candidate.functions[i] = tidy(&f);
        self.offer(candidate)
    }

    fn drop_functions(&mut self) {
        let mut i = self.best.functions.len();
        while i > 0 && self.best.functions.len() > 1 {
            i -= 1;
            let mut candidate = self.best.clone();
            candidate.functions.remove(i);
            self.offer(candidate);
        }
    }

    fn drop_state(&mut self) {
        for i in (0..self.best.state.len()).rev() {
            if let Some(candidate) = without_state(&self.best, StateId(i as u32)) {
                self.offer(candidate);
            }
        }
    }

    fn function(&mut self, i: usize) {
        self.results(i);
        self.results_nearer(i);
        self.cut(i);
        self.bypass(i);
        self.regions(i);
        self.extents(i);
    }

    /// Drops outputs and updates: first all but one, then each.
    fn results(&mut self, i: usize) {
        let f = self.best.functions[i].clone();
        for o in &f.outputs {
            if f.outputs.len() + f.updates.len() > 1 {
                let f = Function { outputs: vec![o.clone()], updates: Vec::new(), ..f.clone() };
                if self.offer_function(i, f) {
                    return;
                }
            }
        }
        for n in (0..f.outputs.len()).rev() {
            let mut f = self.best.functions[i].clone();
            f.outputs.remove(n);
            self.offer_function(i, f);
        }
        for n in (0..f.updates.len()).rev() {
            let mut f = self.best.functions[i].clone();
            f.updates.remove(n);
            self.offer_function(i, f);
        }
    }

    /// Makes an operand of an output's node the output instead, as long as that is accepted.
    fn results_nearer(&mut self, i: usize) {
        for n in 0..self.best.functions[i].outputs.len() {
            let mut accepted = true;
            while accepted {
                let f = self.best.functions[i].clone();
                let operands = f.graph.operands(f.outputs[n].node);
                accepted = operands.into_iter().any(|node| {
                    let mut f = f.clone();
                    f.outputs[n].node = node;
                    self.offer_function(i, f)
                });
            }
        }
    }

    /// Replaces runs of nodes by inputs: long runs first.
    fn cut(&mut self, i: usize) {
        let mut run = self.best.functions[i].graph.len().div_ceil(2);
        while run > 0 {
            let mut begin = 0;
            while begin < self.best.functions[i].graph.len() {
                let f = &self.best.functions[i];
                let edited = edit(f, |id| match f.graph.op(id) {
                    Op::Input(_) => Edit::Keep,
                    _ if (begin..begin + run).contains(&id.index()) => Edit::Input,
                    _ => Edit::Keep,
                });
                // After a cut the nodes that are left have moved here.
                if !self.offer_function(i, edited) {
                    begin += run;
                }
            }
            run /= 2;
        }
    }

    /// Replaces nodes by operands of the same type, from the last to the first.
    fn bypass(&mut self, i: usize) {
        let mut at = self.best.functions[i].graph.len();
        while at > 0 {
            at -= 1;
            let f = self.best.functions[i].clone();
            let Some(id) = f.graph.ids().nth(at) else { continue };
            for operand in f.graph.operands(id) {
                if f.graph.ty(operand) == f.graph.ty(id) {
                    let edited = edit(&f, |node| if node == id { Edit::Same(operand) } else { Edit::Keep });
                    if self.offer_function(i, edited) {
                        break;
                    }
                }
            }
        }
    }

    /// Replaces nodes within regions by operands or zeros: the interface of a region stays.
    fn regions(&mut self, i: usize) {
        let mut at = self.best.functions[i].graph.len();
        while at > 0 {
            at -= 1;
            let f = self.best.functions[i].clone();
            let Some(id) = f.graph.ids().nth(at) else { continue };
            for r in 0..f.graph.op(id).regions().len() {
                let n = f.graph.op(id).regions()[r].function().graph.len();
                for inner in (0..n).rev() {
                    self.region_node(i, id, r, inner);
                }
            }
        }
    }

    /// Tries to simplify node number `at` of region `r` of node `id`.
    fn region_node(&mut self, i: usize, id: NodeId, r: usize, at: usize) {
        let f = self.best.functions[i].clone();
        let op = f.graph.op(id);
        // Another step of such a loop might never end it.
        if matches!(op, Op::While(_)) {
            return;
        }
        let Some(region) = op.regions().get(r).map(|r| r.function().clone()) else { return };
        let Some(inner) = region.graph.ids().nth(at) else { return };
        if matches!(region.graph.op(inner), Op::Input(_) | Op::Constant(_)) {
            return;
        }
        let ty = region.graph.ty(inner);
        let operands = region.graph.operands(inner).into_iter().filter(|&o| region.graph.ty(o) == ty);
        for replacement in operands.map(Edit::Same).chain([Edit::Zero]) {
            let edited = remove_dead(&edit(&region, |n| if n == inner { replacement } else { Edit::Keep }));
            let mut op = op.clone();
            *op.regions_mut()[r] = Region::new(edited);
            let mut rebuilder = Rebuilder::new(&f);
            for n in f.graph.ids() {
                if n == id {
                    let operands = rebuilder.operands(n);
                    match rebuilder.push(op.clone(), &operands, &f.graph.node(n).origin) {
                        Ok(new) => rebuilder.replace(n, new),
                        Err(_) => return,
                    }
                } else {
                    rebuilder.keep(n);
                }
            }
            if self.offer_function(i, rebuilder.finish()) {
                return;
            }
        }
    }

    /// Makes extents smaller: all that are equal, wherever they occur, become another number.
    fn extents(&mut self, i: usize) {
        let f = &self.best.functions[i];
        let mut extents = BTreeSet::new();
        f.visit_dims(&mut |d| extents.extend(d.as_const()));
        for from in extents.into_iter().rev().filter(|&e| e > 1) {
            for to in [1, 2, 3, from / 2, from - 1] {
                if to < from
                    && let Some(candidate) = with_extent(&self.best, i, from, to)
                    && self.offer(candidate)
                {
                    break;
                }
            }
        }
    }
}

/// What becomes of a node.
#[derive(Clone, Copy)]
enum Edit {
    Keep,
    /// This operand stands for it.
    Same(NodeId),
    /// A new input.
    Input,
    /// A constant without an element that is not zero.
    Zero,
}

/// The function with every node edited. A result may be invalid: it is verified before it is used.
fn edit(f: &Function, mut choose: impl FnMut(NodeId) -> Edit) -> Function {
    let mut out = Function { graph: Default::default(), ..f.clone() };
    let mut map: Vec<NodeId> = Vec::with_capacity(f.graph.len());
    let mut inputs = Vec::new();
    for id in f.graph.ids() {
        let node = f.graph.node(id);
        // An input is found by its name, which must be no other's; the position makes it so.
        let push = |graph: &mut graphc_ir::Graph, op: Op, name: Option<String>| {
            let origin = Origin { name: name.map(Into::into), ..Origin::default() };
            graph.push(graphc_ir::Node { op, ty: node.ty.clone(), origin }, &[])
        };
        let new = match choose(id) {
            Edit::Keep => {
                let operands: Vec<NodeId> = f.graph.operands(id).iter().map(|o| map[o.index()]).collect();
                out.graph.push(node.clone(), &operands)
            }
            Edit::Same(operand) => map[operand.index()],
            Edit::Input => {
                let name = fresh_name(f, inputs.len());
                let new = push(&mut out.graph, Input { ty: node.ty.clone() }.into(), Some(name));
                inputs.push(new);
                new
            }
            Edit::Zero => {
                let dims = node.ty.shape.as_static().unwrap_or_default();
                let value = Literal::full(&dims, Scalar::from_bits(node.ty.dtype, 0));
                push(&mut out.graph, Constant { value }.into(), None)
            }
        };
        map.push(new);
    }
    out.inputs = f.inputs.iter().map(|i| map[i.index()]).chain(inputs).collect();
    out.outputs =
        f.outputs.iter().map(|o| Output { name: o.name.clone(), node: map[o.node.index()] }).collect();
    out.updates = f.updates.iter().map(|u| Update { value: map[u.value.index()], ..*u }).collect();
    out
}

/// The `n`th of the names `cut0`, `cut1`, .. that no node of the function has.
fn fresh_name(f: &Function, n: usize) -> String {
    let taken: BTreeSet<&str> =
        f.graph.ids().filter_map(|id| f.graph.node(id).origin.name.as_deref()).collect();
    let mut free = (0..).map(|i| format!("cut{i}")).filter(|name| !taken.contains(name.as_str()));
    free.nth(n).expect("the names do not end")
}

/// The function without what no result needs, inputs included.
fn tidy(f: &Function) -> Function {
    let mut f = remove_dead(f);
    let needed: BTreeSet<NodeId> =
        f.graph.ids().flat_map(|id| f.graph.operands(id)).chain(f.results()).collect();
    let unneeded: BTreeSet<NodeId> = f.inputs.iter().copied().filter(|i| !needed.contains(i)).collect();
    if unneeded.is_empty() {
        return f;
    }
    f.inputs.retain(|i| !unneeded.contains(i));
    let mut rebuilder = Rebuilder::new(&f);
    for id in f.graph.ids().filter(|id| !unneeded.contains(id)) {
        rebuilder.keep(id);
    }
    rebuilder.finish()
}

/// The module without a variable that no function reads or updates.
fn without_state(m: &Module, state: StateId) -> Option<Module> {
    let used = |f: &Function| f.reads().contains(&state) || f.updates.iter().any(|u| u.state == state);
    if m.functions.iter().any(used) {
        return None;
    }
    let moved = |id: StateId| if id > state { StateId(id.0 - 1) } else { id };
    let mut m = m.clone();
    m.state.remove(state.index());
    for f in &mut m.functions {
        let mut g = Function { graph: Default::default(), ..f.clone() };
        for id in f.graph.ids() {
            let mut node = f.graph.node(id).clone();
            if let Op::ReadState(r) = &mut node.op {
                r.state = moved(r.state);
            }
            g.graph.push(node, &f.graph.operands(id));
        }
        g.updates.iter_mut().for_each(|u| u.state = moved(u.state));
        *f = g;
    }
    Some(m)
}

/// The module with extent `to` for `from` throughout its state and function `i`; `None` if the shape rules
/// refuse it.
fn with_extent(m: &Module, i: usize, from: usize, to: usize) -> Option<Module> {
    let mut m = m.clone();
    for s in &mut m.state {
        s.ty.shape = shape_with(&s.ty.shape, from, to);
    }
    m.functions[i] = function_with(&m.functions[i], from, to)?;
    Some(m)
}

fn shape_with(shape: &Shape, from: usize, to: usize) -> Shape {
    shape.iter().map(|d| dim_with(d, from, to)).collect()
}

fn dim_with(d: &Dim, from: usize, to: usize) -> Dim {
    if d.as_const() == Some(from) { Dim::Const(to) } else { d.clone() }
}

fn function_with(f: &Function, from: usize, to: usize) -> Option<Function> {
    let mut out = Function { graph: Default::default(), ..f.clone() };
    for id in f.graph.ids() {
        let mut node = f.graph.node(id).clone();
        let ty = |ty: &TensorType| ty.with_shape(shape_with(&ty.shape, from, to));
        match &mut node.op {
            Op::Input(op) => op.ty = ty(&op.ty),
            Op::ReadState(_) => node.ty = ty(&node.ty),
            Op::ResultOf(op) => op.ty = ty(&op.ty),
            Op::Constant(op) => {
                let dims: Vec<usize> =
                    op.value.dims().iter().map(|&d| if d == from { to } else { d }).collect();
                let old = op.value.clone();
                op.value = Literal::from_fn(old.dtype(), &dims, |i| old.get(i % old.len().max(1)));
            }
            Op::Broadcast(op) => op.shape = shape_with(&op.shape, from, to),
            Op::Reshape(op) => op.shape = shape_with(&op.shape, from, to),
            Op::Iota(op) => op.shape = shape_with(&op.shape, from, to),
            Op::RngBits(op) => op.shape = shape_with(&op.shape, from, to),
            Op::DynamicSlice(op) => op.sizes = shape_with(&op.sizes, from, to),
            Op::Slice(op) => op.limits.iter_mut().for_each(|d| *d = dim_with(d, from, to)),
            Op::CheckIndex(op) => op.bound = dim_with(&op.bound, from, to),
            Op::Scan(op) => op.length = dim_with(&op.length, from, to),
            _ => {}
        }
        for region in node.op.regions_mut() {
            *region = Region::new(function_with(region.function(), from, to)?);
        }
        let operands = f.graph.operands(id);
        let types: Vec<TensorType> = operands.iter().map(|&o| out.graph.ty(o).clone()).collect();
        if !matches!(node.op, Op::ReadState(_)) {
            node.ty = node.op.infer(&types).ok()?;
        }
        out.graph.push(node, &operands);
    }
    Some(out)
}
