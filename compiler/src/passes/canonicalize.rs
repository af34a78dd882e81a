//! One spelling for what can be written in several ways, so that other passes look for one.

use super::rewrite::{Expr, Rule, View, rewrite};
use crate::error::CompileError;
use crate::pass::{Pass, PassCx};
use graphc_ir::{Function, Op};

/// Brings nodes to their canonical form. It leaves true: a constant whose elements are all the same
/// is a broadcast of a scalar constant; a commutative operation has a constant only on the right,
/// and else its operands in the order of their declaration.
///
/// `max` and `min` are not commutative here: of two zeros of different sign they give the second.
pub struct Canonicalize;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }

    fn run(&self, function: &Function, cx: &PassCx) -> Result<Function, CompileError> {
        Ok(rewrite(function, RULES, cx)?.0)
    }
}

const RULES: &[Rule] = &[("splat_constant", splat_constant), ("commute", commute)];

/// `constant [c, c, ...] => broadcast(constant c)`
fn splat_constant(v: &View<'_>) -> Option<Expr> {
    let Op::Constant(c) = v.op else { return None };
    (v.ty.rank() > 0).then_some(())?;
    c.value.splat_value().map(|value| Expr::splat(value, v.ty))
}

/// True for operations that give the same bits when their two operands are exchanged. (Which of two
/// NaNs comes out is not part of a result.)
fn is_commutative(op: &Op) -> bool {
    matches!(op, Op::Add(_) | Op::Mul(_)) || fault!(6) && matches!(op, Op::Max(_))
}

/// `op(c, x) => op(x, c)` and `op(y, x) => op(x, y)` for `x` declared before `y`
fn commute(v: &View<'_>) -> Option<Expr> {
    let &[a, b] = v.operands else { return None };
    let key = |id| (v.is_constant(id), id);
    (is_commutative(v.op) && key(a) > key(b)).then(|| Expr::apply(v.op.clone(), [b, a]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check, function};
    use expect_test::expect;
    use graphc_ir::{DType, Literal};

    #[test]
    fn constants_go_right_and_splats_become_broadcasts() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            let y = f.input("y", DType::F32, [2]);
            let c = f.constant(Literal::new(&[2], vec![3.0f32, 3.0]).unwrap());
            f.output("a", c * x);
            f.output("b", y + x);
            f.output("c", y - x);
        });
        check(
            &[&Canonicalize],
            &f,
            expect![[r#"
                %0 = input : f32[2]
                %1 = input : f32[2]
                %2 = constant {3.0} : f32[]
                %3 = broadcast %2 {shape = [2], axes = []} : f32[2]
                %4 = mul %0 %3 : f32[2]
                %5 = add %0 %1 : f32[2]
                %6 = sub %1 %0 : f32[2]
                return a %4, b %5, c %6
            "#]],
        );
    }

    #[test]
    fn constants_of_two_zeros_are_not_splats() {
        let f = function(|f| {
            f.output("a", f.constant(Literal::new(&[2], vec![0.0f32, -0.0]).unwrap()));
        });
        check(
            &[&Canonicalize],
            &f,
            expect![[r#"
                %0 = constant {0.0, -0.0} : f32[2]
                return a %0
            "#]],
        );
    }
}
