//! Kernel IR: what one kernel computes, as index spaces and element expressions, before any choice
//! of order, width or tiles. Lowering (`lower`) schedules it into vector IR.

use crate::narrow::lane_type;
use crate::program::Buffer;
use graphc_ir::{
    Atom, Combine, DType, Guard, IndexCx, IndexExpr, NodeId, ReduceKind, ScalarBuilder, ScalarOp, Var, Window,
};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hash, Hasher};

pub mod cost;
pub mod print;
pub(crate) mod structure;
pub mod verify;

/// Number of a buffer of the program.
pub type BufferId = u32;

/// Number of an expression of a kernel.
pub type ExprId = u32;

/// What an expression is, at one point of the kernel's index space.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ExprOp {
    /// Element `index` of a buffer; where a guard fails it is 0 and nothing is read.
    Load {
        /// The buffer.
        buffer: BufferId,
        /// One expression per dimension of the buffer.
        index: Vec<IndexExpr>,
        /// Conditions.
        guards: Vec<Guard>,
    },
    /// An index expression as `I64`.
    Index(IndexExpr),
    /// Whether all guards hold.
    Guard(Vec<Guard>),
    /// A lane-wise instruction.
    Scalar(ScalarOp),
    /// Result `i` of the kernel's reductions, or (0) of its contraction.
    Reduced(u32),
}

/// An expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Expr {
    /// What it is.
    pub op: ExprOp,
    /// Operands, all earlier.
    pub args: SmallVec<[ExprId; 3]>,
    /// Element type.
    pub dtype: DType,
}

/// Expressions of a kernel; equal ones are shared.
#[derive(Clone, Debug, Default)]
pub struct Exprs {
    nodes: Vec<Expr>,
    /// The expressions by their hashes; one whose hash is taken is at the next free number.
    known: FxHashMap<u64, ExprId>,
    /// The values that dynamic index atoms stand for, as `I64` expressions with their exclusive
    /// upper bounds.
    pub dynamics: Vec<(ExprId, i64)>,
}

impl PartialEq for Exprs {
    fn eq(&self, other: &Self) -> bool {
        (&self.nodes, &self.dynamics) == (&other.nodes, &other.dynamics)
    }
}

impl Eq for Exprs {}

impl Hash for Exprs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.nodes, &self.dynamics).hash(state);
    }
}

impl Exprs {
    /// The expression.
    pub fn get(&self, id: ExprId) -> &Expr {
        &self.nodes[id as usize]
    }

    /// Every expression, operands first.
    pub fn iter(&self) -> impl Iterator<Item = (ExprId, &Expr)> {
        self.nodes.iter().enumerate().map(|(i, e)| (i as ExprId, e))
    }

    /// Number of expressions.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds an expression or finds its equal.
    pub fn add(&mut self, op: ExprOp, args: &[ExprId], dtype: DType) -> ExprId {
        let e = Expr { op, args: SmallVec::from_slice(args), dtype };
        let id = self.known_as(&e, self.nodes.len() as ExprId);
        if id as usize == self.nodes.len() {
            self.nodes.push(e);
        }
        id
    }

    /// The number of an expression, `new` if it has had none until now.
    fn known_as(&mut self, e: &Expr, new: ExprId) -> ExprId {
        let mut at = FxBuildHasher.hash_one(e);
        loop {
            match *self.known.entry(at).or_insert(new) {
                id if id == new || self.nodes[id as usize] == *e => return id,
                _ => at = at.wrapping_add(1),
            }
        }
    }

    /// Adds a load from a buffer of `dtype`.
    pub fn load(
        &mut self,
        buffer: BufferId,
        index: Vec<IndexExpr>,
        guards: Vec<Guard>,
        dtype: DType,
    ) -> ExprId {
        self.add(ExprOp::Load { buffer, index, guards }, &[], lane_type(dtype))
    }

    /// A dynamic index atom for an integer value in `0..bound`.
    pub fn dynamic(&mut self, value: ExprId, bound: i64) -> IndexExpr {
        let value = if self.get(value).dtype == DType::I64 { value } else { self.cast(DType::I64, value) };
        let known = self.dynamics.iter().position(|d| *d == (value, bound));
        let i = known.unwrap_or_else(|| {
            self.dynamics.push((value, bound));
            self.dynamics.len() - 1
        });
        IndexExpr::atom(Atom::Dynamic(i as u32))
    }

    /// What an expression is computed from: operands and values of dynamic indices.
    pub fn operands(&self, id: ExprId) -> impl Iterator<Item = ExprId> + '_ {
        let e = self.get(id);
        let dynamics = (!self.dynamics.is_empty()).then(|| dynamics_of(&e.op)).into_iter().flatten();
        e.args.iter().copied().chain(dynamics.map(|d| self.dynamics[d].0))
    }

    /// What `roots` need: themselves, operands, and values of dynamic indices.
    pub fn needed(&self, roots: &[ExprId]) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        roots.iter().for_each(|&root| needed[root as usize] = true);
        let last = roots.iter().max().map_or(0, |&root| root + 1);
        // What uses an expression comes after it.
        for id in (0..last).rev() {
            if needed[id as usize] {
                self.operands(id).for_each(|o| needed[o as usize] = true);
            }
        }
        needed
    }

    /// Which expressions are, or are computed from, one that `source` holds for.
    pub fn depend(&self, source: &dyn Fn(&Expr) -> bool) -> Vec<bool> {
        let mut depend: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for (id, e) in self.iter() {
            depend.push(source(e) || self.operands(id).any(|o| depend[o as usize]));
        }
        depend
    }

    /// Whether an index that is read from memory depends on an index expression for which `uses` holds.
    pub fn scattered(&self, uses: &dyn Fn(&IndexExpr) -> bool) -> bool {
        let varies = self.depend(&|e| e.op.index_exprs().into_iter().any(uses));
        self.dynamics.iter().any(|d| varies[d.0 as usize])
    }

    /// The reductions whose results `root` uses.
    pub fn reduced(&self, root: ExprId) -> impl Iterator<Item = u32> + '_ {
        let needed = self.needed(&[root]);
        self.iter().filter(move |(id, _)| needed[*id as usize]).filter_map(|(_, e)| match e.op {
            ExprOp::Reduced(i) => Some(i),
            _ => None,
        })
    }

    /// Copies `roots` and what they need into `into`, changing index expressions by `index` and
    /// replacing expressions for which `replace` gives a value there. Returns the roots' copies.
    pub fn copy_into(
        &self,
        into: &mut Self,
        roots: &[ExprId],
        index: &dyn Fn(&IndexExpr) -> IndexExpr,
        replace: &mut dyn FnMut(&mut Self, &Expr) -> Option<ExprId>,
    ) -> Vec<ExprId> {
        let needed = self.needed(roots);
        let mut copies: Vec<ExprId> = vec![ExprId::MAX; self.nodes.len()];
        for (id, e) in self.iter().filter(|(id, _)| needed[*id as usize]) {
            if let Some(v) = replace(into, e) {
                copies[id as usize] = v;
                continue;
            }
            let args: SmallVec<[ExprId; 3]> = e.args.iter().map(|&a| copies[a as usize]).collect();
            let mut renumber = |x: &IndexExpr| self.renumbered(&index(x), &copies, into);
            let op = e.op.map_index(&mut renumber);
            copies[id as usize] = into.add(op, &args, e.dtype);
        }
        roots.iter().map(|&r| copies[r as usize]).collect()
    }

    /// `x` with dynamic atoms as numbered in `into`, where their values have been copied.
    fn renumbered(&self, x: &IndexExpr, copies: &[ExprId], into: &mut Self) -> IndexExpr {
        let mut sum = IndexExpr::constant(x.offset_value());
        for (atom, c) in x.terms() {
            let term = match atom {
                Atom::Dynamic(d) => {
                    let (value, bound) = self.dynamics[*d as usize];
                    into.dynamic(copies[value as usize], bound)
                }
                other => IndexExpr::atom(other.clone()),
            };
            sum = sum.add(&term.scale(*c));
        }
        sum
    }

    /// Loads buffer `to` wherever `from` was loaded.
    pub(crate) fn rename(&mut self, from: BufferId, to: BufferId) {
        self.for_each_buffer(&mut |b| replace(b, from, to));
    }

    /// Changes the buffers that are loaded.
    fn for_each_buffer(&mut self, change: &mut dyn FnMut(&mut BufferId)) {
        for e in &mut self.nodes {
            if let ExprOp::Load { buffer, .. } = &mut e.op {
                change(buffer);
            }
        }
        self.known.clear();
        for (id, e) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            self.known_as(&e, id as ExprId);
            self.nodes.push(e);
        }
    }

    /// Loads among what `roots` need, with what they read.
    pub fn loads(&self, roots: &[ExprId]) -> Vec<(BufferId, &[IndexExpr], &[Guard])> {
        let needed = self.needed(roots);
        let nodes = self.iter().filter(|(id, _)| needed[*id as usize]);
        nodes
            .filter_map(|(_, e)| match &e.op {
                ExprOp::Load { buffer, index, guards } => {
                    Some((*buffer, index.as_slice(), guards.as_slice()))
                }
                _ => None,
            })
            .collect()
    }
}

fn replace(buffer: &mut BufferId, from: BufferId, to: BufferId) {
    if *buffer == from {
        *buffer = to;
    }
}

fn dynamics_of(op: &ExprOp) -> impl Iterator<Item = usize> + use<'_> {
    op.index_exprs().into_iter().flat_map(|e| {
        e.terms().iter().filter_map(|(a, _)| match a {
            Atom::Dynamic(d) => Some(*d as usize),
            _ => None,
        })
    })
}

impl ExprOp {
    /// Index expressions that occur in it.
    pub fn index_exprs(&self) -> Vec<&IndexExpr> {
        match self {
            Self::Load { index, guards, .. } => index.iter().chain(guards.iter().map(|g| &g.expr)).collect(),
            Self::Index(e) => vec![e],
            Self::Guard(gs) => gs.iter().map(|g| &g.expr).collect(),
            Self::Scalar(_) | Self::Reduced(_) => Vec::new(),
        }
    }

    /// The same operation on other index expressions.
    pub fn map_index(&self, map: &mut dyn FnMut(&IndexExpr) -> IndexExpr) -> Self {
        let mut guards = |gs: &[Guard]| -> Vec<Guard> {
            gs.iter().map(|g| Guard { expr: map(&g.expr), lo: g.lo, hi: g.hi }).collect()
        };
        match self {
            Self::Load { buffer, index, guards: gs } => {
                let guards = guards(gs);
                Self::Load { buffer: *buffer, index: index.iter().map(map).collect(), guards }
            }
            Self::Guard(gs) => Self::Guard(guards(gs)),
            Self::Index(e) => Self::Index(map(e)),
            Self::Scalar(_) | Self::Reduced(_) => self.clone(),
        }
    }
}

impl ScalarBuilder for Exprs {
    type V = ExprId;

    fn op(&mut self, op: ScalarOp, args: &[ExprId]) -> ExprId {
        let types: SmallVec<[DType; 3]> = args.iter().map(|&a| self.get(a).dtype).collect();
        let dtype = op.infer(&types).unwrap_or_else(|| panic!("{op:?} does not take {types:?}"));
        self.add(ExprOp::Scalar(op), args, dtype)
    }

    fn dtype(&self, v: ExprId) -> DType {
        self.get(v).dtype
    }
}

/// A result of a kernel: `buffer[index] = value`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Store {
    /// Where.
    pub buffer: BufferId,
    /// One expression per dimension of the buffer.
    pub index: Vec<IndexExpr>,
    /// What.
    pub value: ExprId,
    /// Whether it is at every point of the inner space (of the outer space otherwise).
    pub inner: bool,
}

/// One operand of a contraction: an expression over the contraction's variables.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Factor {
    /// Its expressions.
    pub exprs: Exprs,
    /// The value.
    pub value: ExprId,
}

impl Factor {
    /// Whether it depends on a variable.
    pub(crate) fn uses(&self, v: Var) -> bool {
        let needed = self.exprs.needed(&[self.value]);
        let mut exprs = self.exprs.iter().filter(|(id, _)| needed[*id as usize]);
        exprs.any(|(_, e)| e.op.index_exprs().iter().any(|x| x.uses(v)))
    }
}

/// Sums of products over an index space, see [`graphc_ir::Contraction`]. The left factor may vary along n
/// too, as one batch dimension can be there instead: then a result is a sum of products lane by lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ContractionPart {
    /// Ranges of the variables: batch, m, n, k.
    pub space: IndexCx,
    /// Number of batch, m, n and k dimensions.
    pub ranks: [usize; 4],
    /// Left factor.
    pub lhs: Factor,
    /// Right factor.
    pub rhs: Factor,
    /// Columns of a panel, if the right factor is a load from a buffer of panels, `[batch.., n / panel, k..,
    /// n % panel]`: what a tile reads lies in one run of memory.
    pub panel: Option<i64>,
    /// Index of the result element, one expression per variable of the kernel's space.
    pub out: Vec<IndexExpr>,
}

/// Changes to a tensor, one at each point of a space, in row-major order of the points.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Updates {
    /// Ranges of its variables.
    pub space: IndexCx,
    /// Expressions of the values and of dynamic indices.
    pub exprs: Exprs,
    /// What an element is combined with.
    pub value: ExprId,
    /// Which element, one expression per dimension of the tensor.
    pub index: Vec<IndexExpr>,
    /// How.
    pub combine: Combine,
}

impl Updates {
    /// Roots of its expressions.
    pub fn roots(&self) -> Vec<ExprId> {
        self.exprs.dynamics.iter().map(|d| d.0).chain([self.value]).collect()
    }

    /// Buffers read.
    pub fn reads(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.exprs.loads(&self.roots()).into_iter().map(|l| l.0)
    }
}

/// The structure of a kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KernelBody {
    /// Values at each point of an outer space (variables `0..outer`), some of them reductions over
    /// an inner space (the other variables), in the order that [`graphc_ir::Reduce`] states.
    ///
    /// The inner space is run through in stages, see [`Kernel::stages`]: what a stage has reduced
    /// may be used inside the next ones.
    Loop {
        /// Dimensions of the outer space.
        outer: usize,
        /// The reductions: kind and value, which may use results of earlier ones.
        reductions: Vec<(ReduceKind, ExprId)>,
    },
    /// Sums of products, then an epilogue at each result element (`Reduced(0)` is the sum).
    Contraction(Vec<ContractionPart>),
    /// Position of the first NaN or first extremum along the innermost variable.
    ArgReduce {
        /// The values compared.
        value: ExprId,
        /// Greatest or least.
        largest: bool,
        /// Where the position goes.
        out: BufferId,
    },
    /// The kernel's only store at every point of its space, then updates of what it has stored.
    Scatter(Updates),
    /// See [`graphc_ir::Pattern::SelectAndGather`].
    SelectAndGather {
        /// The windows.
        window: Window,
        /// Values whose maximum is sought.
        x: BufferId,
        /// What is read there.
        values: BufferId,
        /// The result.
        out: BufferId,
    },
    /// See [`graphc_ir::Pattern::SelectAndScatter`].
    SelectAndScatter {
        /// The windows.
        window: Window,
        /// Values whose maximum is sought.
        x: BufferId,
        /// What to add.
        ct: BufferId,
        /// The result.
        out: BufferId,
    },
    /// Positions along the innermost variable in the order of the values; see
    /// [`graphc_ir::Pattern::ArgSort`].
    ArgSort {
        /// The values compared.
        value: ExprId,
        /// The axis of the result that the innermost variable is.
        axis: usize,
        /// Greatest first.
        descending: bool,
        /// Where the positions go.
        out: BufferId,
    },
    /// Along the innermost variable, the values combined so far; see [`graphc_ir::Pattern::Cumulative`].
    Cumulative {
        /// The values combined.
        value: ExprId,
        /// What is combined.
        kind: ReduceKind,
        /// The axis of the result that the innermost variable is.
        axis: usize,
        /// From the last element to the first.
        reverse: bool,
        /// Without the element itself.
        exclusive: bool,
        /// The result.
        out: BufferId,
    },
    /// Runs the regions of its node, which are programs of their own (see [`crate::program::Control`]).
    Region {
        /// The operands.
        operands: Vec<BufferId>,
        /// The results.
        results: Vec<BufferId>,
        /// Memory of the regions' programs, if it has been assigned.
        workspace: Option<BufferId>,
    },
}

/// A kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// Name in dumps.
    pub name: String,
    /// Ranges of its variables. Of a contraction: the result's dimensions.
    pub space: IndexCx,
    /// Expressions of the stores and reductions.
    pub exprs: Exprs,
    /// Its structure.
    pub body: KernelBody,
    /// Its results (of loops, contractions and scatters).
    pub stores: Vec<Store>,
    /// Nodes it computes, in order.
    pub sources: Vec<NodeId>,
}

impl Kernel {
    /// Roots of all expressions at the kernel's own level.
    pub fn roots(&self) -> Vec<ExprId> {
        let mut roots: Vec<ExprId> = self.stores.iter().map(|s| s.value).collect();
        match &self.body {
            KernelBody::Loop { reductions, .. } => roots.extend(reductions.iter().map(|r| r.1)),
            KernelBody::ArgReduce { value, .. }
            | KernelBody::ArgSort { value, .. }
            | KernelBody::Cumulative { value, .. } => roots.push(*value),
            _ => {}
        }
        roots
    }

    /// Whether the kernel is a scatter whose initial values lie there already: it changes a tensor in place.
    pub(crate) fn starts_in_place(&self, buffers: &[Buffer]) -> bool {
        let (KernelBody::Scatter(_), [store]) = (&self.body, self.stores.as_slice()) else { return false };
        let ExprOp::Load { buffer, index, guards } = &self.exprs.get(store.value).op else { return false };
        let (from, to) = (&buffers[*buffer as usize], &buffers[store.buffer as usize]);
        *index == store.index && guards.is_empty() && from.place == to.place && from.strides == to.strides
    }

    /// The stage of each reduction: the first is 0, and what uses results of others comes one stage
    /// after the last of them.
    pub fn stages(&self) -> Vec<usize> {
        let mut stages = Vec::new();
        if let KernelBody::Loop { reductions, .. } = &self.body {
            for (_, value) in reductions {
                stages.push(self.stage(*value, &stages));
            }
        }
        stages
    }

    /// The stage in which an inner value is known, given those of the reductions that it uses.
    pub fn stage(&self, value: ExprId, reductions: &[usize]) -> usize {
        if reductions.is_empty() {
            return 0;
        }
        self.exprs.reduced(value).map(|i| reductions[i as usize] + 1).max().unwrap_or(0)
    }

    /// Buffers read, without repetition, in order of first occurrence.
    pub fn reads(&self) -> Vec<BufferId> {
        let mut reads: Vec<BufferId> = self.exprs.loads(&self.roots()).iter().map(|l| l.0).collect();
        match &self.body {
            KernelBody::Contraction(parts) => {
                for f in parts.iter().flat_map(|p| [&p.lhs, &p.rhs]) {
                    reads.extend(f.exprs.loads(&[f.value]).iter().map(|l| l.0));
                }
            }
            KernelBody::Scatter(updates) => reads.extend(updates.reads()),
            KernelBody::SelectAndGather { x, values, .. } => reads.extend([*x, *values]),
            KernelBody::SelectAndScatter { x, ct, .. } => reads.extend([*x, *ct]),
            KernelBody::Region { operands, .. } => reads.extend(operands),
            _ => {}
        }
        let mut seen = FxHashSet::default();
        reads.retain(|b| seen.insert(*b));
        reads
    }

    /// Buffers written, each once.
    pub fn writes(&self) -> Vec<BufferId> {
        let mut writes: Vec<BufferId> = Vec::with_capacity(self.stores.len());
        for s in &self.stores {
            if !writes.contains(&s.buffer) {
                writes.push(s.buffer);
            }
        }
        match &self.body {
            KernelBody::ArgReduce { out, .. }
            | KernelBody::ArgSort { out, .. }
            | KernelBody::Cumulative { out, .. }
            | KernelBody::SelectAndGather { out, .. }
            | KernelBody::SelectAndScatter { out, .. } => writes.push(*out),
            KernelBody::Region { results, workspace, .. } => {
                writes.extend(results);
                writes.extend(workspace);
            }
            _ => {}
        }
        writes
    }

    /// Whether one store writes all of a buffer; there are several where tensors are joined.
    pub(crate) fn stores_once(&self, buffer: BufferId) -> bool {
        self.stores.iter().filter(|s| s.buffer == buffer).count() == 1
    }

    /// About how long it takes: instructions of one lane, of which a vector instruction does many.
    pub(crate) fn work(&self) -> u64 {
        let points = |space: &IndexCx| space.extents.iter().map(|&e| e as u64).product::<u64>();
        let own = points(&self.space) * (self.exprs.len() as u64 + 1);
        match &self.body {
            KernelBody::Contraction(parts) => own + parts.iter().map(|p| points(&p.space)).sum::<u64>(),
            KernelBody::Scatter(updates) => {
                own + 16 * points(&updates.space) * (updates.exprs.len() as u64 + 1)
            }
            _ => own,
        }
    }

    /// Reads and writes buffer `to` in the place of `from`.
    pub(crate) fn rename(&mut self, from: BufferId, to: BufferId) {
        self.for_each_buffer(&mut |b| replace(b, from, to));
    }

    /// Changes every mention of a buffer, in an order that depends on the kernel's structure alone.
    fn for_each_buffer(&mut self, change: &mut dyn FnMut(&mut BufferId)) {
        self.exprs.for_each_buffer(change);
        self.stores.iter_mut().for_each(|s| change(&mut s.buffer));
        match &mut self.body {
            KernelBody::Loop { .. } => {}
            KernelBody::Contraction(parts) => {
                for f in parts.iter_mut().flat_map(|p| [&mut p.lhs, &mut p.rhs]) {
                    f.exprs.for_each_buffer(change);
                }
            }
            KernelBody::Scatter(updates) => updates.exprs.for_each_buffer(change),
            KernelBody::SelectAndGather { x, values, out, .. } => {
                [x, values, out].into_iter().for_each(change);
            }
            KernelBody::SelectAndScatter { x, ct, out, .. } => [x, ct, out].into_iter().for_each(change),
            KernelBody::ArgReduce { out, .. }
            | KernelBody::ArgSort { out, .. }
            | KernelBody::Cumulative { out, .. } => change(out),
            KernelBody::Region { operands, results, workspace } => {
                operands.iter_mut().chain(results).chain(workspace).for_each(change);
            }
        }
    }

    /// The kernel without the stores of all buffers but `kept`, of which it has some, and without what
    /// those alone need.
    pub(crate) fn only(&self, kept: &[BufferId]) -> Self {
        if self.stores.iter().all(|s| kept.contains(&s.buffer)) {
            return self.clone();
        }
        let mut only = self.clone();
        only.stores.retain(|s| kept.contains(&s.buffer));
        // Of reductions, those that the stores use and those that these use.
        let mut used: Vec<u32> = Vec::new();
        let mut work: Vec<ExprId> = only.stores.iter().map(|s| s.value).collect();
        if let KernelBody::Loop { reductions, .. } = &self.body {
            while let Some(root) = work.pop() {
                let new: Vec<u32> = self.exprs.reduced(root).filter(|i| !used.contains(i)).collect();
                work.extend(new.iter().map(|&i| reductions[i as usize].1));
                used.extend(new);
            }
            used.sort_unstable();
        }
        let mut exprs = Exprs::default();
        let number = |i: u32| used.iter().position(|&u| u == i).map(|at| at as u32);
        let mut replace = |into: &mut Exprs, e: &Expr| match e.op {
            ExprOp::Reduced(i) => Some(into.add(ExprOp::Reduced(number(i).unwrap_or(0)), &[], e.dtype)),
            _ => None,
        };
        let mut copy =
            |root: ExprId| self.exprs.copy_into(&mut exprs, &[root], &IndexExpr::clone, &mut replace)[0];
        if let KernelBody::Loop { outer, reductions } = &mut only.body {
            *reductions =
                used.iter().map(|&i| (reductions[i as usize].0, copy(reductions[i as usize].1))).collect();
            // Without reductions there is one space: the inner one if something is stored there.
            if reductions.is_empty() && only.stores.iter().all(|s| s.inner) {
                *outer = only.space.extents.len();
                only.stores.iter_mut().for_each(|s| s.inner = false);
            } else if reductions.is_empty() && only.stores.iter().all(|s| !s.inner) {
                only.space.extents.truncate(*outer);
            }
        }
        only.stores.iter_mut().for_each(|s| s.value = copy(s.value));
        only.exprs = exprs;
        only
    }
}
