//! How a contraction is cut: the register tile, blocks of k, units of work, and what of the factors is copied.

use super::to;
use crate::kernel::{BufferId, ContractionPart, ExprOp, Factor, Kernel};
use crate::lower::{Collapsed, PARALLEL_WORK, Target, exprs_linear};
use crate::operands::{ALIAS_BYTES, ALIAS_LEAST};
use crate::program::Buffer;
use crate::vector::Bound;
use graphc_ir::{DType, IndexExpr};
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
/// Rows of a result that do not read the right factor often: what counts is that it comes in the order of memory.
const STREAM_ROWS: i64 = 8;
/// Positions in a block of k of such a product.
const STREAM_BLOCK: i64 = 8;
/// Bytes of a right factor that is streamed, or how many times the positions of k that the cache keeps.
const STREAM_LEAST: (i64, i64) = (4 << 20, 4);
/// Positions in a block of k whose panels are copied: one of them stays in the first-level cache.
const COPY_BLOCK: i64 = 320;
/// Rows that are asked for before they are copied: they lie far apart, each has to come by itself.
pub(super) const COPY_AHEAD: i64 = 8;
/// Bytes of the copied panels of a unit.
const COPY_BYTES: i64 = 160 << 10;
/// Bytes of the left factor for a unit that comes from the cache that the cores share, row by row, for each panel.
const STREAM_BYTES: i64 = 24 << 20;
/// A block of k is not made smaller than this to make a box fit.
const K_LEAST: i64 = 256;
/// Bytes of a box of the left factor in scratch memory.
const BOX_BYTES: i64 = 128 << 10;
/// Units that work for several threads is divided into.
const UNITS: i64 = 8;
/// Multiply-adds of a tile unrolled in a long innermost loop: they amortize its overhead.
pub(super) const UNROLL: i64 = 4;
/// Innermost dimensions of k of at most this many positions are unrolled altogether.
const UNROLL_WHOLE: i64 = 9;
/// Rows of the left factor that each lie in a page of their own, of so many bytes, are read in fewer streams.
const PAGE: i64 = 4096;
const PAGES: i64 = 8;
/// Registers that a row of a tile takes at most.
const MAX_VECTORS: i64 = 8;
/// Bytes of the right factor that each strip reads: they stay in L2, beside the left factor.
const STRIP_BYTES: i64 = 96 << 10;
/// Expressions of an epilogue that works on the registers of a tile.
const SHORT_EPILOGUE: usize = 16;

pub(super) const fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// How one part is cut into units, blocks and tiles.
pub(super) struct Shape {
    pub(super) dtype: DType,
    /// Collapsed dimensions: batch, m, n, k.
    pub(super) space: Collapsed,
    pub(super) batch: Vec<i64>,
    pub(super) m: Vec<i64>,
    pub(super) n: i64,
    pub(super) k: Vec<i64>,
    /// The dimension of m that the rows of a tile run along.
    pub(super) row_dim: usize,
    pub(super) rows: i64,
    pub(super) lanes: i64,
    /// Lanes of an emitted vector are a multiple of this, unless there is one column.
    lane_step: i64,
    /// Lanes of loops that copy.
    pub(super) copy_lanes: u16,
    /// Positions of each dimension of m in a unit; of the row dimension whole tiles.
    pub(super) m_block: Vec<i64>,
    /// Column panels in a unit.
    pub(super) panels: i64,
    /// The dimension of k that is cut into blocks of `k_chunk` positions. Those before it are taken
    /// one by one, those after it whole.
    pub(super) k_dim: usize,
    pub(super) k_chunk: i64,
    /// The left factor if it is read through a copy of the box that a unit needs.
    pub(super) window: Option<Window>,
    /// Whether the left factor varies along the columns.
    pub(super) lhs_along_n: bool,
    /// Whether each unit copies the column panels of the right factor that it needs for a block of k.
    pub(super) copies_panels: bool,
    /// Whether the epilogue has more than [`SHORT_EPILOGUE`] expressions.
    long_epilogue: bool,
}

/// A load that gives zero outside of its buffer.
pub(super) struct Window {
    pub(super) buffer: BufferId,
    /// Index in each dimension, over the collapsed variables.
    pub(super) index: Vec<IndexExpr>,
    pub(super) dims: Vec<i64>,
    /// Dimensions from the largest stride to the smallest.
    pub(super) order: Vec<usize>,
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
    pub(super) fn new(kernel: &Kernel, part: &ContractionPart, buffers: &[Buffer], target: &Target) -> Self {
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
        let far = FarRows::of(part, buffers, &space, &k, target.l2_bytes);
        let rows = m.iter().product();
        let copies_panels = far.as_ref().is_some_and(|far| far.copying_pays(rows));
        // A longer k is one block nevertheless where panels of two registers and more are at hand in L2.
        let size = dtype.size_bytes() as i64;
        let per_register = i64::from(target.vector_lanes) * 4 / size;
        let positions: i64 = k.iter().product();
        let fits = target.panel_bytes / (positions.max(1) * size);
        let whole_panels =
            copies_panels && window.is_none() && positions > 2 * COPY_BLOCK && fits >= 2 * per_register;
        // A vector of the left factor for each row goes with one of the right.
        let widest = if lhs_along_n { 1 } else { MAX_VECTORS };
        let columns = match part.panel {
            Some(columns) => columns..=columns,
            None if whole_panels => 1..=fits.min(widest * per_register),
            // Lanes come in fours at least.
            None => 1..=(widest * per_register).max(4),
        };
        let tile = Tile::best(&m, &strides, n, dtype, target, columns);
        let (whole, most) = if whole_panels {
            (positions, positions)
        } else if copies_panels {
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
            s.divide(if one_each || threads == 1 { threads } else { UNITS }, target.l2_bytes);
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

    pub(super) fn k_size(&self) -> i64 {
        self.k.iter().product()
    }

    fn k_inner(&self) -> i64 {
        self.k[self.k_dim + 1..].iter().product()
    }

    pub(super) fn k_split(&self) -> bool {
        self.k_dim > 0 || self.k_chunk < self.k[0]
    }

    /// Columns in a unit, with those of the last panel that do not exist.
    pub(super) fn unit_columns(&self) -> i64 {
        self.panels * self.lanes
    }

    /// Whether the epilogue runs along the rows of all panels of a unit instead of on registers.
    pub(super) fn in_strips(&self) -> bool {
        self.long_epilogue && !self.k_split()
    }

    /// Chooses the sizes of blocks and units; about `wanted` of these, if that is not too few for
    /// a kernel that may be cut freely.
    fn divide(&mut self, wanted: i64, l2_bytes: i64) {
        // What a unit reads again stays in L2.
        let limit = match &self.window {
            Some(_) => BOX_BYTES,
            // A long k in one block is taken by panels that come from L2 themselves.
            None if self.copies_panels && !self.k_split() && self.k_size() > 2 * COPY_BLOCK => STREAM_BYTES,
            None if self.copies_panels => l2_bytes / 16 * 13 - COPY_BYTES,
            None => l2_bytes / 8 * 7,
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
        while self.k_split() && self.accumulator_bytes() > l2_bytes / 2 {
            if self.panels > 1 && self.unit_columns() > self.tiles_in_unit() * self.rows {
                self.panels = ceil_div(self.panels, 2);
            } else if !self.halve_rows() {
                break;
            }
        }
        let most = if self.in_strips() { STRIP_BYTES } else { COPY_BYTES };
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
    pub(super) fn m_count(&self, d: usize) -> i64 {
        ceil_div(self.m[d], self.m_block[d])
    }

    /// Row tiles of a unit.
    pub(super) fn tiles_in_unit(&self) -> i64 {
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
    pub(super) fn covered(&self) -> Vec<i64> {
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
    pub(super) fn box_extents(&self, w: &Window) -> Vec<i64> {
        let covered = self.covered();
        let reach = |e: &IndexExpr| -> i64 {
            let each = covered.iter().enumerate();
            each.map(|(v, n)| e.coefficient(v as u32).unwrap_or(0).abs() * (n - 1).max(0)).sum()
        };
        w.index.iter().map(|e| 1 + reach(e)).collect()
    }

    /// Where a loop over dimension `d` of k ends that stops at `limit`, counted from the block's first
    /// position `first`.
    pub(super) fn end_of_block(&self, d: usize, first: &IndexExpr, limit: i64) -> Bound {
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
    pub(super) fn panel_layout(&self) -> (i64, Vec<i64>) {
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
    pub(super) fn unrolled(&self) -> usize {
        let lowest = if self.k_split() { self.k_dim + 1 } else { 0 };
        let (mut d, mut positions) = (self.k.len(), 1);
        while d > lowest && positions * self.k[d - 1] <= UNROLL_WHOLE {
            d -= 1;
            positions *= self.k[d];
        }
        d
    }

    /// Lanes for a panel of so many columns.
    pub(super) fn lanes_of(&self, columns: i64) -> i64 {
        if self.n == 1 { 1 } else { ceil_div(columns, self.lane_step) * self.lane_step }
    }

    pub(super) fn n_blocks(&self) -> i64 {
        ceil_div(ceil_div(self.n, self.lanes), self.panels)
    }

    pub(super) fn units(&self) -> i64 {
        if self.points() == 0 {
            return 0;
        }
        let m: i64 = (0..self.m.len()).map(|d| self.m_count(d)).product();
        self.batch.iter().product::<i64>() * m * self.n_blocks()
    }

    pub(super) fn work(&self) -> u64 {
        (self.points() * (self.k_size() + 4)) as u64 / 4
    }
}

/// The register tile.
pub(super) struct Tile {
    row_dim: usize,
    pub(super) rows: i64,
    pub(super) lanes: i64,
    lane_step: i64,
}

impl Tile {
    /// The tile that takes the least time for all of m and n, in halves of a cycle for a position of
    /// k: two multiply-adds or two loads begin in a cycle, a multiply-add takes four cycles, and the
    /// loop costs something for each tile.
    pub(super) fn best(
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
                let mut most = (i64::from(target.registers) - 2 - vectors) / vectors;
                if strides[row_dim].saturating_mul(dtype.size_bytes() as i64) >= PAGE {
                    most = most.min(PAGES);
                }
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
    fn of(
        part: &ContractionPart,
        buffers: &[Buffer],
        space: &Collapsed,
        k: &[i64],
        l2_bytes: i64,
    ) -> Option<Self> {
        let strides = strides(&part.rhs, part, buffers, space, 3)?;
        let size = part.lhs.exprs.get(part.lhs.value).dtype.size_bytes() as i64;
        let bytes = strides.into_iter().map(|c| c.unwrap_or(0).saturating_abs().saturating_mul(size));
        let bytes: Vec<i64> = bytes.collect();
        let kept = |b: i64| l2_bytes >> b.trailing_zeros().min(l2_bytes.trailing_zeros());
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
