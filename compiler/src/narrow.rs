//! Element types that exist in memory only. `U8`, `BF16` and `F16` take one or two bytes there; a
//! value of theirs in a register is an `I32` with the bits of the element, those above being zero. A
//! load widens, a store drops what is above. So vector IR and the code generators know nothing of
//! these types but how wide they are in memory, and the arithmetic below is the same everywhere.

use graphc_ir::math::{round_to_half, widen_half};
use graphc_ir::{CmpKind, DType, Scalar, ScalarBuilder, ScalarFn, ScalarOp};
use smallvec::SmallVec;

/// Element type of a register that holds elements of type `dtype`.
pub const fn lane_type(dtype: DType) -> DType {
    match dtype {
        DType::U8 | DType::BF16 | DType::F16 => DType::I32,
        other => other,
    }
}

/// An element as it is in a register.
pub(crate) fn lane(value: Scalar) -> Scalar {
    Scalar::from_bits(lane_type(value.dtype()), value.bits())
}

/// `v: I32` without what is above an element of type `dtype`.
pub(crate) fn wrap<B: ScalarBuilder>(b: &mut B, dtype: DType, v: B::V) -> B::V {
    if dtype != DType::U8 || fault!(45) {
        return v;
    }
    let mask = b.i32(0xff);
    b.and(v, mask)
}

/// Replays a function of elements, given as they are in registers, into `b`.
pub(crate) fn emit<B: ScalarBuilder>(f: &ScalarFn, b: &mut B, args: &[B::V]) -> B::V {
    let args: Vec<(B::V, DType)> = args.iter().copied().zip(f.args().iter().copied()).collect();
    f.emit(&mut Lanes(b), &args).0
}

/// Values with the element types that they stand for.
struct Lanes<'b, B>(&'b mut B);

impl<B: ScalarBuilder> ScalarBuilder for Lanes<'_, B> {
    type V = (B::V, DType);

    fn op(&mut self, op: ScalarOp, args: &[Self::V]) -> Self::V {
        let types: SmallVec<[DType; 3]> = args.iter().map(|a| a.1).collect();
        let x: SmallVec<[B::V; 3]> = args.iter().map(|a| a.0).collect();
        let to = op.infer(&types).unwrap_or_else(|| panic!("{op:?} does not take {types:?}"));
        let from = types.first().copied().unwrap_or(to);
        (instruction(self.0, op, from, to, &x), to)
    }

    fn dtype(&self, v: Self::V) -> DType {
        v.1
    }
}

/// One instruction on operands of type `from` with a result of type `to`.
fn instruction<B: ScalarBuilder>(b: &mut B, op: ScalarOp, from: DType, to: DType, x: &[B::V]) -> B::V {
    match op {
        ScalarOp::Const(c) => b.constant(lane(c)),
        ScalarOp::Cast(_) => cast(b, from, to, x[0]),
        ScalarOp::Bitcast(_) => match (from, to) {
            (DType::U8, DType::Bool) => {
                let one = b.i32(1);
                let bit = b.and(x[0], one);
                b.cast(DType::Bool, bit)
            }
            (DType::Bool, DType::U8) => b.cast(DType::I32, x[0]),
            _ if lane_type(from) != from => x[0],
            _ => b.op(op, x),
        },
        _ if from != DType::U8 => b.op(op, x),
        ScalarOp::Abs => x[0],
        ScalarOp::ShrA(n) => b.op(ScalarOp::ShrL(n), x),
        ScalarOp::Min | ScalarOp::Max | ScalarOp::Cmp(_) | ScalarOp::And | ScalarOp::Or | ScalarOp::Xor => {
            b.op(op, x)
        }
        _ => {
            let result = b.op(op, x);
            wrap(b, to, result)
        }
    }
}

/// [`ScalarOp::Cast`], see [`Scalar::cast`].
fn cast<B: ScalarBuilder>(b: &mut B, from: DType, to: DType, x: B::V) -> B::V {
    if from == to {
        return x;
    }
    let (x, from) = match from {
        DType::BF16 | DType::F16 => (widen_half(b, from, x), DType::F32),
        DType::U8 => (x, DType::I32),
        _ => (x, from),
    };
    match to {
        DType::BF16 | DType::F16 => {
            let x = if from.is_float() { x } else { b.cast(DType::F64, x) };
            round_to_half(b, to, x)
        }
        DType::U8 if from.is_float() => {
            let integer = b.cast(DType::I32, x);
            let (zero, most) = (b.i32(0), b.i32(255));
            let above = b.cmp(CmpKind::Gt, integer, zero);
            let integer = b.select(above, integer, zero);
            b.min(integer, most)
        }
        DType::U8 => {
            let integer = if from == DType::I32 { x } else { b.cast(DType::I32, x) };
            wrap(b, DType::U8, integer)
        }
        _ if from == to => x,
        _ => b.cast(to, x),
    }
}
