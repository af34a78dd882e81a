//! Rules of data movement: what cancels, what composes, and elementwise work done before it is
//! repeated. Values are only moved, so these rules are exact for every element type.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::ops::{Broadcast, Transpose};
use graphc_ir::{NodeId, Op, Shape};

pub(super) const RULES: &[Rule] = &[
    ("reshape_same", reshape_same),
    ("reshape_reshape", reshape_reshape),
    ("reshape_splat", reshape_splat),
    ("transpose_identity", transpose_identity),
    ("transpose_transpose", transpose_transpose),
    ("transpose_broadcast", transpose_broadcast),
    ("broadcast_same", broadcast_same),
    ("broadcast_broadcast", broadcast_broadcast),
    ("elementwise_broadcast", elementwise_broadcast),
    ("elementwise_moved", elementwise_moved),
];

/// `reshape(x) to the shape of x => x`
fn reshape_same(v: &View<'_>) -> Option<Expr> {
    let Op::Reshape(_) = v.op else { return None };
    (v.ty_of(v.operands[0]) == v.ty).then(|| v.operands[0].into())
}

/// `reshape(reshape(x)) => reshape(x)`
fn reshape_reshape(v: &View<'_>) -> Option<Expr> {
    let (Op::Reshape(_), Op::Reshape(_)) = (v.op, v.operand_op(0)?) else { return None };
    Some(Expr::apply(v.op.clone(), [v.operand_of(v.operands[0])]))
}

/// `reshape(broadcast(scalar)) => broadcast(scalar)`
fn reshape_splat(v: &View<'_>) -> Option<Expr> {
    let (Op::Reshape(r), Op::Broadcast(_)) = (v.op, v.operand_op(0)?) else { return None };
    let x = v.operand_of(v.operands[0]);
    (v.ty_of(x).rank() == 0).then_some(())?;
    Some(Expr::apply(Broadcast { shape: r.shape.clone(), axes: Vec::new() }, [x]))
}

/// `transpose(x) by the identity => x`
fn transpose_identity(v: &View<'_>) -> Option<Expr> {
    let Op::Transpose(t) = v.op else { return None };
    t.permutation.iter().copied().eq(0..t.permutation.len()).then(|| v.operands[0].into())
}

/// `transpose(transpose(x)) => transpose(x)` by the composed permutation
fn transpose_transpose(v: &View<'_>) -> Option<Expr> {
    let (Op::Transpose(outer), Op::Transpose(inner)) = (v.op, v.operand_op(0)?) else { return None };
    let (outer, inner) = if fault!(10) { (inner, outer) } else { (outer, inner) };
    let permutation = outer.permutation.iter().map(|&p| inner.permutation[p]).collect();
    Some(Expr::apply(Transpose { permutation }, [v.operand_of(v.operands[0])]))
}

/// `transpose(broadcast(x)) => broadcast(transpose(x))`: the smaller tensor is moved, if it must be
/// at all.
fn transpose_broadcast(v: &View<'_>) -> Option<Expr> {
    let (Op::Transpose(t), Op::Broadcast(b)) = (v.op, v.operand_op(0)?) else { return None };
    // Axes of `x` in the order in which the result has them, and where.
    let (axes, permutation): (Vec<usize>, Vec<usize>) = t
        .permutation
        .iter()
        .enumerate()
        .filter_map(|(to, from)| Some((to, b.axes.iter().position(|a| a == from)?)))
        .unzip();
    let x = Expr::apply(Transpose { permutation }, [v.operand_of(v.operands[0])]);
    Some(Expr::apply(Broadcast { shape: v.ty.shape.clone(), axes }, [x]))
}

/// `broadcast(x) to the shape of x => x`
fn broadcast_same(v: &View<'_>) -> Option<Expr> {
    let Op::Broadcast(b) = v.op else { return None };
    (b.axes.len() == b.shape.rank()).then(|| v.operands[0].into())
}

/// `broadcast(broadcast(x)) => broadcast(x)`
fn broadcast_broadcast(v: &View<'_>) -> Option<Expr> {
    let (Op::Broadcast(outer), Op::Broadcast(inner)) = (v.op, v.operand_op(0)?) else { return None };
    let axes = inner.axes.iter().map(|&a| outer.axes[a]).collect();
    Some(Expr::apply(Broadcast { shape: outer.shape.clone(), axes }, [v.operand_of(v.operands[0])]))
}

/// `op(broadcast(a), broadcast(b), ...) => broadcast(op(a, b', ...))` for an elementwise `op`, where
/// the axes of one operand include those of all others, which are broadcast to its shape only.
fn elementwise_broadcast(v: &View<'_>) -> Option<Expr> {
    let broadcasts: Option<Vec<&Broadcast>> = v
        .operands
        .iter()
        .map(|&o| match v.op_of(o) {
            Op::Broadcast(b) => Some(b),
            _ => None,
        })
        .collect();
    let broadcasts = broadcasts?;
    let widest = broadcasts.iter().max_by_key(|b| b.axes.len())?;
    let included = broadcasts.iter().all(|b| b.axes.iter().all(|a| widest.axes.contains(a)));
    // Last, because it has to look at the loop structure.
    (included && v.is_elementwise()).then_some(())?;
    let shape: Shape = widest.axes.iter().map(|&a| widest.shape[a].clone()).collect();
    let operands = broadcasts.iter().zip(v.operands).map(|(b, &o)| {
        let x = v.operand_of(o);
        if b.axes == widest.axes {
            return x.into();
        }
        let axes = b.axes.iter().filter_map(|a| widest.axes.iter().position(|w| w == a)).collect();
        Expr::apply(Broadcast { shape: shape.clone(), axes }, [x])
    });
    let inner = Expr::apply(v.op.clone(), operands.collect::<Vec<_>>());
    Some(Expr::apply((*widest).clone(), [inner]))
}

/// `op(move(a), move(b), ...) => move(op(a, b, ...))` for an elementwise `op` and one transpose or
/// reshape that moves at least two operands of one shape and has no other user; repeated scalars
/// need no moving. There are fewer movements after it.
fn elementwise_moved(v: &View<'_>) -> Option<Expr> {
    let is_splat = |id: NodeId| matches!(v.op_of(id), Op::Broadcast(b) if b.axes.is_empty());
    let moved: Vec<NodeId> = v.operands.iter().copied().filter(|&o| !is_splat(o)).collect();
    let (&first, others) = moved.split_first()?;
    let movement = v.op_of(first);
    (matches!(movement, Op::Transpose(_) | Op::Reshape(_)) && v.single_use(first)).then_some(())?;
    let from = &v.ty_of(v.operand_of(first)).shape;
    // `op(x, x)` uses its operand twice and is left alone.
    let alike = others
        .iter()
        .all(|&o| v.op_of(o) == movement && v.single_use(o) && v.ty_of(v.operand_of(o)).shape == *from);
    (!others.is_empty() && alike && v.is_elementwise()).then_some(())?;
    let operands = v.operands.iter().map(|&o| {
        if is_splat(o) {
            return Expr::apply(Broadcast { shape: from.clone(), axes: Vec::new() }, [v.operand_of(o)]);
        }
        v.operand_of(o).into()
    });
    let inner = Expr::apply(v.op.clone(), operands.collect::<Vec<_>>());
    Some(Expr::apply(movement.clone(), [inner]))
}

#[cfg(test)]
mod tests {
    use super::super::Simplify;
    use crate::passes::testing::{check, function};
    use expect_test::{Expect, expect};
    use graphc_ir::{DType, Tensor};

    /// Checks what becomes of an expression of a matrix and a vector.
    fn rule(body: impl for<'f> FnOnce(Tensor<'f>, Tensor<'f>) -> Tensor<'f>, expected: Expect) {
        let f = function(|f| {
            let m = f.input("m", DType::F32, [2, 3]);
            let v = f.input("v", DType::F32, [3]);
            f.output("out", body(m, v));
        });
        check(&[&Simplify], &f, expected);
    }

    #[test]
    fn reshapes() {
        rule(
            |m, _| m.reshape([6]).reshape([2, 3]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            return out %0
        "#]],
        );
        rule(
            |m, _| m.reshape([6]).reshape([3, 2]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = reshape %0 {shape = [3, 2]} : f32[3, 2]
            return out %2
        "#]],
        );
        rule(
            |m, _| m.builder().full(DType::F32, [6], 1.0).reshape([2, 3]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = constant {1.0} : f32[]
            %3 = broadcast %2 {shape = [2, 3], axes = []} : f32[2, 3]
            return out %3
        "#]],
        );
    }

    #[test]
    fn transposes() {
        rule(
            |m, _| m.transpose(&[1, 0]).transpose(&[1, 0]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            return out %0
        "#]],
        );
        rule(
            |m, _| m.broadcast([2, 3, 4], &[0, 1]).transpose(&[1, 2, 0]).transpose(&[1, 2, 0]),
            expect![[r#"
                %0 = input : f32[2, 3]
                %1 = input : f32[3]
                %2 = broadcast %0 {shape = [4, 2, 3], axes = [1, 2]} : f32[4, 2, 3]
                return out %2
            "#]],
        );
        rule(
            |_, v| v.broadcast([4, 3], &[1]).transpose(&[1, 0]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = broadcast %1 {shape = [3, 4], axes = [0]} : f32[3, 4]
            return out %2
        "#]],
        );
    }

    #[test]
    fn broadcasts() {
        rule(
            |m, _| m.broadcast([2, 3], &[0, 1]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            return out %0
        "#]],
        );
        rule(
            |_, v| v.broadcast([5, 3], &[1]).broadcast([5, 4, 3], &[0, 2]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = broadcast %1 {shape = [5, 4, 3], axes = [2]} : f32[5, 4, 3]
            return out %2
        "#]],
        );
    }

    #[test]
    fn elementwise_work_comes_before_repetition() {
        rule(
            |_, v| (v.broadcast([4, 3], &[1]) * 2.0) + v.broadcast([4, 3], &[1]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = constant {2.0} : f32[]
            %3 = broadcast %2 {shape = [3], axes = []} : f32[3]
            %4 = mul %1 %3 : f32[3]
            %5 = add %4 %1 : f32[3]
            %6 = broadcast %5 {shape = [4, 3], axes = [1]} : f32[4, 3]
            return out %6
        "#]],
        );
        // The vector is repeated less.
        rule(
            |m, v| m.broadcast([4, 2, 3], &[1, 2]) * v.broadcast([4, 2, 3], &[2]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = broadcast %1 {shape = [2, 3], axes = [1]} : f32[2, 3]
            %3 = mul %0 %2 : f32[2, 3]
            %4 = broadcast %3 {shape = [4, 2, 3], axes = [1, 2]} : f32[4, 2, 3]
            return out %4
        "#]],
        );
        // An outer product is not.
        rule(
            |_, v| v.broadcast([3, 3], &[1]) * v.broadcast([3, 3], &[0]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = broadcast %1 {shape = [3, 3], axes = [1]} : f32[3, 3]
            %3 = broadcast %1 {shape = [3, 3], axes = [0]} : f32[3, 3]
            %4 = mul %2 %3 : f32[3, 3]
            return out %4
        "#]],
        );
    }

    #[test]
    fn equal_movements_happen_once() {
        rule(
            |m, _| (-m).transpose(&[1, 0]) / (m + m).transpose(&[1, 0]) * 2.0,
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[3]
            %2 = neg %0 : f32[2, 3]
            %3 = add %0 %0 : f32[2, 3]
            %4 = div %2 %3 : f32[2, 3]
            %5 = transpose %4 {permutation = [1, 0]} : f32[3, 2]
            %6 = constant {2.0} : f32[]
            %7 = broadcast %6 {shape = [3, 2], axes = []} : f32[3, 2]
            %8 = mul %5 %7 : f32[3, 2]
            return out %8
        "#]],
        );
        rule(
            |m, v| {
                let moved = m.transpose(&[1, 0]);
                let n = v.broadcast([2, 3], &[1]) * m;
                // `moved` has another user.
                (n.transpose(&[1, 0]) * moved) / moved
            },
            expect![[r#"
                %0 = input : f32[2, 3]
                %1 = input : f32[3]
                %2 = transpose %0 {permutation = [1, 0]} : f32[3, 2]
                %3 = broadcast %1 {shape = [2, 3], axes = [1]} : f32[2, 3]
                %4 = mul %3 %0 : f32[2, 3]
                %5 = transpose %4 {permutation = [1, 0]} : f32[3, 2]
                %6 = mul %5 %2 : f32[3, 2]
                %7 = div %6 %2 : f32[3, 2]
                return out %7
            "#]],
        );
    }
}
