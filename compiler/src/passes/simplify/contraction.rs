//! Rules of contractions: transposes around them become axis lists, which cost nothing.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::Op;
use graphc_ir::ops::DotGeneral;

pub(super) const RULES: &[Rule] =
    &[("dot_of_transpose", dot_of_transpose), ("transpose_of_dot", transpose_of_dot)];

/// `dot_general(transpose(x), y) => dot_general(x, y)` with renamed axes, and likewise on the right,
/// where the free axes stay in order. Exact, because products are summed in the order in which the
/// contracted axes are listed, not in the order of the operand.
fn dot_of_transpose(v: &View<'_>) -> Option<Expr> {
    let Op::DotGeneral(dot) = v.op else { return None };
    for side in 0..2 {
        let Op::Transpose(t) = v.op_of(v.operands[side]) else { continue };
        let renamed = |axes: &[usize]| -> Vec<usize> { axes.iter().map(|&a| t.permutation[a]).collect() };
        let (batch, contract) = axes_of(dot, side);
        let free: Vec<usize> = (0..t.permutation.len())
            .filter(|a| !batch.contains(a) && !contract.contains(a))
            .map(|a| t.permutation[a])
            .collect();
        if !free.is_sorted() && !fault!(46) {
            continue;
        }
        let mut dot = dot.clone();
        let (batch, contract) = (renamed(batch), renamed(contract));
        if side == 0 {
            (dot.lhs_batch, dot.lhs_contract) = (batch, contract);
        } else {
            (dot.rhs_batch, dot.rhs_contract) = (batch, contract);
        }
        let mut operands = [v.operands[0], v.operands[1]];
        operands[side] = v.operand_of(operands[side]);
        return Some(Expr::apply(dot, operands));
    }
    None
}

/// Batch and contracted axes of one side.
fn axes_of(dot: &DotGeneral, side: usize) -> (&[usize], &[usize]) {
    if side == 0 { (&dot.lhs_batch, &dot.lhs_contract) } else { (&dot.rhs_batch, &dot.rhs_contract) }
}

/// `transpose(dot_general(x, y)) => dot_general(y, x)` where the permutation exchanges the free axes
/// of the two sides; batch axes may be reordered as well. Exact, because `a * b` is `b * a`. Only
/// if nothing else uses the product: else it would be computed twice.
fn transpose_of_dot(v: &View<'_>) -> Option<Expr> {
    let (Op::Transpose(t), Op::DotGeneral(dot)) = (v.op, v.operand_op(0)?) else { return None };
    v.single_use(v.operands[0]).then_some(())?;
    let sides = v.operands_of(v.operands[0]);
    let n_batch = dot.lhs_batch.len();
    let rank = t.permutation.len();
    let n_lhs = v.ty_of(sides[0]).rank() - n_batch - dot.lhs_contract.len();
    let (batch, free) = t.permutation.split_at(n_batch);
    batch.iter().all(|&a| a < n_batch).then_some(())?;
    let reordered = |axes: &[usize]| -> Vec<usize> { batch.iter().map(|&a| axes[a]).collect() };
    let (lhs_batch, rhs_batch) = (reordered(&dot.lhs_batch), reordered(&dot.rhs_batch));
    if free.iter().copied().eq(n_batch..rank) {
        return Some(Expr::apply(DotGeneral { lhs_batch, rhs_batch, ..dot.clone() }, sides));
    }
    let exchanged = (n_batch + n_lhs..rank).chain(n_batch..n_batch + n_lhs);
    free.iter().copied().eq(exchanged).then(|| {
        let dot = DotGeneral {
            lhs_batch: rhs_batch,
            rhs_batch: lhs_batch,
            lhs_contract: dot.rhs_contract.clone(),
            rhs_contract: dot.lhs_contract.clone(),
        };
        Expr::apply(dot, [sides[1], sides[0]])
    })
}

#[cfg(test)]
mod tests {
    use super::super::Simplify;
    use crate::passes::testing::{check, function};
    use expect_test::{Expect, expect};
    use graphc_ir::{DType, Tensor};

    /// Checks what becomes of an expression of three tensors.
    fn rule(body: impl for<'f> FnOnce(Tensor<'f>, Tensor<'f>, Tensor<'f>) -> Tensor<'f>, expected: Expect) {
        let f = function(|f| {
            let a = f.input("a", DType::F32, [2, 3]);
            let b = f.input("b", DType::F32, [4, 3]);
            let c = f.input("c", DType::F32, [2, 2, 3]);
            f.output("out", body(a, b, c));
        });
        check(&[&Simplify], &f, expected);
    }

    #[test]
    fn operands() {
        rule(
            |a, b, _| a.dot(b.transpose(&[1, 0])),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[4, 3]
            %2 = input : f32[2, 2, 3]
            %3 = dot_general %0 %1 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[2, 4]
            return out %3
        "#]],
        );
        rule(
            |a, b, _| a.transpose(&[1, 0]).dot_general(b, (&[], &[]), (&[0], &[1])),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[4, 3]
            %2 = input : f32[2, 2, 3]
            %3 = dot_general %0 %1 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[2, 4]
            return out %3
        "#]],
        );
        // Both, with a batch axis.
        rule(
            |_, _, c| {
                let t = c.transpose(&[1, 0, 2]);
                t.dot_general(t.transpose(&[0, 2, 1]), (&[0], &[0]), (&[2], &[1]))
            },
            expect![[r#"
                %0 = input : f32[2, 3]
                %1 = input : f32[4, 3]
                %2 = input : f32[2, 2, 3]
                %3 = dot_general %2 %2 {lhs_batch = [1], rhs_batch = [1], lhs_contract = [2], rhs_contract = [2]} : f32[2, 2, 2]
                return out %3
            "#]],
        );
        // The free axes would change places.
        rule(
            |a, _, c| c.transpose(&[1, 0, 2]).dot_general(a, (&[], &[]), (&[2], &[1])),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[4, 3]
            %2 = input : f32[2, 2, 3]
            %3 = transpose %2 {permutation = [1, 0, 2]} : f32[2, 2, 3]
            %4 = dot_general %3 %0 {lhs_batch = [], rhs_batch = [], lhs_contract = [2], rhs_contract = [1]} : f32[2, 2, 2]
            return out %4
        "#]],
        );
    }

    #[test]
    fn results() {
        rule(
            |a, b, _| a.dot_general(b, (&[], &[]), (&[1], &[1])).transpose(&[1, 0]),
            expect![[r#"
            %0 = input : f32[2, 3]
            %1 = input : f32[4, 3]
            %2 = input : f32[2, 2, 3]
            %3 = dot_general %1 %0 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[4, 2]
            return out %3
        "#]],
        );
        // Batch axes exchanged, free axes too.
        rule(
            |_, _, c| {
                let p = c.dot_general(c, (&[0, 1], &[0, 1]), (&[], &[]));
                p.transpose(&[1, 0, 3, 2])
            },
            expect![[r#"
                %0 = input : f32[2, 3]
                %1 = input : f32[4, 3]
                %2 = input : f32[2, 2, 3]
                %3 = dot_general %2 %2 {lhs_batch = [1, 0], rhs_batch = [1, 0], lhs_contract = [], rhs_contract = []} : f32[2, 2, 3, 3]
                return out %3
            "#]],
        );
        // Used twice.
        rule(
            |a, _, _| {
                let p = a.dot_general(a, (&[], &[]), (&[1], &[1]));
                p.transpose(&[1, 0]) + p
            },
            expect![[r#"
                %0 = input : f32[2, 3]
                %1 = input : f32[4, 3]
                %2 = input : f32[2, 2, 3]
                %3 = dot_general %0 %0 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[2, 2]
                %4 = transpose %3 {permutation = [1, 0]} : f32[2, 2]
                %5 = add %4 %3 : f32[2, 2]
                return out %5
            "#]],
        );
    }
}
