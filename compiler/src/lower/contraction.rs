//! Contractions: matrix products, batched products, convolution and its gradients, as one family.
//!
//! The register tile is written inline: `rows` x `lanes` accumulators are carried through the loops
//! over k, and the epilogue works on them while they are in registers. Both factors are read in
//! place; what cannot be was written to a buffer of its own before ([`crate::operands`]). The left
//! factor of a padded convolution is the exception: the box of it that a unit of work reads is
//! copied to scratch memory, with the zeros of the padding.
//!
//! Each result element is one chain of fused multiply-adds over all of k in order. A long k is
//! taken in blocks, between which the accumulators rest in scratch memory, which does not change a
//! bit.

use super::{Collapsed, Emit, PARALLEL_WORK, Target, delinearize, element, exprs_linear};
use crate::kernel::{BufferId, ContractionPart, ExprOp, Factor, Kernel};
use crate::operands::{ALIAS_BYTES, ALIAS_LEAST};
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::{OpenLoop, VBuilder};
use crate::vector::{Base, Bound, MemRef, Val};
use graphc_ir::{Atom, CmpKind, DType, IndexExpr, MAX_ELEMENTS, Scalar, ScalarBuilder};
use std::ops::RangeInclusive;

/// A k of at most this many positions is one block.
const K_WHOLE: i64 = 2048;
/// Positions in a block of a longer k.
const K_BLOCK: i64 = 1024;
/// Rows of the right factor that are at least this many bytes apart, and together span more than
/// that many, are not at hand in cache and TLB when the next row tile needs them again.
const FAR_ROWS: (i64, i64) = (256, 100 << 10);
/// Rows of the result that share a copy of them at least, and if they collide in the cache.
const COPY_ROWS: (i64, i64) = (64, 32);
/// Bytes of a second-level cache.
const L2_BYTES: i64 = 512 << 10;
/// Rows of a result that do not read the right factor often: what counts is that it comes in the order of memory.
const STREAM_ROWS: i64 = 8;
/// Positions in a block of k of such a product.
const STREAM_BLOCK: i64 = 8;
/// Bytes of a right factor that is streamed, or how many times the positions of k that the cache keeps.
const STREAM_LEAST: (i64, i64) = (4 << 20, 4);
/// Positions in a block of k whose panels are copied: one of them stays in the first-level cache.
const COPY_BLOCK: i64 = 320;
/// Rows that are asked for before they are copied: they lie far apart, each has to come by itself.
const COPY_AHEAD: i64 = 8;
/// Bytes of the copied panels of a unit, and of the left factor that it reads with them.
const COPY_BYTES: (i64, i64) = (160 << 10, 256 << 10);
/// A block of k is not made smaller than this to make a box fit.
const K_LEAST: i64 = 256;
/// Bytes of the left factor that a unit reads: they stay in L2.
const LHS_BYTES: i64 = 448 << 10;
/// Bytes of a box of the left factor in scratch memory.
const BOX_BYTES: i64 = 128 << 10;
/// Bytes of accumulators in scratch memory.
const ACCUMULATOR_BYTES: i64 = 256 << 10;
/// Units that work for several threads is divided into.
const UNITS: i64 = 8;
/// Multiply-adds of a tile unrolled in a long innermost loop: they amortize its overhead.
const UNROLL: i64 = 4;
/// Innermost dimensions of k of at most this many positions are unrolled altogether.
const UNROLL_WHOLE: i64 = 9;
/// Registers that a row of a tile takes at most.
const MAX_VECTORS: i64 = 8;
/// Bytes of the right factor that each strip reads: they stay in L2, beside the left factor.
const STRIP_BYTES: i64 = 96 << 10;
/// Expressions of an epilogue that works on the registers of a tile.
const SHORT_EPILOGUE: usize = 16;

pub(super) fn schedule(
    kernel: &Kernel,
    parts: &[ContractionPart],
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    b.keep_order();
    // The parts' units follow one another.
    let shapes: Vec<Shape> = parts.iter().map(|p| Shape::new(kernel, p, buffers, target)).collect();
    let total: i64 = shapes.iter().map(Shape::units).sum();
    b.bound_param(0, total.max(1));
    b.bound_param(1, total + 1);
    let (mut scratch, mut first_unit) = (0, 0);
    for (part, s) in parts.iter().zip(&shapes).filter(|(_, s)| s.units() > 0) {
        let mut part = Part { kernel, part, buffers, s, b: &mut b, scratch: 0 };
        part.emit(first_unit, total);
        scratch = scratch.max(part.scratch);
        first_unit += s.units();
    }
    let work: u64 = shapes.iter().map(Shape::work).sum();
    let parallel = total > 1 && work > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: total as u64, parallel, scratch }
}

const fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// How one part is cut into units, blocks and tiles.
struct Shape {
    dtype: DType,
    /// Collapsed dimensions: batch, m, n, k.
    space: Collapsed,
    batch: Vec<i64>,
    m: Vec<i64>,
    n: i64,
    k: Vec<i64>,
    /// The dimension of m that the rows of a tile run along.
    row_dim: usize,
    rows: i64,
    lanes: i64,
    /// Lanes of an emitted vector are a multiple of this, unless there is one column.
    lane_step: i64,
    /// Lanes of loops that copy.
    copy_lanes: u16,
    /// Positions of each dimension of m in a unit; of the row dimension whole tiles.
    m_block: Vec<i64>,
    /// Column panels in a unit.
    panels: i64,
    /// The dimension of k that is cut into blocks of `k_chunk` positions. Those before it are taken
    /// one by one, those after it whole.
    k_dim: usize,
    k_chunk: i64,
    /// The left factor if it is read through a copy of the box that a unit needs.
    window: Option<Window>,
    /// Whether the left factor varies along the columns.
    lhs_along_n: bool,
    /// Whether each unit copies the column panels of the right factor that it needs for a block of k.
    copies_panels: bool,
    /// Whether the epilogue has more than [`SHORT_EPILOGUE`] expressions.
    long_epilogue: bool,
}

/// A load that gives zero outside of its buffer.
struct Window {
    buffer: BufferId,
    /// Index in each dimension, over the collapsed variables.
    index: Vec<IndexExpr>,
    dims: Vec<i64>,
    /// Dimensions from the largest stride to the smallest.
    order: Vec<usize>,
}

impl Window {
    fn new(part: &ContractionPart, buffers: &[Buffer]) -> Option<Self> {
        let ExprOp::Load { buffer, index, guards } = &part.lhs.exprs.get(part.lhs.value).op else {
            return None;
        };
        if guards.is_empty() {
            return None;
        }
        let b = &buffers[*buffer as usize];
        let mut order: Vec<usize> = (0..index.len()).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(b.strides[d]));
        let dims = b.dims.iter().map(|&d| d as i64).collect();
        Some(Self { buffer: *buffer, index: index.clone(), dims, order })
    }
}

impl Shape {
    fn new(kernel: &Kernel, part: &ContractionPart, buffers: &[Buffer], target: &Target) -> Self {
        let [nb, nm, nn, nk] = part.ranks;
        let groups = [0..nb, nb..nb + nm, nb + nm..nb + nm + nn, nb + nm + nn..nb + nm + nn + nk];
        let mut exprs = exprs_linear(&part.rhs.exprs, buffers);
        // Without a term of the sum nothing is read.
        let terms = !part.space.extents[nb + nm + nn..].contains(&0);
        let mut window = Window::new(part, buffers).filter(|_| terms);
        match &window {
            Some(w) => exprs.extend(w.index.iter().cloned()),
            None => exprs.extend(exprs_linear(&part.lhs.exprs, buffers)),
        }
        // Epilogue expressions are over the result's dimensions.
        let over_part = |e: &IndexExpr| e.substitute(&part.space, &|v| part.out[v as usize].clone());
        exprs.extend(exprs_linear(&kernel.exprs, buffers).iter().map(over_part));
        for s in &kernel.stores {
            exprs.push(over_part(&buffers[s.buffer as usize].linear(&s.index)));
        }
        let space = Collapsed::new(&part.space.extents, &groups, &exprs);
        if let Some(w) = &mut window {
            for e in &mut w.index {
                *e = e.substitute(&part.space, &|v| space.vars[v as usize].clone());
            }
        }
        // A group without dimensions is one position.
        let dims = |g: usize| if space.extents[g].is_empty() { vec![1] } else { space.extents[g].clone() };
        let (batch, m, k) = (dims(0), dims(1), dims(3));
        let n = dims(2).iter().product();
        let dtype = part.lhs.exprs.get(part.lhs.value).dtype;
        let strides = lhs_strides(part, buffers, &space, m.len());
        let lhs_along_n = (nb + nm..nb + nm + nn).any(|v| part.lhs.uses(v as u32));
        // A vector of the left factor for each row goes with one of the right.
        let widest = if lhs_along_n { 1 } else { MAX_VECTORS };
        let columns = match part.panel {
            Some(columns) => columns..=columns,
            // Lanes come in fours at least.
            None => 1..=(widest * i64::from(target.vector_lanes) * 4 / dtype.size_bytes() as i64).max(4),
        };
        let tile = Tile::best(&m, &strides, n, dtype, target, columns);
        let far = FarRows::of(part, buffers, &space, &k);
        let rows = m.iter().product();
        let copies_panels = far.as_ref().is_some_and(|far| far.copying_pays(rows));
        let (whole, most) = if copies_panels {
            (2 * COPY_BLOCK, COPY_BLOCK)
        } else if window.is_none() && far.is_some_and(|far| far.streaming_pays(rows)) {
            (STREAM_BLOCK, STREAM_BLOCK)
        } else {
            (K_WHOLE, K_BLOCK)
        };
        // From the innermost dimension outwards, as many as fit a block.
        let (mut k_dim, mut k_chunk) = (0, k[0]);
        if k.iter().product::<i64>() > whole {
            k_dim = k.len() - 1;
            let mut inner = 1;
            while k_dim > 0 && inner * k[k_dim] <= most {
                inner *= k[k_dim];
                k_dim -= 1;
            }
            k_chunk = (most / inner).clamp(1, k[k_dim]);
        }
        let mut rows = tile.rows;
        // Blocks of k through boxes: every unit copies every box, so there is one unit for a thread,
        // all of one size.
        let k_split = k_dim > 0 || k_chunk < k[0];
        let threads = target.threads as i64;
        let one_each = window.is_some() && k_split && batch.iter().product::<i64>() == 1;
        let split_panels = ceil_div(n, tile.lanes) % threads == 0;
        if one_each && !split_panels && m[tile.row_dim] >= 4 * threads {
            let tiles = ceil_div(ceil_div(m[tile.row_dim], rows), threads) * threads;
            rows = ceil_div(m[tile.row_dim], tiles);
        }
        let mut m_block = m.clone();
        m_block[tile.row_dim] = ceil_div(m[tile.row_dim], rows) * rows;
        let mut s = Self {
            dtype,
            space,
            batch,
            m,
            n,
            k,
            row_dim: tile.row_dim,
            rows,
            lanes: tile.lanes,
            lane_step: tile.lane_step,
            copy_lanes: target.map_lanes,
            m_block,
            panels: ceil_div(n, tile.lanes),
            k_dim,
            k_chunk,
            window,
            lhs_along_n,
            copies_panels,
            long_epilogue: kernel.exprs.len() > SHORT_EPILOGUE,
        };
        if s.points() > 0 {
            s.divide(if one_each || threads == 1 { threads } else { UNITS });
            if one_each && s.units() == 1 && s.work() > PARALLEL_WORK {
                let tiles = ceil_div(s.m[s.row_dim], s.rows);
                if split_panels {
                    s.panels /= threads;
                } else if tiles % threads == 0 {
                    s.m_block[s.row_dim] = tiles / threads * s.rows;
                } else if let Some(d) = (0..s.m.len()).filter(|&d| d != s.row_dim).max_by_key(|&d| s.m[d]) {
                    s.m_block[d] = ceil_div(s.m[d], threads);
                }
            }
        }
        s
    }

    /// Result elements.
    fn points(&self) -> i64 {
        self.batch.iter().chain(&self.m).product::<i64>() * self.n
    }

    fn k_size(&self) -> i64 {
        self.k.iter().product()
    }

    fn k_inner(&self) -> i64 {
        self.k[self.k_dim + 1..].iter().product()
    }

    fn k_split(&self) -> bool {
        self.k_dim > 0 || self.k_chunk < self.k[0]
    }

    /// Columns in a unit, with those of the last panel that do not exist.
    fn unit_columns(&self) -> i64 {
        self.panels * self.lanes
    }

    /// Whether the epilogue runs along the rows of all panels of a unit instead of on registers.
    fn in_strips(&self) -> bool {
        self.long_epilogue && !self.k_split()
    }

    /// Chooses the sizes of blocks and units; about `wanted` of these, if that is not too few for
    /// a kernel that may be cut freely.
    fn divide(&mut self, wanted: i64) {
        let limit = match &self.window {
            Some(_) => BOX_BYTES,
            None if self.copies_panels => COPY_BYTES.1,
            None => LHS_BYTES,
        };
        if self.window.is_some() {
            // Images first: they share nothing. Then positions of k, before rows that overlap.
            while self.lhs_bytes() > limit {
                let before = (self.lhs_bytes(), self.m_block.clone());
                if !self.halve_rows() || 5 * self.lhs_bytes() > 3 * before.0 {
                    self.m_block = before.1;
                    break;
                }
            }
            while self.lhs_bytes() > limit && self.k_chunk > 1 && self.k_chunk * self.k_inner() > K_LEAST {
                self.k_chunk = ceil_div(self.k_chunk, 2);
            }
        }
        self.balance_k();
        while self.lhs_bytes() > limit && self.halve_rows() {}
        while self.k_split() && self.accumulator_bytes() > ACCUMULATOR_BYTES {
            if self.panels > 1 && self.unit_columns() > self.tiles_in_unit() * self.rows {
                self.panels = ceil_div(self.panels, 2);
            } else if !self.halve_rows() {
                break;
            }
        }
        let most = if self.in_strips() { STRIP_BYTES } else { COPY_BYTES.0 };
        while (self.copies_panels || self.in_strips()) && self.panels > 1 && self.rhs_bytes() > most {
            self.panels = ceil_div(self.panels, 2);
        }
        if self.work() <= PARALLEL_WORK || wanted < UNITS {
            return;
        }
        // Rows are divided as long as a column panel is read for several tiles, then columns. Columns
        // first where each unit copies its own for all rows.
        let rows_first = !self.copies_panels;
        while rows_first && self.units() < wanted && self.tiles_in_unit() >= 8 && self.halve_rows() {}
        while self.units() < wanted && self.panels > 1 {
            self.panels = ceil_div(self.panels, 2);
        }
        while self.units() < wanted && self.halve_rows() {}
    }

    /// Makes the blocks of k equally large, of whole unrolled steps.
    fn balance_k(&mut self) {
        let extent = self.k[self.k_dim];
        if self.k_chunk == 0 || self.k_chunk == extent {
            return;
        }
        self.k_chunk = ceil_div(extent, ceil_div(extent, self.k_chunk));
        if self.k_dim + 1 == self.k.len() {
            self.k_chunk = ceil_div(self.k_chunk, UNROLL) * UNROLL;
        }
    }

    /// Halves the dimension of m that makes what a unit reads of the left factor least, the
    /// outermost of equals. False if all have one position or tile.
    fn halve_rows(&mut self) -> bool {
        let halved = |s: &Self, d: usize| {
            let step = if d == s.row_dim { s.rows } else { 1 };
            let block = ceil_div(ceil_div(s.m[d], step), 2 * s.m_count(d)) * step;
            (s.m_block[d] > step).then_some(block)
        };
        let mut best: Option<(i64, usize, i64)> = None;
        for d in 0..self.m.len() {
            let Some(block) = halved(self, d) else { continue };
            let before = std::mem::replace(&mut self.m_block[d], block);
            let bytes = self.lhs_bytes();
            self.m_block[d] = before;
            if best.is_none_or(|b| bytes < b.0) {
                best = Some((bytes, d, block));
            }
        }
        let Some((_, d, block)) = best else { return false };
        self.m_block[d] = block;
        true
    }

    /// Units along dimension `d` of m.
    fn m_count(&self, d: usize) -> i64 {
        ceil_div(self.m[d], self.m_block[d])
    }

    /// Row tiles of a unit.
    fn tiles_in_unit(&self) -> i64 {
        self.m_block.iter().product::<i64>() / self.rows
    }

    /// Bytes of the left factor for a unit and a block of k.
    fn lhs_bytes(&self) -> i64 {
        let elements = match &self.window {
            Some(w) => self.box_extents(w).iter().product(),
            None => self.m_block.iter().product::<i64>() * self.k_chunk * self.k_inner(),
        };
        elements * self.dtype.size_bytes() as i64
    }

    /// Bytes of the right factor that a unit reads for a block of k.
    fn rhs_bytes(&self) -> i64 {
        self.covered_k().iter().product::<i64>() * self.unit_columns() * self.dtype.size_bytes() as i64
    }

    fn accumulator_bytes(&self) -> i64 {
        self.tiles_in_unit() * self.rows * self.unit_columns() * self.dtype.size_bytes() as i64
    }

    /// How many positions of each collapsed variable a unit and a block of k cover.
    fn covered(&self) -> Vec<i64> {
        let own = |g: usize| self.space.extents[g].len();
        let mut all = vec![1; own(0)];
        all.extend(self.m_block.iter().zip(&self.m).take(own(1)).map(|(b, e)| b.min(e)));
        let columns = if self.lhs_along_n { self.n.min(self.unit_columns()) } else { 1 };
        all.extend(vec![columns; own(2)]);
        all.extend(self.covered_k().into_iter().take(own(3)));
        all
    }

    /// Positions of each dimension of k in a block of it.
    fn covered_k(&self) -> Vec<i64> {
        let k = self.k.iter().enumerate().map(|(d, &e)| match d.cmp(&self.k_dim) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => self.k_chunk,
            std::cmp::Ordering::Greater => e,
        });
        k.collect()
    }

    /// Extents of the box of the left factor that a unit and a block of k read.
    fn box_extents(&self, w: &Window) -> Vec<i64> {
        let covered = self.covered();
        let reach = |e: &IndexExpr| -> i64 {
            let each = covered.iter().enumerate();
            each.map(|(v, n)| e.coefficient(v as u32).unwrap_or(0).abs() * (n - 1).max(0)).sum()
        };
        w.index.iter().map(|e| 1 + reach(e)).collect()
    }

    /// Where a loop over dimension `d` of k ends that stops at `limit`, counted from the block's first
    /// position `first`.
    fn end_of_block(&self, d: usize, first: &IndexExpr, limit: i64) -> Bound {
        let extent = self.k[d];
        if d != self.k_dim || self.k_chunk == extent {
            return to(limit);
        }
        let own = IndexExpr::constant(self.k_chunk);
        if limit == extent && extent % self.k_chunk == 0 {
            return Bound::Expr(own);
        }
        Bound::Min(own, first.scale(-1).offset(limit))
    }

    /// Elements of a copied panel, and the distances in it of neighbours along each dimension of k.
    fn panel_layout(&self) -> (i64, Vec<i64>) {
        let covered = self.covered_k();
        let mut strides = vec![0; covered.len()];
        let mut size = self.lanes;
        for d in (self.k_dim..covered.len()).rev() {
            strides[d] = size;
            size *= covered[d];
        }
        (size, strides)
    }

    /// The dimension of k from which on the loops are unrolled.
    fn unrolled(&self) -> usize {
        let lowest = if self.k_split() { self.k_dim + 1 } else { 0 };
        let (mut d, mut positions) = (self.k.len(), 1);
        while d > lowest && positions * self.k[d - 1] <= UNROLL_WHOLE {
            d -= 1;
            positions *= self.k[d];
        }
        d
    }

    /// Lanes for a panel of so many columns.
    fn lanes_of(&self, columns: i64) -> i64 {
        if self.n == 1 { 1 } else { ceil_div(columns, self.lane_step) * self.lane_step }
    }

    fn n_blocks(&self) -> i64 {
        ceil_div(ceil_div(self.n, self.lanes), self.panels)
    }

    fn units(&self) -> i64 {
        if self.points() == 0 {
            return 0;
        }
        let m: i64 = (0..self.m.len()).map(|d| self.m_count(d)).product();
        self.batch.iter().product::<i64>() * m * self.n_blocks()
    }

    fn work(&self) -> u64 {
        (self.points() * (self.k_size() + 4)) as u64 / 4
    }
}

/// The register tile.
struct Tile {
    row_dim: usize,
    rows: i64,
    lanes: i64,
    lane_step: i64,
}

impl Tile {
    /// The tile that takes the least time for all of m and n, in halves of a cycle for a position of
    /// k: two multiply-adds or two loads begin in a cycle, a multiply-add takes four cycles, and the
    /// loop costs something for each tile.
    fn best(
        m: &[i64],
        strides: &[i64],
        n: i64,
        dtype: DType,
        target: &Target,
        columns: RangeInclusive<i64>,
    ) -> Self {
        let per_register = (i64::from(target.vector_lanes) * 4 / dtype.size_bytes() as i64).max(1);
        // Truth values that go with the lanes come in fours.
        let lane_step = per_register.max(4);
        let cost = |rows: i64, vectors: i64| (rows * vectors).max(rows + vectors).max(8) + 1;
        let mut best = (i64::MAX, Self { row_dim: 0, rows: 1, lanes: 1, lane_step });
        // Rows that lie side by side come first: others must be better by a twentieth.
        let mut dims: Vec<usize> = (0..m.len()).filter(|&d| m[d] > 0).collect();
        dims.sort_by_key(|&d| strides[d]);
        let mut limit = i64::MAX;
        for row_dim in dims {
            let extent = m[row_dim];
            let steps = 1..=MAX_VECTORS * per_register / lane_step;
            for step in steps.filter(|step| columns.contains(&(step * lane_step))) {
                let lanes = if n == 1 { 1 } else { step * lane_step };
                let vectors = ceil_div(lanes, per_register);
                let most = (i64::from(target.registers) - 2 - vectors) / vectors;
                for rows in 1..=most.min(extent) {
                    let columns =
                        |columns: i64| ceil_div(ceil_div(columns, lane_step) * lane_step, per_register);
                    let over_n = |rows: i64| {
                        let rest = if n % lanes > 0 { cost(rows, columns(n % lanes)) } else { 0 };
                        n / lanes * cost(rows, vectors) + rest
                    };
                    let rest = if extent % rows > 0 { over_n(extent % rows) } else { 0 };
                    let others: i64 = m.iter().product::<i64>() / extent;
                    let total = others * (extent / rows * over_n(rows) + rest);
                    if total < best.0.min(limit) {
                        best = (total, Self { row_dim, rows, lanes, lane_step });
                    }
                }
            }
            limit = best.0 - best.0 / 20;
        }
        best.1
    }
}

/// Distance in memory of neighbours in a factor along each collapsed dimension of a group, where the factor
/// is a load; `None` along a dimension where it is not the same everywhere.
fn strides(
    factor: &Factor,
    part: &ContractionPart,
    buffers: &[Buffer],
    space: &Collapsed,
    group: usize,
) -> Option<Vec<Option<i64>>> {
    let ExprOp::Load { buffer, index, .. } = &factor.exprs.get(factor.value).op else { return None };
    let linear = buffers[*buffer as usize].linear(index);
    let linear = linear.substitute(&part.space, &|v| space.vars[v as usize].clone());
    let own = (space.first(group)..).take(space.extents[group].len());
    Some(own.map(|v| linear.coefficient(v as u32)).collect())
}

/// Distance in memory of neighbours in the left factor along each of the `n` dimensions of m.
fn lhs_strides(part: &ContractionPart, buffers: &[Buffer], space: &Collapsed, n: usize) -> Vec<i64> {
    let found = strides(&part.lhs, part, buffers, space, 1).unwrap_or_default();
    let mut found: Vec<i64> = found.into_iter().map(|c| c.unwrap_or(i64::MAX).saturating_abs()).collect();
    found.resize(n, 0);
    found
}

/// How far apart the positions of k are in the right factor, in bytes.
struct FarRows {
    least: i64,
    /// From the first to the last along a dimension.
    span: i64,
    /// Whether they share one place in the first-level cache.
    alias: bool,
    /// How many times as many there are as the second-level cache keeps, as those at a multiple of a large power of two share
    /// few places in it.
    crowd: i64,
}

impl FarRows {
    /// `None` where the right factor is no load.
    fn of(part: &ContractionPart, buffers: &[Buffer], space: &Collapsed, k: &[i64]) -> Option<Self> {
        let strides = strides(&part.rhs, part, buffers, space, 3)?;
        let size = part.lhs.exprs.get(part.lhs.value).dtype.size_bytes() as i64;
        let bytes = strides.into_iter().map(|c| c.unwrap_or(0).saturating_abs().saturating_mul(size));
        let bytes: Vec<i64> = bytes.collect();
        let kept = |b: i64| L2_BYTES >> b.trailing_zeros().min(L2_BYTES.trailing_zeros());
        let each = || bytes.iter().zip(k).filter(|(b, _)| **b > 0);
        Some(Self {
            least: *bytes.iter().min()?,
            span: each().map(|(b, k)| b.saturating_mul(*k)).max().unwrap_or(0),
            alias: bytes.iter().any(|b| b % ALIAS_BYTES as i64 == 0),
            crowd: each().map(|(b, k)| k / kept(*b)).max().unwrap_or(0),
        })
    }

    /// Whether what a unit needs of the right factor had better be copied, for `rows` of the result.
    fn copying_pays(&self, rows: i64) -> bool {
        let collide = self.alias || self.crowd > 1;
        self.least >= FAR_ROWS.0
            && self.span > if collide { ALIAS_LEAST as i64 - 1 } else { FAR_ROWS.1 }
            && rows >= if collide { COPY_ROWS.1 } else { COPY_ROWS.0 }
    }

    /// Whether few positions of k are to be taken at a time, for all columns of a unit.
    fn streaming_pays(&self, rows: i64) -> bool {
        rows <= STREAM_ROWS
            && self.least >= FAR_ROWS.0
            && (self.span >= STREAM_LEAST.0 || self.crowd >= STREAM_LEAST.1)
    }
}

struct Part<'k, 'b> {
    kernel: &'k Kernel,
    part: &'k ContractionPart,
    buffers: &'k [Buffer],
    s: &'k Shape,
    b: &'b mut VBuilder,
    scratch: usize,
}

/// Where a unit is.
struct Unit {
    batch: Vec<IndexExpr>,
    /// First position in each dimension of m.
    m: Vec<IndexExpr>,
    /// First column panel.
    panel: IndexExpr,
}

/// A block of k: the positions of dimensions before the one that is cut, and the first of that one.
struct KBlock {
    outer: Vec<IndexExpr>,
    first: IndexExpr,
}

/// The left factor as tiles read it: element `index` of `base`, over the collapsed variables, with
/// element `origin` being the first.
struct Source {
    base: Base,
    index: IndexExpr,
    origin: IndexExpr,
}

/// Addresses of the factors in a tile's loops over k.
struct Terms {
    /// Of the left factor: base, element at the block's first position, and the distances of
    /// neighbouring rows and of neighbouring positions along each dimension of k.
    lhs: (Base, IndexExpr, i64, Vec<i64>),
    /// Of the right factor.
    rhs: (Base, IndexExpr, Vec<i64>),
    /// Position of the block along the dimension that is cut.
    first: IndexExpr,
    /// Dimensions from this one on are unrolled.
    unrolled: usize,
}

/// A tile being written.
struct At {
    /// Position in each dimension of m, of the first row.
    m: Vec<IndexExpr>,
    /// The columns, one a lane, and the first of them.
    column: IndexExpr,
    first: IndexExpr,
    rows: i64,
    lanes: u16,
    /// Place of the tile's accumulators among those of the unit.
    slot: IndexExpr,
    /// Where the copies of the unit's panels of the right factor are, and which of them is the
    /// tile's, if they were copied.
    panel: Option<(Base, IndexExpr)>,
}

/// Position in each dimension of m, of the first row, and the columns, one a lane.
type Place<'a> = (&'a [IndexExpr], &'a IndexExpr);

/// Row tiles of a unit are numbered from its first.
struct RowTile {
    /// Position in each dimension of m, of the first row.
    m: Vec<IndexExpr>,
    rows: i64,
    number: IndexExpr,
}

struct Panel {
    number: IndexExpr,
    columns: i64,
}

/// A run of tiles of one size along a dimension.
struct Run {
    lo: IndexExpr,
    hi: Bound,
    size: i64,
}

fn to(e: i64) -> Bound {
    Bound::Expr(IndexExpr::constant(e))
}

/// The end of the block that begins at `from`, no later than `limit`; all blocks together cover
/// `0..total`.
fn block_end(from: &IndexExpr, block: i64, total: i64, limit: i64) -> Bound {
    if block >= total {
        return to(limit);
    }
    let own = from.offset(block);
    if limit == total && total % block == 0 {
        Bound::Expr(own)
    } else {
        Bound::Min(own, IndexExpr::constant(limit))
    }
}

/// The tiles of `size` positions of a dimension in a block of `block` tiles from tile `first` on;
/// the last of all tiles may be smaller.
fn runs(first: &IndexExpr, block: i64, extent: i64, size: i64) -> Vec<Run> {
    let (whole, rest, total) = (extent / size, extent % size, ceil_div(extent, size));
    let mut runs = Vec::new();
    if whole > 0 {
        runs.push(Run { lo: first.clone(), hi: block_end(first, block, total, whole), size });
    }
    if rest > 0 {
        // Only the last block has an iteration.
        let lo = IndexExpr::constant(whole);
        runs.push(Run { lo, hi: block_end(first, block, total, total), size: rest });
    }
    runs
}

impl<'k> Part<'k, '_> {
    fn region(&mut self, elements: i64) -> u32 {
        let at = self.scratch;
        self.scratch += (elements as usize * self.s.dtype.size_bytes()).next_multiple_of(64);
        at as u32
    }

    fn mem(&self, base: Base, index: IndexExpr) -> MemRef {
        let dtype = match base {
            Base::Buffer(b) => self.buffers[b as usize].dtype,
            Base::Scratch(_) => self.s.dtype,
        };
        MemRef { base, dtype, index }
    }

    /// `e`, in `0..bound`, computed here once.
    fn fixed(&mut self, e: &IndexExpr, bound: i64) -> IndexExpr {
        if e.as_constant().is_some() {
            return e.clone();
        }
        let v = self.b.index(e);
        self.b.dynamic(v, bound)
    }

    /// Units `first_unit..` of the kernel's `total` are this part's.
    fn emit(&mut self, first_unit: i64, total: i64) {
        let s = self.s;
        let (begin, end) = (self.b.param(0), self.b.param(1));
        let own = IndexExpr::constant(first_unit + s.units());
        let lo = if first_unit == 0 {
            begin
        } else {
            let (begin, first) = (self.b.index(&begin), self.b.i64(first_unit));
            let begin = self.b.max(begin, first);
            self.b.dynamic(begin, total)
        };
        let loop_over_units = self.b.open(lo, Bound::Min(end, own), 1, 1, &[]);
        let number = self.fixed(&loop_over_units.var.offset(-first_unit), s.units());
        let unit = self.unit(&number);
        if s.k_split() {
            self.in_blocks(&unit);
        } else {
            let block = KBlock { outer: Vec::new(), first: IndexExpr::default() };
            let source = self.source(&unit, &block);
            let sums = |p: &mut Self, at: &At| {
                p.prefetch(&unit, at);
                let zeros = p.zeros(at);
                p.sums(&unit, &block, source.as_ref(), at, zeros)
            };
            if s.in_strips() {
                self.strips(&unit, &block, &sums);
            } else {
                self.tiles(&unit, Some(&block), &mut |p, at| {
                    let sums = sums(p, at);
                    p.finish(&unit, at, &sums);
                });
            }
        }
        self.b.close(loop_over_units, &[]);
    }

    fn unit(&mut self, number: &IndexExpr) -> Unit {
        let s = self.s;
        let m_counts = (0..s.m.len()).map(|d| s.m_count(d));
        let counts: Vec<i64> = s.batch.iter().copied().chain(m_counts).chain([s.n_blocks()]).collect();
        let at = delinearize(self.b, number, &counts);
        let mut at = at.iter().zip(&counts).map(|(e, &n)| self.fixed(e, n)).collect::<Vec<_>>().into_iter();
        Unit {
            batch: at.by_ref().take(s.batch.len()).collect(),
            m: at.by_ref().take(s.m.len()).zip(&s.m_block).map(|(e, &b)| e.scale(b)).collect(),
            panel: at.next().unwrap_or_default().scale(s.panels),
        }
    }

    /// One block of k after the other; then the epilogue.
    fn in_blocks(&mut self, unit: &Unit) {
        let s = self.s;
        let tile = s.rows * s.lanes;
        let region = self.region(s.tiles_in_unit() * s.panels * tile);
        let base = Base::Scratch(region);
        let lead: i64 = s.k[..s.k_dim].iter().product();
        let chunks = ceil_div(s.k[s.k_dim], s.k_chunk);
        let l = self.b.open(IndexExpr::default(), to(lead * chunks), 1, 1, &[]);
        let counts: Vec<i64> = s.k[..s.k_dim].iter().copied().chain([chunks]).collect();
        let at = delinearize(self.b, &l.var, &counts);
        let mut outer: Vec<IndexExpr> = at.iter().zip(&counts).map(|(e, &n)| self.fixed(e, n)).collect();
        let first = outer.pop().unwrap_or_default().scale(s.k_chunk);
        let block = KBlock { outer, first };
        let source = self.source(unit, &block);
        let (number, none) = (self.b.index(&l.var), self.b.i64(0));
        let start = self.b.cmp(CmpKind::Eq, number, none);
        self.tiles(unit, Some(&block), &mut |p, at| {
            let zeros = p.zeros(at);
            let slot = at.slot.scale(tile);
            let init = zeros.iter().enumerate().map(|(i, &zero)| {
                let before = p.mem(base, slot.offset(i as i64 * s.lanes).add(&at.lane()));
                let before = p.b.load(before, &[]);
                p.b.select(start, zero, before)
            });
            let init = init.collect();
            let sums = p.sums(unit, &block, source.as_ref(), at, init);
            p.rest(base, &slot, s.lanes, at, &sums);
        });
        self.b.close(l, &[]);
        self.tiles(unit, None, &mut |p, at| p.finish_from(unit, at, base, &at.slot.scale(tile)));
    }

    /// Writes accumulators to scratch memory: the first at `first`, each row `stride` elements behind the one before.
    fn rest(&mut self, base: Base, first: &IndexExpr, stride: i64, at: &At, sums: &[Val]) {
        for (i, &v) in sums.iter().enumerate() {
            let mem = self.mem(base, first.offset(i as i64 * stride).add(&at.lane()));
            self.b.store(mem, v);
        }
    }

    /// Writes `body` for the tiles of a unit: column panels outside, row tiles inside. Tiles at the
    /// ends have copies of their own. `block` are the positions of k that the body is to read.
    fn tiles(&mut self, unit: &Unit, block: Option<&KBlock>, body: &mut dyn FnMut(&mut Self, &At)) {
        let copied = block.and_then(|block| self.copied(unit, block));
        self.panels(unit, &mut |p, panel| {
            p.row_tiles(unit, &mut |p, rows| p.tile(unit, rows, panel, copied, body))
        });
    }

    /// Row tiles outside, column panels inside: the sums of a strip, which is as wide as the unit, rest in scratch memory until
    /// the epilogue works on them, which so runs along rows of memory.
    fn strips(&mut self, unit: &Unit, block: &KBlock, sums: &dyn Fn(&mut Self, &At) -> Vec<Val>) {
        let s = self.s;
        let width = s.unit_columns();
        let base = Base::Scratch(self.region(s.rows * width));
        let copied = self.copied(unit, block);
        let first = unit.panel.scale(s.lanes);
        self.row_tiles(unit, &mut |p, rows| {
            p.panels(unit, &mut |p, panel| {
                p.tile(unit, rows, panel, copied, &mut |p, at| {
                    let sums = sums(p, at);
                    p.rest(base, &at.first.add(&first.scale(-1)), width, at, &sums);
                });
            });
            p.finish_strip(unit, rows, base);
        });
    }

    /// Loops over the column panels of a unit.
    fn panels(&mut self, unit: &Unit, body: &mut dyn FnMut(&mut Self, &Panel)) {
        let s = self.s;
        for panels in runs(&unit.panel, s.panels, s.n, s.lanes) {
            let p = self.b.open(panels.lo, panels.hi, 1, 1, &[]);
            body(self, &Panel { number: p.var.clone(), columns: panels.size });
            self.b.close(p, &[]);
        }
    }

    /// Loops over the row tiles of a unit.
    fn row_tiles(&mut self, unit: &Unit, body: &mut dyn FnMut(&mut Self, &RowTile)) {
        let s = self.s;
        let mut loops = Vec::new();
        let mut m = unit.m.clone();
        let mut number = IndexExpr::default();
        for d in (0..m.len()).filter(|&d| d != s.row_dim) {
            let l = self.b.open(m[d].clone(), block_end(&m[d], s.m_block[d], s.m[d], s.m[d]), 1, 1, &[]);
            number = number.scale(s.m_block[d]).add(&l.var).add(&m[d].scale(-1));
            m[d] = l.var.clone();
            loops.push(l);
        }
        let row_tiles = s.m_block[s.row_dim] / s.rows;
        let first_tile = self.b.cx().div(&unit.m[s.row_dim], s.rows);
        for rows in runs(&first_tile, row_tiles, s.m[s.row_dim], s.rows) {
            let t = self.b.open(rows.lo, rows.hi, 1, 1, &[]);
            m[s.row_dim] = t.var.scale(s.rows);
            let number = number.scale(row_tiles).add(&t.var).add(&first_tile.scale(-1));
            body(self, &RowTile { m: m.clone(), rows: rows.size, number });
            self.b.close(t, &[]);
        }
        self.close(loops);
    }

    /// One tile, whose lanes are a loop of one iteration.
    fn tile(
        &mut self,
        unit: &Unit,
        rows: &RowTile,
        panel: &Panel,
        copied: Option<Base>,
        body: &mut dyn FnMut(&mut Self, &At),
    ) {
        let s = self.s;
        let lanes = s.lanes_of(panel.columns);
        let first = panel.number.scale(s.lanes);
        let j =
            self.b.open(first.clone(), Bound::Expr(first.offset(panel.columns)), lanes, lanes as u16, &[]);
        let in_unit = panel.number.add(&unit.panel.scale(-1));
        let at = At {
            m: rows.m.clone(),
            column: j.var.clone(),
            first,
            rows: rows.rows,
            lanes: lanes as u16,
            slot: rows.number.scale(s.panels).add(&in_unit),
            panel: copied.map(|base| (base, in_unit)),
        };
        body(self, &at);
        self.b.close(j, &[]);
    }

    /// Copies what a unit and a block of k need of the right factor, if that pays.
    fn copied(&mut self, unit: &Unit, block: &KBlock) -> Option<Base> {
        self.s.copies_panels.then(|| self.copy_panels(unit, block))
    }

    /// Asks for what the epilogue of a tile will read, row by row, while the sums are computed.
    fn prefetch(&mut self, unit: &Unit, at: &At) {
        let kernel = self.kernel;
        let line = 64 / self.s.dtype.size_bytes() as i64;
        for i in 0..at.rows {
            let vars = self.row_vars(unit, at.place(), &IndexExpr::constant(i));
            let cx = self.b.cx();
            let of_row = |e: &IndexExpr| e.substitute(cx, &|v| vars[v as usize].clone());
            let rows: Vec<MemRef> = kernel
                .exprs
                .loads(&kernel.roots())
                .into_iter()
                .filter(|(_, index, guards)| guards.is_empty() && index.len() == vars.len())
                .map(|(buffer, index, _)| {
                    let index: Vec<IndexExpr> = index.iter().map(of_row).collect();
                    element(self.buffers, buffer, &index)
                })
                .filter(|m| m.index.terms().len() > 1)
                .collect();
            for mem in rows {
                for l in (0..i64::from(at.lanes)).step_by(line as usize) {
                    self.b.prefetch(MemRef { index: mem.index.offset(l), ..mem.clone() });
                }
            }
        }
    }

    fn zeros(&mut self, at: &At) -> Vec<Val> {
        let zero = self.b.constant_lanes(Scalar::from_f64(self.s.dtype, 0.0), at.lanes);
        vec![zero; at.rows as usize]
    }

    /// What the collapsed variables stand for.
    fn point(&self, unit: &Unit, m: &[IndexExpr], column: &IndexExpr, k: &[IndexExpr]) -> Vec<IndexExpr> {
        let s = self.s;
        let own = |g: usize| s.space.extents[g].len();
        let mut all: Vec<IndexExpr> = unit.batch.iter().take(own(0)).cloned().collect();
        all.extend(m.iter().take(own(1)).cloned());
        all.extend(delinearize(self.b, column, &s.space.extents[2]));
        all.extend(k.iter().take(own(3)).cloned());
        all
    }

    /// Element of a load over the collapsed variables.
    fn linear(&self, buffer: BufferId, index: &[IndexExpr]) -> IndexExpr {
        let linear = self.buffers[buffer as usize].linear(index);
        linear.substitute(&self.part.space, &|v| self.s.space.vars[v as usize].clone())
    }

    fn load_of(factor: &Factor) -> (BufferId, &[IndexExpr]) {
        match &factor.exprs.get(factor.value).op {
            ExprOp::Load { buffer, index, .. } => (*buffer, index),
            other => unreachable!("{other:?} was written to a buffer before"),
        }
    }

    /// The left factor for a unit and a block of k; without a term of the sum there is none, and it need
    /// not be a load.
    fn source(&mut self, unit: &Unit, block: &KBlock) -> Option<Source> {
        let s = self.s;
        if s.k_size() == 0 {
            return None;
        }
        let Some(w) = &s.window else {
            let (buffer, index) = Self::load_of(&self.part.lhs);
            let index = self.linear(buffer, index);
            return Some(Source { base: Base::Buffer(buffer), index, origin: IndexExpr::default() });
        };
        let column = if s.lhs_along_n { unit.panel.scale(s.lanes) } else { IndexExpr::default() };
        let start = self.point(unit, &unit.m, &column, &self.k_at(block));
        let covered = s.covered();
        // The least index that occurs, in each dimension.
        let lowest = w.index.iter().map(|e| {
            let at = |v: graphc_ir::Var| match e.coefficient(v) {
                Some(c) if c < 0 => start[v as usize].offset(covered[v as usize] - 1),
                _ => start[v as usize].clone(),
            };
            e.substitute(self.b.cx(), &at)
        });
        let lowest: Vec<IndexExpr> = lowest.collect();
        let extents = s.box_extents(w);
        let mut strides = vec![1; extents.len()];
        let mut size = 1;
        for &d in w.order.iter().rev() {
            strides[d] = size;
            size *= extents[d];
        }
        let base = Base::Scratch(self.region(size));
        self.fill_box(w, base, &lowest, &extents, &strides);
        let weighted = |index: &[IndexExpr]| {
            index.iter().zip(&strides).fold(IndexExpr::default(), |sum, (e, &c)| sum.add(&e.scale(c)))
        };
        Some(Source { base, index: weighted(&w.index), origin: weighted(&lowest) })
    }

    /// Copies what a unit and a block of k need of the right factor to scratch memory, where each panel
    /// has its rows one after the other.
    fn copy_panels(&mut self, unit: &Unit, block: &KBlock) -> Base {
        let s = self.s;
        let (size, strides) = s.panel_layout();
        let base = Base::Scratch(self.region(size * s.panels));
        let (buffer, index) = Self::load_of(&self.part.rhs);
        let index = self.linear(buffer, index);
        let m = vec![IndexExpr::default(); s.m.len()];
        let start = self.point(unit, &m, &IndexExpr::default(), &self.k_at(block));
        let from = index.substitute(self.b.cx(), &|v| start[v as usize].clone());
        let mut from = self.fixed(&from, MAX_ELEMENTS as i64);
        let mut into = IndexExpr::default();
        let mut ahead = 0;
        let mut loops = Vec::new();
        for (d, stride) in strides.into_iter().enumerate().skip(s.k_dim) {
            let l = self.b.open(IndexExpr::default(), s.end_of_block(d, &block.first, s.k[d]), 1, 1, &[]);
            let own = d < s.space.extents[3].len();
            let step = if own { index.coefficient((s.space.first(3) + d) as u32) } else { None };
            from = from.add(&l.var.scale(step.unwrap_or(0)));
            ahead = COPY_AHEAD * step.unwrap_or(0);
            into = into.add(&l.var.scale(stride));
            loops.push(l);
        }
        // Whole rows, as they lie side by side there. Without loops where all units have as many panels.
        let total = ceil_div(s.n, s.lanes);
        if s.n % s.lanes == 0 && total % s.panels == 0 {
            for p in 0..s.panels {
                let panel = unit.panel.offset(p);
                self.copy_columns(buffer, (&from, ahead), &panel, s.lanes, base, &into.offset(p * size));
            }
        } else {
            for panels in runs(&unit.panel, s.panels, s.n, s.lanes) {
                let p = self.b.open(panels.lo, panels.hi, 1, 1, &[]);
                let into = into.add(&p.var.add(&unit.panel.scale(-1)).scale(size));
                self.copy_columns(buffer, (&from, ahead), &p.var, panels.size, base, &into);
                self.b.close(p, &[]);
            }
        }
        self.close(loops);
        base
    }

    /// Copies the columns of a panel in one row of the right factor, which begins at `from`, and asks
    /// for those `ahead` elements further on.
    fn copy_columns(
        &mut self,
        buffer: BufferId,
        (from, ahead): (&IndexExpr, i64),
        panel: &IndexExpr,
        columns: i64,
        base: Base,
        into: &IndexExpr,
    ) {
        let first = panel.scale(self.s.lanes);
        let lanes = self.s.lanes_of(columns);
        let column = self.b.open(first.clone(), Bound::Expr(first.offset(columns)), lanes, lanes as u16, &[]);
        let source = from.add(&column.var);
        let value = self.b.load(self.mem(Base::Buffer(buffer), source.clone()), &[]);
        let line = 64 / self.buffers[buffer as usize].dtype.size_bytes();
        for lane in (0..lanes).step_by(line) {
            self.b.prefetch(self.mem(Base::Buffer(buffer), source.offset(ahead + lane)));
        }
        let lane = column.var.add(&first.scale(-1));
        self.b.store(self.mem(base, into.add(&lane)), value);
        self.b.close(column, &[]);
    }

    /// Copies a box of the left factor to scratch memory, with zeros where it is outside of the buffer.
    fn fill_box(&mut self, w: &Window, base: Base, lowest: &[IndexExpr], extents: &[i64], strides: &[i64]) {
        let lanes = self.s.copy_lanes;
        let cut = |d: usize| {
            let (lo, hi) = self.b.cx().range(&lowest[d]);
            lo < 0 || hi + extents[d] > w.dims[d]
        };
        let cut: Vec<bool> = (0..extents.len()).map(cut).collect();
        if cut.contains(&true) {
            let l =
                self.b.open(IndexExpr::default(), to(extents.iter().product()), i64::from(lanes), lanes, &[]);
            let zero = self.b.constant(Scalar::from_f64(self.s.dtype, 0.0));
            self.b.store(self.mem(base, l.var.clone()), zero);
            self.b.close(l, &[]);
        }
        // Loops over the positions that the buffer has; dimensions that lie side by side in both are
        // one loop.
        let source = &self.buffers[w.buffer as usize];
        let mut loops = Vec::new();
        let (mut from, mut into) = (IndexExpr::default(), IndexExpr::default());
        let mut rest = &w.order[..];
        while let Some((&d, more)) = rest.split_first() {
            rest = more;
            let (mut run, mut stride) = (1, source.strides[d] as i64);
            while let (Some((&inner, more)), Some(_)) = (rest.split_first(), lowest[d].as_constant())
                && !cut[inner]
                && extents[inner] == w.dims[inner]
                && stride == source.strides[inner] as i64 * extents[inner]
            {
                run *= extents[inner];
                stride = source.strides[inner] as i64;
                rest = more;
            }
            let (lo, hi) = if cut[d] {
                self.in_buffer(&lowest[d], extents[d], w.dims[d])
            } else {
                (IndexExpr::default(), to(extents[d]))
            };
            let hi = if let Bound::Expr(e) = hi { Bound::Expr(e.scale(run)) } else { hi };
            let step = if rest.is_empty() && stride == 1 { lanes } else { 1 };
            let l = self.b.open(lo.scale(run), hi, i64::from(step), step, &[]);
            from = from.add(&lowest[d].scale(source.strides[d] as i64)).add(&l.var.scale(stride));
            into = into.add(&l.var.scale(strides[d] / run));
            loops.push(l);
        }
        let value = self.b.load(self.mem(Base::Buffer(w.buffer), from), &[]);
        self.b.store(self.mem(base, into), value);
        self.close(loops);
    }

    /// Positions of `0..extent` whose index, `lowest` for the first, is in `0..dim`.
    fn in_buffer(&mut self, lowest: &IndexExpr, extent: i64, dim: i64) -> (IndexExpr, Bound) {
        if let Some(c) = lowest.as_constant() {
            return (IndexExpr::constant((-c).max(0)), to(extent.min(dim - c)));
        }
        let (below, zero) = (self.b.index(&lowest.scale(-1)), self.b.i64(0));
        let lo = self.b.max(below, zero);
        let lo = self.b.dynamic(lo, extent + 1);
        (lo, Bound::Min(IndexExpr::constant(extent), IndexExpr::constant(dim).add(&lowest.scale(-1))))
    }

    fn close(&mut self, loops: Vec<OpenLoop>) {
        for l in loops.into_iter().rev() {
            self.b.close(l, &[]);
        }
    }

    /// The first position of a block in each dimension of k.
    fn k_at(&self, block: &KBlock) -> Vec<IndexExpr> {
        let mut k = block.outer.clone();
        k.push(block.first.clone());
        k.resize(self.s.k.len(), IndexExpr::default());
        k
    }

    /// The accumulators of a tile after a block of k.
    fn sums(
        &mut self,
        unit: &Unit,
        block: &KBlock,
        source: Option<&Source>,
        at: &At,
        acc: Vec<Val>,
    ) -> Vec<Val> {
        let s = self.s;
        let Some(source) = source else { return acc };
        let first_var = |g: usize| s.space.first(g) as u32;
        let along_k = |e: &IndexExpr| {
            let own = s.space.extents[3].len() as u32;
            let coefficient = |d: u32| if d < own { e.coefficient(first_var(3) + d).unwrap_or(0) } else { 0 };
            (0..s.k.len() as u32).map(coefficient).collect::<Vec<i64>>()
        };
        let along_rows = if s.space.extents[1].is_empty() {
            0
        } else {
            source.index.coefficient(first_var(1) + s.row_dim as u32).unwrap_or(0)
        };
        // Without the column, which is added to it.
        let start = self.point(unit, &at.m, &IndexExpr::default(), &self.k_at(block));
        let here = |p: &Self, e: &IndexExpr| e.substitute(p.b.cx(), &|v| start[v as usize].clone());
        let lhs_steps = along_k(&source.index);
        let lhs = if s.lhs_along_n {
            let start = self.point(unit, &at.m, &at.first, &self.k_at(block));
            source.index.substitute(self.b.cx(), &|v| start[v as usize].clone())
        } else {
            here(self, &source.index)
        };
        let mut lhs = self.fixed(&lhs.add(&source.origin.scale(-1)), MAX_ELEMENTS as i64);
        if s.lhs_along_n {
            lhs = lhs.add(&at.lane());
        }
        let rhs = match &at.panel {
            Some((base, panel)) => {
                let (size, strides) = s.panel_layout();
                (*base, panel.scale(size).add(&at.lane()), strides)
            }
            None => {
                let (buffer, index) = Self::load_of(&self.part.rhs);
                let linear = self.linear(buffer, index);
                let first = self.fixed(&here(self, &linear), MAX_ELEMENTS as i64);
                let column = match self.part.panel {
                    None => at.column.clone(),
                    Some(columns) => {
                        let number = |e: &IndexExpr| e.terms().iter().any(|t| matches!(t.0, Atom::Div(..)));
                        let d = index.iter().position(number).expect("panels have a dimension");
                        let stride = self.buffers[buffer as usize].strides[d] as i64;
                        self.b.cx().div(&at.first, columns).scale(stride).add(&at.lane())
                    }
                };
                (Base::Buffer(buffer), first.add(&column), along_k(&linear))
            }
        };
        let terms = Terms {
            lhs: (source.base, lhs, along_rows, lhs_steps),
            rhs,
            first: block.first.clone(),
            unrolled: s.unrolled(),
        };
        self.over_k(&terms, &mut vec![IndexExpr::default(); s.k_dim], acc)
    }

    /// The loops over the dimensions of k that are not in `k` yet, around the multiply-adds.
    fn over_k(&mut self, terms: &Terms, k: &mut Vec<IndexExpr>, acc: Vec<Val>) -> Vec<Val> {
        let s = self.s;
        let d = k.len();
        if d == s.k.len() {
            return self.multiply_add(terms, k, acc);
        }
        let each = |p: &mut Self, k: &mut Vec<IndexExpr>, positions: &[IndexExpr], mut acc: Vec<Val>| {
            for position in positions {
                k.push(position.clone());
                acc = p.over_k(terms, k, acc);
                k.pop();
            }
            acc
        };
        let extent = s.k[d];
        let constants = |range: std::ops::Range<i64>| range.map(IndexExpr::constant).collect::<Vec<_>>();
        if d >= terms.unrolled {
            return each(self, k, &constants(0..extent), acc);
        }
        let step = if d + 1 == s.k.len() { UNROLL } else { 1 };
        let whole = extent / step * step;
        let cut = d == s.k_dim && s.k_chunk < extent;
        let end = |limit: i64| s.end_of_block(d, &terms.first, limit);
        let l = self.b.open(IndexExpr::default(), end(whole), step, 1, &acc);
        let positions: Vec<IndexExpr> = (0..step).map(|u| l.var.offset(u)).collect();
        let next = each(self, k, &positions, l.values.clone());
        let acc = self.b.close(l, &next);
        if whole == extent {
            return acc;
        }
        if !cut {
            return each(self, k, &constants(whole..extent), acc);
        }
        // Only the last block has an iteration.
        let l = self.b.open(terms.first.scale(-1).offset(whole), end(extent), 1, 1, &acc);
        let next = each(self, k, std::slice::from_ref(&l.var), l.values.clone());
        self.b.close(l, &next)
    }

    /// `acc[i] += lhs[i, k] * rhs[k, columns]`
    fn multiply_add(&mut self, terms: &Terms, k: &[IndexExpr], acc: Vec<Val>) -> Vec<Val> {
        let at = |first: &IndexExpr, steps: &[i64]| {
            k.iter().zip(steps).fold(first.clone(), |sum, (k, &c)| sum.add(&k.scale(c)))
        };
        let (base, first, row, steps) = &terms.lhs;
        let lhs = at(first, steps);
        let columns = self.mem(terms.rhs.0, at(&terms.rhs.1, &terms.rhs.2));
        let columns = self.b.load(columns, &[]);
        let each = acc.into_iter().enumerate().map(|(i, acc)| {
            let x = self.mem(*base, lhs.offset(i as i64 * row));
            let x = self.b.load(x, &[]);
            if self.s.dtype.is_float() {
                return self.b.fma(x, columns, acc);
            }
            let product = self.b.mul(x, columns);
            self.b.add(product, acc)
        });
        each.collect()
    }

    /// What the kernel's variables stand for, `row` rows below the tile's first.
    fn row_vars(&self, unit: &Unit, (m, column): Place<'_>, row: &IndexExpr) -> Vec<IndexExpr> {
        let mut m = m.to_vec();
        m[self.s.row_dim] = m[self.s.row_dim].add(row);
        let point = self.point(unit, &m, column, &[]);
        let get = |v: graphc_ir::Var| point.get(v as usize).cloned().unwrap_or_default();
        let cx = self.b.cx();
        let vars: Vec<IndexExpr> = self.s.space.vars.iter().map(|x| x.substitute(cx, &get)).collect();
        self.part.out.iter().map(|x| x.substitute(cx, &|v| vars[v as usize].clone())).collect()
    }

    /// Begins the epilogue: emits what depends on none of the collapsed variables `inside`.
    fn epilogue(&mut self, unit: &Unit, at: Place<'_>, inside: &[usize]) -> Emit<'k> {
        let (kernel, s) = (self.kernel, self.s);
        let varies = self.part.out.iter().map(|x| {
            let x = x.substitute(&self.part.space, &|v| s.space.vars[v as usize].clone());
            inside.iter().any(|&v| x.uses(v as u32))
        });
        let varies: Vec<bool> = varies.collect();
        let vars = self.row_vars(unit, at, &IndexExpr::default());
        let mut e = Emit::new(&kernel.exprs, self.buffers, vars);
        e.hoist(self.b, &kernel.roots(), &|v| varies[v as usize]);
        e
    }

    /// The collapsed variable that the rows of a tile run along.
    fn row_var(&self) -> Vec<usize> {
        let s = self.s;
        if s.space.extents[1].is_empty() { Vec::new() } else { vec![s.space.first(1) + s.row_dim] }
    }

    fn finish_row(&mut self, e: &mut Emit<'_>, unit: &Unit, at: Place<'_>, row: &IndexExpr, sum: Val) {
        e.open();
        e.vars = self.row_vars(unit, at, row);
        e.reduced.insert(0, sum);
        let stores = &self.kernel.stores;
        let values: Vec<Val> = stores.iter().map(|st| e.value(self.b, st.value)).collect();
        for (st, v) in stores.iter().zip(values) {
            let mem = e.element(self.b, st.buffer, &st.index);
            self.b.store(mem, v);
        }
        e.close();
    }

    /// Applies the epilogue to a tile.
    fn finish(&mut self, unit: &Unit, at: &At, sums: &[Val]) {
        let mut e = self.epilogue(unit, at.place(), &self.row_var());
        for (i, &sum) in sums.iter().enumerate() {
            self.finish_row(&mut e, unit, at.place(), &IndexExpr::constant(i as i64), sum);
        }
    }

    /// Applies the epilogue to a strip.
    fn finish_strip(&mut self, unit: &Unit, rows: &RowTile, base: Base) {
        let s = self.s;
        let width = s.unit_columns();
        let first = unit.panel.scale(s.lanes);
        let mut inside = self.row_var();
        inside.extend(s.space.first(2)..s.space.first(3));
        let mut e = self.epilogue(unit, (&rows.m, &first), &inside);
        let row = self.b.open(IndexExpr::default(), to(rows.rows), 1, 1, &[]);
        let end = block_end(&first, width, s.n, s.n);
        let j = self.b.open(first.clone(), end, i64::from(s.copy_lanes), s.copy_lanes, &[]);
        let sum = self.mem(base, row.var.scale(width).add(&j.var).add(&first.scale(-1)));
        let sum = self.b.load(sum, &[]);
        self.finish_row(&mut e, unit, (&rows.m, &j.var), &row.var, sum);
        self.b.close(j, &[]);
        self.b.close(row, &[]);
    }

    /// Applies the epilogue to a tile whose sums are in scratch memory.
    fn finish_from(&mut self, unit: &Unit, at: &At, base: Base, slot: &IndexExpr) {
        let mut e = self.epilogue(unit, at.place(), &self.row_var());
        let row = self.b.open(IndexExpr::default(), to(at.rows), 1, 1, &[]);
        let mem = self.mem(base, slot.add(&row.var.scale(self.s.lanes)).add(&at.lane()));
        let sum = self.b.load(mem, &[]);
        self.finish_row(&mut e, unit, at.place(), &row.var.clone(), sum);
        self.b.close(row, &[]);
    }
}

impl At {
    fn place(&self) -> Place<'_> {
        (&self.m, &self.column)
    }

    /// Position among the tile's columns.
    fn lane(&self) -> IndexExpr {
        self.column.add(&self.first.scale(-1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::{Limits, assemble};
    use crate::codegen::Isa;
    use crate::compile::state_layout;
    use crate::fuse::{Fusion, fuse};
    use crate::operands::make_direct;
    use crate::vector::interp::run_program;
    use crate::{kernel, optimize, vector};
    use graphc_ir::ops::ConvConfig;
    use graphc_ir::{Literal, Module, ModuleBuilder, evaluate, gradients};
    use rustc_hash::{FxHashMap, FxHashSet};

    /// 128, 256 and 512 bits.
    const TARGETS: [Target; 3] = [Target::V128, Target::of(Isa::Avx2, 2), Target::of(Isa::Avx512, 3)];

    fn numbers(dtype: DType, dims: &[usize], seed: u64) -> Literal {
        let at =
            |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(2 * seed + 1) >> 48;
        Literal::from_fn(dtype, dims, |i| Scalar::from_f64(dtype, (at(i) as f64 / 16384.0 - 2.0) * 4.0))
    }

    /// Compares the schedules for all targets with the interpreter. Gives the kernels' names.
    fn check(module: &Module, inputs: &[Literal]) -> Vec<String> {
        let f = module.function("f").unwrap();
        let expected = evaluate(f, inputs, |_| unreachable!("no state")).unwrap();
        let layout = state_layout(module).unwrap();
        let (optimized, _) = optimize(f, &crate::PassOptions::default()).unwrap();
        let mut names = Vec::new();
        for target in &TARGETS {
            let mut fused = fuse(&optimized, Fusion::Full);
            make_direct(&mut fused, &FxHashSet::default(), target);
            let limits = Limits { threads: 3, budget: None, guard: false, fence: None };
            let assembled =
                assemble(&optimized, fused, FxHashMap::default(), ("", 1), &layout, target, limits);
            let p = assembled.unwrap().program;
            p.kernels.iter().for_each(|k| assert_eq!(kernel::verify::verify(k, &p.buffers), Ok(())));
            for s in &p.scheduled {
                assert_eq!(vector::verify::verify(&s.function, &p.buffers), Ok(()));
            }
            let got = run_program(&p, inputs, &mut Vec::new(), 3).unwrap();
            for (e, g) in expected.outputs.iter().zip(&got) {
                let different = (0..e.len()).find(|&i| e.get(i) != g.get(i));
                assert_eq!(different.map(|i| (i, e.get(i), g.get(i))), None, "{target:?} {}", module.name);
            }
            names = p.kernels.iter().map(|k| k.name.clone()).collect();
        }
        names
    }

    fn product(dtype: DType, m: usize, k: usize, n: usize, transposed: [bool; 2]) -> Vec<String> {
        let b = ModuleBuilder::new(&format!("{dtype} {m} {k} {n} {transposed:?}"));
        let dims = |t: bool, a: usize, b: usize| if t { [b, a] } else { [a, b] };
        let (x_dims, y_dims) = (dims(transposed[0], m, k), dims(transposed[1], k, n));
        b.function("f", |f| {
            let (x, y) = (f.input("x", dtype, x_dims), f.input("y", dtype, y_dims));
            let x = if transposed[0] { x.transpose(&[1, 0]) } else { x };
            let y = if transposed[1] { y.transpose(&[1, 0]) } else { y };
            f.output("z", x.dot(y));
        });
        check(&b.build().unwrap(), &[numbers(dtype, &x_dims, 1), numbers(dtype, &y_dims, 2)])
    }

    #[test]
    fn products_of_many_shapes() {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] {
            for (m, k, n) in [(1, 40, 70), (33, 17, 70), (61, 9, 1), (2, 1, 3), (7, 12, 31), (90, 64, 90)] {
                assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1);
            }
            for (m, k, n) in [(0, 3, 4), (3, 0, 40), (3, 4, 0)] {
                product(dtype, m, k, n, [false; 2]);
            }
        }
    }

    #[test]
    fn a_long_sum_is_taken_in_blocks() {
        for (m, k, n) in [(17, 2051, 21), (1, 5000, 40), (3, 4096, 1)] {
            product(DType::F32, m, k, n, [false; 2]);
        }
    }

    #[test]
    fn what_is_not_in_order_is_copied_first() {
        let names = product(DType::F32, 23, 34, 45, [true, true]);
        assert_eq!(names, ["k0_dot_general_rhs0", "k0_dot_general"]);
        // Rows that collide in the cache.
        let names = product(DType::F32, 32, 1024, 32, [false; 2]);
        assert_eq!(names, ["k0_dot_general_lhs0", "k0_dot_general"]);
        // Positions of k that do.
        let names = product(DType::F32, 1024, 32, 32, [true, false]);
        assert_eq!(names, ["k0_dot_general_lhs0", "k0_dot_general"]);
        // Rows of a large factor that is read too seldom.
        let b = ModuleBuilder::new("seldom");
        b.function("f", |f| {
            let (x, y) = (f.input("x", DType::F32, [1024, 1024]), f.input("y", DType::F32, [8, 32]));
            f.output("z", x.slice_axis(1, 8, 16).dot(y));
        });
        let inputs = [numbers(DType::F32, &[1024, 1024], 1), numbers(DType::F32, &[8, 32], 2)];
        assert_eq!(check(&b.build().unwrap(), &inputs), ["k0_dot_general"]);
    }

    #[test]
    fn panels_of_far_rows_are_copied() {
        let cases = [
            (65, 110, 256, DType::F32),
            (66, 700, 70, DType::F32),
            (33, 32, 1024, DType::F32),
            (32, 260, 512, DType::F32),
            (64, 260, 65, DType::F64),
        ];
        for (m, k, n, dtype) in cases {
            assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1, "{m} {k} {n}");
        }
    }

    #[test]
    fn few_rows_stream_the_right_factor() {
        for (m, k, n, dtype) in
            [(1, 515, 1024, DType::F32), (3, 70, 8192, DType::F32), (2, 140, 2048, DType::F64)]
        {
            assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1, "{m} {k} {n}");
        }
    }

    #[test]
    fn epilogues_of_any_length() {
        for (m, n) in [(40, 35), (1, 100), (80, 80), (70, 600)] {
            let b = ModuleBuilder::new("epilogue");
            b.function("f", |f| {
                let (x, y) = (f.input("x", DType::F32, [m, 20]), f.input("y", DType::F32, [20, n]));
                let bias = f.input("b", DType::F32, [n]).broadcast([m, n], &[1]);
                let z = x.dot(y) + bias;
                f.output("z", z.max(0.0));
                f.output("t", (z * 0.125).tanh() + (z * z).sigmoid());
            });
            let of = |dims: &[usize], seed| numbers(DType::F32, dims, seed);
            check(&b.build().unwrap(), &[of(&[m, 20], 3), of(&[20, n], 4), of(&[n], 5)]);
        }
    }

    #[test]
    fn convolutions_with_padding_and_their_gradients() {
        let cases = [
            ([2, 3, 11, 9], 4, 3, 1, 1),
            ([1, 5, 12, 13], 3, 5, 2, 3),
            ([2, 24, 40, 40], 2, 3, 1, 1),
            ([3, 2, 34, 34], 3, 3, 1, 1),
        ];
        for (x_dims, out, size, stride, padding) in cases {
            let w_dims = [out, x_dims[1], size, size];
            let b = ModuleBuilder::new(&format!("{x_dims:?} {out} {size} {stride} {padding}"));
            b.function("f", |f| {
                let (x, w) = (f.input("x", DType::F32, x_dims), f.input("w", DType::F32, w_dims));
                let y = x.conv2d(w, stride, padding);
                f.output("y", y.max(0.0));
                let loss = (y * y).reduce_sum(&[0, 1, 2, 3]);
                for (name, g) in ["dx", "dw"].into_iter().zip(gradients(loss, &[x, w])) {
                    f.output(name, g);
                }
            });
            check(&b.build().unwrap(), &[numbers(DType::F32, &x_dims, 6), numbers(DType::F32, &w_dims, 7)]);
        }
    }

    #[test]
    fn depthwise_convolutions_have_lanes_along_channels() {
        for (x_dims, size, stride, padding) in
            [([2, 9, 11, 8], 3, 1, 1), ([1, 40, 6, 7], 5, 2, 2), ([3, 16, 9, 9], 3, 1, 0)]
        {
            let channels = x_dims[1];
            let b = ModuleBuilder::new(&format!("depthwise {x_dims:?} {size} {stride} {padding}"));
            b.function("f", |f| {
                let (x, w) =
                    (f.input("x", DType::F32, x_dims), f.input("w", DType::F32, [channels, 1, size, size]));
                // A buffer of its own, whose order may be chosen.
                let x = x.exp();
                let config = ConvConfig::new(2).strides(&[stride; 2]).padding(&[(padding, padding); 2]);
                let y = x.conv(w, &config.groups(channels));
                f.output("y", y.max(0.0));
                let loss = (y * y).reduce_sum(&[0, 1, 2, 3]);
                for (name, g) in ["dx", "dw"].into_iter().zip(gradients(loss, &[x, w])) {
                    f.output(name, g);
                }
            });
            let w = numbers(DType::F32, &[channels, 1, size, size], 9);
            check(&b.build().unwrap(), &[numbers(DType::F32, &x_dims, 8), w]);
        }
    }

    #[test]
    fn tiles_fill_the_registers() {
        let tile = |m: i64, n: i64, target: &Target| {
            let t = Tile::best(&[m], &[1], n, DType::F32, target, 1..=128);
            (t.rows, t.lanes)
        };
        assert_eq!(TARGETS.map(|t| tile(840, 1024, &t)), [(5, 8), (6, 16), (14, 32)]);
        assert_eq!(tile(112, 16, &TARGETS[2]), (28, 16));
        assert_eq!(TARGETS.map(|t| tile(1, 960, &t).0), [1, 1, 1]);
    }
}
