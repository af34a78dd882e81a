//! Slices of the element types: how inputs, outputs and state entries are handed over.

use graphc_ir::DType;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is the element type of tensors: `f32`, `f64`, `i32`, `i64`, `bool`,
/// `u8`, or one of the half floats of the crate `half`.
pub trait Element: Copy + Send + Sync + std::fmt::Debug + sealed::Sealed + 'static {
    /// The element type it is.
    const DTYPE: DType;
    /// A slice of it as a [`Value`].
    fn value(elements: &[Self]) -> Value<'_>;
    /// A slice of it as a [`ValueMut`].
    fn value_mut(elements: &mut [Self]) -> ValueMut<'_>;
    /// The slice in a value of this element type.
    fn of<'a>(value: &Value<'a>) -> Option<&'a [Self]>;
}

/// Elements to read, row-major.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// `f32`
    F32(&'a [f32]),
    /// `f64`
    F64(&'a [f64]),
    /// `i32`
    I32(&'a [i32]),
    /// `i64`
    I64(&'a [i64]),
    /// `bool`
    Bool(&'a [bool]),
    /// `u8`
    U8(&'a [u8]),
    /// `bf16`
    BF16(&'a [bf16]),
    /// `f16`
    F16(&'a [f16]),
}

/// Elements to write, row-major.
#[derive(PartialEq, Debug)]
pub enum ValueMut<'a> {
    /// `f32`
    F32(&'a mut [f32]),
    /// `f64`
    F64(&'a mut [f64]),
    /// `i32`
    I32(&'a mut [i32]),
    /// `i64`
    I64(&'a mut [i64]),
    /// `bool`
    Bool(&'a mut [bool]),
    /// `u8`
    U8(&'a mut [u8]),
    /// `bf16`
    BF16(&'a mut [bf16]),
    /// `f16`
    F16(&'a mut [f16]),
}

macro_rules! each {
    ($enum:ident, $value:expr, $slice:ident => $body:expr) => {
        match $value {
            $enum::F32($slice) => $body,
            $enum::F64($slice) => $body,
            $enum::I32($slice) => $body,
            $enum::I64($slice) => $body,
            $enum::Bool($slice) => $body,
            $enum::U8($slice) => $body,
            $enum::BF16($slice) => $body,
            $enum::F16($slice) => $body,
        }
    };
}

/// `body` with `$t` as the Rust type of an element type.
macro_rules! with_type {
    ($dtype:expr, $t:ident => $body:expr) => {{
        macro_rules! arm {
            ($ty:ty) => {{
                type $t = $ty;
                $body
            }};
        }
        match $dtype {
            DType::F32 => arm!(f32),
            DType::F64 => arm!(f64),
            DType::I32 => arm!(i32),
            DType::I64 => arm!(i64),
            DType::Bool => arm!(bool),
            DType::U8 => arm!(u8),
            DType::BF16 => arm!(half::bf16),
            DType::F16 => arm!(half::f16),
        }
    }};
}
pub(crate) use with_type;

impl<'a> Value<'a> {
    /// Element type.
    pub const fn dtype(&self) -> DType {
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

    /// Number of elements.
    pub const fn len(&self) -> usize {
        each!(Self, self, slice => slice.len())
    }

    /// True if there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slice, if `T` is the element type.
    pub fn get<T: Element>(&self) -> Option<&'a [T]> {
        T::of(self)
    }

    /// Elements `range`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        each!(Self, *self, slice => slice[range].into())
    }

    /// The elements as they are in memory, in the machine's byte order.
    pub fn as_bytes(&self) -> &'a [u8] {
        // SAFETY: every element type is without padding, so all bytes of the slice are initialized;
        // bytes have no alignment, and the lifetime is that of the slice.
        each!(Self, *self, slice => unsafe {
            std::slice::from_raw_parts(slice.as_ptr().cast(), size_of_val(slice))
        })
    }

    pub(crate) const fn as_ptr(&self) -> *const u8 {
        each!(Self, self, slice => slice.as_ptr().cast())
    }
}

impl ValueMut<'_> {
    /// Element type.
    pub const fn dtype(&self) -> DType {
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

    /// Number of elements.
    pub const fn len(&self) -> usize {
        each!(Self, self, slice => slice.len())
    }

    /// True if there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, to read.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::F32(slice) => Value::F32(slice),
            Self::F64(slice) => Value::F64(slice),
            Self::I32(slice) => Value::I32(slice),
            Self::I64(slice) => Value::I64(slice),
            Self::Bool(slice) => Value::Bool(slice),
            Self::U8(slice) => Value::U8(slice),
            Self::BF16(slice) => Value::BF16(slice),
            Self::F16(slice) => Value::F16(slice),
        }
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut u8 {
        each!(Self, self, slice => slice.as_mut_ptr().cast())
    }
}

macro_rules! element {
    ($($ty:ty => $variant:ident),*) => { $(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$variant;
            fn value(elements: &[Self]) -> Value<'_> {
                Value::$variant(elements)
            }
            fn value_mut(elements: &mut [Self]) -> ValueMut<'_> {
                ValueMut::$variant(elements)
            }
            fn of<'a>(value: &Value<'a>) -> Option<&'a [Self]> {
                match value {
                    Value::$variant(slice) => Some(slice),
                    _ => None,
                }
            }
        }
        impl<'a> From<&'a $ty> for Value<'a> {
            fn from(scalar: &'a $ty) -> Self {
                Self::$variant(std::slice::from_ref(scalar))
            }
        }
        impl<'a> From<&'a mut $ty> for ValueMut<'a> {
            fn from(scalar: &'a mut $ty) -> Self {
                Self::$variant(std::slice::from_mut(scalar))
            }
        }
    )* };
}

element!(f32 => F32, f64 => F64, i32 => I32, i64 => I64, bool => Bool, u8 => U8, bf16 => BF16, f16 => F16);

impl<'a, T: Element> From<&'a [T]> for Value<'a> {
    fn from(slice: &'a [T]) -> Self {
        T::value(slice)
    }
}

impl<'a, T: Element> From<&'a Vec<T>> for Value<'a> {
    fn from(vec: &'a Vec<T>) -> Self {
        T::value(vec)
    }
}

impl<'a, T: Element, const N: usize> From<&'a [T; N]> for Value<'a> {
    fn from(array: &'a [T; N]) -> Self {
        T::value(array)
    }
}

impl<'a, T: Element> From<&'a mut [T]> for ValueMut<'a> {
    fn from(slice: &'a mut [T]) -> Self {
        T::value_mut(slice)
    }
}

impl<'a, T: Element> From<&'a mut Vec<T>> for ValueMut<'a> {
    fn from(vec: &'a mut Vec<T>) -> Self {
        T::value_mut(vec)
    }
}

impl<'a, T: Element, const N: usize> From<&'a mut [T; N]> for ValueMut<'a> {
    fn from(array: &'a mut [T; N]) -> Self {
        T::value_mut(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_keep_type_and_length() {
        let vec = vec![1.0f32, 2.0];
        assert_eq!(Value::from(&vec), Value::F32(&[1.0, 2.0]));
        assert_eq!(Value::from(&7i64), Value::I64(&[7]));
        assert_eq!(Value::from(&[true, false]), Value::Bool(&[true, false]));
        assert_eq!(Value::from(&vec[..1]).len(), 1);
        assert_eq!(Value::from(&vec).get::<f32>(), Some(&vec[..]));
        assert_eq!(Value::from(&vec).get::<i32>(), None);
        assert_eq!(Value::from(&[1i32, -1]).as_bytes(), [1i32.to_ne_bytes(), (-1i32).to_ne_bytes()].concat());
        let mut scalar = 0.0f64;
        assert_eq!(ValueMut::from(&mut scalar).dtype(), DType::F64);
        let mut array = [0i32; 3];
        assert_eq!(ValueMut::from(&mut array).as_value(), Value::I32(&[0, 0, 0]));
        assert!(ValueMut::from(&mut [0f32; 0]).is_empty());
    }
}
