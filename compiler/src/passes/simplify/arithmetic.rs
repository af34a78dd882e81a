//! Rules of elementwise arithmetic.

use crate::passes::rewrite::{Expr, Rule, View};
use graphc_ir::ops::{Add, Mul, Neg, Sub};
use graphc_ir::{Op, Scalar};

pub(super) const RULES: &[Rule] = &[
    ("neg_neg", neg_neg),
    ("add_zero", add_zero),
    ("sub_zero", sub_zero),
    ("sub_from_zero", sub_from_zero),
    ("sub_self", sub_self),
    ("mul_one", mul_one),
    ("mul_zero", mul_zero),
    ("mul_minus_one", mul_minus_one),
    ("div_one", div_one),
    ("div_power_of_two", div_power_of_two),
    ("add_neg", add_neg),
    ("neg_add", neg_add),
    ("sub_neg", sub_neg),
    ("mul_neg_neg", mul_neg_neg),
];

/// `-(-x) => x`
fn neg_neg(v: &View<'_>) -> Option<Expr> {
    let Op::Neg(_) = v.op else { return None };
    inside_neg(v, 0)
}

/// The operand of a negation, where operand `i` is one.
fn inside_neg(v: &View<'_>, i: usize) -> Option<Expr> {
    match v.op_of(v.operands[i]) {
        Op::Neg(_) => Some(v.operand_of(v.operands[i]).into()),
        _ => None,
    }
}

/// `x + -0.0 => x` and, for integers, `x + 0 => x`. Not `x + 0.0`, which turns -0 into 0.
fn add_zero(v: &View<'_>) -> Option<Expr> {
    let Op::Add(_) = v.op else { return None };
    // Integers have one zero, to which -0.0 converts.
    let zero = Scalar::from_f64(v.dtype(), -0.0);
    (v.splat(v.operands[1])? == zero || fault!(1) && v.is(v.operands[1], 0.0)).then(|| v.operands[0].into())
}

/// `x - 0.0 => x` and, for integers, `x - 0 => x`. Not `x - -0.0`, which turns -0 into 0.
fn sub_zero(v: &View<'_>) -> Option<Expr> {
    let Op::Sub(_) = v.op else { return None };
    (v.splat(v.operands[1])? == Scalar::from_f64(v.dtype(), 0.0)).then(|| v.operands[0].into())
}

/// `-0.0 - x => -x` and, for integers, `0 - x => -x`. Not `0.0 - x`, which is 0 for 0.
fn sub_from_zero(v: &View<'_>) -> Option<Expr> {
    let Op::Sub(_) = v.op else { return None };
    let zero = Scalar::from_f64(v.dtype(), -0.0);
    (v.splat(v.operands[0])? == zero).then(|| Expr::apply(Neg {}, [v.operands[1]]))
}

/// `x - x => 0` for integers (for floats, infinity and NaN give NaN)
fn sub_self(v: &View<'_>) -> Option<Expr> {
    let Op::Sub(_) = v.op else { return None };
    let zero = (v.dtype().is_int() || fault!(2)) && v.operands[0] == v.operands[1];
    zero.then(|| Expr::splat(Scalar::from_f64(v.dtype(), 0.0), v.ty))
}

/// `x * 1 => x`
fn mul_one(v: &View<'_>) -> Option<Expr> {
    let Op::Mul(_) = v.op else { return None };
    v.is(v.operands[1], 1.0).then(|| v.operands[0].into())
}

/// `x * 0 => 0` for integers (for floats, infinity and NaN give NaN, and signs matter)
fn mul_zero(v: &View<'_>) -> Option<Expr> {
    let Op::Mul(_) = v.op else { return None };
    ((v.dtype().is_int() || fault!(3)) && v.is(v.operands[1], 0.0)).then(|| v.operands[1].into())
}

/// `x * -1 => -x`
fn mul_minus_one(v: &View<'_>) -> Option<Expr> {
    let Op::Mul(_) = v.op else { return None };
    v.is(v.operands[1], -1.0).then(|| Expr::apply(Neg {}, [v.operands[0]]))
}

/// `x / 1 => x`
fn div_one(v: &View<'_>) -> Option<Expr> {
    let Op::Div(_) = v.op else { return None };
    v.is(v.operands[1], 1.0).then(|| v.operands[0].into())
}

/// `x / 2^k => x * 2^-k` for floats: both round the same real number, where 2^-k is a normal
/// number.
fn div_power_of_two(v: &View<'_>) -> Option<Expr> {
    let Op::Div(_) = v.op else { return None };
    let inverse = match v.splat(v.operands[1])? {
        // A power of two has no bits in the mantissa; the inverse of a normal one may be subnormal.
        Scalar::F32(d) if d.is_normal() && (d.to_bits() << 9 == 0 || fault!(5)) && d.recip().is_normal() => {
            Scalar::F32(d.recip())
        }
        Scalar::F64(d) if d.is_normal() && d.to_bits() << 12 == 0 && d.recip().is_normal() => {
            Scalar::F64(d.recip())
        }
        _ => return None,
    };
    Some(Expr::apply(Mul {}, [v.operands[0].into(), Expr::splat(inverse, v.ty)]))
}

/// `x + -y => x - y`
fn add_neg(v: &View<'_>) -> Option<Expr> {
    let Op::Add(_) = v.op else { return None };
    Some(Expr::apply(Sub {}, [v.operands[0].into(), inside_neg(v, 1)?]))
}

/// `-x + y => y - x`
fn neg_add(v: &View<'_>) -> Option<Expr> {
    let Op::Add(_) = v.op else { return None };
    let (x, y) = (inside_neg(v, 0)?, v.operands[1].into());
    Some(Expr::apply(Sub {}, if fault!(4) { [x, y] } else { [y, x] }))
}

/// `x - -y => x + y`
fn sub_neg(v: &View<'_>) -> Option<Expr> {
    let Op::Sub(_) = v.op else { return None };
    Some(Expr::apply(Add {}, [v.operands[0].into(), inside_neg(v, 1)?]))
}

/// `-x * -y => x * y`
fn mul_neg_neg(v: &View<'_>) -> Option<Expr> {
    let Op::Mul(_) = v.op else { return None };
    Some(Expr::apply(Mul {}, [inside_neg(v, 0)?, inside_neg(v, 1)?]))
}

#[cfg(test)]
mod tests {
    use super::super::Simplify;
    use crate::passes::Canonicalize;
    use crate::passes::testing::{check, function};
    use expect_test::{Expect, expect};
    use graphc_ir::{DType, Tensor};

    /// Checks what becomes of an expression of two vectors, for one element type.
    fn rule(dtype: DType, body: impl for<'f> FnOnce(Tensor<'f>, Tensor<'f>) -> Tensor<'f>, expected: Expect) {
        let f = function(|f| {
            let x = f.input("x", dtype, [16]);
            let y = f.input("y", dtype, [16]);
            f.output("out", body(x, y));
        });
        check(&[&Canonicalize, &Simplify], &f, expected);
    }

    const NOTHING_LEFT: &str = "%0 = input : f32[16]\n%1 = input : f32[16]\nreturn out %0\n";

    #[test]
    fn identities_leave_nothing() {
        let nothing = || Expect { position: expect![""].position, data: NOTHING_LEFT, indent: false };
        rule(DType::F32, |x, _| -(-x), nothing());
        rule(DType::F32, |x, _| x + -0.0, nothing());
        rule(DType::F32, |x, _| -0.0 + x, nothing());
        rule(DType::F32, |x, _| x - 0.0, nothing());
        rule(DType::F32, |x, _| x * 1.0, nothing());
        rule(DType::F32, |x, _| 1.0 * (x / 1.0), nothing());
        rule(DType::F32, |x, _| (x * -1.0) * -1.0, nothing());
        rule(DType::F32, |x, _| -0.0 - (-0.0 - x), nothing());
    }

    #[test]
    fn what_is_not_exact_stays() {
        rule(
            DType::F32,
            |x, _| ((x + 0.0) - -0.0) * 0.0 + (x - x) + (0.0 - x) + x / 3.0,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = constant {0.0} : f32[]
            %3 = broadcast %2 {shape = [16], axes = []} : f32[16]
            %4 = add %0 %3 : f32[16]
            %5 = constant {-0.0} : f32[]
            %6 = broadcast %5 {shape = [16], axes = []} : f32[16]
            %7 = sub %4 %6 : f32[16]
            %8 = constant {0.0} : f32[]
            %9 = broadcast %8 {shape = [16], axes = []} : f32[16]
            %10 = mul %7 %9 : f32[16]
            %11 = sub %0 %0 : f32[16]
            %12 = add %10 %11 : f32[16]
            %13 = constant {0.0} : f32[]
            %14 = broadcast %13 {shape = [16], axes = []} : f32[16]
            %15 = sub %14 %0 : f32[16]
            %16 = add %12 %15 : f32[16]
            %17 = constant {3.0} : f32[]
            %18 = broadcast %17 {shape = [16], axes = []} : f32[16]
            %19 = div %0 %18 : f32[16]
            %20 = add %16 %19 : f32[16]
            return out %20
        "#]],
        );
    }

    #[test]
    fn integers_have_more_identities() {
        rule(
            DType::I32,
            |x, y| (x + 0.0 - 0.0) + (y * 0.0) + (x - x) + (0.0 - y),
            expect![[r#"
            %0 = input : i32[16]
            %1 = input : i32[16]
            %2 = sub %0 %1 : i32[16]
            return out %2
        "#]],
        );
    }

    #[test]
    fn negations_are_absorbed() {
        rule(
            DType::F32,
            |x, y| x + -y,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = sub %0 %1 : f32[16]
            return out %2
        "#]],
        );
        rule(
            DType::F32,
            |x, y| -x + y,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = sub %1 %0 : f32[16]
            return out %2
        "#]],
        );
        rule(
            DType::F32,
            |x, y| x - -y,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = add %0 %1 : f32[16]
            return out %2
        "#]],
        );
        rule(
            DType::F32,
            |x, y| -x * -y,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = mul %0 %1 : f32[16]
            return out %2
        "#]],
        );
    }

    #[test]
    fn division_by_a_power_of_two() {
        rule(
            DType::F32,
            |x, _| x / 8.0,
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = constant {0.125} : f32[]
            %3 = broadcast %2 {shape = [16], axes = []} : f32[16]
            %4 = mul %0 %3 : f32[16]
            return out %4
        "#]],
        );
        // 2^-126 is normal but 2^127 is the largest power of two; the inverse of 2^127 is subnormal.
        rule(
            DType::F32,
            |x, _| x / f64::from(2f32.powi(127)),
            expect![[r#"
            %0 = input : f32[16]
            %1 = input : f32[16]
            %2 = constant {1.7014118e38} : f32[]
            %3 = broadcast %2 {shape = [16], axes = []} : f32[16]
            %4 = div %0 %3 : f32[16]
            return out %4
        "#]],
        );
        rule(
            DType::I32,
            |x, _| x / 8.0,
            expect![[r#"
            %0 = input : i32[16]
            %1 = input : i32[16]
            %2 = constant {8} : i32[]
            %3 = broadcast %2 {shape = [16], axes = []} : i32[16]
            %4 = div %0 %3 : i32[16]
            return out %4
        "#]],
        );
    }
}
