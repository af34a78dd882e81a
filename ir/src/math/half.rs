//! Conversions of half floats, on their bits in an `I32`.

use crate::{CmpKind, DType, ScalarBuilder, ScalarOp};

/// The `F32` of the same value as the half float of type `half` with the bits `x: I32`. Exact; the
/// payload of a NaN is kept.
pub fn widen_half<B: ScalarBuilder>(b: &mut B, half: DType, x: B::V) -> B::V {
    if half == DType::BF16 {
        let bits = b.op(ScalarOp::Shl(16), &[x]);
        return b.bitcast(DType::F32, bits);
    }
    let (rest, exponent, sign) = (b.i32(0x7fff), b.i32(0x7c00), b.i32(0x8000));
    let magnitude = b.and(x, rest);
    let shifted = b.op(ScalarOp::Shl(13), &[magnitude]);
    // The exponent is too small by the difference of the biases; a product also normalizes
    // subnormals.
    let small = b.bitcast(DType::F32, shifted);
    let scale = b.f32(f32::from_bits((127 + 127 - 15) << 23));
    let finite = b.mul(small, scale);
    let finite = b.bitcast(DType::I32, finite);
    let all = b.i32(0x7f80_0000);
    let special = b.or(shifted, all);
    let is_special = b.cmp(CmpKind::Ge, magnitude, exponent);
    let magnitude = b.select(is_special, special, finite);
    let sign = b.and(x, sign);
    let sign = b.op(ScalarOp::Shl(16), &[sign]);
    let bits = b.or(magnitude, sign);
    b.bitcast(DType::F32, bits)
}

/// The bits, in an `I32`, of `x: F32` or `F64` rounded to the half float type `half`: once, to
/// nearest, ties to even. A NaN becomes a quiet one.
pub fn round_to_half<B: ScalarBuilder>(b: &mut B, half: DType, x: B::V) -> B::V {
    let x = if b.dtype(x) == DType::F64 { round_to_odd(b, x) } else { x };
    let bits = b.bitcast(DType::I32, x);
    let (one, rest) = (b.i32(1), b.i32(0x7fff_ffff));
    let magnitude = b.and(bits, rest);
    let infinity = b.i32(0x7f80_0000);
    let is_nan = b.cmp(CmpKind::Gt, magnitude, infinity);
    // To nearest: adds half a unit in the last place, less one if the last bit is even.
    let nearest = |b: &mut B, dropped: u8, bias: i32| {
        let last = b.op(ScalarOp::ShrL(dropped), &[magnitude]);
        let odd = b.and(last, one);
        let below_half = b.i32((1 << (dropped - 1)) - 1 + bias);
        let sum = b.add(magnitude, below_half);
        let sum = b.add(sum, odd);
        b.op(ScalarOp::ShrL(dropped), &[sum])
    };
    let sign = b.op(ScalarOp::ShrL(16), &[bits]);
    let mask = b.i32(0x8000);
    let sign = b.and(sign, mask);
    let rounded = if half == DType::BF16 {
        let number = nearest(b, 16, 0);
        let payload = b.op(ScalarOp::ShrL(16), &[magnitude]);
        let quiet = b.i32(0x0040);
        let nan = b.or(payload, quiet);
        b.select(is_nan, nan, number)
    } else {
        let normal = nearest(b, 13, (15 - 127) << 23);
        // Below the least normal number the sum with 0.5 has the unit of the subnormals.
        let value = b.bitcast(DType::F32, magnitude);
        let unit = b.f32(0.5);
        let sum = b.add(value, unit);
        let (sum, unit) = (b.bitcast(DType::I32, sum), b.bitcast(DType::I32, unit));
        let subnormal = b.op(ScalarOp::Sub, &[sum, unit]);
        let least = b.i32((127 - 14) << 23);
        let is_subnormal = b.cmp(CmpKind::Lt, magnitude, least);
        let number = b.select(is_subnormal, subnormal, normal);
        // 2^16: what is less but rounds up to it has the bits of infinity already.
        let (most, half_infinity) = (b.i32((127 + 16) << 23), b.i32(0x7c00));
        let overflows = b.cmp(CmpKind::Ge, magnitude, most);
        let number = b.select(overflows, half_infinity, number);
        let (quiet, mantissa) = (b.i32(0x7e00), b.i32(0x3ff));
        let payload = b.op(ScalarOp::ShrL(13), &[magnitude]);
        let payload = b.and(payload, mantissa);
        let nan = b.or(payload, quiet);
        b.select(is_nan, nan, number)
    };
    b.or(rounded, sign)
}

/// `x: F64` as an `F32`; where that is not exact, the neighbour whose last bit is 1. Rounding the
/// result to 22 bits or fewer then is as rounding `x` (Boldo and Melquiond, "When double rounding is
/// odd", 2005).
fn round_to_odd<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let near = b.cast(DType::F32, x);
    let back = b.cast(DType::F64, near);
    let bits = b.bitcast(DType::I32, near);
    let one = b.i32(1);
    let (size, wanted) = (b.abs(back), b.abs(x));
    let beyond = b.cmp(CmpKind::Gt, size, wanted);
    let below = b.op(ScalarOp::Sub, &[bits, one]);
    let truncated = b.select(beyond, below, bits);
    let odd = b.or(truncated, one);
    // A NaN is unequal to itself and stays one.
    let exact = b.cmp(CmpKind::Eq, back, x);
    let bits = b.select(exact, bits, odd);
    b.bitcast(DType::F32, bits)
}

#[cfg(test)]
mod tests {
    use crate::{DType, Scalar};
    use std::cmp::Ordering;

    #[test]
    fn every_half_float_survives_the_way_through_wider_ones() {
        for half in [DType::BF16, DType::F16] {
            for bits in 0..=u64::from(u16::MAX) {
                let x = Scalar::from_bits(half, bits);
                for wide in [DType::F32, DType::F64] {
                    let there = x.cast(wide);
                    assert!(there.to_f64() == x.to_f64() || x.to_f64().is_nan(), "{half} {bits:#x}");
                    let back = there.cast(half);
                    assert!(back.bits() == bits || x.to_f64().is_nan(), "{half} {bits:#x} {wide}");
                    assert_eq!(back.to_f64().is_nan(), x.to_f64().is_nan(), "{half} {bits:#x} {wide}");
                }
            }
        }
    }

    /// Every pair of neighbours: just below, at and just above the middle, in f32 and in f64.
    #[test]
    fn rounds_once_to_nearest_even() {
        for (half, infinity) in [(DType::BF16, 0x7f80u64), (DType::F16, 0x7c00)] {
            for bits in (0..infinity - 1).flat_map(|b| [b, b | 0x8000]) {
                let [low, high] = [bits, bits + 1].map(|b| Scalar::from_bits(half, b).to_f64());
                let middle = f64::midpoint(low, high);
                let check = |x: Scalar| {
                    let expected = match x.to_f64().abs().total_cmp(&middle.abs()) {
                        Ordering::Less => bits,
                        Ordering::Equal => bits + (bits & 1),
                        Ordering::Greater => bits + 1,
                    };
                    assert_eq!(x.cast(half).bits(), expected, "{half} {x}");
                };
                let away = f64::midpoint(middle, high);
                [middle.next_down(), middle, middle.next_up(), away]
                    .into_iter()
                    .for_each(|x| check(Scalar::F64(x)));
                let x = middle as f32;
                [x.next_down(), x, x.next_up()].into_iter().for_each(|x| check(Scalar::F32(x)));
            }
            let check = |x: f64, expected: u64| {
                assert_eq!(Scalar::F64(x).cast(half).bits(), expected, "{half} {x:e}");
                assert_eq!(Scalar::F64(-x).cast(half).bits(), expected | 0x8000, "{half} {x:e}");
            };
            let most = Scalar::from_bits(half, infinity - 1).to_f64();
            let half_unit = (most - Scalar::from_bits(half, infinity - 2).to_f64()) / 2.0;
            check((most + half_unit).next_down(), infinity - 1);
            check(most + half_unit, infinity);
            check(f64::MAX, infinity);
            check(f64::INFINITY, infinity);
            check(1e-300, 0);
            check(0.0, 0);
            assert!(Scalar::F64(f64::NAN).cast(half).to_f64().is_nan());
            assert!(Scalar::F32(f32::NAN).cast(half).to_f64().is_nan());
        }
    }

    #[test]
    fn unsigned_bytes_saturate_from_floats_and_wrap_from_integers() {
        let check = |x: Scalar, expected: u8| assert_eq!(x.cast(DType::U8), Scalar::U8(expected), "{x}");
        check(Scalar::F32(-1.0), 0);
        check(Scalar::F64(255.9), 255);
        check(Scalar::F32(1e9), 255);
        check(Scalar::F32(f32::NAN), 0);
        check(Scalar::I32(-1), 255);
        check(Scalar::I64(257), 1);
        check(Scalar::Bool(true), 1);
        assert_eq!(Scalar::U8(200).cast(DType::I32), Scalar::I32(200));
    }
}
