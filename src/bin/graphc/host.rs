//! Elements of inputs and outputs in memory.

use graphc::{DType, Value, ValueMut};

/// A tensor's elements, row-major.
pub(super) enum Host {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

impl Host {
    /// `n` elements, converted from what `value` gives for each index.
    pub(super) fn new(dtype: DType, n: usize, mut value: impl FnMut(usize) -> f64) -> Self {
        match dtype {
            DType::F32 => Self::F32((0..n).map(|i| value(i) as f32).collect()),
            DType::F64 => Self::F64((0..n).map(value).collect()),
            DType::I32 => Self::I32((0..n).map(|i| value(i) as i32).collect()),
            DType::I64 => Self::I64((0..n).map(|i| value(i) as i64).collect()),
            DType::Bool => Self::Bool((0..n).map(|i| value(i) != 0.0).collect()),
        }
    }

    /// The elements, to read.
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::F32(v) => v.into(),
            Self::F64(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::I64(v) => v.into(),
            Self::Bool(v) => v.into(),
        }
    }

    /// The elements, to write.
    pub(super) fn value_mut(&mut self) -> ValueMut<'_> {
        match self {
            Self::F32(v) => ValueMut::F32(v),
            Self::F64(v) => ValueMut::F64(v),
            Self::I32(v) => ValueMut::I32(v),
            Self::I64(v) => ValueMut::I64(v),
            Self::Bool(v) => ValueMut::Bool(v),
        }
    }
}
