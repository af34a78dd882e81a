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

mod copies;
mod epilogue;
mod shape;
#[cfg(test)]
mod tests;

use self::shape::{Shape, UNROLL, ceil_div};
use super::{PARALLEL_WORK, Target, delinearize};
use crate::kernel::{BufferId, ContractionPart, ExprOp, Factor, Kernel};
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::{OpenLoop, VBuilder};
use crate::vector::{Base, Bound, MemRef, Val};
use graphc_ir::{Atom, CmpKind, IndexExpr, MAX_ELEMENTS, Scalar, ScalarBuilder};

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
    /// What the epilogue will read.
    ahead: Vec<Ahead>,
}

/// What is asked for while a tile's sums are computed: so many elements from `mem` on, and `step` elements further on for
/// each position of k.
struct Ahead {
    mem: MemRef,
    step: i64,
    lanes: u16,
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
                let ahead = p.prefetch(&unit, at);
                let zeros = p.zeros(at);
                p.sums(&unit, &block, source.as_ref(), at, (zeros, ahead))
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
            let sums = p.sums(unit, &block, source.as_ref(), at, (init, Vec::new()));
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
        (acc, ahead): (Vec<Val>, Vec<Ahead>),
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
            ahead,
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
        self.prefetch_ahead(&terms.ahead, &l.var);
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
