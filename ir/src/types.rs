//! Types of tensors: element type and shape. Nothing here holds data.

pub(crate) use crate::dim::Dim;
use std::fmt;

/// Largest rank of a tensor.
pub const MAX_RANK: usize = 8;

/// Largest number of elements of a tensor (2^40). Every product of extents is checked against it,
/// so offsets and byte sizes always fit in an `i64`.
pub const MAX_ELEMENTS: usize = 1 << 40;

/// Element type of a tensor. There is no implicit conversion between any two of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum DType {
    /// IEEE-754 binary32.
    F32,
    /// IEEE-754 binary64.
    F64,
    /// 32-bit two's complement integer.
    I32,
    /// 64-bit two's complement integer.
    I64,
    /// Truth value, one byte in memory (0 or 1).
    Bool,
    /// 8-bit unsigned integer.
    U8,
    /// bfloat16: the upper half of an `F32`. For storage: arithmetic is done in `F32` and rounded.
    BF16,
    /// IEEE-754 binary16. For storage: arithmetic is done in `F32` and rounded.
    F16,
}

impl DType {
    /// Every element type.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F64, Self::I32, Self::I64, Self::Bool, Self::U8, Self::BF16, Self::F16];

    /// Size of one element in memory, in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::BF16 | Self::F16 => 2,
            Self::Bool | Self::U8 => 1,
        }
    }

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The element type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// True for the types with fractions, which have gradients: `F32`, `F64`, `BF16` and `F16`.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64) || self.is_half()
    }

    /// True for `BF16` and `F16`, which are moved and converted but have no arithmetic of their own.
    pub const fn is_half(self) -> bool {
        matches!(self, Self::BF16 | Self::F16)
    }

    /// True for `I32`, `I64` and `U8`.
    pub const fn is_int(self) -> bool {
        matches!(self, Self::I32 | Self::I64 | Self::U8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a tensor, outermost first. Rank 0 is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shape(Vec<Dim>);

impl Shape {
    /// The shape of a scalar.
    pub const fn scalar() -> Self {
        Self(Vec::new())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// Extents as numbers, or `None` while a dimension is named.
    pub fn as_static(&self) -> Option<Vec<usize>> {
        self.0.iter().map(Dim::as_const).collect()
    }

    /// Number of elements as a dimension; `None` if that is beyond the limits of expressions.
    pub fn volume(&self) -> Option<Dim> {
        self.0.iter().try_fold(Dim::Const(1), |n, d| n.checked_mul(d))
    }

    /// Number of elements: `None` while a dimension is named or when it exceeds [`MAX_ELEMENTS`].
    pub fn num_elements(&self) -> Option<usize> {
        checked_product(&self.as_static()?)
    }
}

/// Product of `extents`, or `None` above [`MAX_ELEMENTS`]. Zero extents make it 0, but the other
/// extents are held to the limit all the same.
pub fn checked_product(extents: &[usize]) -> Option<usize> {
    let bound = extents
        .iter()
        .try_fold(1usize, |acc, &d| acc.checked_mul(d.max(1)).filter(|&n| n <= MAX_ELEMENTS))?;
    Some(if extents.contains(&0) { 0 } else { bound })
}

impl std::ops::Deref for Shape {
    type Target = [Dim];
    fn deref(&self) -> &[Dim] {
        &self.0
    }
}

impl<D: Into<Dim>> FromIterator<D> for Shape {
    fn from_iter<I: IntoIterator<Item = D>>(iter: I) -> Self {
        Self(iter.into_iter().map(Into::into).collect())
    }
}

impl From<Vec<Dim>> for Shape {
    fn from(dims: Vec<Dim>) -> Self {
        Self(dims)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        dims.iter().copied().collect()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        dims.into_iter().collect()
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            d.fmt(f)?;
        }
        f.write_str("]")
    }
}

/// Builds a [`Shape`] from numbers, names and dimensions: `shape!["B", 784]`.
#[macro_export]
macro_rules! shape {
    ($($dim:expr),* $(,)?) => {
        $crate::Shape::from(vec![$($crate::Dim::from($dim)),*])
    };
}

/// Element type and shape of a tensor. Prints as `f32[B, 784]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor type.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// The type of a scalar.
    pub const fn scalar(dtype: DType) -> Self {
        Self { dtype, shape: Shape::scalar() }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// Same shape, another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, shape: self.shape.clone() }
    }

    /// Same element type, another shape.
    pub fn with_shape(&self, shape: impl Into<Shape>) -> Self {
        Self { dtype: self.dtype, shape: shape.into() }
    }

    /// Size in bytes, or `None` while a dimension is named or beyond the limit.
    pub fn size_bytes(&self) -> Option<usize> {
        Some(self.shape.num_elements()? * self.dtype.size_bytes())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
