//! Rules of what selects or joins parts of tensors: slice, pad, concatenate, reverse, gather, iota.
//! Values are only moved, so these rules are exact for every element type.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::ops::{Broadcast, Concatenate, Iota, Reshape, Reverse, Slice};
use graphc_ir::{Dim, NodeId, Op, Scalar};

pub(super) const RULES: &[Rule] = &[
    ("slice_all", slice_all),
    ("slice_slice", slice_slice),
    ("slice_broadcast", slice_broadcast),
    ("slice_concatenate", slice_concatenate),
    ("pad_nothing", pad_nothing),
    ("pad_splat", pad_splat),
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
        _ => first[a] + further[a] * inner.strides[a],
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
        if at <= first && last < end {
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
    (v.splat(v.operands[0])? == value).then(|| Expr::splat(value, v.ty))
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
    let axes = (0..v.ty.rank()).filter(|a| outer.axes.contains(a) != inner.axes.contains(a)).collect();
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
