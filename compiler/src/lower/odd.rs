//! Kernels with loop structures of their own: position of an extremum, scatter-add, and the
//! gradient of max pooling.

use super::{Emit, PARALLEL_WORK, Target, delinearize, element};
use crate::kernel::{BufferId, ExprId, Kernel};
use crate::narrow::lane_type;
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::VBuilder;
use crate::vector::{Bound, Val};
use graphc_ir::{CmpKind, DType, Guard, IndexExpr, ReduceKind, Scalar, ScalarBuilder, ScalarOp, Window};

fn to(e: i64) -> Bound {
    Bound::Expr(IndexExpr::constant(e))
}

/// Whether `x` comes before `best` as the extremum: it is greater (less), or the first NaN.
fn better(b: &mut VBuilder, x: Val, best: Val, largest: bool) -> Val {
    let kind = match (largest, fault!(34)) {
        (true, false) => CmpKind::Gt,
        (false, false) => CmpKind::Lt,
        (true, true) => CmpKind::Ge,
        (false, true) => CmpKind::Le,
    };
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
    b.store(element(buffers, out, &at), position);
    b.close(u, &[]);
    let parallel = units > 1 && (units * extent * 4) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// See [`crate::kernel::KernelBody::Cumulative`]. A unit is a row, or where the axis is not the last one,
/// all rows along the last one, in lanes.
pub(super) fn cumulative(
    kernel: &Kernel,
    value: ExprId,
    kind: ReduceKind,
    (axis, reverse, exclusive): (usize, bool, bool),
    out: BufferId,
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let (&extent, outer) = kernel.space.extents.split_last().expect("an axis is run along");
    let (rows, leading) = match outer.split_last() {
        Some((&rows, leading)) if axis < outer.len() && rows > 1 => (Some(rows), leading),
        _ => (None, outer),
    };
    let units: i64 = leading.iter().product();
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let mut at = delinearize(&b, &u.var, leading);
    let scattered = kernel.exprs.scattered(&|e| e.uses(leading.len() as u32));
    let lanes = if rows.is_some() && (!scattered || fault!(36)) { target.map_lanes } else { 1 };
    let strip = rows.map(|rows| b.open(IndexExpr::default(), to(rows), i64::from(lanes), lanes, &[]));
    at.extend(strip.iter().map(|s| s.var.clone()));
    let identity = b.constant_lanes(kind.identity(lane_type(buffers[out as usize].dtype)), lanes);
    let l = b.open(IndexExpr::default(), to(extent), 1, 1, &[identity]);
    let step = if reverse { l.var.scale(-1).offset(extent - 1) } else { l.var.clone() };
    let vars: Vec<IndexExpr> = at.iter().cloned().chain([step.clone()]).collect();
    let mut e = Emit::new(&kernel.exprs, buffers, vars);
    e.open();
    let x = e.value(&mut b, value);
    e.close();
    let next = b.op(kind.op(), &[l.values[0], x]);
    let mut index = at.clone();
    index.insert(axis, step);
    b.store(element(buffers, out, &index), if exclusive { l.values[0] } else { next });
    b.close(l, &[next]);
    if let Some(strip) = strip {
        b.close(strip, &[]);
    }
    b.close(u, &[]);
    let work = units * rows.unwrap_or(1) * extent;
    let parallel = units > 1 && work as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// See [`graphc_ir::Pattern::SelectAndGather`]; buffers are x, values, result. A unit is a position of
/// the result's first dimension. Lanes run along a dimension whose windows are single elements, if it is
/// contiguous in all buffers.
pub(super) fn select_and_gather(
    kernel: &Kernel,
    window: &Window,
    [x, values, out]: [BufferId; 3],
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let [dims, windows] =
        [x, out].map(|i| buffers[i as usize].dims.iter().map(|&d| d as i64).collect::<Vec<_>>());
    let along = (0..dims.len()).find(|&d| {
        let single = window.size[d] == 1 && window.strides[d] == 1 && window.padding[d] == (0, 0);
        single && [x, values, out].iter().all(|&i| buffers[i as usize].strides[d] == 1)
    });
    let mut outer: Vec<usize> = (0..dims.len()).filter(|&d| Some(d) != along).collect();
    outer.sort_by_key(|&d| std::cmp::Reverse(buffers[out as usize].strides[d]));
    let (unit, rest) = outer.split_at(outer.len().min(1));
    let of = |which: &[usize]| which.iter().map(|&d| windows[d]).collect::<Vec<i64>>();
    let units: i64 = if windows.contains(&0) { 0 } else { of(unit).iter().product() };
    let size: i64 = window.size.iter().map(|&s| s as i64).product();
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    if units == 0 {
        return Scheduled { function: b.finish(), units: 0, parallel: false, scratch: 0 };
    }
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let r = b.open(IndexExpr::default(), to(of(rest).iter().product()), 1, 1, &[]);
    let mut place = vec![IndexExpr::default(); dims.len()];
    unit.iter().for_each(|&d| place[d] = u.var.clone());
    rest.iter().zip(delinearize(&b, &r.var, &of(rest))).for_each(|(&d, e)| place[d] = e);
    let lanes = if along.is_some() { target.map_lanes } else { 1 };
    let l = b.open(IndexExpr::default(), to(along.map_or(1, |d| windows[d])), i64::from(lanes), lanes, &[]);
    along.iter().for_each(|&d| place[d] = l.var.clone());
    let zero = b.constant_lanes(Scalar::from_f64(lane_type(buffers[out as usize].dtype), 0.0), lanes);
    let none = b.constant_lanes(Scalar::Bool(false), lanes);
    let w = b.open(IndexExpr::default(), to(size), 1, 1, &[zero, zero, none]);
    let sizes: Vec<i64> = window.size.iter().map(|&s| s as i64).collect();
    let within = delinearize(&b, &w.var, &sizes);
    let (mut at, mut guards) = (Vec::with_capacity(dims.len()), Vec::new());
    for (d, (o, w)) in place.iter().zip(&within).enumerate() {
        let e = o.scale(window.strides[d] as i64).add(&w.scale(window.dilation[d] as i64));
        let e = e.offset(-window.padding[d].0);
        guards.push(Guard { expr: e.clone(), lo: 0, hi: dims[d] });
        at.push(e);
    }
    guards.retain(|g| !g.always(b.cx()));
    let key = b.load(element(buffers, x, &at), &guards);
    let value = b.load(element(buffers, values, &at), &guards);
    let exists = b.guard(&guards);
    let [best, chosen, found] = [w.values[0], w.values[1], w.values[2]];
    let wins = better(&mut b, key, best, true);
    let first = b.op(ScalarOp::Not, &[found]);
    let wins = if fault!(35) { wins } else { b.or(wins, first) };
    let wins = b.and(wins, exists);
    let next = [b.select(wins, key, best), b.select(wins, value, chosen), b.or(found, exists)];
    let chosen = b.close(w, &next)[1];
    b.store(element(buffers, out, &place), chosen);
    b.close(l, &[]);
    b.close(r, &[]);
    b.close(u, &[]);
    let points: i64 = windows.iter().product();
    let parallel = units > 1 && (points * size * 8) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// See [`graphc_ir::Pattern::SelectAndScatter`]; buffers are x, ct, result. A unit is a position of
/// the leading dimensions whose windows are single elements, except one that is contiguous in all
/// buffers: lanes run along that one. Each window is walked twice, to find its maximum and to add
/// to it.
pub(super) fn select_and_scatter(
    kernel: &Kernel,
    window: &Window,
    [x, ct, out]: [BufferId; 3],
    buffers: &[Buffer],
    target: &Target,
) -> Scheduled {
    if let Some(scheduled) = select_in_blocks(kernel, window, [x, ct, out], buffers, target) {
        return scheduled;
    }
    let mut b = VBuilder::kernel(&kernel.name);
    let [dims, windows] =
        [x, ct].map(|i| buffers[i as usize].dims.iter().map(|&d| d as i64).collect::<Vec<_>>());
    let rank = dims.len();
    let single = |d: usize| {
        window.size[d] == 1 && window.strides[d] == 1 && window.padding[d] == (0, 0) && dims[d] == windows[d]
    };
    let contiguous = |d: usize, of: &[BufferId]| of.iter().all(|&i| buffers[i as usize].strides[d] == 1);
    let longest = |d: &usize| dims[*d];
    let along = (0..rank).filter(|&d| single(d) && contiguous(d, &[x, ct, out])).max_by_key(longest);
    let (unit, rest): (Vec<usize>, Vec<usize>) = {
        let lead = (0..rank).take_while(|&d| single(d)).count();
        (0..rank).filter(|&d| Some(d) != along).partition(|&d| d < lead)
    };
    let of = |extents: &[i64], which: &[usize]| which.iter().map(|&d| extents[d]).collect::<Vec<i64>>();
    let n_windows: i64 = of(&windows, &rest).iter().product();
    let sizes: Vec<i64> = rest.iter().map(|&d| window.size[d] as i64).collect();
    let size: i64 = sizes.iter().product();
    let units: i64 = if dims.contains(&0) { 0 } else { of(&dims, &unit).iter().product() };
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let dtype = lane_type(buffers[out as usize].dtype);
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let mut index = vec![IndexExpr::default(); rank];
    let set = |index: &mut [IndexExpr], which: &[usize], at: Vec<IndexExpr>| {
        which.iter().zip(at).for_each(|(&d, e)| index[d] = e);
    };
    set(&mut index, &unit, delinearize(&b, &u.var, &of(&dims, &unit)));

    let zero = b.constant(Scalar::from_f64(dtype, 0.0));
    let inside: Vec<usize> = (0..rank).filter(|d| !unit.contains(d)).collect();
    let row = inside.iter().copied().filter(|&d| contiguous(d, &[out])).max_by_key(longest);
    let rows: Vec<usize> = inside.into_iter().filter(|&d| Some(d) != row).collect();
    let r = b.open(IndexExpr::default(), to(of(&dims, &rows).iter().product()), 1, 1, &[]);
    set(&mut index, &rows, delinearize(&b, &r.var, &of(&dims, &rows)));
    let lanes = target.map_lanes;
    let l = b.open(IndexExpr::default(), to(row.map_or(1, |d| dims[d])), i64::from(lanes), lanes, &[]);
    set(&mut index, row.as_slice(), vec![l.var.clone()]);
    b.store(element(buffers, out, &index), zero);
    b.close(l, &[]);
    b.close(r, &[]);

    let o = b.open(IndexExpr::default(), to(n_windows), 1, 1, &[]);
    let place = delinearize(&b, &o.var, &of(&windows, &rest));
    set(&mut index, &rest, place.clone());
    let lanes = if along.is_some() { target.map_lanes } else { 1 };
    let l = b.open(IndexExpr::default(), to(along.map_or(1, |d| dims[d])), i64::from(lanes), lanes, &[]);
    set(&mut index, along.as_slice(), vec![l.var.clone()]);
    let y = b.load(element(buffers, ct, &index), &[]);
    // Positions within a window are as wide as the values where that is wide enough.
    let position = if size <= i64::from(i32::MAX) { DType::I32 } else { DType::I64 };
    // Index of element `w` of the window, and the guards that say whether it exists.
    let within = |b: &VBuilder, w: &IndexExpr| -> (Vec<IndexExpr>, Vec<Option<Guard>>) {
        let mut index = index.clone();
        let mut guards = vec![None; rank];
        let within = delinearize(b, w, &sizes);
        for (&d, (o, w)) in rest.iter().zip(place.iter().zip(&within)) {
            let at = o.scale(window.strides[d] as i64).add(&w.scale(window.dilation[d] as i64));
            index[d] = at.offset(-window.padding[d].0);
            let guard = Guard { expr: index[d].clone(), lo: 0, hi: dims[d] };
            guards[d] = Some(guard).filter(|g| !g.always(b.cx()));
        }
        (index, guards)
    };
    let none = [Scalar::from_bits(dtype, 0), Scalar::from_bits(position, 0)];
    let mut none = none.map(|c| b.constant_lanes(c, lanes)).to_vec();
    none.push(b.constant(Scalar::Bool(false)));
    let w = b.open(IndexExpr::default(), to(size), 1, 1, &none);
    let (at, guards) = within(&b, &w.var);
    let guards: Vec<Guard> = guards.into_iter().flatten().collect();
    let value = b.load(element(buffers, x, &at), &guards);
    let exists = b.guard(&guards);
    let [best, best_at, found] = [w.values[0], w.values[1], w.values[2]];
    let wins = better(&mut b, value, best, true);
    let first = b.op(ScalarOp::Not, &[found]);
    let wins = b.or(wins, first);
    let wins = b.and(wins, exists);
    let number = |b: &mut VBuilder, w: &IndexExpr| {
        let w = b.index(w);
        if position == DType::I64 { w } else { b.cast(position, w) }
    };
    let own = number(&mut b, &w.var);
    let next = [b.select(wins, value, best), b.select(wins, own, best_at), b.or(found, exists)];
    let best_at = b.close(w, &next)[1];

    let w = b.open(IndexExpr::default(), to(size), 1, 1, &[]);
    let (mut at, guards) = within(&b, &w.var);
    let own = number(&mut b, &w.var);
    let mut wins = b.cmp(CmpKind::Eq, own, best_at);
    for (d, guard) in guards.into_iter().enumerate().filter_map(|(d, g)| Some((d, g?))) {
        // What does not exist writes its neighbour's value back.
        let exists = b.guard(std::slice::from_ref(&guard));
        wins = b.and(wins, exists);
        let (first, last) = (b.i64(0), b.i64(guard.hi - 1));
        let inside = b.index(&guard.expr);
        let inside = b.max(inside, first);
        let inside = b.min(inside, last);
        at[d] = b.dynamic(inside, guard.hi);
    }
    let mem = element(buffers, out, &at);
    let before = b.load(mem.clone(), &[]);
    let sum = b.add(before, y);
    let after = b.select(wins, sum, before);
    b.store(mem, after);
    b.close(w, &[]);
    b.close(l, &[]);
    b.close(o, &[]);
    b.close(u, &[]);
    let parallel = units > 1 && (units * n_windows * size * 8) as u64 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 }
}

/// Windows of at most so many elements are written out.
const SMALL_WINDOW: i64 = 16;

/// [`select_and_scatter`] where the windows cover everything once: each result is written once, from
/// its own window.
fn select_in_blocks(
    kernel: &Kernel,
    window: &Window,
    [x, ct, out]: [BufferId; 3],
    buffers: &[Buffer],
    target: &Target,
) -> Option<Scheduled> {
    let [dims, windows] = [x, ct].map(|i| &buffers[i as usize].dims);
    let rank = dims.len();
    let covers = |d: usize| {
        window.strides[d] == window.size[d]
            && (window.dilation[d] == 1 || window.size[d] == 1)
            && window.padding[d] == (0, 0)
            && dims[d] == windows[d] * window.size[d]
    };
    let sizes: Vec<i64> = window.size.iter().map(|&s| s as i64).collect();
    let size: i64 = sizes.iter().product();
    if !(0..rank).all(covers) || size > SMALL_WINDOW || dims.contains(&0) {
        return None;
    }
    // Loops over the windows as they lie in memory; lanes where all three lie in order.
    let mut order: Vec<usize> = (0..rank).collect();
    order.sort_by_key(|&d| std::cmp::Reverse(buffers[ct as usize].strides[d]));
    let (&last, outer) = order.split_last()?;
    let in_order =
        window.size[last] == 1 && [x, ct, out].iter().all(|&i| buffers[i as usize].strides[last] == 1);
    let lanes = if in_order { target.map_lanes } else { 1 };
    let mut b = VBuilder::kernel(&kernel.name);
    let (unit_dims, inner_dims) = outer.split_at(outer.len().min(2));
    let units: i64 = unit_dims.iter().map(|&d| windows[d] as i64).product();
    b.bound_param(0, units);
    b.bound_param(1, units + 1);
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let mut place = vec![IndexExpr::default(); rank];
    let extents: Vec<i64> = unit_dims.iter().map(|&d| windows[d] as i64).collect();
    for (&d, e) in unit_dims.iter().zip(delinearize(&b, &u.var, &extents)) {
        place[d] = e;
    }
    let mut loops = Vec::new();
    for &d in inner_dims {
        let l = b.open(IndexExpr::default(), to(windows[d] as i64), 1, 1, &[]);
        place[d] = l.var.clone();
        loops.push(l);
    }
    let l = b.open(IndexExpr::default(), to(windows[last] as i64), i64::from(lanes), lanes, &[]);
    place[last] = l.var.clone();
    let elements: Vec<Vec<IndexExpr>> = (0..size)
        .map(|w| {
            let within = delinearize(&b, &IndexExpr::constant(w), &sizes);
            place.iter().zip(&sizes).zip(within).map(|((o, &s), w)| o.scale(s).add(&w)).collect()
        })
        .collect();
    let mut best = b.load(element(buffers, x, &elements[0]), &[]);
    let dtype = lane_type(buffers[out as usize].dtype);
    let mut best_at = b.constant(Scalar::I32(0));
    for (w, at) in elements.iter().enumerate().skip(1) {
        let value = b.load(element(buffers, x, at), &[]);
        let wins = better(&mut b, value, best, true);
        let own = b.constant(Scalar::I32(w as i32));
        best = b.select(wins, value, best);
        best_at = b.select(wins, own, best_at);
    }
    let y = b.load(element(buffers, ct, &place), &[]);
    let zero = b.constant(Scalar::from_f64(dtype, 0.0));
    // Adding to zero makes -0 positive.
    let y = b.add(zero, y);
    for (w, at) in elements.iter().enumerate() {
        let own = b.constant(Scalar::I32(w as i32));
        let wins = b.cmp(CmpKind::Eq, best_at, own);
        let value = b.select(wins, y, zero);
        b.store(element(buffers, out, at), value);
    }
    b.close(l, &[]);
    for l in loops.into_iter().rev() {
        b.close(l, &[]);
    }
    b.close(u, &[]);
    let points: usize = dims.iter().product();
    let parallel = units > 1 && points as u64 * 8 > PARALLEL_WORK;
    Some(Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 0 })
}
