//! Lane-wise instructions as CLIF: native 128-bit vectors where Cranelift has them, lane by lane
//! where it does not. Results equal `ScalarOp::eval` bit for bit (NaN payloads aside).

use crate::narrow::lane_type;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{ConstantData, InstBuilder, MemFlagsData, Type, Value, types};
use cranelift_frontend::FunctionBuilder;
use graphc_ir::{CmpKind, DType, Scalar, ScalarOp};
use smallvec::SmallVec;

/// The CLIF values that hold one vector IR value: one scalar, or 128-bit pieces, lowest lanes first.
pub(super) type Parts = SmallVec<[Value; 4]>;

/// CLIF type of a scalar of a lane type. A truth value is 0 or 1.
pub(super) const fn scalar_type(dtype: DType) -> Type {
    match lane_type(dtype) {
        DType::F32 => types::F32,
        DType::F64 => types::F64,
        DType::I64 => types::I64,
        DType::Bool => types::I8,
        _ => types::I32,
    }
}

/// CLIF type of one part of a vector. A truth value is a mask of 32 bits per lane.
pub(super) const fn part_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 => types::F32X4,
        DType::F64 => types::F64X2,
        DType::I64 => types::I64X2,
        _ => types::I32X4,
    }
}

/// Lanes of one part.
pub(super) const fn part_lanes(dtype: DType) -> usize {
    match dtype {
        DType::F64 | DType::I64 => 2,
        _ => 4,
    }
}

fn little() -> MemFlagsData {
    MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
}

fn float_cc(kind: CmpKind) -> FloatCC {
    match kind {
        CmpKind::Eq => FloatCC::Equal,
        CmpKind::Ne if fault!(16) => FloatCC::OrderedNotEqual,
        CmpKind::Ne => FloatCC::NotEqual,
        CmpKind::Lt => FloatCC::LessThan,
        CmpKind::Le => FloatCC::LessThanOrEqual,
        CmpKind::Gt => FloatCC::GreaterThan,
        CmpKind::Ge => FloatCC::GreaterThanOrEqual,
    }
}

fn int_cc(kind: CmpKind, signed: bool) -> IntCC {
    match (kind, signed && !fault!(17)) {
        (CmpKind::Eq, _) => IntCC::Equal,
        (CmpKind::Ne, _) => IntCC::NotEqual,
        (CmpKind::Lt, true) => IntCC::SignedLessThan,
        (CmpKind::Le, true) => IntCC::SignedLessThanOrEqual,
        (CmpKind::Gt, true) => IntCC::SignedGreaterThan,
        (CmpKind::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (CmpKind::Lt, false) => IntCC::UnsignedLessThan,
        (CmpKind::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (CmpKind::Gt, false) => IntCC::UnsignedGreaterThan,
        (CmpKind::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
    }
}

/// A scalar constant.
pub(super) fn scalar_const(b: &mut FunctionBuilder<'_>, c: Scalar) -> Value {
    match c {
        Scalar::F32(v) => b.ins().f32const(v),
        Scalar::F64(v) => b.ins().f64const(v),
        Scalar::I32(v) => b.ins().iconst(types::I32, i64::from(v as u32)),
        Scalar::I64(v) => b.ins().iconst(types::I64, v),
        Scalar::Bool(v) => b.ins().iconst(types::I8, i64::from(v)),
        Scalar::U8(_) | Scalar::BF16(_) | Scalar::F16(_) => unreachable!("{c} is of no lane type"),
    }
}

fn vector_const(b: &mut FunctionBuilder<'_>, c: Scalar) -> Value {
    let bits = if let Scalar::Bool(v) = c { if v { u64::from(u32::MAX) } else { 0 } } else { c.bits() };
    let bytes: Vec<u8> = if part_lanes(c.dtype()) == 2 {
        bits.to_le_bytes().repeat(2)
    } else {
        (bits as u32).to_le_bytes().repeat(4)
    };
    let data = b.func.dfg.constants.insert(ConstantData::from(bytes.as_slice()));
    b.ins().vconst(part_type(c.dtype()), data)
}

/// A mask with the lowest `active` of `lanes` lanes set.
pub(super) fn lane_mask(b: &mut FunctionBuilder<'_>, active: usize, lanes: usize) -> Parts {
    (0..lanes / 4)
        .map(|p| {
            let bytes: Vec<u8> = (0..4)
                .flat_map(|l| if 4 * p + l + usize::from(fault!(15)) < active { [0xff; 4] } else { [0; 4] })
                .collect();
            let data = b.func.dfg.constants.insert(ConstantData::from(bytes.as_slice()));
            b.ins().vconst(types::I32X4, data)
        })
        .collect()
}

/// A scalar in every lane.
pub(super) fn splat(b: &mut FunctionBuilder<'_>, dtype: DType, lanes: usize, v: Value) -> Parts {
    let v = if dtype == DType::Bool { b.ins().bmask(types::I32, v) } else { v };
    let part = b.ins().splat(part_type(dtype), v);
    SmallVec::from_elem(part, lanes / part_lanes(dtype))
}

/// A scalar from memory.
pub(super) fn load(
    b: &mut FunctionBuilder<'_>,
    dtype: DType,
    flags: MemFlagsData,
    at: Value,
    offset: i32,
) -> Value {
    match dtype {
        DType::U8 => b.ins().uload8(types::I32, flags, at, offset),
        DType::BF16 | DType::F16 => b.ins().uload16(types::I32, flags, at, offset),
        _ => b.ins().load(scalar_type(dtype), flags, at, offset),
    }
}

/// A scalar to memory.
pub(super) fn store(
    b: &mut FunctionBuilder<'_>,
    dtype: DType,
    flags: MemFlagsData,
    v: Value,
    at: Value,
    offset: i32,
) {
    match dtype {
        DType::U8 => b.ins().istore8(flags, v, at, offset),
        DType::BF16 | DType::F16 => b.ins().istore16(flags, v, at, offset),
        _ => b.ins().store(flags, v, at, offset),
    };
}

/// One part of a vector, not of truth values, from consecutive elements.
pub(super) fn load_part(
    b: &mut FunctionBuilder<'_>,
    dtype: DType,
    flags: MemFlagsData,
    at: Value,
    offset: i32,
) -> Value {
    match dtype {
        DType::U8 => {
            let four = b.ins().load(types::I32, flags, at, offset);
            let four = b.ins().scalar_to_vector(types::I32X4, four);
            let bytes = bitcast(b, types::I8X16, four);
            let halves = b.ins().uwiden_low(bytes);
            b.ins().uwiden_low(halves)
        }
        DType::BF16 | DType::F16 => b.ins().uload16x4(flags, at, offset),
        _ => b.ins().load(part_type(dtype), flags, at, offset),
    }
}

/// One part of a vector, not of truth values, to consecutive elements.
pub(super) fn store_part(
    b: &mut FunctionBuilder<'_>,
    dtype: DType,
    flags: MemFlagsData,
    part: Value,
    at: Value,
    offset: i32,
) {
    let bits: u32 = match dtype {
        DType::U8 => 0xff,
        DType::BF16 | DType::F16 => 0xffff,
        _ => {
            b.ins().store(flags, part, at, offset);
            return;
        }
    };
    // Narrowing saturates, so what is above goes first.
    let data = b.func.dfg.constants.insert(ConstantData::from(bits.to_le_bytes().repeat(4).as_slice()));
    let mask = b.ins().vconst(types::I32X4, data);
    let low = b.ins().band(part, mask);
    let halves = b.ins().unarrow(low, low);
    if dtype == DType::U8 {
        let bytes = b.ins().unarrow(halves, halves);
        let four = bitcast(b, types::I32X4, bytes);
        let four = b.ins().extractlane(four, 0);
        b.ins().store(flags, four, at, offset);
    } else {
        let four = bitcast(b, types::I64X2, halves);
        let four = b.ins().extractlane(four, 0);
        b.ins().store(flags, four, at, offset);
    }
}

/// One lane as a scalar.
pub(super) fn extract(b: &mut FunctionBuilder<'_>, dtype: DType, parts: &Parts, lane: usize) -> Value {
    let n = part_lanes(dtype);
    let v = b.ins().extractlane(parts[lane / n], (lane % n) as u8);
    if dtype == DType::Bool { b.ins().icmp_imm_u(IntCC::NotEqual, v, 0) } else { v }
}

/// A vector from its lanes.
pub(super) fn build(b: &mut FunctionBuilder<'_>, dtype: DType, lanes: &[Value]) -> Parts {
    let n = part_lanes(dtype);
    lanes
        .chunks(n)
        .map(|chunk| {
            let mut part = None;
            for (l, &v) in chunk.iter().enumerate() {
                let v = if dtype == DType::Bool { b.ins().bmask(types::I32, v) } else { v };
                part = Some(match part {
                    None => b.ins().scalar_to_vector(part_type(dtype), v),
                    Some(p) => b.ins().insertlane(p, v, l as u8),
                });
            }
            part.expect("a part has lanes")
        })
        .collect()
}

fn bitcast(b: &mut FunctionBuilder<'_>, ty: Type, v: Value) -> Value {
    if b.func.dfg.value_type(v) == ty { v } else { b.ins().bitcast(ty, little(), v) }
}

/// The even 32-bit lanes of two 64-bit-lane vectors: their low halves.
fn narrow(b: &mut FunctionBuilder<'_>, lo: Value, hi: Value) -> Value {
    let (lo, hi) = (bitcast(b, types::I8X16, lo), bitcast(b, types::I8X16, hi));
    let mask: Vec<u8> = [0u8, 8, 16, 24].iter().flat_map(|&i| i..i + 4).collect();
    let mask = b.func.dfg.immediates.push(ConstantData::from(mask.as_slice()));
    let v = b.ins().shuffle(lo, hi, mask);
    bitcast(b, types::I32X4, v)
}

/// The high two lanes of an `F32X4` moved low.
fn high_half(b: &mut FunctionBuilder<'_>, v: Value) -> Value {
    let bytes = bitcast(b, types::I8X16, v);
    let mask: Vec<u8> = (8u8..16).chain(8..16).collect();
    let mask = b.func.dfg.immediates.push(ConstantData::from(mask.as_slice()));
    let v = b.ins().shuffle(bytes, bytes, mask);
    bitcast(b, types::F32X4, v)
}

/// Mask parts as masks of `dtype`'s lane width.
fn widen_mask(b: &mut FunctionBuilder<'_>, dtype: DType, mask: &Parts) -> Parts {
    if part_lanes(dtype) == 4 {
        return mask.clone();
    }
    mask.iter().flat_map(|&m| [b.ins().swiden_low(m), b.ins().swiden_high(m)]).collect()
}

/// `mask ? x : y` on one part.
fn blend(b: &mut FunctionBuilder<'_>, mask: Value, x: Value, y: Value) -> Value {
    let ty = b.func.dfg.value_type(x);
    let mask = bitcast(b, ty, mask);
    b.ins().bitselect(mask, x, y)
}

/// `op` on scalars; `from` is the element type of the first operand.
pub(super) fn scalar_op(b: &mut FunctionBuilder<'_>, op: ScalarOp, from: DType, x: &[Value]) -> Value {
    let float = from.is_float();
    match op {
        ScalarOp::Const(c) => scalar_const(b, c),
        ScalarOp::Neg if float => b.ins().fneg(x[0]),
        ScalarOp::Neg => b.ins().ineg(x[0]),
        ScalarOp::Abs if float => b.ins().fabs(x[0]),
        ScalarOp::Abs => b.ins().iabs(x[0]),
        ScalarOp::Add if float => b.ins().fadd(x[0], x[1]),
        ScalarOp::Add => b.ins().iadd(x[0], x[1]),
        ScalarOp::Sub if float => b.ins().fsub(x[0], x[1]),
        ScalarOp::Sub => b.ins().isub(x[0], x[1]),
        ScalarOp::Mul if float => b.ins().fmul(x[0], x[1]),
        ScalarOp::Mul => b.ins().imul(x[0], x[1]),
        ScalarOp::Div if float => b.ins().fdiv(x[0], x[1]),
        ScalarOp::Div | ScalarOp::Rem => divide(b, op, from, x[0], x[1]),
        ScalarOp::Fma => b.ins().fma(x[0], x[1], x[2]),
        ScalarOp::Sqrt => b.ins().sqrt(x[0]),
        ScalarOp::Floor => b.ins().floor(x[0]),
        ScalarOp::Ceil => b.ins().ceil(x[0]),
        ScalarOp::Trunc => b.ins().trunc(x[0]),
        ScalarOp::Round => b.ins().nearest(x[0]),
        ScalarOp::Min | ScalarOp::Max if float => {
            let cc = if op == ScalarOp::Min { FloatCC::LessThan } else { FloatCC::GreaterThan };
            let first = b.ins().fcmp(cc, x[0], x[1]);
            let pick = b.ins().select(first, x[0], x[1]);
            let nan = b.ins().fcmp(FloatCC::Unordered, x[0], x[0]);
            b.ins().select(nan, x[0], pick)
        }
        ScalarOp::Min => b.ins().smin(x[0], x[1]),
        ScalarOp::Max => b.ins().smax(x[0], x[1]),
        ScalarOp::Cmp(kind) if float => b.ins().fcmp(float_cc(kind), x[0], x[1]),
        ScalarOp::Cmp(kind) => b.ins().icmp(int_cc(kind, from != DType::Bool), x[0], x[1]),
        ScalarOp::And => b.ins().band(x[0], x[1]),
        ScalarOp::Or => b.ins().bor(x[0], x[1]),
        ScalarOp::Xor => b.ins().bxor(x[0], x[1]),
        ScalarOp::Not if from == DType::Bool => b.ins().bxor_imm_u(x[0], 1),
        ScalarOp::Not => b.ins().bnot(x[0]),
        ScalarOp::Select => b.ins().select(x[0], x[1], x[2]),
        ScalarOp::Shl(n) => b.ins().ishl_imm_u(x[0], i64::from(n)),
        ScalarOp::ShrL(n) => b.ins().ushr_imm_u(x[0], i64::from(n)),
        ScalarOp::ShrA(n) => b.ins().sshr_imm_u(x[0], i64::from(n)),
        ScalarOp::MulHiU => {
            let (p, q) = (b.ins().uextend(types::I64, x[0]), b.ins().uextend(types::I64, x[1]));
            let product = b.ins().imul(p, q);
            let high = b.ins().ushr_imm_u(product, 32);
            b.ins().ireduce(types::I32, high)
        }
        ScalarOp::Cast(to) => cast(b, from, to, x[0]),
        ScalarOp::Bitcast(to) => bitcast(b, scalar_type(to), x[0]),
    }
}

/// Integer division without traps: `x / 0 = -1`, `x rem 0 = x`, `MIN / -1 = MIN`, `x rem -1 = 0`.
fn divide(b: &mut FunctionBuilder<'_>, op: ScalarOp, dtype: DType, x: Value, y: Value) -> Value {
    let ty = scalar_type(dtype);
    let zero = b.ins().icmp_imm_s(IntCC::Equal, y, 0);
    let minus_one = b.ins().icmp_imm_s(IntCC::Equal, y, -1);
    let special = b.ins().bor(zero, minus_one);
    let one = b.ins().iconst(ty, 1);
    let divisor = b.ins().select(special, one, y);
    if op == ScalarOp::Div {
        let quotient = b.ins().sdiv(x, divisor);
        let negated = b.ins().ineg(x);
        let quotient = b.ins().select(minus_one, negated, quotient);
        let all_ones = b.ins().iconst(ty, if ty == types::I32 { 0xffff_ffff } else { -1 });
        b.ins().select(zero, all_ones, quotient)
    } else {
        let rest = b.ins().srem(x, divisor);
        b.ins().select(zero, x, rest)
    }
}

fn cast(b: &mut FunctionBuilder<'_>, from: DType, to: DType, x: Value) -> Value {
    let ty = scalar_type(to);
    match (from, to) {
        _ if from == to => x,
        (DType::F32, DType::F64) => b.ins().fpromote(ty, x),
        (DType::F64, DType::F32) => b.ins().fdemote(ty, x),
        (_, DType::Bool) if from.is_float() => {
            let zero = scalar_const(b, Scalar::from_f64(from, 0.0));
            b.ins().fcmp(FloatCC::NotEqual, x, zero)
        }
        (_, DType::Bool) => b.ins().icmp_imm_s(IntCC::NotEqual, x, 0),
        (DType::Bool, _) if to.is_float() => {
            let wide = b.ins().uextend(types::I32, x);
            b.ins().fcvt_from_sint(ty, wide)
        }
        (DType::Bool, _) => b.ins().uextend(ty, x),
        (DType::I32, DType::I64) => b.ins().sextend(ty, x),
        (DType::I64, DType::I32) => b.ins().ireduce(ty, x),
        _ if from.is_float() => b.ins().fcvt_to_sint_sat(ty, x),
        _ => b.ins().fcvt_from_sint(ty, x),
    }
}

/// `op` on vectors of `lanes` lanes.
pub(super) fn vector_op(
    b: &mut FunctionBuilder<'_>,
    op: ScalarOp,
    types: &[DType],
    lanes: usize,
    args: &[&Parts],
) -> Parts {
    let from = types.first().copied().unwrap_or(DType::Bool);
    match op {
        ScalarOp::Const(c) => {
            let part = vector_const(b, c);
            SmallVec::from_elem(part, lanes / part_lanes(c.dtype()))
        }
        ScalarOp::Min | ScalarOp::Max if from.is_float() => {
            let cc = if op == ScalarOp::Min { FloatCC::LessThan } else { FloatCC::GreaterThan };
            each(args, |x| {
                // Compare and blend of the same two values is one `minps` or `maxps`.
                let first = b.ins().fcmp(cc, x[0], x[1]);
                let pick = blend(b, first, x[0], x[1]);
                let nan = b.ins().fcmp(FloatCC::Unordered, x[0], x[0]);
                blend(b, nan, x[0], pick)
            })
        }
        ScalarOp::Cmp(kind) => {
            let masks: Parts = each(args, |x| {
                if from.is_float() {
                    b.ins().fcmp(float_cc(kind), x[0], x[1])
                } else {
                    b.ins().icmp(int_cc(kind, from != DType::Bool), x[0], x[1])
                }
            });
            if part_lanes(from) == 4 {
                return masks;
            }
            masks.chunks(2).map(|m| narrow(b, m[0], m[1])).collect()
        }
        ScalarOp::Select => {
            let mask = widen_mask(b, types[1], args[0]);
            (0..mask.len()).map(|p| blend(b, mask[p], args[1][p], args[2][p])).collect()
        }
        ScalarOp::Not => each(args, |x| b.ins().bnot(x[0])),
        ScalarOp::Cast(to) => vector_cast(b, from, to, lanes, args[0]),
        ScalarOp::Bitcast(to) => each(args, |x| bitcast(b, part_type(to), x[0])),
        ScalarOp::Div | ScalarOp::Rem if !from.is_float() => lane_by_lane(b, op, types, lanes, args),
        ScalarOp::MulHiU => lane_by_lane(b, op, types, lanes, args),
        // The shift amount of a CLIF vector shift is one scalar.
        ScalarOp::Shl(n) | ScalarOp::ShrL(n) | ScalarOp::ShrA(n) => {
            let amount = b.ins().iconst(types::I32, i64::from(n));
            each(args, |x| match op {
                ScalarOp::Shl(_) => b.ins().ishl(x[0], amount),
                ScalarOp::ShrL(_) => b.ins().ushr(x[0], amount),
                _ => b.ins().sshr(x[0], amount),
            })
        }
        _ => each(args, |x| scalar_op(b, op, from, x)),
    }
}

fn each(args: &[&Parts], mut f: impl FnMut(&[Value]) -> Value) -> Parts {
    (0..args[0].len())
        .map(|p| {
            let x: SmallVec<[Value; 3]> = args.iter().map(|a| a[p]).collect();
            f(&x)
        })
        .collect()
}

fn lane_by_lane(
    b: &mut FunctionBuilder<'_>,
    op: ScalarOp,
    types: &[DType],
    lanes: usize,
    args: &[&Parts],
) -> Parts {
    let values: Vec<Value> = (0..lanes)
        .map(|lane| {
            let x: SmallVec<[Value; 3]> =
                args.iter().zip(types).map(|(a, &dtype)| extract(b, dtype, a, lane)).collect();
            scalar_op(b, op, types[0], &x)
        })
        .collect();
    let dtype = op.infer(types).expect("the builder inferred it");
    build(b, dtype, &values)
}

fn vector_cast(b: &mut FunctionBuilder<'_>, from: DType, to: DType, lanes: usize, x: &Parts) -> Parts {
    match (from, to) {
        _ if from == to => x.clone(),
        (DType::F32, DType::I32) => x.iter().map(|&p| b.ins().fcvt_to_sint_sat(types::I32X4, p)).collect(),
        (DType::I32, DType::F32) => x.iter().map(|&p| b.ins().fcvt_from_sint(types::F32X4, p)).collect(),
        (DType::I32, DType::I64) => widen_mask(b, DType::I64, x),
        (DType::I64, DType::I32) => x.chunks(2).map(|p| narrow(b, p[0], p[1])).collect(),
        (DType::F32, DType::F64) => x
            .iter()
            .flat_map(|&p| {
                let low = b.ins().fvpromote_low(p);
                let high = high_half(b, p);
                [low, b.ins().fvpromote_low(high)]
            })
            .collect(),
        (DType::F64, DType::F32) => x
            .chunks(2)
            .map(|p| {
                let (lo, hi) = (b.ins().fvdemote(p[0]), b.ins().fvdemote(p[1]));
                let (lo, hi) = (bitcast(b, types::I8X16, lo), bitcast(b, types::I8X16, hi));
                let mask: Vec<u8> = (0u8..8).chain(16..24).collect();
                let mask = b.func.dfg.immediates.push(ConstantData::from(mask.as_slice()));
                let v = b.ins().shuffle(lo, hi, mask);
                bitcast(b, types::F32X4, v)
            })
            .collect(),
        (DType::Bool, DType::F32 | DType::I32) => {
            let one = vector_const(b, Scalar::from_f64(to, 1.0));
            let one = bitcast(b, types::I32X4, one);
            x.iter()
                .map(|&m| {
                    let v = b.ins().band(m, one);
                    bitcast(b, part_type(to), v)
                })
                .collect()
        }
        (DType::Bool, _) => {
            let narrow =
                vector_cast(b, from, if to == DType::F64 { DType::F32 } else { DType::I32 }, lanes, x);
            vector_cast(b, if to == DType::F64 { DType::F32 } else { DType::I32 }, to, lanes, &narrow)
        }
        (_, DType::Bool) => {
            let zero = vector_op(b, ScalarOp::Const(Scalar::from_f64(from, 0.0)), &[], lanes, &[]);
            vector_op(b, ScalarOp::Cmp(CmpKind::Ne), &[from, from], lanes, &[x, &zero])
        }
        _ => lane_by_lane(b, ScalarOp::Cast(to), &[from], lanes, &[x]),
    }
}
