//! What a contraction does with its sums: bias, activation, update of a weight, stores.

use super::shape::UNROLL;
use super::{Ahead, At, Part, Place, RowTile, Unit, block_end, to};
use crate::lower::{Emit, element};
use crate::vector::{Base, MemRef, Val};
use graphc_ir::IndexExpr;

impl<'k> Part<'k, '_> {
    /// Asks for what the epilogue of a tile will read, row by row, while the sums are computed: in the loop over k, if that is one
    /// loop and not too long, by what is returned, and all at once otherwise.
    pub(super) fn prefetch(&mut self, unit: &Unit, at: &At) -> Vec<Ahead> {
        let s = self.s;
        let first = self.epilogue_row(unit, at, 0);
        let second = self.epilogue_row(unit, at, 1);
        let steps: Vec<Option<i64>> =
            first.iter().zip(&second).map(|(a, b)| b.index.add(&a.index.scale(-1)).as_constant()).collect();
        let iterations = s.k_size() / UNROLL;
        // Rows behind the tile's are of use to the next one, if they are few.
        if s.k.len() == 1 && s.unrolled() == 1 && (1..=3 * at.rows).contains(&iterations) {
            let steps = steps.into_iter().map(|step| step.filter(|step| step % UNROLL == 0));
            if let Some(steps) = steps.collect::<Option<Vec<i64>>>() {
                // One row in each iteration, or as many as there are for each.
                let rows = |(mem, step): (&MemRef, i64)| {
                    let (mem, lanes) = (mem.clone(), at.lanes);
                    let firsts = (0..at.rows).step_by(iterations as usize);
                    firsts.map(move |i| {
                        let mem = MemRef { index: mem.index.offset(i * step), ..mem.clone() };
                        Ahead { mem, step: step / UNROLL, lanes }
                    })
                };
                return first.iter().zip(steps).flat_map(rows).collect();
            }
        }
        for i in 0..at.rows {
            for mem in self.epilogue_row(unit, at, i) {
                self.prefetch_lanes(&mem, at.lanes);
            }
        }
        Vec::new()
    }

    /// Asks for `lanes` elements from `mem` on.
    fn prefetch_lanes(&mut self, mem: &MemRef, lanes: u16) {
        let line = 64 / self.s.dtype.size_bytes();
        for l in (0..i64::from(lanes)).step_by(line) {
            self.b.prefetch(MemRef { index: mem.index.offset(l), ..mem.clone() });
        }
    }

    /// Asks for what will be read later, in an iteration of the loop over k that begins at position `k` of it.
    pub(super) fn prefetch_ahead(&mut self, ahead: &[Ahead], k: &IndexExpr) {
        for a in ahead {
            let index = a.mem.index.add(&k.scale(a.step));
            self.prefetch_lanes(&MemRef { index, ..a.mem.clone() }, a.lanes);
        }
    }

    /// The first elements that the epilogue reads in row `i` of a tile.
    fn epilogue_row(&mut self, unit: &Unit, at: &At, i: i64) -> Vec<MemRef> {
        let kernel = self.kernel;
        let vars = self.row_vars(unit, at.place(), &IndexExpr::constant(i));
        let cx = self.b.cx();
        let of_row = |e: &IndexExpr| e.substitute(cx, &|v| vars[v as usize].clone());
        let loads = kernel.exprs.loads(&kernel.roots()).into_iter();
        let plain = loads.filter(|(_, index, guards)| guards.is_empty() && index.len() == vars.len());
        let elements = plain.map(|(buffer, index, _)| {
            let index: Vec<IndexExpr> = index.iter().map(of_row).collect();
            element(self.buffers, buffer, &index)
        });
        elements.filter(|m| m.index.terms().len() > 1).collect()
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
    pub(super) fn finish(&mut self, unit: &Unit, at: &At, sums: &[Val]) {
        let mut e = self.epilogue(unit, at.place(), &self.row_var());
        for (i, &sum) in sums.iter().enumerate() {
            self.finish_row(&mut e, unit, at.place(), &IndexExpr::constant(i as i64), sum);
        }
    }

    /// Applies the epilogue to a strip.
    pub(super) fn finish_strip(&mut self, unit: &Unit, rows: &RowTile, base: Base) {
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
    pub(super) fn finish_from(&mut self, unit: &Unit, at: &At, base: Base, slot: &IndexExpr) {
        let mut e = self.epilogue(unit, at.place(), &self.row_var());
        let row = self.b.open(IndexExpr::default(), to(at.rows), 1, 1, &[]);
        let mem = self.mem(base, slot.add(&row.var.scale(self.s.lanes)).add(&at.lane()));
        let sum = self.b.load(mem, &[]);
        self.finish_row(&mut e, unit, at.place(), &row.var.clone(), sum);
        self.b.close(row, &[]);
    }
}
