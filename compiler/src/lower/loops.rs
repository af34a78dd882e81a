//! Loop kernels: maps, and reductions in the fixed order of [`Reduce`].
//!
//! A reduction runs either along its inner space, 16 lanes at a time (`rows`), or with lanes along
//! an outer dimension (`columns`), whichever touches memory in order. Both give the same bits.
//!
//! A kernel with several stages runs through the inner space once for each of them at every outer
//! point, so what an outer point reads is still in the cache for the next stage. Values that take
//! long to compute and that a later stage needs again are kept in scratch memory.

use super::{Collapsed, Emit, PARALLEL_WORK, Target, delinearize, linear_exprs};
use crate::kernel::{BufferId, Expr, ExprId, ExprOp, Kernel, KernelBody, Store};
use crate::program::{Buffer, Layout, Place, Scheduled};
use crate::vector::builder::{OpenLoop, VBuilder};
use crate::vector::{Base, Bound, MemRef, Val};
use graphc_ir::{DType, Guard, IndexExpr, Reduce, ReduceKind, ScalarBuilder};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Bytes of a result that is written past the caches: the program does not read it again, and it would
/// push out of them what is needed.
const STREAM_BYTES: usize = 4 << 20;

/// Elements of a map that make one unit of parallel work.
const CHUNK: i64 = 2048;

/// Rows shorter than this are walked one vector at a time, all rows of a unit for each.
const SHORT: i64 = 128;

/// Rows that a unit reads across: neighbours in memory come in as several cache lines at once.
const ACROSS: i64 = 64;

/// Rows that are read across together: their neighbours are loaded at once, and transposed in registers.
const TOGETHER: i64 = 4;

/// Expressions of a map or a reduction whose values, of rows that are read together, have room in registers.
const SIMPLE: usize = 8;

/// Blocks of a long reduction that run side by side: the chain of operations of one takes longer than its elements take to arrive.
const SIDE_BY_SIDE: i64 = 4;

/// Positions of an outer dimension with lanes along it that make one unit of parallel work.
const STRIP: i64 = 64;

/// Columns of a strip whose rows are read as a whole. Their virtual lanes stay in the second-level cache: it is near enough, and
/// rows that are read to their ends arrive in time.
const WIDE: i64 = 1024;

/// Points of an inner space that may be run through several times with lanes along an outer
/// dimension: what 16 lanes read stays in the first-level cache.
const SHORT_COLUMN: i64 = 512;

/// Instructions that computing a value again may take before it is kept instead.
const RECOMPUTED: usize = 8;

/// Bytes of scratch memory that one kept value may take.
const KEPT_BYTES: i64 = 256 << 10;

/// Expressions of a map that is bound by their latency. Larger ones run out of registers, and of room: what is
/// done to two vectors takes twice the code.
const LONG: RangeInclusive<usize> = 20..=80;
/// What such a map reads and writes at most.
const FEW_ACCESSES: usize = 3;

const BLOCK: i64 = Reduce::BLOCK as i64;
const LANES: i64 = Reduce::LANES as i64;

pub(super) fn schedule(
    kernel: &Kernel,
    outer: usize,
    reductions: &[(ReduceKind, ExprId)],
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    let rank = kernel.space.extents.len();
    let points: i64 = kernel.space.extents[..outer].iter().product();
    let nest = Nest::new(kernel, outer, buffers);
    let inner_points = nest.inner_points;
    let is_map = reductions.is_empty() && outer == rank;
    let mut s = Schedule {
        kernel,
        buffers,
        reductions,
        first_inner: outer as u32,
        b: VBuilder::kernel(&kernel.name),
        outer: nest.space.extents[0].clone(),
        inner: nest.space.extents[1].clone(),
        nest,
        scratch: 0,
        lanes: if is_map && is_long(kernel, target) { LANES as u16 } else { target.map_lanes },
        target,
    };
    let units = if points == 0 {
        0
    } else if is_map {
        s.map()
    } else if s.nest.lanes_along_outer() {
        s.columns(inner_points)
    } else {
        s.rows(inner_points)
    };
    for store in &kernel.stores {
        let buffer = &buffers[store.buffer as usize];
        let result = matches!(buffer.place, Place::Output(_)) && buffer.bytes() >= STREAM_BYTES;
        if result && !kernel.reads().contains(&store.buffer) {
            s.b.stream(store.buffer);
        }
    }
    let work = (points * inner_points.max(1)) as u64 * kernel.exprs.len() as u64;
    let parallel = units > 1 && work > PARALLEL_WORK;
    Scheduled { function: s.b.finish(), units: units as u64, parallel, scratch: s.scratch }
}

/// Whether a map is bound by the latency of its arithmetic rather than by memory, and two vectors at a time, which
/// the processor computes at once, have their values in registers.
fn is_long(kernel: &Kernel, target: &Target) -> bool {
    let single = |e: &Expr| matches!(e.dtype, DType::F32 | DType::I32 | DType::Bool);
    let accesses = kernel.reads().len() + kernel.stores.len();
    target.map_lanes == target.vector_lanes
        && i64::from(target.map_lanes) < LANES
        && LONG.contains(&kernel.exprs.len())
        && accesses <= FEW_ACCESSES
        && kernel.exprs.iter().all(|(_, e)| single(e))
}

/// The outer variables in the order in which the first result lies in memory.
fn memory_order(kernel: &Kernel, outer: usize, buffers: &[impl Layout]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..outer).collect();
    if let Some(s) = kernel.stores.iter().find(|s| !s.inner) {
        let linear = buffers[s.buffer as usize].offset(&s.index);
        order.sort_by_key(|&v| Reverse(linear.coefficient(v as u32)));
    }
    order
}

/// A loop over a collapsed variable.
struct Along {
    var: usize,
    lo: IndexExpr,
    hi: Bound,
    lanes: u16,
    /// Neighbouring positions that make one step, of which the bounds are multiples.
    together: i64,
}

/// The open loop over units of some neighbouring rows each.
struct RowUnits {
    units: i64,
    unit: OpenLoop,
    /// The collapsed variables before the row.
    at: Vec<IndexExpr>,
    /// The rows.
    lo: IndexExpr,
    hi: Bound,
}

/// Whether several stages of a kernel over an inner space gain by running at each outer point in
/// turn: not where lanes would touch scattered elements, which each stage alone could avoid, or where
/// what lanes along an outer dimension read is too much to stay in the cache.
pub(crate) fn suits_stages(kernel: &Kernel, outer: usize, buffers: &[impl Layout]) -> bool {
    let nest = Nest::new(kernel, outer, buffers);
    let columns = nest.lanes_along_outer();
    let lanes = if columns { nest.last_outer() } else { nest.last_inner() };
    let in_order = |(buffer, index, _): &Access<'_>| nest.in_order(*buffer, index, lanes);
    (!columns || nest.inner_points <= SHORT_COLUMN) && nest.inner_accesses().iter().all(in_order)
}

/// A load or store: the buffer, the index and conditions.
type Access<'a> = (BufferId, &'a [IndexExpr], &'a [Guard]);

/// The space of a loop kernel, its dimensions joined where memory allows it.
struct Nest<'a, B> {
    kernel: &'a Kernel,
    buffers: &'a [B],
    space: Collapsed,
    /// Points of the inner space.
    inner_points: i64,
}

impl<'a, B: Layout> Nest<'a, B> {
    fn new(kernel: &'a Kernel, outer: usize, buffers: &'a [B]) -> Self {
        let extents = &kernel.space.extents;
        // The order of the inner dimensions is part of what a reduction computes.
        let order = [memory_order(kernel, outer, buffers), (outer..extents.len()).collect()];
        let space = Collapsed::new(extents, &order, &linear_exprs(kernel, buffers));
        Self { kernel, buffers, space, inner_points: extents[outer..].iter().product() }
    }

    /// The last outer dimension, where there is one.
    fn last_outer(&self) -> usize {
        self.space.first(1).saturating_sub(1)
    }

    /// The last inner dimension, where there is one.
    fn last_inner(&self) -> usize {
        (self.space.first(1) + self.space.extents[1].len()).saturating_sub(1)
    }

    /// What is read and written at each point of the inner space.
    fn inner_accesses(&self) -> Vec<Access<'a>> {
        let KernelBody::Loop { reductions, .. } = &self.kernel.body else { return Vec::new() };
        let stores = || self.kernel.stores.iter().filter(|s| s.inner);
        let roots: Vec<ExprId> = reductions.iter().map(|r| r.1).chain(stores().map(|s| s.value)).collect();
        let mut accesses = self.kernel.exprs.loads(&roots);
        accesses.extend(stores().map(|s| (s.buffer, s.index.as_slice(), [].as_slice())));
        accesses
    }

    /// Whether an index read from memory depends on collapsed variable `v`: then lanes cannot run
    /// along it.
    fn scattered_along(&self, v: usize) -> bool {
        let inside = self.space.inside(v..v + 1);
        self.kernel.exprs.scattered(&|x| (0..).zip(&inside).any(|(v, &i)| i && x.uses(v)))
    }

    /// Whether neighbours along collapsed variable `v` are neighbours in memory, or one element.
    fn in_order(&self, buffer: BufferId, index: &[IndexExpr], v: usize) -> bool {
        let linear = self.buffers[buffer as usize].offset(index);
        let linear = linear.substitute(&self.kernel.space, &|v| self.space.vars[v as usize].clone());
        matches!(linear.coefficient(v as u32), Some(0 | 1))
    }

    /// Whether lanes along the last outer dimension touch memory in order more often than lanes
    /// along the last inner dimension.
    fn lanes_along_outer(&self) -> bool {
        let [outer, inner] = &self.space.extents[..] else { unreachable!("the space has two groups") };
        let Some(&last) = outer.last() else { return false };
        if self.inner_points == 0 || last < 4 || self.scattered_along(self.last_outer()) {
            return false;
        }
        let Some(&inner_last) = inner.last() else { return true };
        // Lanes that straddle rows of a small inner dimension would each be read alone.
        let straddles = inner.len() > 1 && inner_last % LANES != 0;
        let (mut along_outer, mut along_inner) = (0, 0);
        for (buffer, index, guards) in self.inner_accesses() {
            let guarded = |v: usize| {
                let inside = self.space.inside(v..v + 1);
                guards.iter().any(|g| (0..).zip(&inside).any(|(v, &i)| i && g.expr.uses(v)))
            };
            let in_order = |v: usize| self.in_order(buffer, index, v) && !guarded(v);
            along_outer += i32::from(in_order(self.last_outer()));
            along_inner += i32::from(in_order(self.last_inner()) && !straddles && self.inner_points >= LANES);
        }
        along_outer > along_inner || self.inner_points < LANES && last >= 8
    }
}

struct Schedule<'a> {
    kernel: &'a Kernel,
    buffers: &'a [Buffer],
    reductions: &'a [(ReduceKind, ExprId)],
    /// The first of the kernel's variables that belongs to the inner space.
    first_inner: u32,
    b: VBuilder,
    /// Extents of the collapsed outer and inner dimensions.
    outer: Vec<i64>,
    inner: Vec<i64>,
    nest: Nest<'a, Buffer>,
    /// Scratch bytes of a worker.
    scratch: usize,
    lanes: u16,
    target: &'a Target,
}

/// One run through the inner space.
struct Stage<'a> {
    /// Reductions, by number.
    reductions: Vec<u32>,
    /// Inner stores.
    stores: Vec<&'a Store>,
    /// Values that it computes and later stages load.
    keeps: Vec<(ExprId, Partial)>,
    /// Values that earlier stages have kept for it.
    loads: Vec<(ExprId, Partial)>,
}

impl<'a> Schedule<'a> {
    /// The kernel's stages, which keep nothing yet.
    fn stages(&self) -> Vec<Stage<'a>> {
        let kernel = self.kernel;
        let numbers = kernel.stages();
        let inner: Vec<&Store> = kernel.stores.iter().filter(|s| s.inner).collect();
        let store_stages: Vec<usize> = inner.iter().map(|s| kernel.stage(s.value, &numbers)).collect();
        let count = numbers.iter().chain(&store_stages).max().map_or(0, |last| last + 1);
        (0..count)
            .map(|n| Stage {
                reductions: (0..).zip(&numbers).filter(|(_, s)| **s == n).map(|(r, _)| r).collect(),
                stores: inner.iter().zip(&store_stages).filter(|(_, s)| **s == n).map(|(s, _)| *s).collect(),
                keeps: Vec::new(),
                loads: Vec::new(),
            })
            .collect()
    }

    /// Decides which values are kept from one stage for later ones, in `len` elements of scratch memory
    /// each, `width` at each place.
    fn keep(&mut self, stages: &mut [Stage<'a>], len: i64, width: i64) {
        let kernel = self.kernel;
        let exprs = &kernel.exprs;
        let vars = self.first_inner..kernel.space.extents.len() as u32;
        let varies = exprs.depend(&|e| e.op.index_exprs().iter().any(|x| vars.clone().any(|v| x.uses(v))));
        let takes_long = |id: ExprId| {
            let needed = exprs.needed(&[id]);
            let counted = exprs
                .iter()
                .filter(|(i, e)| needed[*i as usize] && varies[*i as usize] && !e.args.is_empty());
            counted.count() > RECOMPUTED
        };
        let mut computed_in: Vec<Option<usize>> = vec![None; exprs.len()];
        for n in 0..stages.len() {
            let mut work = self.stage_roots(&stages[n]);
            let mut seen = vec![false; exprs.len()];
            while let Some(id) = work.pop() {
                if !varies[id as usize] || std::mem::replace(&mut seen[id as usize], true) {
                    continue;
                }
                let from = *computed_in[id as usize].get_or_insert(n);
                let dtype = exprs.get(id).dtype;
                let bytes = len * dtype.size_bytes() as i64;
                if from == n || bytes > KEPT_BYTES || !takes_long(id) {
                    work.extend(exprs.operands(id));
                    continue;
                }
                let known = stages[from].keeps.iter().find(|k| k.0 == id).map(|k| k.1.clone());
                let place = known.unwrap_or_else(|| {
                    let place = self.partial(dtype, len, width);
                    stages[from].keeps.push((id, place.clone()));
                    place
                });
                stages[n].loads.push((id, place));
            }
        }
    }

    /// What a stage computes at each point of the inner space: if there is none, nothing, for there may be nothing to load.
    fn stage_roots(&self, stage: &Stage<'a>) -> Vec<ExprId> {
        if self.nest.inner_points == 0 {
            return Vec::new();
        }
        let reduced = stage.reductions.iter().map(|&r| self.reductions[r as usize].1);
        reduced.chain(stage.stores.iter().map(|s| s.value)).collect()
    }

    /// An emitter in which the collapsed variables stand for `new`; those beyond are 0.
    fn emit(&self, new: &[IndexExpr]) -> Emit<'a> {
        let mut e = Emit::new(&self.kernel.exprs, self.buffers, Vec::new());
        self.set_vars(&mut e, new);
        e
    }

    fn set_vars(&self, e: &mut Emit<'a>, new: &[IndexExpr]) {
        let get = |v: u32| new.get(v as usize).cloned().unwrap_or_default();
        e.vars = self.nest.space.vars.iter().map(|x| x.substitute(self.b.cx(), &get)).collect();
    }

    /// Which of the kernel's variables belong to collapsed variables in `range`.
    fn inside(&self, range: std::ops::Range<usize>) -> Vec<bool> {
        self.nest.space.inside(range)
    }

    /// Computes all `stores`, then writes them: a store may overwrite what another store's value is
    /// read from.
    fn stores(&mut self, e: &mut Emit<'a>, stores: &[&Store]) {
        let values: Vec<Val> = stores.iter().map(|s| e.value(&mut self.b, s.value)).collect();
        for (s, v) in stores.iter().zip(values) {
            let mem = e.element(&mut self.b, s.buffer, &s.index);
            self.b.store(mem, v);
        }
    }

    /// The stores at the outer points.
    fn outer_stores(&mut self, e: &mut Emit<'a>) {
        let stores: Vec<&Store> = self.kernel.stores.iter().filter(|s| !s.inner).collect();
        self.stores(e, &stores);
    }

    fn roots(&self, inner: bool) -> Vec<ExprId> {
        self.kernel.stores.iter().filter(|s| s.inner == inner).map(|s| s.value).collect()
    }

    /// Opens the loop over the kernel's units.
    fn open_units(&mut self, units: i64) -> OpenLoop {
        self.b.bound_param(0, units);
        self.b.bound_param(1, units + 1);
        let (lo, hi) = (self.b.param(0), Bound::Min(self.b.param(1), IndexExpr::constant(units)));
        self.b.open(lo, hi, 1, 1, &[])
    }

    /// The range of one dimension that the kernel's units of `chunk` positions cover.
    fn unit_range(&mut self, extent: i64, chunk: i64) -> (i64, IndexExpr, Bound) {
        let units = (extent + chunk - 1) / chunk;
        self.b.bound_param(0, units);
        self.b.bound_param(1, units + 1);
        let (lo, hi) = (self.b.param(0).scale(chunk), self.b.param(1).scale(chunk));
        (units, lo, Bound::Min(hi, IndexExpr::constant(extent)))
    }

    /// Lanes for a loop along collapsed variable `v`: 1 if an index read from memory depends on it.
    fn lanes_along(&self, v: usize, lanes: u16) -> u16 {
        if self.nest.scattered_along(v) { 1 } else { lanes }
    }

    /// A kernel without reductions. Returns the number of units.
    fn map(&mut self) -> i64 {
        let Some((&extent, lead)) = self.outer.split_last() else {
            let mut e = self.emit(&[]);
            self.nest(&mut e, &[], &[]);
            return 1;
        };
        let (last, mut lead) = (lead.len(), lead.to_vec());
        let lanes = self.lanes_along(last, self.lanes);
        if lead.is_empty() {
            let (units, lo, hi) = self.unit_range(extent, CHUNK);
            let mut e = self.emit(&[]);
            self.nest(&mut e, &[], &[Along { var: last, lo, hi, lanes, together: 1 }]);
            return units;
        }
        // Rows that are read across: a few at a time, so that what one of them brings into the cache
        // serves the others.
        let across = lanes > 1 && !self.read_across(last).is_empty();
        let exprs = &self.kernel.exprs;
        let simple = exprs.len() <= SIMPLE && exprs.iter().all(|(_, e)| e.dtype.size_bytes() == 4);
        // The wide emitter transposes in registers.
        let transposes = self.target.vector_lanes > Target::V128.vector_lanes;
        let tiled = transposes && across && simple && lead[last - 1] % TOGETHER == 0;
        // With tiles, whole cache lines are written.
        let (together, lanes) = if tiled { (TOGETHER, lanes.max(LANES as u16)) } else { (1, lanes) };
        lead[last - 1] /= together;
        let chunk = if across { ACROSS / together } else { CHUNK / extent };
        let RowUnits { units, unit, at, lo, hi } = self.open_rows(&lead, chunk);
        let rows = Along { var: last - 1, lo, hi, lanes: 1, together };
        let hi = Bound::Expr(IndexExpr::constant(extent));
        let row = Along { var: last, lo: IndexExpr::default(), hi, lanes, together: 1 };
        let short = across || lanes > 1 && (i64::from(lanes)..SHORT).contains(&extent);
        let mut e = self.emit(&at);
        self.nest(&mut e, &at, &if short { [row, rows] } else { [rows, row] });
        self.b.close(unit, &[]);
        units
    }

    /// The loads that lie in order along the dimension before collapsed variable `last`, but not along that one.
    fn read_across(&self, last: usize) -> Vec<ExprId> {
        let exprs = &self.kernel.exprs;
        let needed = exprs.needed(&self.roots(false));
        let across = |(id, e): &(ExprId, &Expr)| {
            let ExprOp::Load { buffer, index, .. } = &e.op else { return false };
            let linear = self.buffers[*buffer as usize].linear(index);
            let linear = linear.substitute(&self.kernel.space, &|v| self.nest.space.vars[v as usize].clone());
            let along = |v: usize| linear.coefficient(v as u32).unwrap_or(0);
            needed[*id as usize] && along(last - 1) == 1 && along(last) > 1
        };
        exprs.iter().filter(across).map(|(id, _)| id).collect()
    }

    /// Opens units of up to `chunk` neighbours in the last of the dimensions `lead`.
    fn open_rows(&mut self, lead: &[i64], chunk: i64) -> RowUnits {
        let (&rows, lead) = lead.split_last().expect("a dimension before the last");
        let chunk = chunk.clamp(1, rows);
        let extents = [lead, &[(rows + chunk - 1) / chunk]].concat();
        let units = extents.iter().product();
        let unit = self.open_units(units);
        let mut at = delinearize(&self.b, &unit.var, &extents);
        let lo = at.pop().expect("one for each extent").scale(chunk);
        let end = lo.offset(chunk);
        let hi =
            if rows % chunk == 0 { Bound::Expr(end) } else { Bound::Min(end, IndexExpr::constant(rows)) };
        RowUnits { units, unit, at, lo, hi }
    }

    /// The stores inside of `loops`, outermost first; collapsed variables without a loop are at
    /// `at`. What does not change in a loop is computed before it.
    fn nest(&mut self, e: &mut Emit<'a>, at: &[IndexExpr], loops: &[Along]) {
        self.set_vars(e, at);
        let Some((l, rest)) = loops.split_first() else { return self.outer_stores(e) };
        let inside: Vec<Vec<bool>> = loops.iter().map(|l| self.inside(l.var..l.var + 1)).collect();
        let roots = self.roots(false);
        e.hoist(&mut self.b, &roots, &|v| inside.iter().any(|i| i[v as usize]));
        let open = self.b.open(l.lo.clone(), l.hi.clone(), i64::from(l.lanes), l.lanes, &[]);
        e.open();
        let mut at = at.to_vec();
        at.resize(at.len().max(l.var + 1), IndexExpr::default());
        at[l.var] = open.var.scale(l.together);
        if l.together == 1 {
            self.nest(e, &at, rest);
        } else {
            self.neighbours(e, &at, l);
        }
        e.close();
        self.b.close(open, &[]);
    }

    /// The stores at the neighbours along `rows` that make a step, from `at` on. Of each load across, those of all of
    /// them come one after the other, before there are stores.
    fn neighbours(&mut self, e: &Emit<'a>, at: &[IndexExpr], rows: &Along) {
        let mut points: Vec<Emit<'a>> = (0..rows.together)
            .map(|i| {
                let (mut e, mut at) = (e.clone(), at.to_vec());
                at[rows.var] = at[rows.var].offset(i);
                self.set_vars(&mut e, &at);
                e
            })
            .collect();
        for load in self.read_across(rows.var + 1) {
            for e in &mut points {
                e.value(&mut self.b, load);
            }
        }
        for e in &mut points {
            self.outer_stores(e);
        }
    }

    /// The 16 lanes run along the inner space. Returns the number of units.
    ///
    /// A stage runs through several short rows before the next one begins: each row's chain of
    /// operations is long, those of different rows do not wait for each other.
    fn rows(&mut self, inner_points: i64) -> i64 {
        let rows: i64 = self.outer.iter().product();
        let inside = self.inside(self.outer.len()..self.outer.len() + self.inner.len());
        let first = self.outer.len();
        let scattered = (first..first + self.inner.len()).any(|v| self.nest.scattered_along(v));
        let width = if scattered { LANES } else { 1 };
        let mut stages = self.stages();
        let last = stages.len() - 1;
        let group = if last == 0 { 1 } else { (CHUNK / inner_points.max(1)).clamp(1, rows) };
        self.keep(&mut stages, group * inner_points * width, width);
        let kernel = self.kernel;
        // What is reduced before the last stage, for all rows of a group.
        let mut known: FxHashMap<u32, Partial> = FxHashMap::default();
        for &r in stages[..last].iter().flat_map(|s| &s.reductions) {
            let dtype = kernel.exprs.get(self.reductions[r as usize].1).dtype;
            known.insert(r, self.partial(dtype, group, 1));
        }
        let (units, lo, hi) = self.unit_range(rows, group);
        let unit = self.b.open(lo, hi, group, 1, &[]);
        for (n, mut stage) in stages.into_iter().enumerate() {
            let end = unit.var.offset(group);
            let end = if group == 1 { Bound::Expr(end) } else { Bound::Min(end, IndexExpr::constant(rows)) };
            let row = self.b.open(unit.var.clone(), end, 1, 1, &[]);
            let in_group = row.var.add(&unit.var.scale(-1));
            for (_, kept) in stage.keeps.iter_mut().chain(&mut stage.loads) {
                kept.lane = in_group.scale(inner_points * width);
            }
            let at = delinearize(&self.b, &row.var, &self.outer);
            let mut e = self.emit(&at);
            let mut roots = self.stage_roots(&stage);
            if n == last {
                roots.extend(self.roots(false));
            }
            let used: BTreeSet<u32> = roots.iter().flat_map(|&r| kernel.exprs.reduced(r)).collect();
            for r in used.into_iter().filter(|r| !stage.reductions.contains(r)) {
                e.reduced.insert(r, self.b.load(known[&r].at(&in_group), &[]));
            }
            e.hoist(&mut self.b, &roots, &|v| inside[v as usize]);
            let results = if inner_points == 0 {
                self.identities(&stage, 1)
            } else if scattered {
                // An index read from memory differs from lane to lane: one virtual lane after another.
                self.reduce_in_turn(&mut e, &stage, &at, inner_points, &IndexExpr::default())
            } else if inner_points <= BLOCK || stage.reductions.is_empty() {
                self.along_inner(&mut e, &stage, &at, IndexExpr::default(), inner_points, 1)
            } else {
                self.blocks_along_inner(&mut e, &stage, &at, inner_points)
            };
            for (&r, v) in stage.reductions.iter().zip(results) {
                e.reduced.insert(r, v);
                if let Some(known) = known.get(&r) {
                    self.b.store(known.at(&in_group), v);
                }
            }
            if n == last {
                self.outer_stores(&mut e);
            }
            self.b.close(row, &[]);
        }
        self.b.close(unit, &[]);
        units
    }

    fn identities(&mut self, stage: &Stage<'a>, lanes: u16) -> Vec<Val> {
        let values = stage.reductions.iter().map(|&r| {
            let (kind, value) = self.reductions[r as usize];
            let identity = kind.identity(self.kernel.exprs.get(value).dtype);
            self.b.constant_lanes(identity, lanes)
        });
        values.collect()
    }

    fn kinds(&self, stage: &Stage<'a>) -> Vec<ReduceKind> {
        stage.reductions.iter().map(|&r| self.reductions[r as usize].0).collect()
    }

    /// Blocks of the inner space side by side, [`BLOCK`] positions from each to the next and `n` in each, of which the first begins
    /// at `lo`: 16 lanes, folded. Gives the results of the first, then those of the next.
    fn along_inner(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        lo: IndexExpr,
        n: i64,
        blocks: i64,
    ) -> Vec<Val> {
        // Without an inner dimension of its own (all of extent 1) there is one element.
        let lanes = if stage.reductions.is_empty() { self.lanes } else { Reduce::LANES as u16 };
        let init = self.identities(stage, lanes).repeat(blocks as usize);
        let hi = Bound::Expr(lo.offset(n));
        let l = self.b.open(lo, hi, i64::from(lanes), lanes, &init);
        let each = stage.reductions.len();
        let mut next = Vec::with_capacity(init.len());
        for i in 0..blocks as usize {
            let position = l.var.offset(i as i64 * BLOCK);
            next.extend(self.point(e, stage, at, &position, &l.values[i * each..(i + 1) * each]));
        }
        let lanes = self.b.close(l, &next);
        let kinds = self.kinds(stage).into_iter().cycle();
        lanes.iter().zip(kinds).map(|(&v, kind)| self.b.fold(kind, v)).collect()
    }

    /// What a stage does at one inner position: gives the carried values combined with those there.
    fn point(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        position: &IndexExpr,
        carried: &[Val],
    ) -> Vec<Val> {
        e.open();
        let inner = delinearize(&self.b, position, &self.inner);
        self.set_vars(e, &[at, &inner].concat());
        for (id, kept) in &stage.loads {
            let v = self.b.load(kept.at(position), &[]);
            e.define(*id, v);
        }
        let reductions = stage.reductions.iter().map(|&r| self.reductions[r as usize]);
        let values: Vec<(ReduceKind, Val)> =
            reductions.map(|(kind, value)| (kind, e.value(&mut self.b, value))).collect();
        let pairs = carried.iter().zip(values);
        let next = pairs.map(|(&acc, (kind, x))| self.b.op(kind.op(), &[acc, x])).collect();
        self.stores(e, &stage.stores);
        for (id, kept) in &stage.keeps {
            let v = e.value(&mut self.b, *id);
            self.b.store(kept.at(position), v);
        }
        e.close();
        self.set_vars(e, at);
        next
    }

    /// More than one block: each block's result goes to scratch memory, then neighbours combine.
    fn blocks_along_inner(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        inner_points: i64,
    ) -> Vec<Val> {
        let full = inner_points / BLOCK;
        let rest = inner_points % BLOCK;
        let n = full + i64::from(rest > 0);
        let parts = self.partials(stage, n, 1);
        let together = if self.run_side_by_side(stage, &parts) { SIDE_BY_SIDE } else { 1 };
        let groups = full / together * together;
        for (from, to, blocks) in [(0, groups, together), (groups, full, 1)] {
            if from == to {
                continue;
            }
            let (from, to) = (IndexExpr::constant(from), Bound::Expr(IndexExpr::constant(to)));
            let l = self.b.open(from, to, blocks, 1, &[]);
            e.open();
            let lo = l.var.scale(BLOCK);
            let values = self.along_inner(e, stage, at, lo, BLOCK, blocks);
            let places = (0..blocks).flat_map(|i| parts.iter().map(move |p| (p, i)));
            for ((p, i), v) in places.zip(values) {
                self.b.store(p.at(&l.var.offset(i)), v);
            }
            e.close();
            self.b.close(l, &[]);
        }
        if rest > 0 {
            let lo = IndexExpr::constant(full * BLOCK);
            e.open();
            let values = self.along_inner(e, stage, at, lo, rest, 1);
            e.close();
            for (p, v) in parts.iter().zip(values) {
                self.b.store(p.at(&IndexExpr::constant(full)), v);
            }
        }
        self.pairwise(stage, &parts, n)
    }

    /// Whether blocks of a stage, of which `parts` are the results, had better run side by side: their accumulators take half of
    /// the registers at most.
    fn run_side_by_side(&self, stage: &Stage<'a>, parts: &[Partial]) -> bool {
        let register = usize::from(self.target.vector_lanes) * DType::F32.size_bytes();
        let taken = |p: &Partial| (LANES as usize * p.dtype.size_bytes()).div_ceil(register);
        let taken = SIDE_BY_SIDE as usize * parts.iter().map(taken).sum::<usize>();
        let simple = self.inner.len() == 1 && self.kernel.exprs.len() <= SIMPLE;
        let only_reduces = stage.stores.is_empty() && stage.keeps.is_empty();
        simple && only_reduces && 2 * taken <= usize::from(self.target.registers)
    }

    /// Scratch memory for `n` partial results of each reduction of a stage, `width` elements each.
    fn partials(&mut self, stage: &Stage<'a>, n: i64, width: i64) -> Vec<Partial> {
        let kernel = self.kernel;
        let dtype = |&r: &u32| kernel.exprs.get(self.reductions[r as usize].1).dtype;
        let dtypes: Vec<DType> = stage.reductions.iter().map(dtype).collect();
        dtypes.into_iter().map(|dtype| self.partial(dtype, n * width, width)).collect()
    }

    /// Scratch memory of `len` elements, `width` at each place.
    fn partial(&mut self, dtype: DType, len: i64, width: i64) -> Partial {
        let offset = self.scratch;
        self.scratch += (len as usize * dtype.size_bytes()).next_multiple_of(64);
        Partial { dtype, offset: offset as u32, width, lane: IndexExpr::default() }
    }

    /// `b[i] = op(b[i], b[i + s])` for `s` = 1, 2, 4, ..; gives `b[0]`.
    fn pairwise(&mut self, stage: &Stage<'a>, parts: &[Partial], n: i64) -> Vec<Val> {
        let kinds = self.kinds(stage);
        let mut s = 1;
        while s < n {
            let pairs = (n - s + 2 * s - 1) / (2 * s);
            let l = self.b.open(IndexExpr::default(), Bound::Expr(IndexExpr::constant(pairs)), 1, 1, &[]);
            let i = l.var.scale(2 * s);
            for (p, &kind) in parts.iter().zip(&kinds) {
                let x = self.b.load(p.at(&i), &[]);
                let y = self.b.load(p.at(&i.offset(if fault!(18) { 0 } else { s })), &[]);
                let v = self.b.op(kind.op(), &[x, y]);
                self.b.store(p.at(&i), v);
            }
            self.b.close(l, &[]);
            s *= 2;
        }
        parts.iter().map(|p| self.b.load(p.at(&IndexExpr::default()), &[])).collect()
    }

    /// Lanes run along the last outer dimension. Returns the number of units.
    fn columns(&mut self, inner_points: i64) -> i64 {
        let (last, lead) =
            self.outer.split_last().map(|(&l, r)| (l, r.to_vec())).expect("an outer dimension has lanes");
        let lanes = if last >= LANES { Reduce::LANES as u16 } else { 4 };
        let wide = self.wide_strips(last, inner_points);
        if lead.is_empty() {
            if let Some(width) = wide {
                let threads = self.target.threads as i64;
                let width = width.min((last / threads / LANES * LANES).max(2 * LANES));
                let (units, lo, hi) = self.unit_range(last, width);
                self.wide_strip(&[], (lo, hi), width, inner_points);
                return units;
            }
            // A vector of columns is a unit if it is long.
            let strip = if inner_points < BLOCK { STRIP } else { LANES };
            let (units, lo, hi) = self.unit_range(last, strip);
            self.column_strip(&[], lo, hi, lanes, inner_points);
            return units;
        }
        let RowUnits { units, unit, mut at, lo, hi } =
            self.open_rows(&lead, CHUNK / last.saturating_mul(inner_points));
        let row = self.b.open(lo, hi, 1, 1, &[]);
        at.push(row.var.clone());
        let (lo, hi) = (IndexExpr::default(), Bound::Expr(IndexExpr::constant(last)));
        match wide {
            Some(width) => self.wide_strip(&at, (lo, hi), width, inner_points),
            None => self.column_strip(&at, lo, hi, lanes, inner_points),
        }
        self.b.close(row, &[]);
        self.b.close(unit, &[]);
        units
    }

    fn column_strip(&mut self, at: &[IndexExpr], lo: IndexExpr, hi: Bound, lanes: u16, inner_points: i64) {
        let first = at.len();
        let mut e = self.emit(at);
        let inside = self.inside(first..first + 1 + self.inner.len());
        e.hoist(&mut self.b, &self.kernel.roots(), &|v| inside[v as usize]);
        let v = self.b.open(lo, hi, i64::from(lanes), lanes, &[]);
        e.open();
        let at: Vec<IndexExpr> = at.iter().cloned().chain([v.var.clone()]).collect();
        self.set_vars(&mut e, &at);
        let inside = self.inside(first + 1..first + 1 + self.inner.len());
        // The position within a vector, which is the same for all vectors of an aligned loop.
        let lane = self.b.cx().rem(&v.var, LANES);
        let mut stages = self.stages();
        self.keep(&mut stages, inner_points * LANES, LANES);
        for mut stage in stages {
            e.hoist(&mut self.b, &self.kernel.roots(), &|v| inside[v as usize]);
            for (_, kept) in stage.keeps.iter_mut().chain(&mut stage.loads) {
                kept.lane = lane.clone();
            }
            let results = self.reduce_in_turn(&mut e, &stage, &at, inner_points, &lane);
            e.reduced.extend(stage.reductions.iter().copied().zip(results));
        }
        self.outer_stores(&mut e);
        e.close();
        self.b.close(v, &[]);
    }

    /// Columns of the strips of [`Self::wide_strip`], if the kernel may be run that way.
    fn wide_strips(&self, last: i64, inner_points: i64) -> Option<i64> {
        let stages = self.stages();
        let reduces = stages.len() == 1 && stages[0].stores.is_empty() && !stages[0].reductions.is_empty();
        (reduces && last >= 2 * LANES && inner_points >= BLOCK)
            .then(|| ((last + LANES - 1) / LANES * LANES).min(WIDE))
    }

    /// Strips of `width` columns, of which each row is read as a whole before the next row: rows lie far
    /// apart, and all of what a strip holds of a row comes in together. The virtual lanes of all its columns
    /// are accumulated in scratch memory.
    fn wide_strip(&mut self, at: &[IndexExpr], (lo, hi): (IndexExpr, Bound), width: i64, inner_points: i64) {
        let last = *self.outer.last().expect("a dimension has the columns");
        let stage = self.stages().pop().expect("there is one");
        let mut e = self.emit(at);
        let inside = self.inside(at.len()..at.len() + 1 + self.inner.len());
        e.hoist(&mut self.b, &self.kernel.roots(), &|v| inside[v as usize]);
        let open = self.b.open(lo, hi, width, 1, &[]);
        let end = open.var.offset(width);
        let hi =
            if last % width == 0 { Bound::Expr(end) } else { Bound::Min(end, IndexExpr::constant(last)) };
        let strip = Strip {
            at: at.to_vec(),
            columns: Columns::Along { lo: open.var.clone(), hi },
            slots: self.partials(&stage, LANES, width),
        };
        let (whole, rest) = (inner_points / BLOCK, inner_points % BLOCK);
        let n = whole + i64::from(rest > 0);
        let parts = self.partials(&stage, n, width);
        let block = self.b.open(IndexExpr::default(), Bound::Expr(IndexExpr::constant(whole)), 1, 1, &[]);
        self.wide_block(&mut e, &stage, &strip, (block.var.scale(BLOCK), BLOCK), (&parts, block.var.clone()));
        self.b.close(block, &[]);
        if rest > 0 {
            let from = IndexExpr::constant(whole * BLOCK);
            self.wide_block(&mut e, &stage, &strip, (from, rest), (&parts, IndexExpr::constant(whole)));
        }
        self.along_strip(&mut e, &strip, |s, e, column, lane| {
            let parts: Vec<Partial> = parts.iter().map(|p| p.lane(lane)).collect();
            let results = s.pairwise(&stage, &parts, n);
            s.set_vars(e, column);
            e.reduced.extend(stage.reductions.iter().copied().zip(results));
            s.outer_stores(e);
        });
        self.b.close(open, &[]);
    }

    /// Code for the columns of a strip, in a loop over them, 16 at a time, if they are more; `each` gets the
    /// position and that in the strip.
    fn along_strip(
        &mut self,
        e: &mut Emit<'a>,
        strip: &Strip,
        each: impl FnOnce(&mut Self, &mut Emit<'a>, &[IndexExpr], &IndexExpr),
    ) {
        let (lo, hi) = match &strip.columns {
            Columns::Lane(lane) => return each(self, e, &strip.at, lane),
            Columns::Along { lo, hi } => (lo, hi),
        };
        let v = self.b.open(lo.clone(), hi.clone(), LANES, Reduce::LANES as u16, &[]);
        e.open();
        let column: Vec<IndexExpr> = strip.at.iter().cloned().chain([v.var.clone()]).collect();
        each(self, e, &column, &v.var.add(&lo.scale(-1)));
        e.close();
        self.b.close(v, &[]);
    }

    /// Rows `from..from + n` of a strip, a block of the inner space; the results go to place `to` of `parts`.
    fn wide_block(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        strip: &Strip,
        (from, n): (IndexExpr, i64),
        (parts, to): (&[Partial], IndexExpr),
    ) {
        self.accumulate(e, stage, strip, &from, n);
        self.along_strip(e, strip, |s, _, _, lane| {
            for (part, v) in parts.iter().zip(s.fold_slots(stage, strip, lane, n)) {
                s.b.store(part.lane(lane).at(&to), v);
            }
        });
    }

    /// A stage at one outer position, or one vector of them at position `lane` within it: no lanes run
    /// along the inner space.
    fn reduce_in_turn(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        inner_points: i64,
        lane: &IndexExpr,
    ) -> Vec<Val> {
        let n = (inner_points + BLOCK - 1) / BLOCK;
        if inner_points <= LANES && inner_points * self.kernel.exprs.len() as i64 <= 400 {
            return self.few_rows(e, stage, at, inner_points);
        }
        if stage.reductions.is_empty() {
            let all = Bound::Expr(IndexExpr::constant(inner_points));
            let r = self.b.open(IndexExpr::default(), all, 1, 1, &[]);
            self.point(e, stage, at, &r.var, &[]);
            return self.b.close(r, &[]);
        }
        if n == 1 {
            return self.column_block(e, stage, at, IndexExpr::default(), inner_points, lane);
        }
        let parts = self.partials(stage, n, LANES);
        let parts: Vec<Partial> = parts.into_iter().map(|p| Partial { lane: lane.clone(), ..p }).collect();
        let whole = Bound::Expr(IndexExpr::constant(inner_points / BLOCK));
        let l = self.b.open(IndexExpr::default(), whole, 1, 1, &[]);
        e.open();
        let values = self.column_block(e, stage, at, l.var.scale(BLOCK), BLOCK, lane);
        for (p, value) in parts.iter().zip(values) {
            self.b.store(p.at(&l.var), value);
        }
        e.close();
        self.b.close(l, &[]);
        let rest = inner_points % BLOCK;
        if rest > 0 {
            e.open();
            let from = IndexExpr::constant(inner_points - rest);
            let values = self.column_block(e, stage, at, from, rest, lane);
            e.close();
            for (p, value) in parts.iter().zip(values) {
                self.b.store(p.at(&IndexExpr::constant(n - 1)), value);
            }
        }
        self.pairwise(stage, &parts, n)
    }

    /// At most 16 inner positions: each is a virtual lane of its own.
    fn few_rows(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        inner_points: i64,
    ) -> Vec<Val> {
        let mut lanes: Vec<Vec<Val>> = Vec::new();
        for r in 0..inner_points {
            let start = self.identities(stage, 1);
            lanes.push(self.point(e, stage, at, &IndexExpr::constant(r), &start));
        }
        self.fold_lanes(stage, lanes)
    }

    /// Virtual lanes folded by halves; lanes that do not exist hold the identity, which changes
    /// nothing that was combined with it once already.
    fn fold_lanes(&mut self, stage: &Stage<'a>, mut lanes: Vec<Vec<Val>>) -> Vec<Val> {
        let kinds = self.kinds(stage);
        let mut half = Reduce::LANES / 2;
        while half > 0 {
            for j in half..lanes.len().min(2 * half) {
                let to = if fault!(19) { 0 } else { j - half };
                for (i, &kind) in kinds.iter().enumerate() {
                    lanes[to][i] = self.b.op(kind.op(), &[lanes[to][i], lanes[j][i]]);
                }
            }
            lanes.truncate(half);
            half /= 2;
        }
        lanes.swap_remove(0)
    }

    /// A block of the inner space in one pass, of the outer position `at` or a vector of them.
    fn column_block(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        at: &[IndexExpr],
        from: IndexExpr,
        n: i64,
        lane: &IndexExpr,
    ) -> Vec<Val> {
        let slots = self.partials(stage, LANES, LANES);
        let strip = Strip { at: at.to_vec(), columns: Columns::Lane(lane.clone()), slots };
        self.accumulate(e, stage, &strip, &from, n);
        self.set_vars(e, at);
        self.fold_slots(stage, &strip, lane, n)
    }

    /// Combines inner positions `from..from + n`, a block, in the slots of a strip's virtual lanes.
    fn accumulate(&mut self, e: &mut Emit<'a>, stage: &Stage<'a>, strip: &Strip, from: &IndexExpr, n: i64) {
        let all = |n: i64| Bound::Expr(IndexExpr::constant(n));
        let j = self.b.open(IndexExpr::default(), all(LANES.min(n)), 1, 1, &[]);
        self.along_strip(e, strip, |s, _, _, lane| {
            let lanes = s.b.lanes();
            for (slot, v) in strip.slots.iter().zip(s.identities(stage, lanes)) {
                s.b.store(slot.lane(lane).at(&j.var), v);
            }
        });
        self.b.close(j, &[]);
        let r = self.b.open(IndexExpr::default(), all(n / LANES), 1, 1, &[]);
        self.accumulate_lanes(e, stage, strip, &from.add(&r.var.scale(LANES)), LANES);
        self.b.close(r, &[]);
        if n % LANES > 0 {
            self.accumulate_lanes(e, stage, strip, &from.offset(n / LANES * LANES), n % LANES);
        }
    }

    /// Combines inner positions `from..from + n` with the first `n` slots.
    fn accumulate_lanes(
        &mut self,
        e: &mut Emit<'a>,
        stage: &Stage<'a>,
        strip: &Strip,
        from: &IndexExpr,
        n: i64,
    ) {
        let j = self.b.open(IndexExpr::default(), Bound::Expr(IndexExpr::constant(n)), 1, 1, &[]);
        self.along_strip(e, strip, |s, e, at, lane| {
            let slots: Vec<Partial> = strip.slots.iter().map(|p| p.lane(lane)).collect();
            let before: Vec<Val> = slots.iter().map(|p| s.b.load(p.at(&j.var), &[])).collect();
            let after = s.point(e, stage, at, &from.add(&j.var), &before);
            for (slot, v) in slots.iter().zip(after) {
                s.b.store(slot.at(&j.var), v);
            }
        });
        self.b.close(j, &[]);
    }

    /// What the slots of a block of `n` positions give together.
    fn fold_slots(&mut self, stage: &Stage<'a>, strip: &Strip, lane: &IndexExpr, n: i64) -> Vec<Val> {
        let load = |s: &mut Self, j: i64| -> Vec<Val> {
            strip.slots.iter().map(|p| s.b.load(p.lane(lane).at(&IndexExpr::constant(j)), &[])).collect()
        };
        let loaded: Vec<Vec<Val>> = (0..LANES.min(n)).map(|j| load(self, j)).collect();
        self.fold_lanes(stage, loaded)
    }
}

/// Partial results of a reduction, or values kept for later, in scratch memory.
#[derive(Clone)]
struct Partial {
    dtype: DType,
    offset: u32,
    /// Elements at each place.
    width: i64,
    /// Which of them.
    lane: IndexExpr,
}

/// Columns of a reduction with lanes along an outer dimension.
struct Strip {
    /// The position in the dimensions before that of the columns, or in all for one vector of columns.
    at: Vec<IndexExpr>,
    columns: Columns,
    /// The 16 virtual lanes of each reduction, for every column.
    slots: Vec<Partial>,
}

/// Which columns of a strip there are.
enum Columns {
    /// One vector, in a loop that is open; where its slots are among those of the strip.
    Lane(IndexExpr),
    /// Those of a range.
    Along { lo: IndexExpr, hi: Bound },
}

impl Partial {
    /// The same at another lane.
    fn lane(&self, lane: &IndexExpr) -> Self {
        Self { lane: lane.clone(), ..self.clone() }
    }

    fn at(&self, i: &IndexExpr) -> MemRef {
        MemRef {
            base: Base::Scratch(self.offset),
            dtype: self.dtype,
            index: i.scale(self.width).add(&self.lane),
        }
    }
}
