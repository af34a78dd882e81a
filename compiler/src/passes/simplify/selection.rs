//! Rules of what selects or joins parts of tensors: slice, pad, concatenate, reverse, gather, iota.
//! Values are only moved, so these rules are exact for every element type.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::ops::{Add, Broadcast, Concatenate, Iota, Pad, Reshape, Reverse, Slice};
use graphc_ir::{Dim, NodeId, Op, Scalar};

pub(super) const RULES: &[Rule] = &[
    ("slice_all", slice_all),
    ("slice_slice", slice_slice),
    ("slice_broadcast", slice_broadcast),
    ("slice_concatenate", slice_concatenate),
    ("pad_nothing", pad_nothing),
    ("pad_splat", pad_splat),
    ("add_pads", add_pads),
    ("concatenate_one", concatenate_one),
    ("concatenate_empty", concatenate_empty),
    ("concatenate_splats", concatenate_splats),
    ("reverse_nothing", reverse_nothing),
    ("reverse_reverse", reverse_reverse),
    ("reverse_broadcast", reverse_broadcast),
    ("gather_constant", gather_constant),
    ("dynamic_slice_constant", dynamic_slice_constant),
    ("iota_one", iota_one),
    ("broadcast_iota", broadcast_iota),
    ("transpose_iota", transpose_iota),
];

/// A slice of `len[i]` positions from `starts[i]` on every axis `i`, written in one way only.
fn slice_of(starts: Vec<usize>, lens: &[usize], mut strides: Vec<usize>) -> Slice {
    let mut limits = Vec::with_capacity(starts.len());
    for (axis, &len) in lens.iter().enumerate() {
        if len <= 1 {
            strides[axis] = 1;
        }
        limits.push(Dim::Const(if len == 0 {
            starts[axis]
        } else {
            starts[axis] + (len - 1) * strides[axis] + 1
        }));
    }
    Slice { starts: starts.into_iter().map(Dim::Const).collect(), limits, strides }
}

/// `slice(x) of the type of x => x`
fn slice_all(v: &View<'_>) -> Option<Expr> {
    let Op::Slice(_) = v.op else { return None };
    (v.ty_of(v.operands[0]) == v.ty).then(|| v.operands[0].into())
}

/// `slice(slice(x)) => slice(x)`
fn slice_slice(v: &View<'_>) -> Option<Expr> {
    let (Op::Slice(outer), Op::Slice(inner)) = (v.op, v.operand_op(0)?) else { return None };
    let lens = v.ty.shape.as_static()?;
    // An empty range may start at the very end, which is a place of `x` too.
    let (first, further) = (inner.static_starts(), outer.static_starts());
    let starts = (0..lens.len()).map(|a| match lens[a] {
        0 => first[a],
        _ => first[a] + further[a] * if fault!(7) { 1 } else { inner.strides[a] },
    });
    let strides = outer.strides.iter().zip(&inner.strides).map(|(o, i)| o.saturating_mul(*i));
    Some(Expr::apply(slice_of(starts.collect(), &lens, strides.collect()), [v.operand_of(v.operands[0])]))
}

/// `slice(broadcast(x)) => broadcast(slice(x))`
fn slice_broadcast(v: &View<'_>) -> Option<Expr> {
    let (Op::Slice(s), Op::Broadcast(b)) = (v.op, v.operand_op(0)?) else { return None };
    let inner = Slice {
        starts: b.axes.iter().map(|&a| s.starts[a].clone()).collect(),
        limits: b.axes.iter().map(|&a| s.limits[a].clone()).collect(),
        strides: b.axes.iter().map(|&a| s.strides[a]).collect(),
    };
    let x = Expr::apply(inner, [v.operand_of(v.operands[0])]);
    Some(Expr::apply(Broadcast { shape: v.ty.shape.clone(), axes: b.axes.clone() }, [x]))
}

/// `slice(concatenate(.., x, ..)) => slice(x)` where the slice takes nothing of the others
fn slice_concatenate(v: &View<'_>) -> Option<Expr> {
    let (Op::Slice(s), Op::Concatenate(c)) = (v.op, v.operand_op(0)?) else { return None };
    let lens = v.ty.shape.as_static()?;
    (lens[c.axis] > 0).then_some(())?;
    let mut starts = s.static_starts();
    let first = starts[c.axis];
    let last = first + (lens[c.axis] - 1) * s.strides[c.axis];
    let mut at = 0;
    for part in v.operands_of(v.operands[0]) {
        let end = at + v.ty_of(part).shape[c.axis].as_const()?;
        if at <= first && (last < end || fault!(8) && first < end) {
            starts[c.axis] -= at;
            return Some(Expr::apply(slice_of(starts, &lens, s.strides.clone()), [part]));
        }
        at = end;
    }
    None
}

/// `pad(x) by nothing => x`
fn pad_nothing(v: &View<'_>) -> Option<Expr> {
    let Op::Pad(p) = v.op else { return None };
    let shape = v.ty_of(v.operands[0]).shape.as_static()?;
    let nothing = p.low.iter().chain(&p.high).all(|&n| n == 0)
        && p.interior.iter().zip(&shape).all(|(&n, &extent)| n == 0 || extent <= 1);
    nothing.then(|| v.operands[0].into())
}

/// `pad(c, c, ...) with c => c, c, ...` for a constant `c`
fn pad_splat(v: &View<'_>) -> Option<Expr> {
    let Op::Pad(_) = v.op else { return None };
    let value = v.splat(v.operands[1])?;
    (v.splat(v.operands[0])? == value || fault!(11)).then(|| Expr::splat(value, v.ty))
}

/// A tensor among zeros along one axis.
struct Band {
    x: NodeId,
    axis: usize,
    /// Zeros before and after.
    around: [i64; 2],
    len: i64,
}

fn band(v: &View<'_>, id: NodeId) -> Option<Band> {
    let Op::Pad(p) = v.op_of(id) else { return None };
    let operands = v.operands_of(id);
    v.is(operands[1], 0.0).then_some(())?;
    let padded = |a: &usize| (p.low[*a], p.high[*a]) != (0, 0);
    let axis = (0..p.low.len()).find(padded)?;
    let around = [p.low[axis], p.high[axis]];
    let alone = (axis + 1..p.low.len()).find(padded).is_none() && p.interior.iter().all(|&n| n == 0);
    let len = v.ty_of(operands[0]).shape[axis].as_const()? as i64;
    (alone && around.iter().all(|&n| n >= 0)).then_some(Band { x: operands[0], axis, around, len })
}

/// `pad(x) + pad(y) => concatenate(x + 0.0, y + 0.0)`, padded with what zeros remain, where both are zero
/// but in neighbouring ranges of an axis: the gradient of slices. A sum with zero is the value itself but
/// for -0, so that it stays a sum; not for integers.
fn add_pads(v: &View<'_>) -> Option<Expr> {
    let Op::Add(_) = v.op else { return None };
    let (mut first, mut second) = (band(v, v.operands[0])?, band(v, v.operands[1])?);
    if first.around[0] > second.around[0] {
        std::mem::swap(&mut first, &mut second);
    }
    (first.axis == second.axis && first.around[0] + first.len == second.around[0]).then_some(())?;
    let axis = first.axis;
    let integer = !v.dtype().is_float();
    let sum = |x: NodeId| {
        let sum_already = matches!(v.op_of(x), Op::Add(_)) && v.is(v.operands_of(x)[1], 0.0);
        if integer || sum_already {
            return Expr::from(x);
        }
        let zero = Expr::splat(Scalar::from_f64(v.dtype(), 0.0), v.ty_of(x));
        Expr::apply(Add {}, [x.into(), zero])
    };
    let parts = |x: NodeId| match v.op_of(x) {
        Op::Concatenate(c) if c.axis == axis => v.operands_of(x),
        _ => vec![x],
    };
    let joined = [first.x, second.x].into_iter().flat_map(parts).map(sum);
    let joined = Expr::apply(Concatenate { axis }, joined);
    let (low, high) = (first.around[0], second.around[1]);
    if (low, high) == (0, 0) {
        return Some(joined);
    }
    let rank = v.ty.rank();
    let along = |n: i64| (0..rank).map(|a| if a == axis { n } else { 0 }).collect();
    let pad = Pad { low: along(low), high: along(high), interior: vec![0; rank] };
    Some(Expr::apply(pad, [joined, Expr::splat(Scalar::from_f64(v.dtype(), 0.0), &v.ty.with_shape(vec![]))]))
}

/// `concatenate(x) => x`
fn concatenate_one(v: &View<'_>) -> Option<Expr> {
    let (Op::Concatenate(_), [x]) = (v.op, v.operands) else { return None };
    Some((*x).into())
}

/// `concatenate(.., empty, ..) => concatenate(.., ..)` while one operand is left
fn concatenate_empty(v: &View<'_>) -> Option<Expr> {
    let Op::Concatenate(c) = v.op else { return None };
    let is_empty = |&&id: &&NodeId| v.ty_of(id).shape[c.axis].as_const() == Some(0);
    let mut kept: Vec<NodeId> = v.operands.iter().filter(|id| !is_empty(id)).copied().collect();
    (kept.len() < v.operands.len() && v.operands.len() > 1).then_some(())?;
    if kept.is_empty() {
        kept.push(v.operands[0]);
    }
    Some(Expr::apply(Concatenate { axis: c.axis }, kept))
}

/// `concatenate(c, c, .., c, c, ..) => c, c, ...` for a constant `c`
fn concatenate_splats(v: &View<'_>) -> Option<Expr> {
    let Op::Concatenate(_) = v.op else { return None };
    let value = v.splat(v.operands[0])?;
    v.operands.iter().all(|&o| v.splat(o) == Some(value)).then(|| Expr::splat(value, v.ty))
}

/// `reverse(x) on axes of extent 1 => x`; such axes are dropped beside others
fn reverse_nothing(v: &View<'_>) -> Option<Expr> {
    let Op::Reverse(r) = v.op else { return None };
    let matters = |&a: &usize| v.ty.shape[a] != Dim::Const(1);
    let axes: Vec<usize> = r.axes.iter().copied().filter(matters).collect();
    if axes.is_empty() {
        return Some(v.operands[0].into());
    }
    (axes.len() < r.axes.len()).then(|| Expr::apply(Reverse { axes }, [v.operands[0]]))
}

/// `reverse(reverse(x)) => reverse(x)` on the axes that only one of them turns around
fn reverse_reverse(v: &View<'_>) -> Option<Expr> {
    let (Op::Reverse(outer), Op::Reverse(inner)) = (v.op, v.operand_op(0)?) else { return None };
    let axes = (0..v.ty.rank())
        .filter(|a| outer.axes.contains(a) != inner.axes.contains(a) || fault!(9) && outer.axes.contains(a))
        .collect();
    Some(Expr::apply(Reverse { axes }, [v.operand_of(v.operands[0])]))
}

/// `reverse(broadcast(x)) => broadcast(reverse(x))`: repeated axes need no turning
fn reverse_broadcast(v: &View<'_>) -> Option<Expr> {
    let (Op::Reverse(r), Op::Broadcast(b)) = (v.op, v.operand_op(0)?) else { return None };
    let axes = (0..b.axes.len()).filter(|&i| r.axes.contains(&b.axes[i])).collect();
    let x = Expr::apply(Reverse { axes }, [v.operand_of(v.operands[0])]);
    Some(Expr::apply(b.clone(), [x]))
}

/// The value of an operand that is a constant integer scalar and no less than 0.
fn constant_index(v: &View<'_>, operand: usize) -> Option<usize> {
    let Op::Constant(c) = v.operand_op(operand)? else { return None };
    match c.value.dims().is_empty().then(|| c.value.get(0))? {
        Scalar::I32(i) => usize::try_from(i).ok(),
        Scalar::I64(i) => usize::try_from(i).ok(),
        _ => None,
    }
}

/// `gather(x, constant i, ..) => slice(x)` for scalar indices in range
fn gather_constant(v: &View<'_>) -> Option<Expr> {
    let Op::Gather(g) = v.op else { return None };
    let mut lens = v.ty_of(v.operands[0]).shape.as_static()?;
    let mut starts = vec![0; lens.len()];
    for (i, &axis) in g.axes.iter().enumerate() {
        starts[axis] = constant_index(v, i + 1)?;
        // An index out of range is an error when the program runs.
        (starts[axis] < lens[axis]).then_some(())?;
        lens[axis] = 1;
    }
    let slice = Expr::apply(slice_of(starts, &lens, vec![1; lens.len()]), [v.operands[0]]);
    Some(Expr::apply(Reshape { shape: v.ty.shape.clone() }, [slice]))
}

/// `dynamic_slice(x, constant i, ..) => slice(x)` for starts in range
fn dynamic_slice_constant(v: &View<'_>) -> Option<Expr> {
    let Op::DynamicSlice(_) = v.op else { return None };
    let (dims, lens) = (v.ty_of(v.operands[0]).shape.as_static()?, v.ty.shape.as_static()?);
    let starts = (0..dims.len()).map(|axis| constant_index(v, axis + 1)).collect::<Option<Vec<_>>>()?;
    let inside = |axis: usize| starts[axis] <= dims[axis] - lens[axis];
    (0..dims.len()).all(inside).then_some(())?;
    Some(Expr::apply(slice_of(starts, &lens, vec![1; lens.len()]), [v.operands[0]]))
}

/// `iota along an axis of extent 1 => 0`
fn iota_one(v: &View<'_>) -> Option<Expr> {
    let Op::Iota(i) = v.op else { return None };
    let zero = Scalar::from_f64(v.dtype(), 0.0);
    (i.shape[i.axis] == Dim::Const(1)).then(|| Expr::splat(zero, v.ty))
}

/// `broadcast(iota) => iota`
fn broadcast_iota(v: &View<'_>) -> Option<Expr> {
    let (Op::Broadcast(b), Op::Iota(i)) = (v.op, v.operand_op(0)?) else { return None };
    let iota = Iota { shape: v.ty.shape.clone(), axis: b.axes[i.axis], ..i.clone() };
    Some(Expr::apply::<NodeId>(iota, []))
}

/// `transpose(iota) => iota`
fn transpose_iota(v: &View<'_>) -> Option<Expr> {
    let (Op::Transpose(t), Op::Iota(i)) = (v.op, v.operand_op(0)?) else { return None };
    let axis = t.permutation.iter().position(|&p| p == i.axis)?;
    Some(Expr::apply::<NodeId>(Iota { shape: v.ty.shape.clone(), axis, ..i.clone() }, []))
}

#[cfg(test)]
mod tests {
    use super::super::Simplify;
    use crate::passes::testing::{check, function};
    use expect_test::{Expect, expect};
    use graphc_ir::{DType, Literal, Tensor};

    /// Checks what becomes of an expression of a matrix and a vector.
    fn rule(body: impl for<'f> FnOnce(Tensor<'f>, Tensor<'f>) -> Tensor<'f>, expected: Expect) {
        let f = function(|f| {
            let m = f.input("m", DType::F32, [4, 3]);
            let v = f.input("v", DType::F32, [3]);
            f.output("out", body(m, v));
        });
        check(&[&Simplify], &f, expected);
    }

    #[test]
    fn slices() {
        rule(
            |m, _| m.slice(&[0..4, 0..3], &[1, 1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            return out %0
        "#]],
        );
        rule(
            |m, _| m.slice(&[1..4, 0..3], &[2, 1]).slice(&[1..2, 1..3], &[1, 1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = slice %0 {starts = [3, 1], limits = [4, 3], strides = [1, 1]} : f32[1, 2]
            return out %2
        "#]],
        );
        rule(
            |m, _| m.slice(&[4..4, 0..3], &[2, 1]).slice(&[0..0, 1..3], &[1, 1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = slice %0 {starts = [4, 1], limits = [4, 3], strides = [1, 1]} : f32[0, 2]
            return out %2
        "#]],
        );
        rule(
            |_, v| v.broadcast([4, 3], &[1]).slice(&[1..2, 1..3], &[1, 1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = slice %1 {starts = [1], limits = [3], strides = [1]} : f32[2]
            %3 = broadcast %2 {shape = [1, 2], axes = [1]} : f32[1, 2]
            return out %3
        "#]],
        );
        rule(
            |m, v| {
                let joined = v.builder().concatenate(&[m, v.reshape([1, 3]), m], 0);
                joined.slice(&[6..9, 0..3], &[2, 1])
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = slice %0 {starts = [1, 0], limits = [4, 3], strides = [2, 1]} : f32[2, 3]
                return out %2
            "#]],
        );
    }

    #[test]
    fn slices_across_operands_stay() {
        rule(
            |m, v| v.builder().concatenate(&[m, v.reshape([1, 3])], 0).slice(&[3..5, 0..3], &[1, 1]),
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = reshape %1 {shape = [1, 3]} : f32[1, 3]
                %3 = concatenate %0 %2 {axis = 0} : f32[5, 3]
                %4 = slice %3 {starts = [3, 0], limits = [5, 3], strides = [1, 1]} : f32[2, 3]
                return out %4
            "#]],
        );
    }

    #[test]
    fn pads() {
        // Nothing lies between the elements of an axis of one.
        rule(
            |_, v| v.reshape([1, 3]).pad(v.builder().scalar(DType::F32, 2.0), &[0, 0], &[0, 0], &[5, 0]),
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = reshape %1 {shape = [1, 3]} : f32[1, 3]
                return out %2
            "#]],
        );
        rule(
            |m, _| {
                let c = m.builder().scalar(DType::F32, 2.0);
                c.broadcast([3], &[]).pad(c, &[1], &[2], &[1])
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = constant {2.0} : f32[]
                %3 = broadcast %2 {shape = [8], axes = []} : f32[8]
                return out %3
            "#]],
        );
    }

    #[test]
    fn sums_of_pads() {
        // As the gradient of slices gives them: the last first.
        rule(
            |m, _| {
                let zero = m.builder().scalar(DType::F32, 0.0);
                let at = |low: i64, high: i64| (-m).pad(zero, &[low, 0], &[high, 0], &[0, 0]);
                at(8, 0) + at(4, 4) + at(0, 8)
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = constant {0.0} : f32[]
                %3 = broadcast %2 {shape = [4, 3], axes = []} : f32[4, 3]
                %4 = sub %3 %0 : f32[4, 3]
                %5 = constant {0.0} : f32[]
                %6 = broadcast %5 {shape = [4, 3], axes = []} : f32[4, 3]
                %7 = sub %6 %0 : f32[4, 3]
                %8 = constant {0.0} : f32[]
                %9 = broadcast %8 {shape = [4, 3], axes = []} : f32[4, 3]
                %10 = sub %9 %0 : f32[4, 3]
                %11 = constant {0.0} : f32[]
                %12 = broadcast %11 {shape = [4, 3], axes = []} : f32[4, 3]
                %13 = add %4 %12 : f32[4, 3]
                %14 = constant {0.0} : f32[]
                %15 = broadcast %14 {shape = [4, 3], axes = []} : f32[4, 3]
                %16 = add %7 %15 : f32[4, 3]
                %17 = concatenate %10 %13 %16 {axis = 0} : f32[12, 3]
                return out %17
            "#]],
        );
        // Zeros remain after them, or between them.
        rule(
            |m, _| {
                let zero = m.builder().scalar(DType::F32, 0.0);
                let at = |low: i64, high: i64| m.pad(zero, &[0, low], &[0, high], &[0, 0]);
                at(0, 7) + at(3, 4)
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = constant {0.0} : f32[]
                %3 = broadcast %2 {shape = [4, 3], axes = []} : f32[4, 3]
                %4 = add %0 %3 : f32[4, 3]
                %5 = constant {0.0} : f32[]
                %6 = broadcast %5 {shape = [4, 3], axes = []} : f32[4, 3]
                %7 = add %0 %6 : f32[4, 3]
                %8 = concatenate %4 %7 {axis = 1} : f32[4, 6]
                %9 = constant {0.0} : f32[]
                %10 = pad %8 %9 {low = [0, 0], high = [0, 4], interior = [0, 0]} : f32[4, 10]
                return out %10
            "#]],
        );
        rule(
            |m, _| {
                let zero = m.builder().scalar(DType::F32, 0.0);
                let at = |low: i64, high: i64| m.pad(zero, &[0, low], &[0, high], &[0, 0]);
                at(0, 4) + at(4, 0)
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = constant {0.0} : f32[]
                %3 = pad %0 %2 {low = [0, 0], high = [0, 4], interior = [0, 0]} : f32[4, 7]
                %4 = pad %0 %2 {low = [0, 4], high = [0, 0], interior = [0, 0]} : f32[4, 7]
                %5 = add %3 %4 : f32[4, 7]
                return out %5
            "#]],
        );
    }

    #[test]
    fn concatenations() {
        rule(
            |m, _| m.builder().concatenate(&[m], 0),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            return out %0
        "#]],
        );
        rule(
            |m, v| m.builder().concatenate(&[m.slice(&[0..0, 0..3], &[1, 1]), v.reshape([1, 3])], 0),
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = reshape %1 {shape = [1, 3]} : f32[1, 3]
                return out %2
            "#]],
        );
        rule(
            |m, _| {
                let c = |n: usize| m.builder().full(DType::F32, [n], 2.0);
                m.builder().concatenate(&[c(2), c(3)], 0)
            },
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = constant {2.0} : f32[]
                %3 = broadcast %2 {shape = [5], axes = []} : f32[5]
                return out %3
            "#]],
        );
    }

    #[test]
    fn reversals() {
        rule(
            |m, _| m.reverse(&[0, 1]).reverse(&[1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = reverse %0 {axes = [0]} : f32[4, 3]
            return out %2
        "#]],
        );
        rule(
            |_, v| v.reshape([1, 3]).reverse(&[0]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = reshape %1 {shape = [1, 3]} : f32[1, 3]
            return out %2
        "#]],
        );
        rule(
            |_, v| v.broadcast([4, 3], &[1]).reverse(&[0, 1]),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = reverse %1 {axes = [0]} : f32[3]
            %3 = broadcast %2 {shape = [4, 3], axes = [1]} : f32[4, 3]
            return out %3
        "#]],
        );
    }

    #[test]
    fn gathers() {
        let index = |i: i32| Literal::new(&[], vec![i]).unwrap();
        rule(
            |m, _| m.take(m.builder().constant(index(2)), 0),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = slice %0 {starts = [2, 0], limits = [3, 3], strides = [1, 1]} : f32[1, 3]
            %3 = reshape %2 {shape = [3]} : f32[3]
            return out %3
        "#]],
        );
    }

    #[test]
    fn dynamic_slices() {
        let start = |i: i64| Literal::new(&[], vec![i]).unwrap();
        rule(
            |m, _| {
                let starts = [1, 0].map(|i| m.builder().constant(start(i)));
                m.dynamic_slice(&starts, [2, 3])
            },
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = slice %0 {starts = [1, 0], limits = [3, 3], strides = [1, 1]} : f32[2, 3]
            return out %2
        "#]],
        );
    }

    #[test]
    fn iotas() {
        rule(
            |m, _| m.builder().iota(DType::F32, [4, 1], 1),
            expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[3]
            %2 = constant {0.0} : f32[]
            %3 = broadcast %2 {shape = [4, 1], axes = []} : f32[4, 1]
            return out %3
        "#]],
        );
        rule(
            |m, _| m.builder().iota(DType::F32, [4], 0).broadcast([3, 4], &[1]).transpose(&[1, 0]),
            expect![[r#"
                %0 = input : f32[4, 3]
                %1 = input : f32[3]
                %2 = iota {shape = [4, 3], dtype = f32, axis = 0} : f32[4, 3]
                return out %2
            "#]],
        );
    }
}
