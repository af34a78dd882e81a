//! Values for inputs and state, drawn by name.

use crate::{DType, Function, Literal, Module, TensorType};
use graphc_ir::Scalar;

/// Values for one run of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Inputs in order.
    pub inputs: Vec<Literal>,
    /// State in the order of the module.
    pub state: Vec<Literal>,
}

impl Values {
    /// Values for a function whose dimensions are numbers. Each follows from the seed, the *name* of the
    /// input or variable and the position of the element alone, so it stays when others come or go. Among
    /// floats, zeros of both signs, infinities, NaN, subnormals and huge numbers are frequent for one seed
    /// in two and absent for the others; integers are mostly small and not negative, as indices are.
    pub fn drawn(module: &Module, function: &Function, seed: u64) -> Self {
        let inputs = function.inputs.iter();
        Self {
            inputs: inputs.map(|&i| literal(function.input_name(i), function.graph.ty(i), seed)).collect(),
            state: module.state.iter().map(|s| literal(&s.name, &s.ty, seed)).collect(),
        }
    }
}

/// The finalizer of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn literal(name: &str, ty: &TensorType, seed: u64) -> Literal {
    let key = name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)));
    let dims = ty.shape.as_static().expect("dimensions are bound before values are drawn");
    let special = seed & 1 == 1;
    Literal::from_fn(ty.dtype, &dims, |i| element(ty.dtype, mix(key ^ mix(i as u64)), special))
}

fn element(dtype: DType, bits: u64, special: bool) -> Scalar {
    let choice = bits % 64;
    if dtype == DType::Bool {
        return Scalar::Bool(bits >> 63 == 1);
    }
    if dtype.is_int() {
        return match choice {
            0 => Scalar::I64(i64::from(i32::MIN)),
            1 => Scalar::I64(i64::from(i32::MAX)),
            // Zero in its lower half.
            2 if dtype == DType::I64 => Scalar::I64(1 << 32),
            2..6 => Scalar::I64(-((bits >> 40) as i64 % 9)),
            _ => Scalar::I64((bits >> 40) as i64 % 4),
        };
    }
    let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let (least, greatest) = match dtype {
        DType::F64 => (f64::MIN_POSITIVE, f64::MAX),
        DType::F16 => (6.103_515_625e-5, 65504.0),
        // `f32` and `bf16` have the same exponents.
        _ => (f64::from(f32::MIN_POSITIVE), 3e38),
    };
    Scalar::F64(match choice {
        0..16 if special => [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            least * 0.25,
            -least * 0.5,
            greatest,
            -greatest,
            0.5,
            2.0,
            -0.0,
            0.0,
            least,
        ][choice as usize],
        // Few different values, so that ties are frequent.
        16..28 => (unit * 5.0).floor() - 2.0,
        _ => unit * 4.0 - 2.0,
    })
}
