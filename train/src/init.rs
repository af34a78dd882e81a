//! Initial values of a module's state: a pure function of the seed and, per variable, of its name,
//! type and initializer. Adding, removing or reordering variables leaves the others unchanged.
//!
//! Random numbers come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", 2011). The key is the seed (low word first). The counter is the number of a block of
//! four 32-bit words (low word first), then the 64-bit FNV-1a hash of the variable's name (low word
//! first). All arithmetic is in f64, and is rounded once to the type of the variable:
//!
//! - uniform: element `i` is `lo + (hi - lo) * (w * 2^-32)` with `w` word `i % 4` of block `i / 4`;
//!   a result that rounds up to `hi` is replaced by the largest value below it. For f64, whose
//!   significand is longer, `(w1 * 2^32 + w0) >> 11` times `2^-53`, with words `2 (i % 2)` and
//!   `2 (i % 2) + 1` of block `i / 2`;
//! - normal: elements `2j` and `2j + 1` are `mean + std * r * cos(a)` and `mean + std * r * sin(a)`
//!   (Box and Muller 1958) with `r = sqrt(-2 ln(1 - u))`, `a = 2 pi v`, where `u` and `v` are made,
//!   like f64 uniforms, of words 0, 1 and 2, 3 of block `j`.

use graphc_ir::{DType, Initializer, Literal, Module, Scalar};
use std::f64::consts::TAU;
use std::sync::Arc;

/// The initial value of every state variable of `module`, by name, in order of declaration.
pub fn initialize(module: &Module, seed: u64) -> Vec<(Arc<str>, Literal)> {
    let value = |s: &graphc_ir::StateVar| {
        // Declarations without numbers do not pass the module builder.
        let dims = s.ty.shape.as_static().unwrap_or_default();
        (s.name.clone(), initial(&s.name, s.ty.dtype, &dims, s.init, seed))
    };
    module.state.iter().map(value).collect()
}

/// The initial value of one variable.
fn initial(name: &str, dtype: DType, dims: &[usize], init: Initializer, seed: u64) -> Literal {
    let mut random = Stream::new(seed, name);
    match init {
        Initializer::Constant(value) => Literal::full(dims, Scalar::from_f64(dtype, value)),
        Initializer::Uniform { lo, hi } => Literal::from_fn(dtype, dims, |i| {
            let i = i as u64;
            let u = if dtype == DType::F64 {
                unit(random.block(i / 2), (i % 2) as usize)
            } else {
                f64::from(random.block(i / 4)[(i % 4) as usize]) / 2f64.powi(32)
            };
            below(Scalar::from_f64(dtype, lo + (hi - lo) * u), lo, hi)
        }),
        Initializer::Normal { mean, std } => {
            let mut odd = 0.0;
            Literal::from_fn(dtype, dims, |i| {
                // Elements come in order, so the sine of the pair is at hand for the odd one.
                let z = if i % 2 == 1 {
                    odd
                } else {
                    let block = random.block(i as u64 / 2);
                    let radius = (-2.0 * (1.0 - unit(block, 0)).ln()).sqrt();
                    let (sin, cos) = (TAU * unit(block, 1)).sin_cos();
                    odd = radius * sin;
                    radius * cos
                };
                Scalar::from_f64(dtype, mean + std * z)
            })
        }
    }
}

/// A float that rounding brought up to the excluded end, moved below it.
fn below(value: Scalar, lo: f64, hi: f64) -> Scalar {
    match value {
        Scalar::F32(v) if lo < hi && f64::from(v) >= hi => Scalar::F32(v.next_down()),
        Scalar::F64(v) if lo < hi && v >= hi => Scalar::F64(v.next_down()),
        value => value,
    }
}

/// A number in `[0, 1)` of 53 bits from two words of a block.
fn unit(block: [u32; 4], half: usize) -> f64 {
    let bits = u64::from(block[2 * half + 1]) << 32 | u64::from(block[2 * half]);
    (bits >> 11) as f64 / 2f64.powi(53)
}

/// The words of one variable; the last block is kept.
struct Stream {
    key: [u32; 2],
    hash: u64,
    last: Option<(u64, [u32; 4])>,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], hash: fnv1a(name.as_bytes()), last: None }
    }

    fn block(&mut self, index: u64) -> [u32; 4] {
        match self.last {
            Some((known, block)) if known == index => block,
            _ => {
                let (i, h) = (index, self.hash);
                let block = philox4x32([i as u32, (i >> 32) as u32, h as u32, (h >> 32) as u32], self.key);
                self.last = Some((index, block));
                block
            }
        }
    }
}

/// FNV-1a with 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Philox4x32 with ten rounds.
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let p = u64::from(a) * 0xd251_1f53;
        let q = u64::from(c) * 0xcd9e_8d57;
        counter = [(q >> 32) as u32 ^ b ^ key[0], q as u32, (p >> 32) as u32 ^ d ^ key[1], p as u32];
        // Weyl sequences: the golden ratio and sqrt(3) - 1, times 2^32.
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // Known answers of Random123 1.09, file kat_vectors.
        let check = |counter, key, expected: [u32; 4]| assert_eq!(philox4x32(counter, key), expected);
        check([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        check([!0; 4], [!0; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        check(
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        );
    }

    #[test]
    fn fnv1a_gives_the_published_answers() {
        assert_eq!(fnv1a(b""), 0xcbf29ce484222325);
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
    }

    fn moments(dtype: DType, init: Initializer) -> (f64, f64, f64, f64) {
        let n = 100_001;
        let values = initial("w", dtype, &[n], init, 5);
        let values: Vec<f64> = (0..n).map(|i| values.get(i).to_f64()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap();
        (mean, variance.sqrt(), fold(f64::min), fold(f64::max))
    }

    #[test]
    fn distributions_have_their_moments() {
        for dtype in [DType::F32, DType::F64] {
            let (mean, std, min, max) = moments(dtype, Initializer::Uniform { lo: -1.0, hi: 3.0 });
            assert!((mean - 1.0).abs() < 0.02 && (std - 4.0 / 12f64.sqrt()).abs() < 0.01, "{mean} {std}");
            assert!((-1.0..-0.999).contains(&min) && (2.999..3.0).contains(&max), "{min} {max}");
            let (mean, std, min, max) = moments(dtype, Initializer::Normal { mean: 2.0, std: 0.5 });
            assert!((mean - 2.0).abs() < 0.01 && (std - 0.5).abs() < 0.005, "{mean} {std}");
            assert!(min < 0.2 && max > 3.8 && min > -1.0 && max < 5.0, "{min} {max}");
        }
    }

    #[test]
    fn uniform_excludes_its_upper_end() {
        let above = Scalar::from_f64(DType::F32, 1.0 - 1e-12);
        assert_eq!(below(above, 0.0, 1.0), Scalar::F32(1.0f32.next_down()));
        // An empty interval is a constant.
        assert_eq!(below(Scalar::F64(1.0), 1.0, 1.0), Scalar::F64(1.0));
    }

    #[test]
    fn depends_on_name_and_seed_only() {
        let module = |names: &[&str]| {
            let m = graphc_ir::ModuleBuilder::new("m");
            for name in names {
                m.param(name, DType::F32, [3, 5], Initializer::torch_default(7));
            }
            m.build().unwrap()
        };
        let of = |values: &[(Arc<str>, Literal)], name: &str| {
            values.iter().find(|(n, _)| &**n == name).unwrap().1.clone()
        };
        let a = initialize(&module(&["x", "y"]), 1);
        let b = initialize(&module(&["new", "y", "x"]), 1);
        assert_eq!(of(&a, "x"), of(&b, "x"));
        assert_eq!(of(&a, "y"), of(&b, "y"));
        assert_ne!(of(&a, "x"), of(&a, "y"));
        assert_ne!(of(&a, "x"), of(&initialize(&module(&["x"]), 2), "x"));
    }

    #[test]
    fn constants_are_converted() {
        let check = |dtype, value, expected: Scalar| {
            let l = initial("c", dtype, &[2], Initializer::Constant(value), 0);
            assert_eq!((l.dims(), l.splat_value()), (&[2][..], Some(expected)));
        };
        check(DType::F32, 0.1, Scalar::F32(0.1));
        check(DType::I64, 3.0, Scalar::I64(3));
        check(DType::Bool, 1.0, Scalar::Bool(true));
    }
}
