//! Initializers of state variables. Each is a distribution with explicit numbers; random ones are
//! keyed by the seed and the variable's *name*, so adding a variable leaves the others unchanged.

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

    /// Uniform on `[-b, b)` with `b = 1 / sqrt(fan_in)`: PyTorch's default for linear and
    /// convolution weights and biases.
    pub fn torch_default(fan_in: usize) -> Self {
        let b = 1.0 / (fan_in.max(1) as f64).sqrt();
        Self::Uniform { lo: -b, hi: b }
    }
}

impl fmt::Display for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => write!(f, "constant({value:?})"),
            Self::Uniform { lo, hi } => write!(f, "uniform({lo:?}, {hi:?})"),
            Self::Normal { mean, std } => write!(f, "normal({mean:?}, {std:?})"),
        }
    }
}
