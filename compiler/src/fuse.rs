//! Fusion: from a graph to kernels.
//!
//! First it is decided which nodes are *realized*, that is stored in a buffer: results, reductions,
//! contractions and what several kernels would otherwise compute again. Each realized node begins
//! as a kernel of its own, whose expressions take in all unrealized nodes above it (elementwise
//! chains, broadcasts and data movement into consumers, reductions and packing of contractions).
//! Then kernels are merged into earlier ones over the same index space: epilogues into reductions
//! and contractions, producers into the reductions that read them, siblings, and what runs through
//! the points of a reduction again, as a later stage. A buffer that only its own kernel read is never
//! stored. Last, long reductions to one point are split ([`crate::split`]).

use crate::kernel::{
    BufferId, ContractionPart, Expr, ExprId, ExprOp, Exprs, Factor, Kernel, KernelBody, Store, Updates,
};
use crate::lower::suits_stages;
use crate::narrow::{self, lane_type};
use crate::program::Layout;
use crate::split::split;
use graphc_ir::{
    Access, Contraction, DType, Function, Guard, IndexCx, IndexExpr, NodeId, Op, Pattern, Reduce, Scalar,
    ScalarBuilder, ScalarOp, Start, StaticType, row_major_strides,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;

/// How much is fused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fusion {
    /// Every node is a kernel.
    None,
    /// Unrealized nodes go into their consumers.
    Inline,
    /// Kernels are merged as well.
    Full,
}

/// What a buffer holds.
#[derive(Clone, Debug)]
pub(crate) struct FusedBuffer {
    /// The node.
    pub node: NodeId,
    /// Its type.
    pub ty: StaticType,
    /// See [`crate::program::Buffer::strides`].
    pub strides: Vec<usize>,
}

impl Layout for FusedBuffer {
    fn offset(&self, index: &[IndexExpr]) -> IndexExpr {
        IndexExpr::linear(index, &self.strides)
    }
}

/// An index operand that must be in range.
#[derive(Clone, Debug)]
pub struct IndexCheck {
    /// The buffer of indices.
    pub buffer: BufferId,
    /// Exclusive upper bound.
    pub bound: usize,
    /// The node that asks for it.
    pub node: NodeId,
    /// The axis that it indexes, where the node indexes several.
    pub axis: Option<usize>,
}

/// Kernels of a function in an order that respects their dependences.
#[derive(Clone, Debug)]
pub(crate) struct Fused {
    /// Buffers by number.
    pub buffers: Vec<FusedBuffer>,
    /// The buffer of each realized node.
    pub buffer_of: FxHashMap<NodeId, BufferId>,
    /// The kernels.
    pub kernels: Vec<Kernel>,
    /// Checks; each is made as soon as its buffer is there.
    pub checks: Vec<IndexCheck>,
    /// Buffers that are given from outside after the function's inputs, in order ([`crate::hoist`]).
    pub ports: Vec<BufferId>,
}

/// Points of an inner space that may be run through several times: what they read stays in the
/// second-level cache.
const ROW: i64 = 1 << 16;

/// Points of an inner space per point of the outer space, up to which the outer space alone gives
/// enough parallel work.
const ROW_PER_ROW: i64 = 2048;

/// Expressions of a kernel, about, and nodes one above the other in it, at most. Kernels of models are smaller;
/// the limit keeps the time of compiling linear in the size of the graph.
const LARGEST: usize = 256;

/// Earlier kernels with which it is tried to merge a kernel, at most.
const CANDIDATES: usize = 16;

/// Elements of a row of which tensors are joined part by part, at least.
const LEAST_ROW: usize = 16;

/// A node whose value takes more instructions than this is not computed twice.
const CHEAP: usize = 2;

/// The same of one that is computed from a single tensor of its size: reading that instead of the value takes no longer.
const CHEAP_OF_ONE: usize = 4;

/// Forms the kernels of a function whose dimensions are all numbers.
pub(crate) fn fuse(f: &Function, fusion: Fusion) -> Fused {
    let mut fuser = Fuser::new(f);
    fuser.realize(fusion);
    for id in f.graph.ids() {
        fuser.node(id);
    }
    if fusion == Fusion::Full {
        fuser.merge();
    }
    fuser.drop_dead_stores();
    if fusion == Fusion::Full {
        fuser.kernels = split(std::mem::take(&mut fuser.kernels), &mut fuser.buffers);
    }
    let Fuser { buffers, buffer_of, kernels, checks, .. } = fuser;
    Fused { buffers, buffer_of, kernels, checks, ports: Vec::new() }
}

struct Fuser<'a> {
    f: &'a Function,
    types: Vec<StaticType>,
    patterns: Vec<Pattern>,
    realized: Vec<bool>,
    buffers: Vec<FusedBuffer>,
    buffer_of: FxHashMap<NodeId, BufferId>,
    kernels: Vec<Kernel>,
    checks: Vec<IndexCheck>,
    /// The least bound that each buffer of indices is checked for.
    least_bound: FxHashMap<BufferId, usize>,
}

/// Tensors that are read for a value and are not smaller than it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sources {
    None,
    One(NodeId),
    Many,
}

impl Sources {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, s) | (s, Self::None) => s,
            _ if self == other => self,
            _ => Self::Many,
        }
    }
}

/// Memo of the expressions of one kernel.
#[derive(Default)]
struct Memo(FxHashMap<(NodeId, Vec<IndexExpr>, Vec<Guard>), ExprId>);

impl<'a> Fuser<'a> {
    fn new(f: &'a Function) -> Self {
        let g = &f.graph;
        let types: Vec<StaticType> = g
            .ids()
            .map(|id| StaticType::of(g.ty(id)).expect("every dimension is bound before fusion"))
            .collect();
        let patterns = g
            .ids()
            .map(|id| {
                let operands: Vec<StaticType> =
                    g.operands(id).iter().map(|o| types[o.index()].clone()).collect();
                g.op(id).pattern(&operands, &types[id.index()])
            })
            .collect();
        Self {
            f,
            types,
            patterns,
            realized: vec![false; g.len()],
            buffers: Vec::new(),
            buffer_of: FxHashMap::default(),
            kernels: Vec::new(),
            checks: Vec::new(),
            least_bound: FxHashMap::default(),
        }
    }

    fn ty(&self, id: NodeId) -> &StaticType {
        &self.types[id.index()]
    }

    /// Decides which nodes are stored.
    fn realize(&mut self, fusion: Fusion) {
        let g = &self.f.graph;
        let results: FxHashSet<NodeId> = self.f.results().collect();
        // Instructions to compute one element from memory.
        let mut cost = vec![0usize; g.len()];
        // Nodes between memory and it.
        let mut depth = vec![0usize; g.len()];
        // What is read for it that is not smaller than it.
        let mut sources = vec![Sources::None; g.len()];
        for id in g.ids() {
            let operands = g.operands(id);
            let inlined: usize = operands.iter().map(|o| cost[o.index()]).sum();
            let own = match &self.patterns[id.index()] {
                Pattern::Leaf => {
                    // A constant that is one number is part of the code, unless a region takes it.
                    let number = matches!(g.op(id), Op::Constant(c) if c.value.splat_value().is_some());
                    let whole = || g.users(id).any(|(u, position)| self.wants_buffer(u, position, id, 0));
                    self.realized[id.index()] = !number || results.contains(&id) || whole();
                    continue;
                }
                Pattern::Elementwise(body) | Pattern::Generate { body, .. } => body.insts().len(),
                Pattern::Injective(accesses) => accesses.len() - 1,
                Pattern::Gather(places) => 1 + places.starts.len(),
                Pattern::CheckIndex { .. } => 0,
                _ => {
                    self.realized[id.index()] = true;
                    continue;
                }
            };
            cost[id.index()] = own + inlined;
            depth[id.index()] = 1 + operands.iter().map(|o| depth[o.index()]).max().unwrap_or(0);
            let large = cost[id.index()].max(depth[id.index()]) > LARGEST;
            let users: BTreeSet<NodeId> = g.users(id).map(|u| u.0).collect();
            let source = |&o: &NodeId| match self.realized[o.index()] {
                true if self.ty(o).len() < self.ty(id).len() => Sources::None,
                true => Sources::One(o),
                false => sources[o.index()],
            };
            sources[id.index()] = match &self.patterns[id.index()] {
                // To gather again costs more than to read what was gathered.
                Pattern::Gather(_) => Sources::Many,
                _ => operands.iter().map(source).fold(Sources::None, Sources::and),
            };
            let cheap = if sources[id.index()] == Sources::Many { CHEAP } else { CHEAP_OF_ONE };
            let shared = users.len() > 1 && cost[id.index()] > cheap;
            let needed =
                g.users(id).any(|(u, position)| self.wants_buffer(u, position, id, cost[id.index()]));
            if fusion == Fusion::None || results.contains(&id) || shared || needed || large {
                self.realized[id.index()] = true;
                (cost[id.index()], depth[id.index()]) = (0, 0);
            }
        }
    }

    /// Whether `user` reads its operand `id` from memory.
    fn wants_buffer(&self, user: NodeId, position: usize, id: NodeId, cost: usize) -> bool {
        let n = |id: NodeId| self.ty(id).len();
        match &self.patterns[user.index()] {
            Pattern::Gather(_)
            | Pattern::CheckIndex { .. }
            | Pattern::SelectAndGather(_)
            | Pattern::SelectAndScatter(_)
            | Pattern::Region => true,
            Pattern::Scatter { .. } => position > 0,
            // Tiles read their factors in place, and what computes them is there once as the epilogue
            // of what comes before.
            Pattern::Contraction(_) => cost > 0,
            Pattern::Reduce(r) => {
                cost > CHEAP && (!r.access.guards.is_empty() || n(user) * product(&r.extents) > n(id))
            }
            // What is only moved on its way to a product is stored where it is computed.
            Pattern::Injective(accesses) => {
                let moved = accesses.len() == 1 && n(user) == n(id);
                let product = |u: NodeId| matches!(&self.patterns[u.index()], Pattern::Contraction(_));
                cost > CHEAP && n(user) > n(id)
                    || cost > 0 && moved && self.f.graph.users(user).any(|u| product(u.0))
            }
            _ => false,
        }
    }

    /// Makes the kernel of a realized node.
    fn node(&mut self, id: NodeId) {
        self.check(id);
        if !self.realized[id.index()] {
            return;
        }
        if let Op::ResultOf(r) = self.f.graph.op(id) {
            // The results of a node that runs regions lie in buffers one after the other.
            let buffer = self.buffer_of[&self.f.graph.operands(id)[0]] + r.index as BufferId;
            self.buffer_of.insert(id, buffer);
            return;
        }
        let pattern = self.patterns[id.index()].clone();
        if let Pattern::Region = pattern {
            self.region(id);
            return;
        }
        let buffer = self.buffer(id, self.ty(id).clone());
        if let Pattern::Leaf = pattern {
            self.buffer_of.insert(id, buffer);
            return;
        }
        let operands = self.f.graph.operands(id);
        let dims = self.ty(id).dims.clone();
        let mut space = IndexCx::default();
        let vars: Vec<IndexExpr> = dims.iter().map(|&d| space.var(d)).collect();
        let mut exprs = Exprs::default();
        let mut memo = Memo::default();
        let mut stores = Vec::new();
        let mut store = |value| stores.push(Store { buffer, index: vars.clone(), value, inner: false });
        let body = match pattern {
            Pattern::Leaf | Pattern::Region => unreachable!("returned above"),
            Pattern::Reduce(r) => {
                let value = self.reduced_value(&r, operands[0], &mut space, &vars, &mut exprs, &mut memo);
                store(reduced(&mut exprs, self.ty(id).dtype));
                KernelBody::Loop { outer: dims.len(), reductions: vec![(r.kind, value)] }
            }
            Pattern::Contraction(parts) => {
                store(reduced(&mut exprs, self.ty(id).dtype));
                KernelBody::Contraction(parts.iter().map(|p| self.part(p, &operands)).collect())
            }
            Pattern::ArgSort { axis, .. } | Pattern::Cumulative { axis, .. } => {
                // The axis is the innermost variable.
                space = IndexCx::default();
                let others = dims.iter().enumerate().filter(|(a, _)| *a != axis);
                let mut index: Vec<IndexExpr> = others.map(|(_, &d)| space.var(d)).collect();
                index.insert(axis, space.var(dims[axis]));
                let value = self.value(operands[0], &index, &[], &space, &mut exprs, &mut memo);
                match pattern {
                    Pattern::ArgSort { descending, .. } => {
                        KernelBody::ArgSort { value, axis, descending, out: buffer }
                    }
                    Pattern::Cumulative { kind, reverse, exclusive, .. } => {
                        KernelBody::Cumulative { value, kind, axis, reverse, exclusive, out: buffer }
                    }
                    _ => unreachable!("one of both"),
                }
            }
            Pattern::ArgReduce { axis, largest } => {
                let extent = self.ty(operands[0]).dims[axis];
                let mut index = vars.clone();
                index.insert(axis, space.var(extent));
                let value = self.value(operands[0], &index, &[], &space, &mut exprs, &mut memo);
                KernelBody::ArgReduce { value, largest, out: buffer }
            }
            Pattern::Scatter { updates, combine, .. } => {
                store(self.value(operands[0], &vars, &[], &space, &mut exprs, &mut memo));
                let mut space = IndexCx::default();
                let updates = operands[updates];
                let vars: Vec<IndexExpr> = self.ty(updates).dims.iter().map(|&d| space.var(d)).collect();
                let (mut exprs, mut memo) = (Exprs::default(), Memo::default());
                let index = self.place(id, &vars, &[], &space, &mut exprs, &mut memo);
                let index = index.into_iter().map(|(e, _)| e).collect();
                let value = self.value(updates, &vars, &[], &space, &mut exprs, &mut memo);
                KernelBody::Scatter(Updates { space, exprs, value, index, combine })
            }
            Pattern::SelectAndGather(window) => KernelBody::SelectAndGather {
                window,
                x: self.buffer_of[&operands[0]],
                values: self.buffer_of[&operands[1]],
                out: buffer,
            },
            Pattern::SelectAndScatter(window) => KernelBody::SelectAndScatter {
                window,
                x: self.buffer_of[&operands[0]],
                ct: self.buffer_of[&operands[1]],
                out: buffer,
            },
            Pattern::Injective(_) if let Some(axis) = self.joins_equal_parts(id) => {
                space = IndexCx::default();
                let part = self.ty(operands[0]).dims.clone();
                let at: Vec<IndexExpr> = part.iter().map(|&d| space.var(d)).collect();
                for (i, &operand) in operands.iter().enumerate() {
                    let value = self.value(operand, &at, &[], &space, &mut exprs, &mut memo);
                    let mut index = at.clone();
                    index[axis] = at[axis].offset((i * part[axis]) as i64);
                    stores.push(Store { buffer, index, value, inner: false });
                }
                KernelBody::Loop { outer: part.len(), reductions: Vec::new() }
            }
            Pattern::Elementwise(_)
            | Pattern::Generate { .. }
            | Pattern::Injective(_)
            | Pattern::Gather(_)
            | Pattern::CheckIndex { .. } => {
                store(self.value(id, &vars, &[], &space, &mut exprs, &mut memo));
                KernelBody::Loop { outer: dims.len(), reductions: Vec::new() }
            }
        };
        let name = format!("k{}_{}", self.kernels.len(), self.f.graph.op(id).name());
        self.kernels.push(Kernel { name, space, exprs, body, stores, sources: vec![id] });
        // Only now: the node's own kernel computes it, later ones load it.
        self.buffer_of.insert(id, buffer);
    }

    /// The axis along which a node joins several tensors of one shape: a map over that shape then stores
    /// an element of each, without asking at every element of the result where it comes from. Not where
    /// rows would be shorter than vectors.
    fn joins_equal_parts(&self, id: NodeId) -> Option<usize> {
        let Op::Concatenate(c) = self.f.graph.op(id) else { return None };
        let operands = self.f.graph.operands(id);
        let part = &self.ty(operands[0]).dims;
        let row = *part.last()?;
        let equal = operands.len() > 1 && operands.iter().all(|&o| self.ty(o).dims == *part);
        (equal && product(part) > 0 && row >= LEAST_ROW).then_some(c.axis)
    }

    /// A new buffer for what a node computes.
    fn buffer(&mut self, node: NodeId, ty: StaticType) -> BufferId {
        let strides = row_major_strides(&ty.dims);
        self.buffers.push(FusedBuffer { node, ty, strides });
        self.buffers.len() as BufferId - 1
    }

    /// Makes the kernel that runs the regions of a node.
    fn region(&mut self, id: NodeId) {
        let g = &self.f.graph;
        let operands: Vec<BufferId> =
            g.operands(id).iter().map(|&o| self.buffer_of[&self.storage(o)]).collect();
        let types: Vec<graphc_ir::TensorType> = g.operands(id).iter().map(|&o| g.ty(o).clone()).collect();
        let results = g.op(id).results(&types).expect("verified: the operation takes its operands");
        let results: Vec<BufferId> = results
            .iter()
            .map(|ty| self.buffer(id, StaticType::of(ty).expect("every dimension is bound before fusion")))
            .collect();
        self.buffer_of.insert(id, results[0]);
        self.kernels.push(Kernel {
            name: format!("k{}_{}", self.kernels.len(), self.f.graph.op(id).name()),
            space: IndexCx::default(),
            exprs: Exprs::default(),
            body: KernelBody::Region { operands, results, workspace: None },
            stores: Vec::new(),
            sources: vec![id],
        });
    }

    /// Index operands are checked before anything is indexed by them.
    fn check(&mut self, id: NodeId) {
        let operands = self.f.graph.operands(id);
        let checked = match &self.patterns[id.index()] {
            Pattern::CheckIndex { bound } => vec![(operands[0], *bound, None)],
            Pattern::Gather(places) | Pattern::Scatter { places, .. } => {
                let several = places.starts.len() > 1;
                let check = |s: &Start| (operands[s.operand], s.bound, several.then_some(s.axis));
                places.starts.iter().map(check).collect()
            }
            _ => return,
        };
        for (indices, bound, axis) in checked {
            let buffer = self.buffer_of[&self.storage(indices)];
            let least = self.least_bound.entry(buffer).or_insert(usize::MAX);
            if *least > bound {
                *least = bound;
                self.checks.push(IndexCheck { buffer, bound, node: id, axis });
            }
        }
    }

    /// A place in operand 0 that node `id` picks, for given values of the variables: per axis the
    /// position, and the range that the window's part of it must be in.
    fn place(
        &self,
        id: NodeId,
        vars: &[IndexExpr],
        guards: &[Guard],
        cx: &IndexCx,
        exprs: &mut Exprs,
        memo: &mut Memo,
    ) -> Vec<(IndexExpr, Guard)> {
        let (Pattern::Gather(places) | Pattern::Scatter { places, .. }) = &self.patterns[id.index()] else {
            unreachable!("{:?} picks no places", self.f.graph.op(id));
        };
        let operands = self.f.graph.operands(id);
        let sub = |e: &IndexExpr| e.substitute(cx, &|v| vars[v as usize].clone());
        let at: Vec<IndexExpr> = places.at.iter().map(sub).collect();
        let dims = &self.ty(operands[0]).dims;
        let window = places.window.iter().zip(dims);
        let mut place: Vec<(IndexExpr, Guard)> =
            window.map(|(e, &d)| (sub(e), Guard { expr: sub(e), lo: 0, hi: d as i64 })).collect();
        for s in &places.starts {
            let (position, range) = &mut place[s.axis];
            range.hi -= (s.bound as i64 - 1).max(0);
            // The only legal position needs no reading.
            if s.bound != 1 {
                let value = self.value(operands[s.operand], &at, guards, cx, exprs, memo);
                *position = position.add(&exprs.dynamic(value, s.bound as i64));
            }
        }
        place
    }

    /// The realized node whose buffer holds the value of `id`: an unrealized index check passes its
    /// operand on.
    fn storage(&self, id: NodeId) -> NodeId {
        match &self.patterns[id.index()] {
            Pattern::CheckIndex { .. } if !self.realized[id.index()] => {
                self.storage(self.f.graph.operands(id)[0])
            }
            _ => id,
        }
    }

    fn reduced_value(
        &self,
        r: &Reduce,
        operand: NodeId,
        space: &mut IndexCx,
        vars: &[IndexExpr],
        exprs: &mut Exprs,
        memo: &mut Memo,
    ) -> ExprId {
        let mut all = vars.to_vec();
        all.extend(r.extents.iter().map(|&d| space.var(d)));
        let (index, guards) = instantiate(&r.access, &all, space);
        let value = self.value(operand, &index, &guards, space, exprs, memo);
        if guards.is_empty() {
            return value;
        }
        let skip = exprs.constant(narrow::lane(r.kind.identity(self.ty(operand).dtype)));
        let ok = exprs.add(ExprOp::Guard(guards), &[], DType::Bool);
        exprs.select(ok, value, skip)
    }

    fn part(&self, c: &Contraction, operands: &[NodeId]) -> ContractionPart {
        let space = c.index_cx();
        let vars: Vec<IndexExpr> = (0..space.extents.len() as u32).map(IndexExpr::var).collect();
        let factor = |access: &Access| {
            let (index, guards) = instantiate(access, &vars, &space);
            let mut exprs = Exprs::default();
            let value = self.value(
                operands[access.operand],
                &index,
                &guards,
                &space,
                &mut exprs,
                &mut Memo::default(),
            );
            // A guarded factor counts as zero: so it does where the load itself gives zero.
            let load = matches!(exprs.get(value).op, ExprOp::Load { .. });
            let value = if guards.is_empty() || load {
                value
            } else {
                let zero = Scalar::from_f64(lane_type(self.ty(operands[access.operand]).dtype), 0.0);
                let zero = exprs.constant(zero);
                let ok = exprs.add(ExprOp::Guard(guards), &[], DType::Bool);
                exprs.select(ok, value, zero)
            };
            Factor { exprs, value }
        };
        ContractionPart {
            ranks: [c.batch.len(), c.m.len(), c.n.len(), c.k.len()],
            lhs: factor(&c.lhs),
            rhs: factor(&c.rhs),
            panel: None,
            out: c.out.clone(),
            space,
        }
    }

    /// The value of a node at an index, where `guards` hold.
    fn value(
        &self,
        id: NodeId,
        index: &[IndexExpr],
        guards: &[Guard],
        cx: &IndexCx,
        exprs: &mut Exprs,
        memo: &mut Memo,
    ) -> ExprId {
        let key = (id, index.to_vec(), guards.to_vec());
        if let Some(&v) = memo.0.get(&key) {
            return v;
        }
        let v = self.compute(id, index, guards, cx, exprs, memo);
        memo.0.insert(key, v);
        v
    }

    fn compute(
        &self,
        id: NodeId,
        index: &[IndexExpr],
        guards: &[Guard],
        cx: &IndexCx,
        exprs: &mut Exprs,
        memo: &mut Memo,
    ) -> ExprId {
        let ty = self.ty(id);
        if let Op::Constant(c) = self.f.graph.op(id)
            && let Some(number) = c.value.splat_value()
        {
            return exprs.constant(narrow::lane(number));
        }
        if let Some(&buffer) = self.buffer_of.get(&id) {
            let range = |(e, &d): (&IndexExpr, &usize)| Guard { expr: e.clone(), lo: 0, hi: d as i64 };
            let ranges = index.iter().zip(&ty.dims).map(range);
            return exprs.load(buffer, index.to_vec(), in_range(ranges, guards, cx), ty.dtype);
        }
        let operands = self.f.graph.operands(id);
        match &self.patterns[id.index()] {
            Pattern::Elementwise(body) => {
                let args: Vec<ExprId> =
                    operands.iter().map(|&o| self.value(o, index, guards, cx, exprs, memo)).collect();
                narrow::emit(body, exprs, &args)
            }
            Pattern::Generate { index: at, body } => {
                let at = at.substitute(cx, &|v| index[v as usize].clone());
                let mut args = vec![exprs.add(ExprOp::Index(at), &[], DType::I64)];
                args.extend(operands.iter().map(|&o| self.value(o, &[], guards, cx, exprs, memo)));
                narrow::emit(body, exprs, &args)
            }
            Pattern::Injective(accesses) => {
                let mut result: Option<ExprId> = None;
                for access in accesses.iter().rev() {
                    let (at, own) = instantiate(access, index, cx);
                    let all: Vec<Guard> = guards.iter().chain(&own).cloned().collect();
                    let v = self.value(operands[access.operand], &at, &all, cx, exprs, memo);
                    result = Some(match result {
                        Some(other) if !own.is_empty() => {
                            let early = i64::from(fault!(41));
                            let own = own.into_iter().map(|g| Guard { lo: g.lo - early, ..g }).collect();
                            let ok = exprs.add(ExprOp::Guard(own), &[], DType::Bool);
                            exprs.select(ok, v, other)
                        }
                        _ => v,
                    });
                }
                result.expect("an injective pattern has an access")
            }
            Pattern::Gather(_) => {
                let (from, windows): (Vec<IndexExpr>, Vec<Guard>) =
                    self.place(id, index, guards, cx, exprs, memo).into_iter().unzip();
                let buffer = self.buffer_of[&self.storage(operands[0])];
                exprs.load(buffer, from, in_range(windows, guards, cx), ty.dtype)
            }
            Pattern::CheckIndex { .. } => self.value(operands[0], index, guards, cx, exprs, memo),
            _ => unreachable!("{:?} is realized", self.f.graph.op(id)),
        }
    }

    /// Merges kernels into earlier ones.
    fn merge(&mut self) {
        let mut writer: FxHashMap<BufferId, usize> = FxHashMap::default();
        let mut readers: FxHashMap<BufferId, BTreeSet<usize>> = FxHashMap::default();
        let mut kept: Vec<Option<Kernel>> = Vec::new();
        for q in scalars_first(std::mem::take(&mut self.kernels)) {
            let mut at = kept.len();
            kept.push(Some(q));
            // What has merged with one kernel may be able to merge with the next.
            while let Some((p, merged)) = self.target(&kept, at, &writer, &readers) {
                kept[p] = Some(merged);
                kept[at] = None;
                at = p;
            }
            let kernel = kept[at].as_ref().expect("it is where it has been put");
            for b in kernel.writes() {
                writer.insert(b, at);
            }
            for b in kernel.reads() {
                readers.entry(b).or_default().insert(at);
            }
        }
        self.kernels = kept.into_iter().flatten().collect();
    }

    /// An earlier kernel that kernel `at` can be merged into, and what they give together.
    fn target(
        &self,
        kept: &[Option<Kernel>],
        at: usize,
        writer: &FxHashMap<BufferId, usize>,
        readers: &FxHashMap<BufferId, BTreeSet<usize>>,
    ) -> Option<(usize, Kernel)> {
        let q = kept[at].as_ref()?;
        let reads = q.reads();
        let producers: BTreeSet<usize> = reads.iter().filter_map(|b| writer.get(b)).copied().collect();
        let latest = |r: &BTreeSet<usize>| -> Vec<usize> {
            r.iter().rev().take(CANDIDATES + producers.len()).copied().collect()
        };
        let siblings = reads.iter().filter_map(|b| readers.get(b)).flat_map(latest);
        // The latest producer first: all other inputs are then there.
        let siblings: BTreeSet<usize> = siblings.filter(|s| !producers.contains(s)).collect();
        let candidates = producers.iter().rev().chain(siblings.iter().rev()).copied().take(CANDIDATES);
        // Indices are checked between the kernel that writes them and those that read them.
        let checked = |b: &BufferId| reads.contains(b) && self.least_bound.contains_key(b);
        let unchecked = |p: usize| kept[p].as_ref().is_some_and(|p| !p.writes().iter().any(checked));
        let available =
            |p: usize| p < at && producers.iter().all(|&w| w <= p) && (unchecked(p) || fault!(38));
        candidates
            .filter(|&p| available(p))
            .find_map(|p| Some((p, merge_into(kept[p].as_ref()?, q, &self.buffers)?)))
    }

    /// Removes stores of buffers that nobody loads and that are no results.
    fn drop_dead_stores(&mut self) {
        let results: FxHashSet<BufferId> =
            self.f.results().filter_map(|n| self.buffer_of.get(&n)).copied().collect();
        let mut live: FxHashSet<BufferId> = self.kernels.iter().flat_map(Kernel::reads).collect();
        live.extend(results);
        live.extend(self.checks.iter().map(|c| c.buffer));
        for k in &mut self.kernels {
            k.stores.retain(|s| live.contains(&s.buffer));
        }
        self.kernels.retain(|k| !k.writes().is_empty());
    }
}

/// `guards`, and those of `ranges` that they do not show to hold.
fn in_range(ranges: impl IntoIterator<Item = Guard>, guards: &[Guard], cx: &IndexCx) -> Vec<Guard> {
    let mut all: Vec<Guard> = guards.to_vec();
    for range in ranges {
        if range.hi > 0 && !range.always(cx) && !all.contains(&range) {
            all.push(range);
        }
    }
    // A guard that surely holds costs nothing when it is not there.
    all.retain(|g| !g.always(cx));
    all
}

fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// The kernels with those in front that compute single numbers from nothing but such: step counts and
/// learning rates, which are then there for whatever they could be merged with.
fn scalars_first(kernels: Vec<Kernel>) -> Vec<Kernel> {
    let mut late: FxHashSet<BufferId> = FxHashSet::default();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for k in kernels {
        let single = matches!(&k.body, KernelBody::Loop { .. }) && k.space.extents.iter().all(|&e| e == 1);
        if single && k.reads().iter().all(|b| !late.contains(b)) {
            first.push(k);
        } else {
            late.extend(k.writes());
            rest.push(k);
        }
    }
    first.append(&mut rest);
    first
}

/// The index and guards of an access for given values of its variables; guards that always hold are
/// left out.
fn instantiate(access: &Access, vars: &[IndexExpr], cx: &IndexCx) -> (Vec<IndexExpr>, Vec<Guard>) {
    let sub = |e: &IndexExpr| e.substitute(cx, &|v| vars[v as usize].clone());
    let guards = access.guards.iter().map(|g| Guard { expr: sub(&g.expr), lo: g.lo, hi: g.hi });
    (access.index.iter().map(sub).collect(), guards.filter(|g| !g.always(cx)).collect())
}

/// `q` merged into the earlier kernel `p`, if their index spaces allow it. All that `q` reads is
/// there before `p` runs, or is written by `p`.
fn merge_into(p: &Kernel, q: &Kernel, buffers: &[FusedBuffer]) -> Option<Kernel> {
    let KernelBody::Loop { outer: q_outer, reductions: q_reductions } = &q.body else { return None };
    if p.exprs.len() + q.exprs.len() > LARGEST {
        return None;
    }
    let dims = |k: &Kernel, n: usize| k.space.extents[..n].to_vec();
    match &p.body {
        KernelBody::Loop { outer, reductions } => {
            let same_outer = dims(p, *outer) == dims(q, *q_outer);
            let inner_p = &p.space.extents[*outer..];
            let inner_q = &q.space.extents[*q_outer..];
            if same_outer
                && (q_reductions.is_empty()
                    || reductions.is_empty() && inner_p.is_empty()
                    || inner_p == inner_q)
            {
                let merged = append(p, q, *outer, reductions.len())?;
                let deeper = merged.stages().iter().max() > p.stages().iter().max();
                return (!deeper || runs_in_stages(&merged, *outer, buffers)).then_some(merged);
            }
            let reads_p = || q.reads().iter().any(|b| p.writes().contains(b));
            if !reductions.is_empty()
                && q_reductions.is_empty()
                && p.space.extents == q.space.extents
                && reads_p()
            {
                let merged = append(p, &inside(q, *outer), *outer, reductions.len())?;
                return runs_in_stages(&merged, *outer, buffers).then_some(merged);
            }
            if reductions.is_empty() && !q_reductions.is_empty() {
                return absorb(p, q, buffers);
            }
            None
        }
        // The lanes of an epilogue run along a fixed dimension, in which an index that is read from
        // memory may differ.
        KernelBody::Contraction(parts) if q_reductions.is_empty() && q.exprs.dynamics.is_empty() => {
            let as_it_is = (p.space.extents == q.space.extents).then(|| append(p, q, *q_outer, 1)).flatten();
            as_it_is.or_else(|| append(p, &transposed(p, parts, q, buffers)?, *q_outer, 1))
        }
        _ => None,
    }
}

/// Map `q`, which reads what contraction `p` writes with its dimensions in another order, over the
/// variables of `p`. Only if it writes neighbouring columns of `p` side by side, as the lanes of a tile
/// are.
fn transposed(p: &Kernel, parts: &[ContractionPart], q: &Kernel, buffers: &[FusedBuffer]) -> Option<Kernel> {
    let loads = q.exprs.loads(&q.roots());
    let (_, index, _) = loads.iter().find(|l| p.writes().contains(&l.0))?;
    let n = q.space.extents.len();
    let mut vars = vec![None; n];
    for (d, (e, extent)) in (0..).zip(index.iter().zip(&p.space.extents)) {
        let v = (0..n).find(|&v| *e == IndexExpr::var(v as u32) && q.space.extents[v] == *extent)?;
        vars[v].replace(IndexExpr::var(d)).is_none().then_some(())?;
    }
    let vars: Vec<IndexExpr> = vars.into_iter().collect::<Option<_>>()?;
    let over_p = |e: &IndexExpr| e.substitute(&p.space, &|v| vars[v as usize].clone());
    let mut result =
        Kernel { space: p.space.clone(), exprs: Exprs::default(), stores: Vec::new(), ..q.clone() };
    let values = q.exprs.copy_into(&mut result.exprs, &q.roots(), &over_p, &mut |_, _| None);
    for (s, value) in q.stores.iter().zip(values) {
        let index = s.index.iter().map(over_p).collect();
        result.stores.push(Store { index, value, ..s.clone() });
    }
    let side_by_side = parts.iter().all(|part| {
        let [batch, m, n, _] = part.ranks;
        // Of several groups of a convolution, the columns are those of one.
        let column = (n > 0).then(|| (batch + m + n - 1) as u32);
        let dimension = part.out.iter().position(|e| column.is_some_and(|c| e.coefficient(c) == Some(1)));
        dimension.is_some_and(|d| {
            result
                .stores
                .iter()
                .all(|s| buffers[s.buffer as usize].offset(&s.index).coefficient(d as u32) == Some(1))
        })
    });
    side_by_side.then_some(result)
}

/// Whether the inner space is small enough to be run through in several stages, and the outer one
/// large enough to keep all workers busy with one of its points each.
fn runs_in_stages(k: &Kernel, outer: usize, buffers: &[FusedBuffer]) -> bool {
    let points = |extents: &[i64]| extents.iter().product::<i64>();
    let (rows, row) = (points(&k.space.extents[..outer]), points(&k.space.extents[outer..]));
    row <= ROW.min(ROW_PER_ROW.saturating_mul(rows)) && suits_stages(k, outer, buffers)
}

/// Map `q` as one whose last dimensions, from `outer` on, are an inner space.
fn inside(q: &Kernel, outer: usize) -> Kernel {
    let mut q = q.clone();
    q.body = KernelBody::Loop { outer, reductions: Vec::new() };
    q.stores.iter_mut().for_each(|s| s.inner = true);
    q
}

/// Adds `q`'s reductions and stores to `p`, whose outer space is equal and whose inner space is
/// equal or empty. Loads of what `p` writes become its values.
fn append(p: &Kernel, q: &Kernel, outer: usize, n_reductions: usize) -> Option<Kernel> {
    let vars: Vec<IndexExpr> = (0..q.space.extents.len() as u32).map(IndexExpr::var).collect();
    let inner_roots: Vec<ExprId> = match &q.body {
        KernelBody::Loop { reductions, .. } => reductions.iter().map(|r| r.1).collect(),
        _ => Vec::new(),
    };
    let q_inner_stores = q.stores.iter().filter(|s| s.inner).map(|s| s.value);
    let inside = q.exprs.needed(&inner_roots.into_iter().chain(q_inner_stores).collect::<Vec<_>>());
    for (id, e) in q.exprs.iter() {
        let ExprOp::Load { buffer, index, guards } = &e.op else { continue };
        let Some(store) = p.stores.iter().find(|s| s.buffer == *buffer) else { continue };
        let level = if store.inner { vars.len() } else { outer };
        // A map that `p` has absorbed may be stored under another order of the variables.
        if !p.stores_once(*buffer)
            || (*index != vars[..level.min(vars.len())] || *index != store.index) && !fault!(39)
            || !guards.is_empty()
            || store.inner && !inside[id as usize]
        {
            return None;
        }
    }
    let mut merged = p.clone();
    let q_space_is_larger = q.space.extents.len() > p.space.extents.len();
    if q_space_is_larger {
        merged.space = q.space.clone();
    }
    let stores = p.stores.clone();
    let shift = n_reductions as u32;
    let mut replace = |into: &mut Exprs, e: &Expr| match &e.op {
        ExprOp::Load { buffer, .. } => stores.iter().find(|s| s.buffer == *buffer).map(|s| s.value),
        ExprOp::Reduced(i) => Some(into.add(ExprOp::Reduced(i + shift), &[], e.dtype)),
        _ => None,
    };
    let roots: Vec<ExprId> = q.roots();
    let copies = q.exprs.copy_into(&mut merged.exprs, &roots, &IndexExpr::clone, &mut replace);
    for (s, &value) in q.stores.iter().zip(&copies) {
        merged.stores.push(Store { value, ..s.clone() });
    }
    if let (KernelBody::Loop { reductions, .. }, KernelBody::Loop { reductions: more, .. }) =
        (&mut merged.body, &q.body)
    {
        let values = &copies[q.stores.len()..];
        reductions.extend(more.iter().zip(values).map(|((kind, _), &v)| (*kind, v)));
    }
    merged.sources.extend(&q.sources);
    Some(merged)
}

/// Takes map `p` into reduction `q`, which reads what `p` writes exactly once at each of `p`'s
/// points: `p`'s results are stored inside `q`'s loops.
fn absorb(p: &Kernel, q: &Kernel, buffers: &[FusedBuffer]) -> Option<Kernel> {
    // The point of `p` as an index of `q`, from a load of one of its results.
    let written: FxHashSet<BufferId> = p.writes().into_iter().collect();
    let loads = q.exprs.loads(&q.roots());
    let mut point: Option<&[IndexExpr]> = None;
    for (buffer, index, guards) in &loads {
        if !written.contains(buffer) {
            continue;
        }
        if !guards.is_empty() || !p.stores_once(*buffer) || point.is_some_and(|at| at != *index) {
            return None;
        }
        point = Some(index);
    }
    let point = point?;
    let n = q.space.extents.len();
    let mut seen = vec![false; n];
    for (e, extent) in point.iter().zip(&p.space.extents) {
        let v = (0..n).find(|&v| *e == IndexExpr::var(v as u32))?;
        if std::mem::replace(&mut seen[v], true) || q.space.extents[v] != *extent && !fault!(40) {
            return None;
        }
    }
    if seen.iter().zip(&q.space.extents).any(|(s, e)| !s && *e != 1) || p.stores.iter().any(|s| s.inner) {
        return None;
    }
    debug_assert!(p.stores.iter().all(|s| buffers[s.buffer as usize].ty.dims.len() == s.index.len()));
    let mut merged =
        Kernel { exprs: Exprs::default(), stores: Vec::new(), sources: p.sources.clone(), ..q.clone() };
    let at = |e: &IndexExpr| e.substitute(&q.space, &|v| point[v as usize].clone());
    let roots = p.roots();
    let copies = p.exprs.copy_into(&mut merged.exprs, &roots, &at, &mut |_, _| None);
    for (s, &value) in p.stores.iter().zip(&copies) {
        let index = s.index.iter().map(&at).collect();
        merged.stores.push(Store { buffer: s.buffer, index, value, inner: true });
    }
    let stores = merged.stores.clone();
    let mut replace = |_: &mut Exprs, e: &Expr| match &e.op {
        ExprOp::Load { buffer, .. } => stores.iter().find(|s| s.buffer == *buffer).map(|s| s.value),
        _ => None,
    };
    let roots = q.roots();
    let copies = q.exprs.copy_into(&mut merged.exprs, &roots, &IndexExpr::clone, &mut replace);
    for (s, &value) in q.stores.iter().zip(&copies) {
        merged.stores.push(Store { value, ..s.clone() });
    }
    if let KernelBody::Loop { reductions, .. } = &mut merged.body {
        for (r, &v) in reductions.iter_mut().zip(&copies[q.stores.len()..]) {
            r.1 = v;
        }
    }
    merged.sources.extend(&q.sources);
    Some(merged)
}

/// True if the expression is a constant.
pub(crate) fn is_constant(e: &Expr) -> bool {
    matches!(e.op, ExprOp::Scalar(ScalarOp::Const(_)))
}

/// The result of a node's reduction or contraction, of `dtype`.
fn reduced(exprs: &mut Exprs, dtype: DType) -> ExprId {
    let value = exprs.add(ExprOp::Reduced(0), &[], lane_type(dtype));
    narrow::wrap(exprs, dtype, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::ModuleBuilder;

    /// How often `(a * b) * 0.5 + 1`, which two other values take, is stored, for a product `a` and the same or another one.
    fn stores_of_shared(same: bool) -> usize {
        let b = ModuleBuilder::new("m");
        b.function("f", |f| {
            let x = f.input("x", DType::F32, [32, 32]);
            let (a, c) = (x.dot(x), x.dot(x.transpose(&[1, 0])));
            let shared = a * if same { a } else { c } * 0.5 + 1.0;
            let y = (c * shared).dot(x);
            f.output("z", (y * shared).dot(x));
        });
        let module = b.build().unwrap();
        let f = module.function("f").unwrap();
        let add = f.graph.ids().find(|&id| matches!(f.graph.op(id), Op::Add(_))).unwrap();
        let fused = fuse(f, Fusion::Full);
        let stored = fused.kernels.iter().flat_map(|k| &k.stores);
        stored.filter(|s| fused.buffers[s.buffer as usize].node == add).count()
    }

    #[test]
    fn what_is_cheap_to_compute_from_one_tensor_is_not_stored() {
        assert_eq!(stores_of_shared(true), 0);
        assert_eq!(stores_of_shared(false), 1);
    }
}
