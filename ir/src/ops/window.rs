//! What operations over sliding windows share.

use super::StaticType;
use super::rules::{
    MAX_STEP, accept, check_padding, check_step, in_bounds, is_number, reach, reduce_sequence, storable,
    with_batch,
};
use crate::error::TypeError;
use crate::index::{Access, IndexCx, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Pattern, Reduce, ReduceKind, Window};
use crate::scalar::Scalar;
use crate::types::{DType, Dim, TensorType, checked_product};

/// One axis of a sliding window, or of a convolution.
pub(super) struct WindowAxis {
    /// Extent that the window slides over, padding aside.
    pub(super) base: i128,
    /// Extent of the window.
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) padding: (i64, i64),
    pub(super) dilation: usize,
}

impl WindowAxis {
    /// Number of windows; `label` names the axis.
    pub(super) fn count(&self, op: &'static str, x: &[TensorType], label: &str) -> Result<usize, TypeError> {
        check_step(op, x, &format!("the stride of {label}"), self.stride)?;
        check_step(op, x, &format!("the dilation of {label}"), self.dilation)?;
        check_padding(op, x, &format!("the padding before {label}"), self.padding.0)?;
        check_padding(op, x, &format!("the padding after {label}"), self.padding.1)?;
        let (base, (lo, hi)) = (self.base, self.padding);
        let padded = base + i128::from(lo) + i128::from(hi);
        let reach = reach(self.size, self.dilation);
        let count = (padded - reach).div_euclid(self.stride as i128) + 1;
        if base > i128::from(4 * MAX_STEP) || padded < 0 || count < 0 {
            return Err(TypeError::new(
                op,
                x,
                format!(
                    "{label}: a window that reaches over {reach} positions does not fit in {padded} (extent \
                     {base}, padding {lo} and {hi})"
                ),
            ));
        }
        Ok(count as usize)
    }
}

/// The result type of a reduction over windows of `x[0]`.
pub(super) fn infer_windows(op: &'static str, x: &[TensorType], w: &Window) -> Result<TensorType, TypeError> {
    accept(op, x, 0, "a number", is_number)?;
    let rank = x[0].rank();
    let fail = |message| Err(TypeError::new(op, x, message));
    let given = [
        ("sizes", w.size.len()),
        ("strides", w.strides.len()),
        ("paddings", w.padding.len()),
        ("dilations", w.dilation.len()),
    ];
    for (what, n) in given {
        if n != rank {
            return fail(format!("{n} window {what} for an operand of rank {rank}"));
        }
    }
    if w.size.contains(&0) || checked_product(&w.size).is_none() {
        return fail(format!("window size {:?}: must be at least 1 per axis, at most 2^40 in all", w.size));
    }
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        let (size, stride) = (w.size[axis], w.strides[axis]);
        let (padding, dilation) = (w.padding[axis], w.dilation[axis]);
        dims.push(match &x[0].shape[axis] {
            Dim::Const(extent) => {
                let axis_window = WindowAxis { base: *extent as i128, size, stride, padding, dilation };
                Dim::Const(axis_window.count(op, x, &format!("axis {axis}"))?)
            }
            // Windows side by side, or with a step of 1.
            named if size > 0 && stride == size && padding == (0, 0) && dilation == 1 => {
                match named.checked_div(size) {
                    Some(count) => count,
                    None => {
                        return fail(format!("axis {axis} has the extent {named}, no multiple of {size}"));
                    }
                }
            }
            named => {
                let reach = size.checked_sub(1).and_then(|n| n.checked_mul(dilation));
                let more = reach.and_then(|r| (padding.0.checked_add(padding.1)?).checked_sub(r as i64));
                let count = more.and_then(|by| match usize::try_from(by) {
                    Ok(more) => named.checked_add(&Dim::Const(more)),
                    Err(_) => named.checked_sub(&Dim::Const(by.unsigned_abs() as usize)),
                });
                match count.filter(|_| stride == 1) {
                    Some(count) => count,
                    None => {
                        return fail(format!(
                            "axis {axis} has the named extent {named}: windows must lie side by side or have \
                             a step of 1"
                        ));
                    }
                }
            }
        });
    }
    storable(op, &x[0].with_shape(dims))
}

/// Position of element `at` of window `window`, unless it is padding.
pub(super) fn position(w: &Window, dims: &[usize], window: &[usize], at: &[usize]) -> Option<Vec<usize>> {
    (0..dims.len())
        .map(|a| {
            let p = (window[a] * w.strides[a]) as i64 + (at[a] * w.dilation[a]) as i64 - w.padding[a].0;
            usize::try_from(p).ok().filter(|&p| p < dims[a])
        })
        .collect()
}

/// Reference semantics of a reduction over windows.
pub(super) fn eval_windows(kind: ReduceKind, x: &Literal, w: &Window, out: &StaticType) -> Literal {
    let mut at = indices(&out.dims);
    Literal::from_fn(out.dtype, &out.dims, |_| {
        let window = at.next().expect("one index per element");
        let element = |at: Vec<usize>| {
            let place = position(w, x.dims(), &window, &at)?;
            Some(x.get(linear_index(&place, x.dims())))
        };
        reduce_sequence(kind, out.dtype, indices(&w.size).map(element))
    })
}

/// The pattern of a reduction over windows.
pub(super) fn window_pattern(kind: ReduceKind, dims: &[usize], w: &Window, out: &StaticType) -> Pattern {
    let reduced: Vec<usize> = (0..dims.len()).filter(|&a| w.size[a] != 1).collect();
    let extents: Vec<usize> = reduced.iter().map(|&a| w.size[a]).collect();
    let (mut index, mut guards) = (vec![IndexExpr::default(); dims.len()], Vec::new());
    // Without windows nothing is read, and positions may be out of any range.
    if !out.is_empty() {
        let mut cx = IndexCx::default();
        for (axis, e) in index.iter_mut().enumerate() {
            *e = cx.var(out.dims[axis]).scale(w.strides[axis] as i64).offset(-w.padding[axis].0);
        }
        for &axis in &reduced {
            index[axis] = index[axis].add(&cx.var(w.size[axis]).scale(w.dilation[axis] as i64));
        }
        guards = index.iter().zip(dims).filter_map(|(e, &d)| in_bounds(&cx, e, d)).collect();
    }
    Pattern::Reduce(Reduce { kind, extents, access: Access { operand: 0, index, guards } })
}

/// The window over a tensor with a batch in front, along which it does not reach.
pub(super) fn with_batch_axis(w: Window) -> Window {
    Window {
        size: with_batch(1, &w.size),
        strides: with_batch(1, &w.strides),
        padding: with_batch((0, 0), &w.padding),
        dilation: with_batch(1, &w.dilation),
    }
}

/// Whether every window covers an element, for windows of extents `out`.
#[cfg(any(test, feature = "testing"))]
fn all_cover(w: &Window, dims: &[usize], out: &[usize]) -> bool {
    indices(out).all(|window| indices(&w.size).any(|at| position(w, dims, &window, &at).is_some()))
}

/// Extents, a window over them, the extents of the result, and whether every window covers an
/// element.
#[cfg(any(test, feature = "testing"))]
pub(super) fn windows() -> proptest::strategy::BoxedStrategy<(Vec<usize>, Window, Vec<usize>, bool)> {
    use proptest::prelude::*;
    let axis = prop_oneof![
        1 => (0usize..4).prop_map(|d| (d, 1usize, 1usize, (0i64, 0i64), 1usize)),
        3 => (0usize..8, 1usize..4, 1usize..4, (-2i64..4, -2i64..4), 1usize..4),
    ];
    let axes = proptest::collection::vec(axis, 0..=3).prop_map(|axes| {
        let (mut dims, mut out) = (Vec::new(), Vec::new());
        let mut w = Window { size: vec![], strides: vec![], padding: vec![], dilation: vec![] };
        for (extent, size, stride, (lo, hi), dilation) in axes {
            let reach = ((size - 1) * dilation + 1) as i64;
            // At least no window at all.
            let hi = hi.max(reach - stride as i64 - extent as i64 - lo).max(-(extent as i64) - lo);
            dims.push(extent);
            w.size.push(size);
            w.strides.push(stride);
            w.padding.push((lo, hi));
            w.dilation.push(dilation);
            out.push(((extent as i64 + lo + hi - reach).div_euclid(stride as i64) + 1) as usize);
        }
        let covered = all_cover(&w, &dims, &out);
        (dims, w, out, covered)
    });
    axes.boxed()
}

/// The zero of a type.
pub(super) fn zero(dtype: DType) -> Scalar {
    Scalar::from_f64(dtype, 0.0)
}
