//! Sorting: a merge sort of each row in scratch memory.

use super::{Emit, PARALLEL_WORK, delinearize, element};
use crate::kernel::{BufferId, ExprId, Kernel};
use crate::program::{Buffer, Scheduled};
use crate::vector::builder::VBuilder;
use crate::vector::{Base, Bound, MemRef, Val};
use graphc_ir::{CmpKind, DType, IndexExpr, ScalarBuilder, ScalarOp};

/// Values with their positions, in scratch memory.
#[derive(Clone, Copy)]
struct Pairs {
    values: u32,
    positions: u32,
    dtype: DType,
}

impl Pairs {
    fn at(self, index: &IndexExpr) -> [MemRef; 2] {
        let place = |offset, dtype| MemRef { base: Base::Scratch(offset), dtype, index: index.clone() };
        [place(self.values, self.dtype), place(self.positions, DType::I32)]
    }
}

/// Whether `x` comes before `y` and they are not equal; NaN is greatest.
fn precedes(b: &mut VBuilder, x: Val, y: Val, descending: bool) -> Val {
    let (x, y) = if descending { (y, x) } else { (x, y) };
    let less = b.cmp(CmpKind::Lt, x, y);
    if !b.dtype(x).is_float() {
        return less;
    }
    let (x_number, y_nan) = (b.cmp(CmpKind::Eq, x, x), b.cmp(CmpKind::Ne, y, y));
    let before_nan = b.and(x_number, y_nan);
    b.or(less, before_nan)
}

/// See [`crate::kernel::KernelBody::ArgSort`]. A unit is a row. Runs of 1, 2, 4, .. sorted elements are
/// merged two by two, back and forth between two places.
pub(super) fn arg_sort(
    kernel: &Kernel,
    value: ExprId,
    axis: usize,
    descending: bool,
    out: BufferId,
    buffers: &[Buffer],
) -> Scheduled {
    let mut b = VBuilder::kernel(&kernel.name);
    let (&extent, outer) = kernel.space.extents.split_last().expect("an axis is sorted");
    let dtype = kernel.exprs.get(value).dtype;
    // A row whose memory exceeds what a worker can have is refused by assembly.
    let bytes = |size: usize| (extent as usize * size).next_multiple_of(64);
    let (keys, numbers) = (bytes(dtype.size_bytes()), bytes(4));
    let offset = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut from = Pairs { values: 0, positions: offset(2 * keys), dtype };
    let mut to = Pairs { values: offset(keys), positions: offset(2 * keys + numbers), dtype };

    let units: i64 = outer.iter().product();
    b.bound_param(0, units.max(1));
    b.bound_param(1, units + 1);
    let u = b.open(b.param(0), Bound::Min(b.param(1), IndexExpr::constant(units)), 1, 1, &[]);
    let row = delinearize(&b, &u.var, outer);
    let whole = Bound::Expr(IndexExpr::constant(extent));

    let l = b.open(IndexExpr::default(), whole.clone(), 1, 1, &[]);
    let mut e = Emit::new(&kernel.exprs, buffers, row.iter().cloned().chain([l.var.clone()]).collect());
    e.open();
    let x = e.value(&mut b, value);
    e.close();
    let position = b.index(&l.var);
    let position = b.cast(DType::I32, position);
    store(&mut b, from, &l.var, [x, position]);
    b.close(l, &[]);

    let mut width = 1;
    while width < extent {
        merge(&mut b, from, to, (extent, width), descending);
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }

    let l = b.open(IndexExpr::default(), whole, 1, 1, &[]);
    let [_, position] = from.at(&l.var);
    let position = b.load(position, &[]);
    let mut index = row;
    index.insert(axis, l.var.clone());
    b.store(element(buffers, out, &index), position);
    b.close(l, &[]);
    b.close(u, &[]);
    let levels = u64::from(64 - extent.max(1).leading_zeros());
    let parallel = units > 1 && (units * extent) as u64 * levels * 8 > PARALLEL_WORK;
    Scheduled { function: b.finish(), units: units as u64, parallel, scratch: 2 * (keys + numbers) }
}

fn store(b: &mut VBuilder, pairs: Pairs, index: &IndexExpr, values: [Val; 2]) {
    for (place, value) in pairs.at(index).into_iter().zip(values) {
        b.store(place, value);
    }
}

/// Merges pairs of neighbouring runs of `width` elements each.
fn merge(b: &mut VBuilder, from: Pairs, to: Pairs, (extent, width): (i64, i64), descending: bool) {
    let pairs = (extent + 2 * width - 1) / (2 * width);
    let run = b.open(IndexExpr::default(), Bound::Expr(IndexExpr::constant(pairs)), 1, 1, &[]);
    let start = run.var.scale(2 * width);
    let last = b.i64(extent);
    let first = b.index(&start);
    let [middle, end] = [width, 2 * width].map(|n| b.index(&start.offset(n)));
    let [middle, end] = [middle, end].map(|v| b.op(ScalarOp::Min, &[v, last]));
    let bound = Bound::Min(start.offset(2 * width), IndexExpr::constant(extent));
    let l = b.open(start, bound, 1, 1, &[first, middle]);
    let [left, right] = [l.values[0], l.values[1]];
    // Where a run is at its end, what is read is not used.
    let highest = b.i64(extent - 1);
    let read = |b: &mut VBuilder, at: Val| {
        let at = b.op(ScalarOp::Min, &[at, highest]);
        let at = b.dynamic(at, extent);
        from.at(&at).map(|place| b.load(place, &[]))
    };
    let (of_left, of_right) = (read(b, left), read(b, right));
    let left_open = b.cmp(CmpKind::Lt, left, middle);
    let right_open = b.cmp(CmpKind::Lt, right, end);
    let first = if fault!(33) {
        let stays = precedes(b, of_left[0], of_right[0], descending);
        b.op(ScalarOp::Not, &[stays])
    } else {
        precedes(b, of_right[0], of_left[0], descending)
    };
    let left_over = b.op(ScalarOp::Not, &[left_open]);
    let wins = b.or(first, left_over);
    let take = b.and(wins, right_open);
    let taken = [0, 1].map(|i| b.select(take, of_right[i], of_left[i]));
    store(b, to, &l.var, taken);
    let step = b.cast(DType::I64, take);
    let one = b.i64(1);
    let other = b.op(ScalarOp::Sub, &[one, step]);
    let next = [b.op(ScalarOp::Add, &[left, other]), b.op(ScalarOp::Add, &[right, step])];
    b.close(l, &next);
    b.close(run, &[]);
}
