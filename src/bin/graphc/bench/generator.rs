//! The numbers of the workloads: one integer hash gives every weight, input and label, so that a
//! program in any language can start from the same bits.
//!
//! ```text
//! mix(x):  x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
//! hash(stream, i) = mix(mix(i) + stream * 0x9e3779b9)          on wrapping u32
//! unit(stream, i) = (hash(stream, i) >> 8) / 2^24              in [0, 1)
//! ```
//!
//! Input number j uses stream 1 + j, parameter number k stream 1000 + k; `i` is the row-major index.

use crate::Failure;
use graphc::runtime::Elements;
use graphc::runtime::StateLayout;
use graphc::{DType, Initializer, Module, State};
use std::sync::Arc;

/// Last part of the name of a matrix that is stored as `[in, out]`.
pub(super) const TRANSPOSED: &str = "kernel";

/// Stream of the first input.
const INPUTS: u32 = 1;
/// Stream of the first parameter.
const PARAMETERS: u32 = 1000;

const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

const fn hash(stream: u32, i: u32) -> u32 {
    mix(mix(i).wrapping_add(stream.wrapping_mul(0x9e37_79b9)))
}

/// Uniform on `[lo, hi)`, before rounding to f32.
fn uniform(stream: u32, i: usize, lo: f64, hi: f64) -> f64 {
    lo + (hi - lo) * (f64::from(hash(stream, i as u32) >> 8) / f64::from(1 << 24))
}

/// How an input is filled.
#[derive(Clone, Copy)]
pub(super) enum Values {
    /// `f32`, uniform on `[lo, hi)`.
    Uniform(f64, f64),
    /// `i32`, the hash modulo this number.
    Classes(u32),
}

/// The elements of input number `j`.
pub(super) fn input(j: usize, n: usize, values: Values) -> Elements {
    let stream = INPUTS + j as u32;
    match values {
        Values::Uniform(lo, hi) => Elements::from_fn(DType::F32, n, |i| uniform(stream, i, lo, hi)),
        Values::Classes(classes) => {
            Elements::from_fn(DType::I32, n, |i| f64::from(hash(stream, i as u32) % classes))
        }
    }
}

/// The state of `module` before training: parameters by their initializers from the hash, all else
/// constant. Indices are those of the canonical shape, which for a matrix named `<layer>/kernel` is
/// `[out, in]` though it is stored as `[in, out]`.
pub(super) fn initial_state(module: &Module, layout: Arc<StateLayout>) -> Result<State, Failure> {
    let mut state = State::zeros(layout).map_err(Failure::other)?;
    for variable in module.state.iter().filter(|s| s.ty.dtype == DType::F32) {
        let Initializer::Constant(value) = variable.init else { continue };
        state.get_mut(&variable.name).map_err(Failure::other)?.fill(value as f32);
    }
    for (k, id) in module.trainable().enumerate() {
        let variable = &module.state[id.index()];
        let Initializer::Uniform { lo, hi } = variable.init else { continue };
        let stream = PARAMETERS + k as u32;
        let values: &mut [f32] = state.get_mut(&variable.name).map_err(Failure::other)?;
        match variable.ty.shape.as_static().as_deref() {
            Some(&[n_in, n_out]) if variable.name.ends_with(TRANSPOSED) => {
                for (at, value) in values.iter_mut().enumerate() {
                    *value = uniform(stream, at % n_out * n_in + at / n_out, lo, hi) as f32;
                }
            }
            _ => {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = uniform(stream, i, lo, hi) as f32;
                }
            }
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_numbers() {
        let hashes = |stream| [0, 1, 2, 3].map(|i| hash(stream, i));
        assert_eq!(hashes(1), [0x01fc_e552, 0xb21c_8e52, 0xdfe0_2260, 0x6baa_441b]);
        assert_eq!(hashes(1000), [0xfba6_7a6e, 0xd06a_b3eb, 0xaa90_f540, 0xe68b_b32d]);
        let units = [0, 1, 2, 3].map(|i| uniform(1000, i, 0.0, 1.0));
        for (got, expected) in units.into_iter().zip([0.983008981, 0.814128101, 0.666274369, 0.900569141]) {
            assert!((got - expected).abs() < 1e-9, "{units:?}");
        }
    }
}
