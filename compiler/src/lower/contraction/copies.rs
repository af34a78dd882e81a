//! Copies of the factors in scratch memory: a box of the left one, panels of the right one.

use super::shape::{COPY_AHEAD, Window, ceil_div};
use super::{KBlock, Part, Source, Unit};
use crate::kernel::BufferId;
use crate::vector::{Base, Bound};
use graphc_ir::{IndexExpr, MAX_ELEMENTS, Scalar, ScalarBuilder};

impl Part<'_, '_> {
    /// Copies what a unit and a block of k need of the right factor, if that pays.
    pub(super) fn copied(&mut self, unit: &Unit, block: &KBlock) -> Option<Base> {
        self.s.copies_panels.then(|| self.copy_panels(unit, block))
    }

    /// The left factor for a unit and a block of k; without a term of the sum there is none, and it need
    /// not be a load.
    pub(super) fn source(&mut self, unit: &Unit, block: &KBlock) -> Option<Source> {
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
            self.panels(unit, &mut |p, panel| {
                let into = into.add(&panel.number.add(&unit.panel.scale(-1)).scale(size));
                p.copy_columns(buffer, (&from, ahead), &panel.number, panel.columns, base, &into);
            });
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
                let (lo, hi) = self.in_buffer(&lowest[d], extents[d], w.dims[d]);
                let end = IndexExpr::constant(extents[d]);
                self.zeros_in_box(base, &into, (&IndexExpr::default(), &lo), strides[d]);
                self.zeros_in_box(base, &into, (&hi, &end), strides[d]);
                (lo, hi)
            } else {
                (IndexExpr::default(), IndexExpr::constant(extents[d]))
            };
            let step = if rest.is_empty() && stride == 1 { lanes } else { 1 };
            let l = self.b.open(lo.scale(run), Bound::Expr(hi.scale(run)), i64::from(step), step, &[]);
            from = from.add(&lowest[d].scale(source.strides[d] as i64)).add(&l.var.scale(stride));
            into = into.add(&l.var.scale(strides[d] / run));
            loops.push(l);
        }
        let value = self.b.load(self.mem(Base::Buffer(w.buffer), from), &[]);
        self.b.store(self.mem(base, into), value);
        self.close(loops);
    }

    /// Writes zeros at positions `lo..hi` of a dimension of a box, of `stride` elements each; the first of them is at `into`.
    fn zeros_in_box(
        &mut self,
        base: Base,
        into: &IndexExpr,
        (lo, hi): (&IndexExpr, &IndexExpr),
        stride: i64,
    ) {
        if lo == hi {
            return;
        }
        let lanes = self.s.copy_lanes;
        let end = Bound::Expr(hi.scale(stride));
        let l = self.b.open(lo.scale(stride), end, i64::from(lanes), lanes, &[]);
        let zero = self.b.constant(Scalar::from_f64(self.s.dtype, 0.0));
        self.b.store(self.mem(base, into.add(&l.var)), zero);
        self.b.close(l, &[]);
    }

    /// Positions of `0..extent` whose index, `lowest` for the first, is in `0..dim`: from the first of them to behind the last.
    fn in_buffer(&mut self, lowest: &IndexExpr, extent: i64, dim: i64) -> (IndexExpr, IndexExpr) {
        if let Some(c) = lowest.as_constant() {
            let lo = (-c).clamp(0, extent);
            return (IndexExpr::constant(lo), IndexExpr::constant((dim - c).clamp(lo, extent)));
        }
        let (below, end) = (self.b.index(&lowest.scale(-1)), self.b.index(&lowest.scale(-1).offset(dim)));
        let (zero, all) = (self.b.i64(0), self.b.i64(extent));
        let lo = self.b.max(below, zero);
        let lo = self.b.min(lo, all);
        let hi = self.b.max(end, lo);
        let hi = self.b.min(hi, all);
        (self.b.dynamic(lo, extent + 1), self.b.dynamic(hi, extent + 1))
    }
}
