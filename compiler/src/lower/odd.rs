//! Kernels with loop structures of their own: position of an extremum, scatter-add, and the
//! gradient of max pooling.

use super::{Emit, PARALLEL_WORK, Target, delinearize, element};
use crate::kernel::{BufferId, ExprId, Kernel};
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::VBuilder;
use crate::vector::{Base, Bound, MemRef, Val};
use graphc_ir::{
    CmpKind, DType, Guard, IndexExpr, Scalar, ScalarBuilder, ScalarOp, Window, row_major_strides,
};

fn to(e: i64) -> Bound {
    Bound::Expr(IndexExpr::constant(e))
}

/// Whether `x` comes before `best` as the extremum: it is greater (less), or the first NaN.
fn better(b: &mut VBuilder, x: Val, best: Val, largest: bool) -> Val {
    let kind = if largest { CmpKind::Gt } else { CmpKind::Lt };
    let beyond = b.cmp(kind, x, best);
    if !b.dtype(x).is_float() {
        return beyond;
    }
    let (x_nan, best_nan) = (b.cmp(CmpKind::Ne, x, x), b.cmp(CmpKind::Ne, best, best));
    let wins = b.or(beyond, x_nan);
    let open = b.op(ScalarOp::Not, &[best_nan]);
    b.and(wins, open)
}

/// See [`crate::kernel::KernelBody::ArgReduce`].
pub(super) fn arg_reduce(
    kernel: &Kernel,
    value: ExprId,
    largest: bool,
    out: BufferId,
    buffers: &[Buffer],
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let (&extent, outer) = kernel.space.extents.split_last().expect("an axis is reduced");
    let units: i64 = outer.iter().product();
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let at = delinearize(&b, &u.var, outer);
    let vars = |r: IndexExpr| -> Vec<IndexExpr> { at.iter().cloned().chain([r]).collect() };
    let mut e = Emit::new(&kernel.exprs, buffers, vars(IndexExpr::default()));
    e.open();
    let first = e.value(&mut b, value);
    e.close();
    let zero = b.i64(0);
    let l = b.open(IndexExpr::constant(1), to(extent), 1, 1, &[first, zero]);
    e.open();
    e.vars = vars(l.var.clone());
    let x = e.value(&mut b, value);
    e.close();
    let wins = better(&mut b, x, l.values[0], largest);
    let position = b.index(&l.var);
    let next = [b.select(wins, x, l.values[0]), b.select(wins, position, l.values[1])];
    let best = if extent > 1 { b.close(l, &next) } else { b.close(l, &[first, zero]) };
    let dtype = buffers[out as usize].dtype;
    let position = if dtype == DType::I64 { best[1] } else { b.cast(dtype, best[1]) };
    let mem = MemRef { base: Base::Buffer(out), dtype, index: u.var.clone() };
    b.store(mem, position);
    b.close(u, &[]);
    let parallel = units > 1 && (units * extent * 4) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// See [`crate::kernel::KernelBody::ScatterAdd`]; buffers are indices, updates, result. A unit is a
/// position of the outer dimensions.
pub(super) fn scatter_add(
    kernel: &Kernel,
    [outer, axis, positions, inner]: [usize; 4],
    start: ExprId,
    [indices, updates, out]: [BufferId; 3],
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let [outer, axis, positions, inner] = [outer as i64, axis as i64, positions as i64, inner as i64];
    let units = if axis * inner == 0 { 0 } else { outer };
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let dtype = buffers[out as usize].dtype;
    let flat = |buffer: BufferId, index: IndexExpr| MemRef {
        base: Base::Buffer(buffer),
        dtype: buffers[buffer as usize].dtype,
        index,
    };
    let lanes = target.map_lanes;
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);

    let l = b.open(IndexExpr::default(), to(axis * inner), 1, 1, &[]);
    let linear = u.var.scale(axis * inner).add(&l.var);
    let vars = delinearize(&b, &linear, &kernel.space.extents);
    let mut e = Emit::new(&kernel.exprs, buffers, vars);
    let v = e.value(&mut b, start);
    b.store(flat(out, linear), v);
    b.close(l, &[]);

    let p = b.open(IndexExpr::default(), to(positions), 1, 1, &[]);
    let at = b.load(flat(indices, p.var.clone()), &[]);
    let at = if b.dtype(at) == DType::I64 { at } else { b.cast(DType::I64, at) };
    let at = b.dynamic(at, axis);
    let row = u.var.scale(axis * inner).add(&at.scale(inner));
    let from = u.var.scale(positions).add(&p.var).scale(inner);
    let i = b.open(IndexExpr::default(), to(inner), i64::from(lanes), lanes, &[]);
    let x = b.load(flat(out, row.add(&i.var)), &[]);
    let y = b.load(flat(updates, from.add(&i.var)), &[]);
    debug_assert_eq!(b.dtype(x), dtype);
    let sum = b.add(x, y);
    b.store(flat(out, row.add(&i.var)), sum);
    b.close(i, &[]);
    b.close(p, &[]);
    b.close(u, &[]);
    let parallel = units > 1 && (outer * positions * inner) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// See [`graphc_ir::Pattern::SelectAndScatter`]; buffers are x, ct, result. A unit is a position of
/// the leading dimensions whose windows are single elements.
pub(super) fn select_and_scatter(
    kernel: &Kernel,
    window: &Window,
    [x, ct, out]: [BufferId; 3],
    buffers: &[Buffer],
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let dims = &buffers[x as usize].dims;
    let windows = &buffers[ct as usize].dims;
    let single = |d: usize| {
        window.size[d] == 1 && window.strides[d] == 1 && window.padding[d] == (0, 0) && dims[d] == windows[d]
    };
    let lead = (0..dims.len()).take_while(|&d| single(d)).count();
    let extents = |dims: &[usize]| dims.iter().map(|&d| d as i64).collect::<Vec<i64>>();
    let units: i64 = if dims.contains(&0) { 0 } else { dims[..lead].iter().product::<usize>() as i64 };
    let plane: i64 = dims[lead..].iter().product::<usize>() as i64;
    let n_windows: i64 = windows[lead..].iter().product::<usize>() as i64;
    let size: i64 = window.size[lead..].iter().product::<usize>() as i64;
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let dtype = buffers[out as usize].dtype;
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let at = delinearize(&b, &u.var, &extents(&dims[..lead]));

    let result = |index: IndexExpr| MemRef { base: Base::Buffer(out), dtype, index };
    let base = u.var.scale(plane);
    let zero = b.constant(Scalar::from_f64(dtype, 0.0));
    let l = b.open(IndexExpr::default(), to(plane), 8, 8, &[]);
    b.store(result(base.add(&l.var)), zero);
    b.close(l, &[]);

    let o = b.open(IndexExpr::default(), to(n_windows), 1, 1, &[]);
    let place = delinearize(&b, &o.var, &extents(&windows[lead..]));
    let none = [b.constant(Scalar::from_bits(dtype, 0)), b.i64(0), b.constant(Scalar::Bool(false))];
    let w = b.open(IndexExpr::default(), to(size), 1, 1, &none);
    let within = delinearize(&b, &w.var, &extents(&window.size[lead..]));
    let mut index = at.clone();
    let mut guards = Vec::new();
    for (d, (o, w)) in (lead..dims.len()).zip(place.iter().zip(&within)) {
        let position = o.scale(window.strides[d] as i64).add(&w.scale(window.dilation[d] as i64));
        let position = position.offset(-window.padding[d].0);
        guards.push(Guard { expr: position.clone(), lo: 0, hi: dims[d] as i64 });
        index.push(position);
    }
    guards.retain(|g| !g.always(b.cx()));
    let value = b.load(element(buffers, x, &index), &guards);
    let linear = IndexExpr::linear(&index[lead..], &row_major_strides(&dims[lead..]));
    let linear = b.index(&linear);
    let exists = b.guard(&guards);
    let [best, best_at, found] = [w.values[0], w.values[1], w.values[2]];
    let wins = better(&mut b, value, best, true);
    let first = b.op(ScalarOp::Not, &[found]);
    let wins = b.or(wins, first);
    let wins = b.and(wins, exists);
    let next = [b.select(wins, value, best), b.select(wins, linear, best_at), b.or(found, exists)];
    let [best_at, found] = {
        let after = b.close(w, &next);
        [after[1], after[2]]
    };
    let mut place_index = at;
    place_index.extend(place);
    let y = b.load(element(buffers, ct, &place_index), &[]);
    // A window that lies in the padding alone adds zero, which changes nothing.
    let y = b.select(found, y, zero);
    let target = b.dynamic(best_at, plane.max(1));
    let before = b.load(result(base.add(&target)), &[]);
    let sum = b.add(before, y);
    b.store(result(base.add(&target)), sum);
    b.close(o, &[]);
    b.close(u, &[]);
    let parallel = units > 1 && (units * n_windows * size * 8) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}
