//! Questions about elements, and whether any or all of them hold.

use crate::builder::Tensor;
use crate::types::{DType, Dim, Shape};

impl<'f> Tensor<'f> {
    /// True where an element is an infinity. Floats.
    #[track_caller]
    pub fn is_inf(self) -> Self {
        self.abs().eq(f64::INFINITY)
    }

    /// True where an element is neither infinite nor NaN. Floats.
    #[track_caller]
    pub fn is_finite(self) -> Self {
        self.abs().lt(f64::INFINITY)
    }

    /// Whether any element over `axes` of a bool tensor is true; false over nothing.
    #[track_caller]
    pub fn any(self, axes: &[usize]) -> Self {
        self.flags("any").reduce_max(axes).gt(0.0)
    }

    /// Whether all elements over `axes` of a bool tensor are true; true over nothing.
    #[track_caller]
    pub fn all(self, axes: &[usize]) -> Self {
        self.flags("all").reduce_min(axes).gt(0.0)
    }

    /// How many elements over `axes` are not zero, i64.
    #[track_caller]
    pub fn count_nonzero(self, axes: &[usize]) -> Self {
        let flags = if self.dtype() == DType::Bool { self } else { self.ne(0.0) };
        flags.cast(DType::I64).reduce_sum(axes)
    }

    /// For lengths `[B..]` of sequences, integers: which of `steps` positions are within each, a bool
    /// `[B.., steps]`.
    #[track_caller]
    pub fn sequence_mask(self, steps: impl Into<Dim>) -> Self {
        if self.is_poison() {
            return self;
        }
        let (lengths, axis) = (self.shape(), self.rank());
        let shape: Shape = lengths.iter().cloned().chain([steps.into()]).collect();
        let kept: Vec<usize> = (0..axis).collect();
        let position = self.builder().iota(self.dtype(), &shape, axis);
        position.lt(self.broadcast(&shape, &kept))
    }

    #[track_caller]
    fn flags(self, op: &str) -> Self {
        if !self.is_poison() && self.dtype() != DType::Bool {
            self.builder().misuse(format!("{op}: the operand is {}, must be bool", self.ty()));
            return self.builder().poison();
        }
        self.cast(DType::I32)
    }
}
