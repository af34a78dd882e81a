//! Contractions: matrix products, batched products, convolution and its gradients, as one family.
//!
//! The loop nest is that of Goto and van de Geijn (2008): blocks of `n` columns, blocks of `k`,
//! panels of `m` rows. Both factors are packed into panels as wide as the register tile, reading
//! them through their index maps, so a convolution needs no im2col buffer: what is packed at a time
//! is bounded. The register tile is a leaf function. Each result element is one chain of fused
//! multiply-adds over all of `k` in order; between blocks of `k` the accumulators rest in scratch
//! memory, which does not change a bit. The epilogue reads the finished tile from there, while it is
//! in L1, and writes the results.

use super::{Collapsed, Emit, Leaves, PARALLEL_WORK, Target, delinearize, exprs_linear};
use crate::kernel::{ContractionPart, Factor, Kernel};
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::VBuilder;
use crate::vector::{Base, Bound, MemRef, VFunc, Val};
use graphc_ir::{DType, IndexExpr, Scalar, ScalarBuilder};

/// Largest block of `k` that is packed at a time.
const K_BLOCK: i64 = 384;
/// Largest block of columns that is packed at a time.
const N_BLOCK: i64 = 256;
/// Largest number of rows in one unit of parallel work.
const M_BLOCK: i64 = 120;

pub(super) fn schedule(
    kernel: &Kernel,
    parts: &[ContractionPart],
    buffers: &[Buffer],
    target: &Target,
    leaves: &mut Leaves,
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let mut scratch = 0;
    let mut first_unit = 0;
    let mut work = 0u64;
    // The parts' units follow one another.
    let units: Vec<i64> = parts.iter().map(|p| Shape::new(kernel, p, buffers, target).units()).collect();
    let total: i64 = units.iter().sum();
    b.bound_param(0, total.max(1));
    b.bound_param(1, total + 1);
    for (part, n_units) in parts.iter().zip(&units) {
        let shape = Shape::new(kernel, part, buffers, target);
        work += shape.work();
        let mut part = Part { kernel, part, buffers, s: &shape, b: &mut b, leaves, scratch: 0 };
        part.emit(first_unit, *n_units, total);
        scratch = scratch.max(part.scratch);
        first_unit += n_units;
    }
    let parallel = total > 1 && work > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: total as u64, parallel, scratch }
}

/// Collapsed extents and block sizes of one part.
struct Shape {
    dtype: DType,
    /// Collapsed dimensions: batch, m, n, k.
    space: Collapsed,
    m: i64,
    n: i64,
    k: i64,
    rows: i64,
    lanes: i64,
    m_block: i64,
    n_block: i64,
    /// The dimension of k that is cut into blocks, and the positions of it in a block. Those before
    /// it are taken one by one, those after it whole.
    k_dim: usize,
    k_chunk: i64,
}

impl Shape {
    fn new(kernel: &Kernel, part: &ContractionPart, buffers: &[Buffer], target: &Target) -> Self {
        let [nb, nm, nn, nk] = part.ranks;
        let groups = [0..nb, nb..nb + nm, nb + nm..nb + nm + nn, nb + nm + nn..nb + nm + nn + nk];
        let mut exprs = exprs_linear(&part.lhs.exprs, buffers);
        exprs.extend(exprs_linear(&part.rhs.exprs, buffers));
        // Epilogue expressions are over the result's dimensions.
        let over_part = |e: &IndexExpr| e.substitute(&part.space, &|v| part.out[v as usize].clone());
        exprs.extend(exprs_linear(&kernel.exprs, buffers).iter().map(over_part));
        for s in &kernel.stores {
            exprs.push(over_part(&buffers[s.buffer as usize].linear(&s.index)));
        }
        let space = Collapsed::new(&part.space.extents, &groups, &exprs);
        let size = |g: usize| space.extents[g].iter().product::<i64>();
        let (m, n, k) = (size(1), size(2), size(3));
        let dtype = part.lhs.exprs.get(part.lhs.value).dtype;
        let rows = (target.tile_rows as i64).min(m.max(1));
        let lanes = i64::from(target.tile_lanes);
        // From the innermost dimension outwards, as many as fit a block.
        let dims = &space.extents[3];
        let mut k_dim = dims.len().saturating_sub(1);
        let mut inner: i64 = 1;
        while k_dim > 0 && inner * dims[k_dim] <= K_BLOCK {
            inner *= dims[k_dim];
            k_dim -= 1;
        }
        let extent = dims.get(k_dim).copied().unwrap_or(1);
        let k_chunk = (K_BLOCK / inner.max(1)).clamp(1, extent.max(1));
        let n_block = N_BLOCK.min((n + lanes - 1) / lanes * lanes).max(lanes);
        // Enough units for a few threads where there are rows enough.
        let wanted = ((m + 7) / 8 + rows - 1) / rows * rows;
        let m_block = wanted.clamp(rows, M_BLOCK / rows * rows);
        Self { dtype, space, m, n, k, rows, lanes, m_block, n_block, k_dim, k_chunk }
    }

    fn batch(&self) -> i64 {
        self.space.extents[0].iter().product()
    }

    fn m_units(&self) -> i64 {
        (self.m + self.m_block - 1) / self.m_block
    }

    fn units(&self) -> i64 {
        if self.n == 0 { 0 } else { self.batch() * self.m_units() }
    }

    fn work(&self) -> u64 {
        (self.batch() * self.m * self.n * (self.k + 4)) as u64 / 4
    }

    /// Positions of k in a whole block.
    fn k_block(&self) -> i64 {
        self.k_inner() * self.k_chunk
    }

    fn k_inner(&self) -> i64 {
        self.space.extents[3].iter().skip(self.k_dim + 1).product()
    }
}

struct Part<'a, 'b> {
    kernel: &'a Kernel,
    part: &'a ContractionPart,
    buffers: &'a [Buffer],
    s: &'a Shape,
    b: &'b mut VBuilder,
    leaves: &'b mut Leaves,
    scratch: usize,
}

/// Which factor is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Lhs,
    Rhs,
}

fn to(e: i64) -> Bound {
    Bound::Expr(IndexExpr::constant(e))
}

impl Part<'_, '_> {
    fn region(&mut self, elements: i64) -> u32 {
        let at = self.scratch;
        self.scratch += (elements as usize * self.s.dtype.size_bytes()).next_multiple_of(64);
        at as u32
    }

    fn scratch(&self, region: u32, index: IndexExpr) -> MemRef {
        MemRef { base: Base::Scratch(region), dtype: self.s.dtype, index }
    }

    fn emit(&mut self, first_unit: i64, n_units: i64, total: i64) {
        let s = self.s;
        if n_units == 0 {
            return;
        }
        let panels = s.n_block / s.lanes;
        let a = self.region(s.k_block() * s.rows);
        let bp = self.region(s.k_block() * s.n_block);
        let acc = self.region(s.m_block * s.n_block);

        // Units first_unit.. of the kernel are this part's.
        let (lo, hi) = if first_unit == 0 && n_units == total {
            (self.b.param(0), Bound::Min(self.b.param(1), IndexExpr::constant(total)))
        } else {
            let end = IndexExpr::constant(first_unit + n_units);
            let begin = self.b.param(0);
            let begin = self.b.index(&begin);
            let own = self.b.i64(first_unit);
            let begin = self.b.max(begin, own);
            (self.b.dynamic(begin, total), Bound::Min(self.b.param(1), end))
        };
        let unit = self.b.open(lo, hi, 1, 1, &[]);
        let own = unit.var.offset(-first_unit);
        let at = delinearize(self.b, &own, &[s.batch(), s.m_units()]);
        let batch = delinearize(self.b, &at[0], &s.space.extents[0]);
        let m0 = at[1].scale(s.m_block);
        let m_here = self.smaller(s.m_block, s.m, &m0);

        let nc = self.b.open(IndexExpr::default(), to((s.n + s.n_block - 1) / s.n_block), 1, 1, &[]);
        let n0 = nc.var.scale(s.n_block);
        let n_here = self.smaller(s.n_block, s.n, &n0);
        let n_panels = self.ceil_div(&n_here, s.lanes, panels);
        let m_panels = self.ceil_div(&m_here, s.rows, s.m_block / s.rows);

        self.k_blocks(&batch, &m0, &m_here, &n0, &n_here, (&m_panels, &n_panels), (a, bp, acc));
        self.epilogue(&batch, &m0, &m_here, &n0, &n_here, (&m_panels, &n_panels), acc);
        self.b.close(nc, &[]);
        self.b.close(unit, &[]);
    }

    /// `min(block, extent - from)`
    fn smaller(&mut self, block: i64, extent: i64, from: &IndexExpr) -> IndexExpr {
        if extent % block == 0 {
            return IndexExpr::constant(block);
        }
        if let Some(c) = from.as_constant() {
            return IndexExpr::constant(block.min(extent - c));
        }
        let rest = IndexExpr::constant(extent).add(&from.scale(-1));
        let (rest, limit) = (self.b.index(&rest), self.b.i64(block));
        let v = self.b.min(rest, limit);
        self.b.dynamic(v, block + 1)
    }

    fn ceil_div(&mut self, e: &IndexExpr, by: i64, bound: i64) -> IndexExpr {
        let q = self.b.cx().div(&e.offset(by - 1), by);
        if q.as_constant().is_some() {
            return q;
        }
        let v = self.b.index(&q);
        self.b.dynamic(v, bound + 1)
    }

    #[expect(clippy::too_many_arguments, reason = "the coordinates of one block")]
    fn k_blocks(
        &mut self,
        batch: &[IndexExpr],
        m0: &IndexExpr,
        m_here: &IndexExpr,
        n0: &IndexExpr,
        n_here: &IndexExpr,
        (m_panels, n_panels): (&IndexExpr, &IndexExpr),
        (a, bp, acc): (u32, u32, u32),
    ) {
        let s = self.s;
        if s.k == 0 {
            // No terms: the accumulators are zero.
            let all = m_panels.scale(1);
            let zero = Scalar::from_f64(s.dtype, 0.0);
            let mp = self.b.open(IndexExpr::default(), Bound::Expr(all), 1, 1, &[]);
            let l = self.b.open(IndexExpr::default(), to(s.rows * s.n_block), s.lanes, s.lanes as u16, &[]);
            let v = self.b.constant(zero);
            let mem = self.scratch(acc, mp.var.scale(s.rows * s.n_block).add(&l.var));
            self.b.store(mem, v);
            self.b.close(l, &[]);
            self.b.close(mp, &[]);
            return;
        }
        let dims = s.space.extents[3].clone();
        let extent = dims.get(s.k_dim).copied().unwrap_or(1);
        let lead: i64 = dims[..s.k_dim.min(dims.len())].iter().product();
        let chunks = (extent + s.k_chunk - 1) / s.k_chunk;
        let o = self.b.open(IndexExpr::default(), to(lead), 1, 1, &[]);
        let kb = self.b.open(IndexExpr::default(), to(chunks), 1, 1, &[]);
        let outer = delinearize(self.b, &o.var, &dims[..s.k_dim.min(dims.len())]);
        let k0 = kb.var.scale(s.k_chunk);
        let k_here = self.smaller(s.k_chunk, extent, &k0);
        let kc = k_here.scale(s.k_inner());
        // 0 in the first block, where accumulators start from zero.
        let block = o.var.scale(chunks).add(&kb.var);

        // Columns, once for all rows of the unit.
        let np = self.b.open(IndexExpr::default(), Bound::Expr(n_panels.clone()), 1, 1, &[]);
        let columns = self.smaller_dynamic(s.lanes, n_here, &np.var.scale(s.lanes), s.n);
        let at = (bp, np.var.scale(s.k_block() * s.lanes));
        self.pack(
            Side::Rhs,
            at,
            s.lanes,
            &columns,
            &n0.add(&np.var.scale(s.lanes)),
            batch,
            &outer,
            &k0,
            &k_here,
        );
        self.b.close(np, &[]);

        let mp = self.b.open(IndexExpr::default(), Bound::Expr(m_panels.clone()), 1, 1, &[]);
        let rows = self.smaller_dynamic(s.rows, m_here, &mp.var.scale(s.rows), s.m);
        let at = (a, IndexExpr::default());
        self.pack(Side::Lhs, at, s.rows, &rows, &m0.add(&mp.var.scale(s.rows)), batch, &outer, &k0, &k_here);
        let np = self.b.open(IndexExpr::default(), Bound::Expr(n_panels.clone()), 1, 1, &[]);
        let leaf = self.leaf();
        let tile = mp.var.scale(s.rows * s.n_block).add(&np.var.scale(s.rows * s.lanes));
        let pointers = vec![
            self.scratch(a, IndexExpr::default()),
            self.scratch(bp, np.var.scale(s.k_block() * s.lanes)),
            self.scratch(acc, tile),
        ];
        self.b.call(leaf, pointers, vec![kc, block]);
        self.b.close(np, &[]);
        self.b.close(mp, &[]);
        self.b.close(kb, &[]);
        self.b.close(o, &[]);
    }

    /// `min(block, here - from)`; `extent` is what `here` is a part of.
    fn smaller_dynamic(&mut self, block: i64, here: &IndexExpr, from: &IndexExpr, extent: i64) -> IndexExpr {
        if extent % block == 0 {
            return IndexExpr::constant(block);
        }
        let rest = here.add(&from.scale(-1));
        if let Some(c) = rest.as_constant() {
            return IndexExpr::constant(block.min(c));
        }
        let (rest, limit) = (self.b.index(&rest), self.b.i64(block));
        let v = self.b.min(rest, limit);
        self.b.dynamic(v, block + 1)
    }

    /// Packs a panel: element (position of k, row) goes to `k * width + row`. Rows that do not
    /// exist are left as they are; what they give is never stored.
    #[expect(clippy::too_many_arguments, reason = "the coordinates of one panel")]
    fn pack(
        &mut self,
        side: Side,
        (region, offset): (u32, IndexExpr),
        width: i64,
        rows: &IndexExpr,
        first: &IndexExpr,
        batch: &[IndexExpr],
        outer: &[IndexExpr],
        k0: &IndexExpr,
        k_here: &IndexExpr,
    ) {
        let s = self.s;
        let (factor, group): (&Factor, usize) = match side {
            Side::Lhs => (&self.part.lhs, 1),
            Side::Rhs => (&self.part.rhs, 2),
        };
        let dims = s.space.extents[group].clone();
        let mut e = Emit::new(&factor.exprs, self.buffers, Vec::new());
        if self.in_order(factor, group) {
            // Neighbouring rows lie side by side in memory: lanes along them.
            let (k, k_position, kn) = self.open_k(outer, k0, k_here);
            let lanes = if width % 8 == 0 { 8 } else { 4 };
            let i = self.b.open(IndexExpr::default(), Bound::Expr(rows.clone()), lanes, lanes as u16, &[]);
            let row = vec![first.add(&i.var)];
            self.set_vars(&mut e, side, batch, &row, &k);
            let v = e.value(self.b, factor.value);
            let mem = self.scratch(region, offset.add(&k_position.scale(width)).add(&i.var));
            self.b.store(mem, v);
            self.b.close(i, &[]);
            self.close_k(kn);
            return;
        }
        let i = self.b.open(IndexExpr::default(), Bound::Expr(rows.clone()), 1, 1, &[]);
        let row = first.add(&i.var);
        let row = delinearize(self.b, &row, &dims);
        let (k, k_position, kn) = self.open_k(outer, k0, k_here);
        self.set_vars(&mut e, side, batch, &row, &k);
        let v = e.value(self.b, factor.value);
        let mem = self.scratch(region, offset.add(&k_position.scale(width)).add(&i.var));
        self.b.store(mem, v);
        self.close_k(kn);
        self.b.close(i, &[]);
    }

    /// Whether the factor's rows are one dimension along which all its loads are contiguous and
    /// unguarded.
    fn in_order(&self, factor: &Factor, group: usize) -> bool {
        let s = self.s;
        if s.space.extents[group].len() != 1 || !factor.exprs.dynamics.is_empty() {
            return false;
        }
        let var = s.space.first(group) as u32;
        factor.exprs.loads(&[factor.value]).iter().all(|(buffer, index, guards)| {
            let sub = |e: &IndexExpr| e.substitute(&self.part.space, &|v| s.space.vars[v as usize].clone());
            matches!(sub(&self.buffers[*buffer as usize].linear(index)).coefficient(var), Some(0 | 1))
                && !guards.iter().any(|g| sub(&g.expr).uses(var))
        })
    }

    /// Opens the loops over a block of k. Gives its dimensions, the position within the block, and
    /// the loops.
    fn open_k(
        &mut self,
        outer: &[IndexExpr],
        k0: &IndexExpr,
        k_here: &IndexExpr,
    ) -> (Vec<IndexExpr>, IndexExpr, Vec<crate::vector::builder::OpenLoop>) {
        let s = self.s;
        let dims = &s.space.extents[3];
        if dims.is_empty() {
            return (Vec::new(), IndexExpr::default(), Vec::new());
        }
        let mut k = outer.to_vec();
        let mut loops = vec![self.b.open(IndexExpr::default(), Bound::Expr(k_here.clone()), 1, 1, &[])];
        let mut position = loops[0].var.clone();
        k.push(k0.add(&position));
        for &d in &dims[s.k_dim + 1..] {
            let l = self.b.open(IndexExpr::default(), to(d), 1, 1, &[]);
            position = position.scale(d).add(&l.var);
            k.push(l.var.clone());
            loops.push(l);
        }
        (k, position, loops)
    }

    fn close_k(&mut self, loops: Vec<crate::vector::builder::OpenLoop>) {
        for l in loops.into_iter().rev() {
            self.b.close(l, &[]);
        }
    }

    /// Sets the variables of a factor's expressions.
    fn set_vars(
        &self,
        e: &mut Emit<'_>,
        side: Side,
        batch: &[IndexExpr],
        row: &[IndexExpr],
        k: &[IndexExpr],
    ) {
        let s = self.s;
        let mut new: Vec<IndexExpr> = batch.to_vec();
        let other = |g: usize| vec![IndexExpr::default(); s.space.extents[g].len()];
        match side {
            Side::Lhs => {
                new.extend_from_slice(row);
                new.extend(other(2));
            }
            Side::Rhs => {
                new.extend(other(1));
                new.extend_from_slice(row);
            }
        }
        new.extend_from_slice(k);
        e.vars =
            s.space.vars.iter().map(|x| x.substitute(self.b.cx(), &|v| new[v as usize].clone())).collect();
    }

    /// Applies the epilogue to the finished tiles.
    #[expect(clippy::too_many_arguments, reason = "the coordinates of one block")]
    fn epilogue(
        &mut self,
        batch: &[IndexExpr],
        m0: &IndexExpr,
        m_here: &IndexExpr,
        n0: &IndexExpr,
        n_here: &IndexExpr,
        (m_panels, n_panels): (&IndexExpr, &IndexExpr),
        acc: u32,
    ) {
        let s = self.s;
        let mp = self.b.open(IndexExpr::default(), Bound::Expr(m_panels.clone()), 1, 1, &[]);
        let rows = self.smaller_dynamic(s.rows, m_here, &mp.var.scale(s.rows), s.m);
        let i = self.b.open(IndexExpr::default(), Bound::Expr(rows), 1, 1, &[]);
        let row = m0.add(&mp.var.scale(s.rows)).add(&i.var);
        let row = delinearize(self.b, &row, &s.space.extents[1]);
        let np = self.b.open(IndexExpr::default(), Bound::Expr(n_panels.clone()), 1, 1, &[]);
        let columns = self.smaller_dynamic(s.lanes, n_here, &np.var.scale(s.lanes), s.n);
        let l = self.b.open(IndexExpr::default(), Bound::Expr(columns), s.lanes, s.lanes as u16, &[]);
        let column = n0.add(&np.var.scale(s.lanes)).add(&l.var);
        let column = delinearize(self.b, &column, &s.space.extents[2]);
        let new: Vec<IndexExpr> = batch.iter().chain(&row).chain(&column).cloned().collect();
        let part = self.part;
        let get = |v: u32| new.get(v as usize).cloned().unwrap_or_default();
        let cx = self.b.cx();
        let vars: Vec<IndexExpr> = s.space.vars.iter().map(|x| x.substitute(cx, &get)).collect();
        let out = part.out.iter().map(|x| x.substitute(cx, &|v| vars[v as usize].clone())).collect();
        let mut e = Emit::new(&self.kernel.exprs, self.buffers, out);
        let tile = mp.var.scale(s.rows * s.n_block).add(&np.var.scale(s.rows * s.lanes));
        let sum = self.scratch(acc, tile.add(&i.var.scale(s.lanes)).add(&l.var));
        e.reduced.insert(0, self.b.load(sum, &[]));
        let values: Vec<Val> = self.kernel.stores.iter().map(|st| e.value(self.b, st.value)).collect();
        for (st, v) in self.kernel.stores.iter().zip(values) {
            let mem = e.element(self.b, st.buffer, &st.index);
            self.b.store(mem, v);
        }
        self.b.close(l, &[]);
        self.b.close(np, &[]);
        self.b.close(i, &[]);
        self.b.close(mp, &[]);
    }

    fn leaf(&mut self) -> u32 {
        let s = self.s;
        let name = format!("tile_{}_{}x{}", s.dtype, s.rows, s.lanes);
        let (dtype, rows, lanes) = (s.dtype, s.rows, s.lanes as u16);
        self.leaves.get(name, |name| tile(name, dtype, rows, lanes))
    }
}

/// Multiply-adds unrolled in the tile's loop over k: they amortize the loop's copies.
const UNROLL: i64 = 4;

/// The register tile: `acc[i][j] += sum over k of a[k][i] * b[k][j]`, in order of k; the
/// accumulators start from zero if scalar argument 1 (the number of the block of k) is 0. Argument
/// 0 is the number of positions of k.
fn tile(name: &str, dtype: DType, rows: i64, lanes: u16) -> VFunc {
    let mut b = VBuilder::leaf(name, 2, 3);
    let kc = b.param(0);
    let block = b.param(1);
    let at = |param, index| MemRef { base: Base::Param(param), dtype, index };
    let width = i64::from(lanes);
    let j = b.open(IndexExpr::default(), to(width), width, lanes, &[]);
    let zero = b.constant_lanes(Scalar::from_f64(dtype, 0.0), lanes);
    let block = b.index(&block);
    let none = b.i64(0);
    let first = b.cmp(graphc_ir::CmpKind::Eq, block, none);
    let init: Vec<Val> = (0..rows)
        .map(|i| {
            let before = b.load(at(2, j.var.offset(i * width)), &[]);
            b.select(first, zero, before)
        })
        .collect();
    let step = |b: &mut VBuilder, k: &IndexExpr, acc: &[Val]| -> Vec<Val> {
        let column = b.load(at(1, k.scale(width).add(&j.var)), &[]);
        acc.iter()
            .enumerate()
            .map(|(i, &acc)| {
                let x = b.load(at(0, k.scale(rows).offset(i as i64)), &[]);
                if dtype.is_float() {
                    return b.fma(x, column, acc);
                }
                let product = b.mul(x, column);
                b.add(product, acc)
            })
            .collect()
    };
    let whole = b.cx().div(&kc, UNROLL);
    let whole = b.index(&whole);
    let whole = b.dynamic(whole, graphc_ir::MAX_ELEMENTS as i64).scale(UNROLL);
    let l = b.open(IndexExpr::default(), Bound::Expr(whole.clone()), UNROLL, 1, &init);
    let mut acc = l.values.clone();
    for u in 0..UNROLL {
        acc = step(&mut b, &l.var.offset(u), &acc);
    }
    let acc = b.close(l, &acc);
    let l = b.open(whole, Bound::Expr(kc), 1, 1, &acc);
    let acc = step(&mut b, &l.var.clone(), &l.values.clone());
    let acc = b.close(l, &acc);
    for (i, v) in acc.into_iter().enumerate() {
        b.store(at(2, j.var.offset(i as i64 * width)), v);
    }
    b.close(j, &[]);
    b.finish()
}
