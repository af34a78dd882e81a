//! Lane-wise instructions: what one element of an elementwise operation computes.
//!
//! The same small instruction set serves three readers: [`ScalarFn`] (the body of an elementwise
//! operation, which the compiler fuses), vector IR (which adds memory and loops around it) and
//! [`Native`] (direct evaluation, the reference). [`ScalarOp::eval`] is the meaning of each.
//! Nothing here knows tensors.

use crate::math;
use crate::types::DType;
use half::{bf16, f16};
use smallvec::SmallVec;
use std::fmt;

/// One value of any element type. Equality and hash are those of the bits.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// `f32`.
    F32(f32),
    /// `f64`.
    F64(f64),
    /// `i32`.
    I32(i32),
    /// `i64`.
    I64(i64),
    /// `bool`.
    Bool(bool),
    /// `u8`.
    U8(u8),
    /// bfloat16.
    BF16(bf16),
    /// IEEE-754 binary16.
    F16(f16),
}

impl Scalar {
    /// Its element type.
    pub const fn dtype(self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::I32(_) => DType::I32,
            Self::I64(_) => DType::I64,
            Self::Bool(_) => DType::Bool,
            Self::U8(_) => DType::U8,
            Self::BF16(_) => DType::BF16,
            Self::F16(_) => DType::F16,
        }
    }

    /// The bits, zero-extended to 64.
    pub const fn bits(self) -> u64 {
        match self {
            Self::F32(v) => v.to_bits() as u64,
            Self::F64(v) => v.to_bits(),
            Self::I32(v) => v as u32 as u64,
            Self::I64(v) => v as u64,
            Self::Bool(v) => v as u64,
            Self::U8(v) => v as u64,
            Self::BF16(v) => v.to_bits() as u64,
            Self::F16(v) => v.to_bits() as u64,
        }
    }

    /// The value of type `dtype` with these bits. Inverse of [`Scalar::bits`].
    pub const fn from_bits(dtype: DType, bits: u64) -> Self {
        match dtype {
            DType::F32 => Self::F32(f32::from_bits(bits as u32)),
            DType::F64 => Self::F64(f64::from_bits(bits)),
            DType::I32 => Self::I32(bits as u32 as i32),
            DType::I64 => Self::I64(bits as i64),
            DType::Bool => Self::Bool(bits & 1 != 0),
            DType::U8 => Self::U8(bits as u8),
            DType::BF16 => Self::BF16(bf16::from_bits(bits as u16)),
            DType::F16 => Self::F16(f16::from_bits(bits as u16)),
        }
    }

    /// `value` rounded to a float type, saturated to an integer type, or `value != 0`.
    pub fn from_f64(dtype: DType, value: f64) -> Self {
        Self::F64(value).cast(dtype)
    }

    /// The value as `f64` (integers beyond 2^53 are rounded; `true` is 1).
    pub const fn to_f64(self) -> f64 {
        match self {
            Self::F32(v) => v as f64,
            Self::F64(v) => v,
            Self::I32(v) => v as f64,
            Self::I64(v) => v as f64,
            Self::Bool(v) => v as u8 as f64,
            Self::U8(v) => v as f64,
            Self::BF16(v) => v.to_f64_const(),
            Self::F16(v) => v.to_f64_const(),
        }
    }

    /// Conversion by value. Float to integer truncates, saturates, and maps NaN to 0; integers
    /// wrap among themselves; to bool is `!= 0` (NaN is true); bool is 0 or 1. To a half float rounds
    /// once to nearest, ties to even; integers go there by way of `F64`.
    pub fn cast(self, to: DType) -> Self {
        macro_rules! to {
            ($v:expr) => {
                match to {
                    DType::F32 => Self::F32($v as f32),
                    DType::F64 => Self::F64($v as f64),
                    DType::I32 => Self::I32($v as i32),
                    DType::I64 => Self::I64($v as i64),
                    DType::Bool => Self::Bool($v as f64 != 0.0),
                    DType::U8 => Self::U8($v as u8),
                    DType::BF16 | DType::F16 => {
                        let bits = math::round_to_half(&mut Native, to, Self::F64($v as f64));
                        Self::from_bits(to, bits.bits())
                    }
                }
            };
        }
        match self {
            same if same.dtype() == to => same,
            Self::F32(v) => match to {
                DType::BF16 | DType::F16 => {
                    Self::from_bits(to, math::round_to_half(&mut Native, to, self).bits())
                }
                _ => to!(v),
            },
            Self::F64(v) => to!(v),
            Self::I32(v) => to!(v),
            Self::I64(v) if to == DType::Bool => Self::Bool(v != 0),
            Self::I64(v) => to!(v),
            Self::Bool(v) => to!(v as u8),
            Self::U8(v) => to!(v),
            Self::BF16(_) | Self::F16(_) => {
                let bits = Self::I32(self.bits() as i32);
                math::widen_half(&mut Native, self.dtype(), bits).cast(to)
            }
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.dtype() == other.dtype() && self.bits() == other.bits()
    }
}

impl Eq for Scalar {}

impl std::hash::Hash for Scalar {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.dtype(), self.bits()).hash(state);
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(v) => write!(f, "{v:?}"),
            Self::F64(v) => write!(f, "{v:?}"),
            Self::I32(v) => write!(f, "{v}"),
            Self::I64(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::U8(v) => write!(f, "{v}"),
            Self::BF16(v) => write!(f, "{:?}", v.to_f32()),
            Self::F16(v) => write!(f, "{:?}", v.to_f32()),
        }
    }
}

/// Comparison predicates. On floats all but `Ne` are false when an operand is NaN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CmpKind {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

impl CmpKind {
    /// Every predicate.
    pub const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Lt, Self::Le, Self::Gt, Self::Ge];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
        }
    }

    /// The truth of the predicate for `a` and `b`.
    pub fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Self::Eq => a == b,
            Self::Ne => a != b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
        }
    }
}

/// One lane-wise instruction. Operands of arithmetic have one element type, which is also the
/// result's; `Cmp` gives a bool. "int" below means `I32`, `I64` and `U8` (unsigned), "float" `F32`
/// and `F64`. Half floats have no arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScalarOp {
    /// A constant.
    Const(Scalar),
    /// float: flips the sign bit; int: wrapping.
    Neg,
    /// float: clears the sign bit; int: wrapping (`abs(MIN) = MIN`).
    Abs,
    /// float, int (wrapping).
    Add,
    /// float, int (wrapping).
    Sub,
    /// float, int (wrapping).
    Mul,
    /// float; int truncates, `x / 0 = -1` (255 for `U8`), `MIN / -1 = MIN`.
    Div,
    /// Remainder of the truncated quotient. int only: `x rem 0 = x`, `MIN rem -1 = 0`.
    Rem,
    /// float: `a * b + c` rounded once.
    Fma,
    /// float, correctly rounded.
    Sqrt,
    /// float, to an integral value.
    Floor,
    /// float, to an integral value.
    Ceil,
    /// float, to an integral value, towards zero.
    Trunc,
    /// float, to an integral value, ties to even.
    Round,
    /// `a < b || a is NaN ? a : b`. float, int.
    Min,
    /// `a > b || a is NaN ? a : b`. float, int.
    Max,
    /// Comparison; the result is a bool.
    Cmp(CmpKind),
    /// Bitwise on int, logical on bool.
    And,
    /// Bitwise on int, logical on bool.
    Or,
    /// Bitwise on int, logical on bool.
    Xor,
    /// Bitwise on int, logical on bool.
    Not,
    /// `c ? a : b` with a bool `c`; `a` and `b` of any one type.
    Select,
    /// int: shift left by a constant less than the width.
    Shl(u8),
    /// int: shift right by a constant, zeros enter.
    ShrL(u8),
    /// int: shift right by a constant, the sign enters (zeros for `U8`).
    ShrA(u8),
    /// `I32` taken as unsigned: the high 32 bits of the 64-bit product.
    MulHiU,
    /// Conversion by value, see [`Scalar::cast`].
    Cast(DType),
    /// Same bits, another type of the same size.
    Bitcast(DType),
}

impl ScalarOp {
    /// Number of operands.
    pub const fn arity(self) -> usize {
        match self {
            Self::Const(_) => 0,
            Self::Neg
            | Self::Abs
            | Self::Sqrt
            | Self::Floor
            | Self::Ceil
            | Self::Trunc
            | Self::Round
            | Self::Not => 1,
            Self::Shl(_) | Self::ShrL(_) | Self::ShrA(_) | Self::Cast(_) | Self::Bitcast(_) => 1,
            Self::Fma | Self::Select => 3,
            _ => 2,
        }
    }

    /// Element type of the result for operands of these types, or `None` if they do not fit.
    pub fn infer(self, args: &[DType]) -> Option<DType> {
        if args.len() != self.arity() {
            return None;
        }
        let same = args.windows(2).all(|w| w[0] == w[1]);
        let first = args.first().copied();
        match self {
            Self::Const(c) => Some(c.dtype()),
            Self::Neg | Self::Abs | Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Min | Self::Max => {
                first.filter(|d| same && *d != DType::Bool && !d.is_half())
            }
            Self::Rem | Self::Shl(_) | Self::ShrL(_) | Self::ShrA(_) => first.filter(|d| same && d.is_int()),
            Self::Fma | Self::Sqrt | Self::Floor | Self::Ceil | Self::Trunc | Self::Round => {
                first.filter(|d| same && d.is_float() && !d.is_half())
            }
            Self::Cmp(_) => (same && !args[0].is_half()).then_some(DType::Bool),
            Self::And | Self::Or | Self::Xor | Self::Not => first.filter(|d| same && !d.is_float()),
            Self::Select => (args[0] == DType::Bool && args[1] == args[2]).then_some(args[1]),
            Self::MulHiU => first.filter(|d| same && *d == DType::I32),
            Self::Cast(to) => Some(to),
            Self::Bitcast(to) => first.filter(|d| d.size_bytes() == to.size_bytes()).map(|_| to),
        }
    }

    /// The result. Panics if `infer` refuses the operand types: the callers have checked them.
    #[inline(always)]
    pub fn eval(self, args: &[Scalar]) -> Scalar {
        use Scalar::{Bool, F32, F64, I32, I64, U8};
        macro_rules! float1 {
            ($f:expr) => {
                match args[0] {
                    F32(a) => F32($f(a as _) as f32),
                    F64(a) => F64($f(a as _) as f64),
                    _ => ill_typed(self),
                }
            };
        }
        macro_rules! arith2 {
            ($float:tt, $int:ident) => {
                match (args[0], args[1]) {
                    (F32(a), F32(b)) => F32(a $float b),
                    (F64(a), F64(b)) => F64(a $float b),
                    (I32(a), I32(b)) => I32(a.$int(b)),
                    (I64(a), I64(b)) => I64(a.$int(b)),
                    (U8(a), U8(b)) => U8(a.$int(b)),
                    _ => ill_typed(self),
                }
            };
        }
        macro_rules! bit2 {
            ($op:tt) => {
                match (args[0], args[1]) {
                    (I32(a), I32(b)) => I32(a $op b),
                    (I64(a), I64(b)) => I64(a $op b),
                    (Bool(a), Bool(b)) => Bool(a $op b),
                    (U8(a), U8(b)) => U8(a $op b),
                    _ => ill_typed(self),
                }
            };
        }
        macro_rules! shift {
            ($i32:expr, $i64:expr, $u8:expr) => {
                match args[0] {
                    I32(a) => I32($i32(a)),
                    I64(a) => I64($i64(a)),
                    U8(a) => U8($u8(a)),
                    _ => ill_typed(self),
                }
            };
        }
        match self {
            Self::Const(c) => c,
            Self::Neg => match args[0] {
                F32(a) => F32(-a),
                F64(a) => F64(-a),
                I32(a) => I32(a.wrapping_neg()),
                I64(a) => I64(a.wrapping_neg()),
                U8(a) => U8(a.wrapping_neg()),
                _ => ill_typed(self),
            },
            Self::Abs => match args[0] {
                F32(a) => F32(a.abs()),
                F64(a) => F64(a.abs()),
                I32(a) => I32(a.wrapping_abs()),
                I64(a) => I64(a.wrapping_abs()),
                U8(a) => U8(a),
                _ => ill_typed(self),
            },
            Self::Add => arith2!(+, wrapping_add),
            Self::Sub => arith2!(-, wrapping_sub),
            Self::Mul => arith2!(*, wrapping_mul),
            Self::Div => match (args[0], args[1]) {
                (F32(a), F32(b)) => F32(a / b),
                (F64(a), F64(b)) => F64(a / b),
                (I32(_), I32(0)) => I32(-1),
                (I64(_), I64(0)) => I64(-1),
                (U8(_), U8(0)) => U8(u8::MAX),
                (U8(a), U8(b)) => U8(a / b),
                (I32(a), I32(b)) => I32(a.wrapping_div(b)),
                (I64(a), I64(b)) => I64(a.wrapping_div(b)),
                _ => ill_typed(self),
            },
            Self::Rem => match (args[0], args[1]) {
                (I32(a), I32(0)) => I32(a),
                (I64(a), I64(0)) => I64(a),
                (U8(a), U8(0)) => U8(a),
                (U8(a), U8(b)) => U8(a % b),
                (I32(a), I32(b)) => I32(a.wrapping_rem(b)),
                (I64(a), I64(b)) => I64(a.wrapping_rem(b)),
                _ => ill_typed(self),
            },
            Self::Fma => match (args[0], args[1], args[2]) {
                (F32(a), F32(b), F32(c)) => F32(a.mul_add(b, c)),
                (F64(a), F64(b), F64(c)) => F64(a.mul_add(b, c)),
                _ => ill_typed(self),
            },
            Self::Sqrt => match args[0] {
                F32(a) => F32(a.sqrt()),
                F64(a) => F64(a.sqrt()),
                _ => ill_typed(self),
            },
            Self::Floor => float1!(f64::floor),
            Self::Ceil => float1!(f64::ceil),
            Self::Trunc => float1!(f64::trunc),
            Self::Round => float1!(f64::round_ties_even),
            Self::Min => match (args[0], args[1]) {
                (F32(a), F32(b)) => F32(if a < b || a.is_nan() { a } else { b }),
                (F64(a), F64(b)) => F64(if a < b || a.is_nan() { a } else { b }),
                (I32(a), I32(b)) => I32(a.min(b)),
                (I64(a), I64(b)) => I64(a.min(b)),
                (U8(a), U8(b)) => U8(a.min(b)),
                _ => ill_typed(self),
            },
            Self::Max => match (args[0], args[1]) {
                (F32(a), F32(b)) => F32(if a > b || a.is_nan() { a } else { b }),
                (F64(a), F64(b)) => F64(if a > b || a.is_nan() { a } else { b }),
                (I32(a), I32(b)) => I32(a.max(b)),
                (I64(a), I64(b)) => I64(a.max(b)),
                (U8(a), U8(b)) => U8(a.max(b)),
                _ => ill_typed(self),
            },
            Self::Cmp(kind) => Bool(match (args[0], args[1]) {
                (F32(a), F32(b)) => kind.holds(a, b),
                (F64(a), F64(b)) => kind.holds(a, b),
                (I32(a), I32(b)) => kind.holds(a, b),
                (I64(a), I64(b)) => kind.holds(a, b),
                (U8(a), U8(b)) => kind.holds(a, b),
                (Bool(a), Bool(b)) => kind.holds(a, b),
                _ => ill_typed(self),
            }),
            Self::And => bit2!(&),
            Self::Or => bit2!(|),
            Self::Xor => bit2!(^),
            Self::Not => match args[0] {
                I32(a) => I32(!a),
                I64(a) => I64(!a),
                U8(a) => U8(!a),
                Bool(a) => Bool(!a),
                _ => ill_typed(self),
            },
            Self::Select => match args[0] {
                Bool(true) => args[1],
                Bool(false) => args[2],
                _ => ill_typed(self),
            },
            Self::Shl(n) => shift!(|a: i32| a << n, |a: i64| a << n, |a: u8| a << n),
            Self::ShrL(n) => {
                shift!(|a: i32| ((a as u32) >> n) as i32, |a: i64| ((a as u64) >> n) as i64, |a: u8| a >> n)
            }
            Self::ShrA(n) => shift!(|a: i32| a >> n, |a: i64| a >> n, |a: u8| a >> n),
            Self::MulHiU => match (args[0], args[1]) {
                (I32(a), I32(b)) => I32(((a as u32 as u64 * b as u32 as u64) >> 32) as i32),
                _ => ill_typed(self),
            },
            Self::Cast(to) => args[0].cast(to),
            Self::Bitcast(to) => Scalar::from_bits(to, args[0].bits()),
        }
    }
}

#[cold]
fn ill_typed(op: ScalarOp) -> ! {
    panic!("{op:?} on operand types that ScalarOp::infer refuses")
}

/// Writes lane-wise code: implemented by [`ScalarFn`] (records it), [`Native`] (runs it) and the
/// compiler's vector IR. Elementary functions ([`crate::math`]) are generic over it, so that there
/// is one definition of each and it gives the same bits everywhere.
pub trait ScalarBuilder {
    /// A value.
    type V: Copy;

    /// Appends one instruction. The operand types must fit (see [`ScalarOp::infer`]).
    fn op(&mut self, op: ScalarOp, args: &[Self::V]) -> Self::V;

    /// The element type of a value.
    fn dtype(&self, v: Self::V) -> DType;

    /// A constant.
    #[inline(always)]
    fn constant(&mut self, value: Scalar) -> Self::V {
        self.op(ScalarOp::Const(value), &[])
    }
    /// An `f32` constant.
    #[inline(always)]
    fn f32(&mut self, value: f32) -> Self::V {
        self.constant(Scalar::F32(value))
    }
    /// An `f64` constant.
    #[inline(always)]
    fn f64(&mut self, value: f64) -> Self::V {
        self.constant(Scalar::F64(value))
    }
    /// An `i32` constant.
    #[inline(always)]
    fn i32(&mut self, value: i32) -> Self::V {
        self.constant(Scalar::I32(value))
    }
    /// An `i64` constant.
    #[inline(always)]
    fn i64(&mut self, value: i64) -> Self::V {
        self.constant(Scalar::I64(value))
    }
    /// A constant of `like`'s type, converted from `value`.
    #[inline(always)]
    fn number(&mut self, like: Self::V, value: f64) -> Self::V {
        let dtype = self.dtype(like);
        self.constant(Scalar::from_f64(dtype, value))
    }
    /// `-a`
    #[inline(always)]
    fn neg(&mut self, a: Self::V) -> Self::V {
        self.op(ScalarOp::Neg, &[a])
    }
    /// `|a|`
    #[inline(always)]
    fn abs(&mut self, a: Self::V) -> Self::V {
        self.op(ScalarOp::Abs, &[a])
    }
    /// `a + b`
    #[inline(always)]
    fn add(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Add, &[a, b])
    }
    /// `a - b`
    #[inline(always)]
    fn sub(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Sub, &[a, b])
    }
    /// `a * b`
    #[inline(always)]
    fn mul(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Mul, &[a, b])
    }
    /// `a / b`
    #[inline(always)]
    fn div(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Div, &[a, b])
    }
    /// `a * b + c`, rounded once.
    #[inline(always)]
    fn fma(&mut self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.op(ScalarOp::Fma, &[a, b, c])
    }
    /// The square root.
    #[inline(always)]
    fn sqrt(&mut self, a: Self::V) -> Self::V {
        self.op(ScalarOp::Sqrt, &[a])
    }
    /// To an integral value, ties to even.
    #[inline(always)]
    fn round(&mut self, a: Self::V) -> Self::V {
        self.op(ScalarOp::Round, &[a])
    }
    /// NaN-propagating minimum.
    #[inline(always)]
    fn min(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Min, &[a, b])
    }
    /// NaN-propagating maximum.
    #[inline(always)]
    fn max(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Max, &[a, b])
    }
    /// A comparison.
    #[inline(always)]
    fn cmp(&mut self, kind: CmpKind, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Cmp(kind), &[a, b])
    }
    /// `c ? a : b`
    #[inline(always)]
    fn select(&mut self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Select, &[c, a, b])
    }
    /// Bitwise or logical and.
    #[inline(always)]
    fn and(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::And, &[a, b])
    }
    /// Bitwise or logical or.
    #[inline(always)]
    fn or(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Or, &[a, b])
    }
    /// Bitwise or logical exclusive or.
    #[inline(always)]
    fn xor(&mut self, a: Self::V, b: Self::V) -> Self::V {
        self.op(ScalarOp::Xor, &[a, b])
    }
    /// Conversion by value.
    #[inline(always)]
    fn cast(&mut self, to: DType, a: Self::V) -> Self::V {
        self.op(ScalarOp::Cast(to), &[a])
    }
    /// Same bits as another type.
    #[inline(always)]
    fn bitcast(&mut self, to: DType, a: Self::V) -> Self::V {
        self.op(ScalarOp::Bitcast(to), &[a])
    }
}

/// Runs each instruction at once on scalars.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl ScalarBuilder for Native {
    type V = Scalar;
    #[inline(always)]
    fn op(&mut self, op: ScalarOp, args: &[Scalar]) -> Scalar {
        op.eval(args)
    }
    #[inline(always)]
    fn dtype(&self, v: Scalar) -> DType {
        v.dtype()
    }
}

/// A value of a [`ScalarFn`]: arguments first, then one per instruction.
pub type ScalarId = u32;

/// One recorded instruction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScalarInst {
    /// What it does.
    pub op: ScalarOp,
    /// Its operands, all earlier values.
    pub args: SmallVec<[ScalarId; 3]>,
    /// Element type of its result.
    pub dtype: DType,
}

/// A recorded lane-wise function: straight-line, pure, one result.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScalarFn {
    args: Vec<DType>,
    insts: Vec<ScalarInst>,
    result: ScalarId,
}

impl ScalarFn {
    /// Records `body` on arguments of these types.
    pub fn record(args: &[DType], body: impl FnOnce(&mut Self, &[ScalarId]) -> ScalarId) -> Self {
        let mut f = Self { args: args.to_vec(), insts: Vec::new(), result: 0 };
        let ids: Vec<ScalarId> = (0..args.len() as ScalarId).collect();
        f.result = body(&mut f, &ids);
        f
    }

    /// Element types of the arguments.
    pub fn args(&self) -> &[DType] {
        &self.args
    }

    /// The instructions; instruction `i` defines value `args().len() + i`.
    pub fn insts(&self) -> &[ScalarInst] {
        &self.insts
    }

    /// Replays the function into another builder and returns its result there.
    pub fn emit<B: ScalarBuilder>(&self, b: &mut B, args: &[B::V]) -> B::V {
        debug_assert_eq!(args.len(), self.args.len());
        let mut values = args.to_vec();
        for inst in &self.insts {
            let operands: SmallVec<[B::V; 3]> = inst.args.iter().map(|&a| values[a as usize]).collect();
            values.push(b.op(inst.op, &operands));
        }
        values[self.result as usize]
    }
}

impl ScalarBuilder for ScalarFn {
    type V = ScalarId;
    fn op(&mut self, op: ScalarOp, args: &[ScalarId]) -> ScalarId {
        let types: SmallVec<[DType; 3]> = args.iter().map(|&a| self.dtype(a)).collect();
        let dtype = op.infer(&types).unwrap_or_else(|| panic!("{op:?} does not take {types:?}"));
        self.insts.push(ScalarInst { op, args: args.into(), dtype });
        (self.args.len() + self.insts.len() - 1) as ScalarId
    }
    fn dtype(&self, v: ScalarId) -> DType {
        let v = v as usize;
        if v < self.args.len() { self.args[v] } else { self.insts[v - self.args.len()].dtype }
    }
}
