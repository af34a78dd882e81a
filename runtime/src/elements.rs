//! Elements of a tensor in memory of their own.

use crate::value::{Value, ValueMut, with_type};
use graphc_ir::{DType, Literal, Scalar};
use half::{bf16, f16};

/// The elements of a tensor, row-major, of any element type: what an input is read from or an output
/// written to where the type is not known in advance.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// `f32`
    F32(Vec<f32>),
    /// `f64`
    F64(Vec<f64>),
    /// `i32`
    I32(Vec<i32>),
    /// `i64`
    I64(Vec<i64>),
    /// `bool`
    Bool(Vec<bool>),
    /// `u8`
    U8(Vec<u8>),
    /// `bf16`
    BF16(Vec<bf16>),
    /// `f16`
    F16(Vec<f16>),
}

macro_rules! each {
    ($self:expr, $v:ident => $body:expr) => {
        match $self {
            Elements::F32($v) => $body,
            Elements::F64($v) => $body,
            Elements::I32($v) => $body,
            Elements::I64($v) => $body,
            Elements::Bool($v) => $body,
            Elements::U8($v) => $body,
            Elements::BF16($v) => $body,
            Elements::F16($v) => $body,
        }
    };
}

impl Elements {
    /// `n` zeros.
    pub fn zeros(dtype: DType, n: usize) -> Self {
        with_type!(dtype, T => vec![T::default(); n].into())
    }

    /// `n` elements: `value(i)`, converted as [`Scalar::cast`] does.
    pub fn from_fn(dtype: DType, n: usize, mut value: impl FnMut(usize) -> f64) -> Self {
        Self::from(&Literal::from_fn(dtype, &[n], |i| Scalar::F64(value(i))))
    }

    /// Element `i`.
    ///
    /// # Panics
    /// If there are no more than `i` elements.
    pub fn get(&self, i: usize) -> Scalar {
        each!(self, v => graphc_ir::Element::to_scalar(v[i]))
    }

    /// Overwrites the elements from `at` on with those of `from`.
    ///
    /// # Panics
    /// If they are of another type, or there are not so many.
    pub fn write(&mut self, at: usize, from: Value<'_>) {
        let (dtype, given) = (self.value().dtype(), from.dtype());
        each!(self, v => {
            let from = from.get().unwrap_or_else(|| panic!("elements of {given} instead of {dtype}"));
            v[at..at + from.len()].copy_from_slice(from);
        });
    }

    /// To be read.
    pub fn value(&self) -> Value<'_> {
        each!(self, v => v.into())
    }

    /// To be written.
    pub fn value_mut(&mut self) -> ValueMut<'_> {
        each!(self, v => v.into())
    }
}

macro_rules! from_vec {
    ($($variant:ident($t:ty)),*) => {
        $(impl From<Vec<$t>> for Elements {
            fn from(elements: Vec<$t>) -> Self {
                Self::$variant(elements)
            }
        })*
    };
}
from_vec!(F32(f32), F64(f64), I32(i32), I64(i64), Bool(bool), U8(u8), BF16(bf16), F16(f16));

impl From<&Literal> for Elements {
    fn from(literal: &Literal) -> Self {
        fn of<T: graphc_ir::Element>(literal: &Literal) -> Vec<T> {
            literal.as_slice().expect("the type asked for is that of the literal").to_vec()
        }
        with_type!(literal.dtype(), T => of::<T>(literal).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_every_type() {
        for dtype in DType::ALL {
            let mut elements = Elements::zeros(dtype, 3);
            assert_eq!((elements.value().dtype(), elements.value().len()), (dtype, 3));
            assert_eq!(elements.value_mut().dtype(), dtype);
            assert_eq!(elements.get(2), Scalar::from_bits(dtype, 0));
            assert_eq!(elements, Elements::from_fn(dtype, 3, |_| 0.0));
            assert_eq!(elements, Elements::from(&Literal::full(&[3], Scalar::from_bits(dtype, 0))));
        }
        let mut some = Elements::from(vec![1i32, 2, 3]);
        some.write(1, Elements::from(vec![7i32, 8, 9]).value().slice(1..3));
        assert_eq!(some, Elements::I32(vec![1, 8, 9]));
        assert_eq!(Elements::from_fn(DType::U8, 2, |i| i as f64 * 300.0), Elements::U8(vec![0, 255]));
    }
}
