//! Scatters: initial values, then updates at places read from memory.
//!
//! Updates of one element keep their order. Those that differ along a *separate* axis, on which the
//! place is a variable of the updates alone, never meet: such axes are divided among units, and lanes
//! run along the one that is contiguous, unless an index depends on it. All other variables of the
//! updates are loops in row-major order.

use super::{Emit, PARALLEL_WORK, Target, delinearize};
use crate::kernel::{Kernel, Store, Updates};
use crate::program::{Buffer, Scheduled};
use crate::vector::Bound;
use crate::vector::builder::{OpenLoop, VBuilder};
use graphc_ir::{Atom, IndexExpr, ScalarBuilder};
use std::cmp::Reverse;

/// Units that work for several threads is divided into.
const UNITS: i64 = 16;

/// Positions of the contiguous axis that a unit takes at least.
const STRIP: i64 = 64;

/// See [`crate::kernel::KernelBody::Scatter`].
pub(super) fn schedule(kernel: &Kernel, updates: &Updates, buffers: &[Buffer], target: &Target) -> Scheduled {
    let [store] = kernel.stores.as_slice() else { unreachable!("verified: a scatter has one store") };
    let out = &buffers[store.buffer as usize];
    let extents = &kernel.space.extents;
    let mut b = VBuilder::kernel(&kernel.name);
    let axes = Axes::new(updates, out);
    let points: i64 = extents.iter().product();
    let n_updates: i64 = updates.space.extents.iter().product();
    let in_place = kernel.starts_in_place(buffers);
    let first = if in_place { 0 } else { points };
    let work = (first + n_updates * updates.exprs.len() as i64) as u64;
    // Rows are positions of the separate axes but the contiguous one, of which a unit takes a strip.
    let rows: Vec<i64> = axes.rows.iter().map(|&(axis, _)| extents[axis]).collect();
    let n_rows: i64 = rows.iter().product();
    let length = axes.row.map_or(1, |(axis, _)| extents[axis]);
    let divided = work > PARALLEL_WORK && target.threads > 1 && 0 < n_rows && n_rows < UNITS;
    let strip = if divided { (length * n_rows / UNITS / STRIP + 1) * STRIP } else { length };
    let strips = if points == 0 { 0 } else { (length + strip - 1) / strip };
    let units = n_rows * strips;
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    if units == 0 {
        return Scheduled { function: b.finish(), units: 0, parallel: false, scratch: 0 };
    }
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let mut at = delinearize(&b, &u.var, &[rows.as_slice(), &[strips]].concat());
    let lo = at.pop().expect("one for each extent").scale(strip);
    let (lo, hi) = match strips {
        1 => (IndexExpr::default(), Bound::Expr(IndexExpr::constant(length))),
        _ => (lo.clone(), Bound::Min(lo.offset(strip), IndexExpr::constant(length))),
    };
    let mut unit =
        Unit { b, kernel, updates, store, buffers, axes, at, strip: (lo, hi), lanes: target.map_lanes };
    if !in_place {
        unit.start();
    }
    if n_updates > 0 {
        unit.update();
    }
    unit.b.close(u, &[]);
    let parallel = units > 1 && work > PARALLEL_WORK;
    Scheduled { function: unit.b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// The axes of the result that are separate, each with the variable of the updates that is the place
/// on it.
struct Axes {
    /// The contiguous one.
    row: Option<(usize, usize)>,
    /// The others.
    rows: Vec<(usize, usize)>,
}

impl Axes {
    fn new(updates: &Updates, out: &Buffer) -> Self {
        let separate = |(axis, e): (usize, &IndexExpr)| match (e.offset_value(), e.terms()) {
            (0, [(Atom::Var(v), 1)]) => Some((axis, *v as usize)),
            _ => None,
        };
        let mut rows: Vec<_> = updates.index.iter().enumerate().filter_map(separate).collect();
        let row = rows.iter().position(|&(axis, _)| out.strides[axis] == 1 && out.dims[axis] > 1);
        let row = row.map(|i| rows.remove(i));
        Self { row, rows }
    }
}

/// A unit under construction.
struct Unit<'a> {
    b: VBuilder,
    kernel: &'a Kernel,
    updates: &'a Updates,
    store: &'a Store,
    buffers: &'a [Buffer],
    axes: Axes,
    /// Positions on `axes.rows`.
    at: Vec<IndexExpr>,
    /// The range on `axes.row`.
    strip: (IndexExpr, Bound),
    lanes: u16,
}

impl Unit<'_> {
    /// Writes the initial values.
    fn start(&mut self) {
        let extents = &self.kernel.space.extents;
        let mut vars = vec![IndexExpr::default(); extents.len()];
        self.axes.rows.iter().zip(&self.at).for_each(|(&(axis, _), e)| vars[axis] = e.clone());
        let strides = &self.buffers[self.store.buffer as usize].strides;
        let mut inner: Vec<usize> =
            (0..extents.len()).filter(|a| self.axes.rows.iter().all(|r| r.0 != *a)).collect();
        inner.sort_by_key(|&axis| Reverse(strides[axis]));
        let mut loops = Vec::new();
        for (i, &axis) in inner.iter().enumerate() {
            let (lo, hi) = match self.axes.row {
                Some((row, _)) if row == axis => self.strip.clone(),
                _ => (IndexExpr::default(), Bound::Expr(IndexExpr::constant(extents[axis]))),
            };
            // An index that is read from memory may differ between lanes.
            let in_order =
                i + 1 == inner.len() && strides[axis] == 1 && self.kernel.exprs.dynamics.is_empty();
            let lanes = if in_order { self.lanes } else { 1 };
            let l = self.b.open(lo, hi, i64::from(lanes), lanes, &[]);
            vars[axis] = l.var.clone();
            loops.push(l);
        }
        let mut e = Emit::new(&self.kernel.exprs, self.buffers, vars);
        let value = e.value(&mut self.b, self.store.value);
        let mem = e.element(&mut self.b, self.store.buffer, &self.store.index);
        self.b.store(mem, value);
        self.close(loops);
    }

    /// Makes the updates.
    fn update(&mut self) {
        let u = self.updates;
        let extents = &u.space.extents;
        let mut vars = vec![IndexExpr::default(); extents.len()];
        let mut loops = Vec::new();
        for (&(axis, v), at) in self.axes.rows.iter().zip(&self.at) {
            vars[v] = at.clone();
            // There may be fewer updates than positions: then a loop of one iteration or none.
            if extents[v] < self.kernel.space.extents[axis] {
                let hi = Bound::Min(at.offset(1), IndexExpr::constant(extents[v]));
                let l = self.b.open(at.clone(), hi, 1, 1, &[]);
                vars[v] = l.var.clone();
                loops.push(l);
            }
        }
        let separate = |v: usize| self.axes.rows.iter().chain(&self.axes.row).any(|s| s.1 == v);
        for v in (0..extents.len()).filter(|&v| !separate(v)) {
            let hi = Bound::Expr(IndexExpr::constant(extents[v]));
            let l = self.b.open(IndexExpr::default(), hi, 1, 1, &[]);
            vars[v] = l.var.clone();
            loops.push(l);
        }
        let mut e = Emit::new(&u.exprs, self.buffers, vars);
        if let Some((_, v)) = self.axes.row {
            let (lo, hi) = self.strip.clone();
            let hi = match hi {
                Bound::Expr(_) => Bound::Expr(IndexExpr::constant(extents[v])),
                Bound::Min(end, _) => Bound::Min(end, IndexExpr::constant(extents[v])),
            };
            let inside = |w: u32| w as usize == v;
            let varies = u.exprs.depend(&|x| x.op.index_exprs().into_iter().any(|i| i.uses(v as u32)));
            let scattered = u.exprs.dynamics.iter().any(|d| varies[d.0 as usize]);
            e.hoist(&mut self.b, &u.roots(), &inside);
            let lanes = if scattered { 1 } else { self.lanes };
            let l = self.b.open(lo, hi, i64::from(lanes), lanes, &[]);
            e.open();
            e.vars[v] = l.var.clone();
            loops.push(l);
        }
        let mem = e.element(&mut self.b, self.store.buffer, &u.index);
        let value = e.value(&mut self.b, u.value);
        let value = match u.combine.op() {
            None => value,
            Some(op) => {
                let old = self.b.load(mem.clone(), &[]);
                self.b.op(op, &[old, value])
            }
        };
        self.b.store(mem, value);
        self.close(loops);
    }

    fn close(&mut self, loops: Vec<OpenLoop>) {
        loops.into_iter().rev().for_each(|l| {
            self.b.close(l, &[]);
        });
    }
}
