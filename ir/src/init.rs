//! Initializers of state variables. Each is a distribution with explicit numbers; random ones are
//! keyed by the seed and the variable's *name*, so adding a variable leaves the others unchanged.

use smallvec::{SmallVec, smallvec};
use std::fmt;

/// How a state variable starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// Every element is `value`.
    Constant(f64),
    /// Uniform on `[lo, hi)`.
    Uniform {
        /// Inclusive lower end.
        lo: f64,
        /// Exclusive upper end.
        hi: f64,
    },
    /// Normal with this mean and standard deviation.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal with this mean and standard deviation, of what lies in `[lo, hi]`.
    TruncatedNormal {
        /// Mean of the distribution that is cut.
        mean: f64,
        /// Its standard deviation.
        std: f64,
        /// Least value.
        lo: f64,
        /// Greatest value.
        hi: f64,
    },
    /// `gain` times a matrix whose rows, or columns if there are fewer, are orthonormal, uniform over all such (Saxe et
    /// al. 2014). The first axis gives the rows, all others together the columns; rank 2 or more.
    Orthogonal {
        /// Length of the rows or columns.
        gain: f64,
    },
}

impl Initializer {
    /// All zeros.
    pub const ZEROS: Self = Self::Constant(0.0);
    /// All ones.
    pub const ONES: Self = Self::Constant(1.0);

    /// Uniform on `[-b, b)` with `b = gain * sqrt(3 / fan_in)` (He et al. 2015; gain sqrt(2) for ReLU).
    pub fn kaiming_uniform(fan_in: usize, gain: f64) -> Self {
        let b = gain * (3.0 / fan_in.max(1) as f64).sqrt();
        Self::Uniform { lo: -b, hi: b }
    }

    /// Normal with standard deviation `gain / sqrt(fan_in)` (He et al. 2015).
    pub fn kaiming_normal(fan_in: usize, gain: f64) -> Self {
        Self::Normal { mean: 0.0, std: gain / (fan_in.max(1) as f64).sqrt() }
    }

    /// Uniform on `[-b, b)` with `b = sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    pub fn xavier_uniform(fan_in: usize, fan_out: usize) -> Self {
        let b = (6.0 / (fan_in + fan_out).max(1) as f64).sqrt();
        Self::Uniform { lo: -b, hi: b }
    }

    /// Normal with standard deviation `sqrt(2 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    pub fn xavier_normal(fan_in: usize, fan_out: usize) -> Self {
        Self::Normal { mean: 0.0, std: (2.0 / (fan_in + fan_out).max(1) as f64).sqrt() }
    }

    /// Uniform on `[-b, b)` with `b = sqrt(3 / fan_in)`, variance `1 / fan_in` (LeCun et al. 1998).
    pub fn lecun_uniform(fan_in: usize) -> Self {
        Self::kaiming_uniform(fan_in, 1.0)
    }

    /// Normal with standard deviation `1 / sqrt(fan_in)` (LeCun et al. 1998), for SELU.
    pub fn lecun_normal(fan_in: usize) -> Self {
        Self::kaiming_normal(fan_in, 1.0)
    }

    /// Normal around 0 without what is beyond two standard deviations.
    pub fn truncated_normal(std: f64) -> Self {
        Self::TruncatedNormal { mean: 0.0, std, lo: -2.0 * std, hi: 2.0 * std }
    }

    /// The forms of [`Self::parts`].
    pub const FORMS: &str = "constant(v), uniform(lo, hi), normal(mean, std), truncated_normal(mean, std, lo, hi), orthogonal(gain)";

    /// Name and numbers, of which the text form consists.
    pub fn parts(&self) -> (&'static str, SmallVec<[f64; 4]>) {
        match *self {
            Self::Constant(value) => ("constant", smallvec![value]),
            Self::Uniform { lo, hi } => ("uniform", smallvec![lo, hi]),
            Self::Normal { mean, std } => ("normal", smallvec![mean, std]),
            Self::TruncatedNormal { mean, std, lo, hi } => ("truncated_normal", smallvec![mean, std, lo, hi]),
            Self::Orthogonal { gain } => ("orthogonal", smallvec![gain]),
        }
    }

    /// The initializer of these parts, if there is one.
    pub fn from_parts(name: &str, numbers: &[f64]) -> Option<Self> {
        Some(match (name, numbers) {
            ("constant", &[value]) => Self::Constant(value),
            ("uniform", &[lo, hi]) => Self::Uniform { lo, hi },
            ("normal", &[mean, std]) => Self::Normal { mean, std },
            ("truncated_normal", &[mean, std, lo, hi]) => Self::TruncatedNormal { mean, std, lo, hi },
            ("orthogonal", &[gain]) => Self::Orthogonal { gain },
            _ => return None,
        })
    }

    /// Uniform on `[-b, b)` with `b = 1 / sqrt(fan_in)`: PyTorch's default for linear and
    /// convolution weights and biases.
    pub fn torch_default(fan_in: usize) -> Self {
        let b = 1.0 / (fan_in.max(1) as f64).sqrt();
        Self::Uniform { lo: -b, hi: b }
    }
}

impl fmt::Display for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, numbers) = self.parts();
        let numbers: Vec<String> = numbers.iter().map(|v| format!("{v:?}")).collect();
        write!(f, "{name}({})", numbers.join(", "))
    }
}
