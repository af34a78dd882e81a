//! Host tensors: dense values in row-major order.

use crate::scalar::Scalar;
use crate::types::{DType, TensorType, checked_product};
use half::{bf16, f16};
use std::sync::Arc;

/// A Rust type that is an element type of tensors.
pub trait Element: Copy + Send + Sync + 'static + sealed::Sealed {
    /// The element type.
    const DTYPE: DType;
    /// The value as a [`Scalar`].
    fn to_scalar(self) -> Scalar;
    /// The value of a [`Scalar`] of this very type, else `None`.
    fn from_scalar(s: Scalar) -> Option<Self>;
    #[doc(hidden)]
    fn wrap(v: Vec<Self>) -> Data;
    #[doc(hidden)]
    fn view(d: &Data) -> Option<&[Self]>;
}

mod sealed {
    pub trait Sealed {}
}

/// Elements of a literal.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    U8(Vec<u8>),
    BF16(Vec<bf16>),
    F16(Vec<f16>),
}

macro_rules! elements {
    ($($t:ty, $variant:ident);*) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn to_scalar(self) -> Scalar { Scalar::$variant(self) }
            fn from_scalar(s: Scalar) -> Option<Self> {
                match s { Scalar::$variant(v) => Some(v), _ => None }
            }
            fn wrap(v: Vec<Self>) -> Data { Data::$variant(v) }
            fn view(d: &Data) -> Option<&[Self]> {
                match d { Data::$variant(v) => Some(v), _ => None }
            }
        }
    )*};
}
elements!(f32, F32; f64, F64; i32, I32; i64, I64; bool, Bool; u8, U8; bf16, BF16; f16, F16);

/// A tensor value on the host. Cheap to clone. Equality and hash are those of type and bits, so
/// NaN equals itself and -0 differs from 0.
#[derive(Clone, Debug)]
pub struct Literal {
    dims: Vec<usize>,
    data: Arc<Data>,
}

impl Literal {
    /// A literal of extents `dims` from its elements in row-major order, or `None` if their number
    /// is not the product of the extents.
    pub fn new<T: Element>(dims: &[usize], elements: Vec<T>) -> Option<Self> {
        (checked_product(dims)? == elements.len())
            .then(|| Self { dims: dims.to_vec(), data: Arc::new(T::wrap(elements)) })
    }

    /// A literal of extents `dims` and type `dtype` whose element `i` (row-major) is `f(i)`
    /// converted to `dtype`.
    pub fn from_fn(dtype: DType, dims: &[usize], mut f: impl FnMut(usize) -> Scalar) -> Self {
        Self::collect(dtype, dims, &mut f)
    }

    /// [`Self::from_fn`], once for all functions: there would be a loop for each type of each of them.
    fn collect(dtype: DType, dims: &[usize], f: &mut dyn FnMut(usize) -> Scalar) -> Self {
        let n: usize = dims.iter().product();
        macro_rules! collect {
            ($variant:ident) => {
                Data::$variant(
                    (0..n)
                        .map(|i| match f(i).cast(dtype) {
                            Scalar::$variant(v) => v,
                            _ => unreachable!("cast gives the type asked for"),
                        })
                        .collect(),
                )
            };
        }
        let data = match dtype {
            DType::F32 => collect!(F32),
            DType::F64 => collect!(F64),
            DType::I32 => collect!(I32),
            DType::I64 => collect!(I64),
            DType::Bool => collect!(Bool),
            DType::U8 => collect!(U8),
            DType::BF16 => collect!(BF16),
            DType::F16 => collect!(F16),
        };
        Self { dims: dims.to_vec(), data: Arc::new(data) }
    }

    /// A scalar literal.
    pub fn scalar(value: Scalar) -> Self {
        Self::from_fn(value.dtype(), &[], |_| value)
    }

    /// `value` repeated over `dims`.
    pub fn full(dims: &[usize], value: Scalar) -> Self {
        Self::from_fn(value.dtype(), dims, |_| value)
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &*self.data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::Bool(v) => v.len(),
            Data::U8(v) => v.len(),
            Data::BF16(v) => v.len(),
            Data::F16(v) => v.len(),
        }
    }

    /// True if an extent is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &*self.data {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::Bool(_) => DType::Bool,
            Data::U8(_) => DType::U8,
            Data::BF16(_) => DType::BF16,
            Data::F16(_) => DType::F16,
        }
    }

    /// Its type.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype(), self.dims.as_slice())
    }

    /// Element `i` in row-major order.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn get(&self, i: usize) -> Scalar {
        match &*self.data {
            Data::F32(v) => Scalar::F32(v[i]),
            Data::F64(v) => Scalar::F64(v[i]),
            Data::I32(v) => Scalar::I32(v[i]),
            Data::I64(v) => Scalar::I64(v[i]),
            Data::Bool(v) => Scalar::Bool(v[i]),
            Data::U8(v) => Scalar::U8(v[i]),
            Data::BF16(v) => Scalar::BF16(v[i]),
            Data::F16(v) => Scalar::F16(v[i]),
        }
    }

    /// The elements, if they are of type `T`.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::view(&self.data)
    }

    /// The same elements under other extents of the same product.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        assert_eq!(dims.iter().product::<usize>(), self.len(), "reshape keeps the number of elements");
        Self { dims: dims.to_vec(), data: self.data.clone() }
    }

    /// Element `index` of the first axis: the literal without that axis.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn element(&self, index: usize) -> Self {
        assert!(index < self.dims[0], "element {index} of {}", self.dims[0]);
        let dims = &self.dims[1..];
        let n: usize = dims.iter().product();
        Self::from_fn(self.dtype(), dims, |i| self.get(index * n + i))
    }

    /// The literal whose elements along a new first axis are `elements`, all of type `dtype` and
    /// extents `dims`.
    ///
    /// # Panics
    /// If an element has fewer values.
    pub fn stack(dtype: DType, dims: &[usize], elements: &[Self]) -> Self {
        let n: usize = dims.iter().product();
        let stacked: Vec<usize> = std::iter::once(elements.len()).chain(dims.iter().copied()).collect();
        Self::from_fn(dtype, &stacked, |i| elements[i / n].get(i % n))
    }

    /// `Some(v)` if there is at least one element and all have the bits of `v`.
    pub fn splat_value(&self) -> Option<Scalar> {
        let first = (!self.is_empty()).then(|| self.get(0))?;
        (1..self.len()).all(|i| self.get(i) == first).then_some(first)
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.dims == other.dims
            && self.dtype() == other.dtype()
            && (Arc::ptr_eq(&self.data, &other.data) || (0..self.len()).all(|i| self.get(i) == other.get(i)))
    }
}

impl Eq for Literal {}

impl std::hash::Hash for Literal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.dims.hash(state);
        for i in 0..self.len() {
            self.get(i).hash(state);
        }
    }
}

/// Row-major strides of a dense tensor, in elements.
pub fn row_major_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i].max(1);
    }
    strides
}

/// Every index of extents `dims` in row-major order.
pub fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let dims = dims.to_vec();
    let n: usize = dims.iter().product();
    let strides = row_major_strides(&dims);
    (0..n).map(move |i| strides.iter().zip(&dims).map(|(s, d)| i / s % d).collect())
}

/// Row-major position of `index` in extents `dims`.
pub fn linear_index(index: &[usize], dims: &[usize]) -> usize {
    index.iter().zip(dims).fold(0, |acc, (i, d)| acc * d + i)
}
