//! Random numbers: distributions over the words of [`crate::ops::RngBits`], and initializers.

use crate::builder::{FunctionBuilder, Tensor};
use crate::init::Initializer;
use crate::module::StateVar;
use crate::scalar::{Native, Scalar};
use crate::types::{DType, Shape};

/// The stream of a name: its 32-bit FNV-1a hash (Fowler, Noll, Vo).
pub fn stream_id(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// One place of a program that draws random numbers. What it gives is a function of its name, the
/// seed, the step and the position in the tensor alone, so adding a place leaves the others
/// unchanged, and the order of drawing does not matter. Two draws of one stream repeat the same
/// words: give each place a name of its own.
#[derive(Clone, Copy, Debug)]
pub struct RandomStream<'a, 'f> {
    name: &'a str,
    seed: Tensor<'f>,
    step: Tensor<'f>,
}

impl<'a, 'f> RandomStream<'a, 'f> {
    /// The stream `name`, such as `encoder/dropout`, under `seed: i64[]` at `step: i64[]`.
    pub fn new(name: &'a str, seed: Tensor<'f>, step: Tensor<'f>) -> Self {
        Self { name, seed, step }
    }

    /// Random words, i32 of shape `shape`.
    #[track_caller]
    pub fn bits(self, shape: impl Into<Shape>) -> Tensor<'f> {
        self.word(0, &shape.into())
    }

    /// Words i32 of shape `shape`; `k` numbers independent ones of one place. Word 0 comes from
    /// stream `stream_id(name)`, word `k` from `stream_id("{name}.{k}")`.
    #[track_caller]
    fn word(self, k: usize, shape: &Shape) -> Tensor<'f> {
        let stream = if k == 0 { stream_id(self.name) } else { stream_id(&format!("{}.{k}", self.name)) };
        self.seed.rng_bits(self.step, stream, shape)
    }

    /// Uniform on `[0, 1)`, number `n` of this place: multiples of 2^-24 (f32, the low 24 bits of one
    /// word) or 2^-53 (f64, the low 26 bits of one word above the low 27 bits of a second).
    #[track_caller]
    fn unit(self, n: usize, dtype: DType, shape: &Shape) -> Tensor<'f> {
        let f = self.seed.builder();
        let bits = |k: usize, n_bits: u32| {
            let word = self.word(k, shape);
            (word & f.scalar(DType::I32, f64::from((1u32 << n_bits) - 1))).cast(dtype)
        };
        match dtype {
            DType::F32 => bits(n, 24) * f64::powi(2.0, -24),
            DType::F64 => {
                let high = bits(2 * n, 26) * f64::powi(2.0, -26);
                high + bits(2 * n + 1, 27) * f64::powi(2.0, -53)
            }
            _ => {
                f.misuse(format!("random numbers of type {dtype}, must be a float"));
                f.poison()
            }
        }
    }

    /// Uniform on `[lo, hi)`, floats: `lo + (hi - lo) * u`, kept below `hi` where that rounds up to
    /// it. `u` is a multiple of 2^-24 (f32) or 2^-53 (f64) in `[0, 1)`. `lo` itself if `lo = hi`. Half
    /// floats are rounded from f32, so they may be `hi`.
    #[track_caller]
    pub fn uniform(self, dtype: DType, shape: impl Into<Shape>, lo: f64, hi: f64) -> Tensor<'f> {
        if dtype.is_half() {
            return self.uniform(DType::F32, shape, lo, hi).cast(dtype);
        }
        let u = self.unit(0, dtype, &shape.into());
        if u.is_poison() {
            return u;
        }
        if !(lo <= hi && lo.is_finite() && hi.is_finite()) {
            self.seed.builder().misuse(format!("uniform random numbers on [{lo}, {hi})"));
            return self.seed.builder().poison();
        }
        let scaled = u * (hi - lo) + lo;
        let below = match Scalar::from_f64(dtype, hi) {
            Scalar::F32(hi) => f64::from(hi.next_down()),
            other => other.to_f64().next_down(),
        };
        // The interval may hold no number below `hi` of this precision.
        if Scalar::from_f64(dtype, lo).to_f64() <= below { scaled.min(below) } else { scaled }
    }

    /// Normal with mean `mean` and standard deviation `std`, floats:
    /// `mean + std * sqrt(-2 log(1 - u)) * cos(2 pi v)` with `u`, `v` uniform on `[0, 1)` (Box and
    /// Muller 1958). So magnitudes end at 5.8 (f32) or 8.6 (f64) standard deviations.
    #[track_caller]
    pub fn normal(self, dtype: DType, shape: impl Into<Shape>, mean: f64, std: f64) -> Tensor<'f> {
        if dtype.is_half() {
            return self.normal(DType::F32, shape, mean, std).cast(dtype);
        }
        let shape = shape.into();
        let (u, v) = (self.unit(0, dtype, &shape), self.unit(1, dtype, &shape));
        let radius = ((1.0 - u).log() * -2.0).sqrt();
        radius * (v * std::f64::consts::TAU).cos() * std + mean
    }

    /// Normal with mean `mean` and standard deviation `std`, of what lies in `[lo, hi]`, floats:
    /// `mean + std * sqrt(2) * erfinv(x)` with `x` uniform between the values of the distribution function at the two
    /// ends, less 1/2, times 2. Ends beyond 5 (f32) or 8 (f64) standard deviations count as infinite.
    #[track_caller]
    pub fn truncated_normal(
        self,
        dtype: DType,
        shape: impl Into<Shape>,
        mean: f64,
        std: f64,
        lo: f64,
        hi: f64,
    ) -> Tensor<'f> {
        if dtype.is_half() {
            return self.truncated_normal(DType::F32, shape, mean, std, lo, hi).cast(dtype);
        }
        let f = self.seed.builder();
        let u = self.unit(0, dtype, &shape.into());
        if u.is_poison() {
            return u;
        }
        if !(lo < hi && std > 0.0 && mean.is_finite() && std.is_finite()) {
            f.misuse(format!("truncated normal random numbers with {mean}, {std} on [{lo}, {hi}]"));
            return f.poison();
        }
        // Constants, so that they are exact whatever the type.
        let end = |v: f64| erf_f64((v - mean) / (std * std::f64::consts::SQRT_2));
        let (from, to) = (end(lo), end(hi));
        (erfinv(u * (to - from) + from) * (std * std::f64::consts::SQRT_2) + mean).clamp(lo, hi)
    }

    /// The numbers below `n` in random order, `i32`: the order of `n` random words.
    #[track_caller]
    pub fn permutation(self, n: usize) -> Tensor<'f> {
        self.bits([n]).argsort(0, false)
    }

    /// True with probability `p`, a bool tensor: `u < p` with `u` a multiple of 2^-24 in `[0, 1)`;
    /// always for 1, never for 0.
    #[track_caller]
    pub fn bernoulli(self, shape: impl Into<Shape>, p: f64) -> Tensor<'f> {
        if !(0.0..=1.0).contains(&p) {
            self.seed.builder().misuse(format!("bernoulli: probability {p} is not in 0..=1"));
            return self.seed.builder().poison();
        }
        self.unit(0, DType::F32, &shape.into()).lt(p)
    }
}

impl<'f> Tensor<'f> {
    /// Zeros with probability `rate`, drawn from `stream`; what stays is divided by `1 - rate`, so the mean
    /// stays too (Srivastava et al. 2014). The tensor itself if `rate` is 0. Floats.
    #[track_caller]
    pub fn dropout(self, stream: RandomStream<'_, 'f>, rate: f64) -> Self {
        if rate == 0.0 || self.is_poison() {
            return self;
        }
        if !(0.0..1.0).contains(&rate) {
            self.builder().misuse(format!("dropout: rate {rate} is not in 0..1"));
            return self.builder().poison();
        }
        let kept = stream.bernoulli(self.shape(), 1.0 - rate);
        kept.select(self * (1.0 / (1.0 - rate)), self.full_like(0.0))
    }
}

/// The error function of a number.
fn erf_f64(x: f64) -> f64 {
    crate::math::erf(&mut Native, Scalar::F64(x)).to_f64()
}

/// The inverse of the error function, for `x` in `[-1, 1]`; at the ends, that of the nearest number within: Newton's
/// method from Winitzki's approximation (2008).
#[track_caller]
fn erfinv(x: Tensor<'_>) -> Tensor<'_> {
    const A: f64 = 0.147;
    let largest = if x.dtype() == DType::F64 { 1.0f64.next_down() } else { f64::from(1.0f32.next_down()) };
    let x = x.clamp(-largest, largest);
    let log = (-x.square()).log1p();
    let t = log * 0.5 + 2.0 / (std::f64::consts::PI * A);
    let start = ((t.square() - log * (1.0 / A)).sqrt() - t).sqrt() * x.sign();
    (0..3).fold(start, |y, _| {
        let slope = y.square().exp() * (std::f64::consts::PI.sqrt() / 2.0);
        y - (y.erf() - x) * slope
    })
}

/// The first value of a state variable, of its type, under `seed: i64[]`. Random ones draw from
/// the stream of the variable's name at step 0, so they do not depend on other variables. Random
/// initializers need a float type. [`Initializer::Orthogonal`] is refused: factorizing matrices takes no graph.
#[track_caller]
pub fn initialize<'f>(f: &'f FunctionBuilder, variable: &StateVar, seed: Tensor<'f>) -> Tensor<'f> {
    let (dtype, shape) = (variable.ty.dtype, &variable.ty.shape);
    let stream = || RandomStream::new(&variable.name, seed, f.scalar(DType::I64, 0.0));
    match variable.init {
        Initializer::Constant(value) => f.full(dtype, shape, value),
        Initializer::Uniform { lo, hi } => stream().uniform(dtype, shape, lo, hi),
        Initializer::Normal { mean, std } => stream().normal(dtype, shape, mean, std),
        Initializer::TruncatedNormal { mean, std, lo, hi } => {
            stream().truncated_normal(dtype, shape, mean, std, lo, hi)
        }
        Initializer::Orthogonal { .. } => {
            let (name, ty, init) = (&variable.name, &variable.ty, variable.init);
            f.misuse(format!(
                "`{name}` {ty}: {init} is of floats with rank 2 or more, and not computed by a graph"
            ));
            f.poison()
        }
    }
}
