//! Rules of reductions over axes that hold one value. All others depend on the order of
//! combination, which is part of a reduction's meaning.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::ops::{Broadcast, Reshape};
use graphc_ir::{Dim, Op, Scalar};

pub(super) const RULES: &[Rule] =
    &[("reduce_one", reduce_one), ("reduce_repeated", reduce_repeated), ("arg_of_one", arg_of_one)];

/// `reduce(x) over axes of extent 1 => reshape(x)` for maximum, minimum and product, and for sums of
/// integers. A sum of floats starts from 0 and so turns -0 into 0.
fn reduce_one(v: &View<'_>) -> Option<Expr> {
    let axes = match v.op {
        Op::ReduceMax(r) => &r.axes,
        Op::ReduceMin(r) => &r.axes,
        Op::ReduceProd(r) => &r.axes,
        Op::ReduceSum(r) if v.dtype().is_int() || fault!(23) => &r.axes,
        _ => return None,
    };
    let shape = &v.ty_of(v.operands[0]).shape;
    let one = axes.iter().all(|&a| shape[a] == Dim::Const(1));
    one.then(|| Expr::apply(Reshape { shape: v.ty.shape.clone() }, [v.operands[0]]))
}

/// `reduce(broadcast(x)) over axes along which x is repeated => x`, or a broadcast to the axes that
/// are left, for maximum and minimum: of equal values they give that value.
fn reduce_repeated(v: &View<'_>) -> Option<Expr> {
    let axes = match v.op {
        Op::ReduceMax(r) => &r.axes,
        Op::ReduceMin(r) => &r.axes,
        _ => return None,
    };
    let Op::Broadcast(b) = v.operand_op(0)? else { return None };
    // Over nothing, the result is an infinity.
    let repeated = axes.iter().all(|a| !b.axes.contains(a) && (b.shape[*a] != Dim::Const(0) || fault!(24)));
    repeated.then_some(())?;
    let left: Vec<usize> = (0..b.shape.rank()).filter(|a| !axes.contains(a)).collect();
    let to = b.axes.iter().filter_map(|a| left.iter().position(|l| l == a)).collect();
    Some(Expr::apply(Broadcast { shape: v.ty.shape.clone(), axes: to }, [v.operand_of(v.operands[0])]))
}

/// `argmax(x), argmin(x) along an axis of extent 1 => 0`
fn arg_of_one(v: &View<'_>) -> Option<Expr> {
    let axis = match v.op {
        Op::ArgMax(r) => r.axis,
        Op::ArgMin(r) => r.axis,
        _ => return None,
    };
    let one = v.ty_of(v.operands[0]).shape[axis] == Dim::Const(1);
    one.then(|| Expr::splat(Scalar::from_f64(v.dtype(), 0.0), v.ty))
}

#[cfg(test)]
mod tests {
    use super::super::Simplify;
    use crate::passes::testing::{check, function};
    use expect_test::{Expect, expect};
    use graphc_ir::{DType, Tensor};

    /// Checks what becomes of an expression of a column.
    fn rule(dtype: DType, body: impl for<'f> FnOnce(Tensor<'f>) -> Tensor<'f>, expected: Expect) {
        let f = function(|f| {
            let x = f.input("x", dtype, [3, 1]);
            f.output("out", body(x));
        });
        check(&[&Simplify], &f, expected);
    }

    #[test]
    fn over_one_element() {
        rule(
            DType::F32,
            |x| x.reduce_max(&[1]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = reshape %0 {shape = [3]} : f32[3]
            return out %1
        "#]],
        );
        rule(
            DType::F32,
            |x| x.reduce_min(&[1]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = reshape %0 {shape = [3]} : f32[3]
            return out %1
        "#]],
        );
        rule(
            DType::F32,
            |x| x.reduce_prod(&[1]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = reshape %0 {shape = [3]} : f32[3]
            return out %1
        "#]],
        );
        rule(
            DType::I32,
            |x| x.reduce_sum(&[1]),
            expect![[r#"
            %0 = input : i32[3, 1]
            %1 = reshape %0 {shape = [3]} : i32[3]
            return out %1
        "#]],
        );
        rule(
            DType::F32,
            |x| x.reduce_sum(&[1]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = reduce_sum %0 {axes = [1]} : f32[3]
            return out %1
        "#]],
        );
        rule(
            DType::F32,
            |x| x.argmax(1),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = constant {0} : i32[]
            %2 = broadcast %1 {shape = [3], axes = []} : i32[3]
            return out %2
        "#]],
        );
    }

    #[test]
    fn over_repeated_values() {
        rule(
            DType::F32,
            |x| x.broadcast([2, 3, 1, 4], &[1, 2]).reduce_max(&[0]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = broadcast %0 {shape = [3, 1, 4], axes = [0, 1]} : f32[3, 1, 4]
            return out %1
        "#]],
        );
        rule(
            DType::F32,
            |x| x.broadcast([3, 1, 0], &[0, 1]).reduce_max(&[2]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = broadcast %0 {shape = [3, 1, 0], axes = [0, 1]} : f32[3, 1, 0]
            %2 = reduce_max %1 {axes = [2]} : f32[3, 1]
            return out %2
        "#]],
        );
        rule(
            DType::F32,
            |x| x.broadcast([2, 3, 1], &[1, 2]).reduce_max(&[0, 1]),
            expect![[r#"
            %0 = input : f32[3, 1]
            %1 = broadcast %0 {shape = [2, 3, 1], axes = [1, 2]} : f32[2, 3, 1]
            %2 = reduce_max %1 {axes = [0, 1]} : f32[1]
            return out %2
        "#]],
        );
    }
}
