//! Inputs for property tests: legal applications of operations.
//!
//! Strategies are boxed: each type of strategy is compiled again in all that is built from it.

use crate::literal::Literal;
use crate::ops::Op;
use crate::types::DType;
use crate::{Scalar, TensorType};
use proptest::prelude::*;

/// One operation applied to values that its shape rule accepts.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The operation.
    pub op: Op,
    /// Its operands.
    pub operands: Vec<Literal>,
    /// True if the operation is differentiable in a neighbourhood of these float operands (away
    /// from kinks, ties, poles and branch points by at least 1e-2), so finite differences apply.
    pub smooth: bool,
}

impl Sample {
    /// Operand types.
    pub fn types(&self) -> Vec<TensorType> {
        self.operands.iter().map(Literal::ty).collect()
    }
}

/// Extents worth testing: 0, 1, primes, and one around the vector widths.
pub fn extent() -> BoxedStrategy<usize> {
    let large = prop::sample::select(vec![7usize, 8, 9, 11, 13, 15, 16, 17, 31, 32, 33]);
    prop_oneof![1 => Just(0usize), 5 => Just(1usize), 10 => 2usize..6, 4 => large].boxed()
}

/// Shapes of rank up to `max_rank` whose number of elements stays small (at most 600).
pub fn dims(max_rank: usize) -> BoxedStrategy<Vec<usize>> {
    let few = |mut dims: Vec<usize>| {
        let mut n = 1;
        for d in &mut dims {
            if n * (*d).max(1) > 600 {
                *d = 1;
            }
            n *= (*d).max(1);
        }
        dims
    };
    proptest::collection::vec(extent(), 0..=max_rank).prop_map(few).boxed()
}

/// Values uniform on `lo..hi`, of any numeric type.
pub fn uniform(dtype: DType, dims: Vec<usize>, lo: f64, hi: f64) -> BoxedStrategy<Literal> {
    let n = dims.iter().product::<usize>();
    proptest::collection::vec(lo..hi, n)
        .prop_map(move |v| Literal::from_fn(dtype, &dims, |i| Scalar::F64(v[i])))
        .boxed()
}

/// Values among which zeros of both signs, infinities, NaN, subnormals and huge ones are frequent.
pub fn special(dtype: DType, dims: Vec<usize>) -> BoxedStrategy<Literal> {
    let n = dims.iter().product::<usize>();
    let tiny = if dtype == DType::F64 { f64::MIN_POSITIVE / 8.0 } else { f64::from(f32::MIN_POSITIVE) / 8.0 };
    let huge = if dtype == DType::F64 { f64::MAX } else { f64::from(f32::MAX) };
    let value = prop_oneof![
        4 => -4.0..4.0f64,
        2 => prop_oneof![Just(0.0f64), Just(-0.0), Just(1.0), Just(-1.0), Just(2.0), Just(0.5)],
        1 => prop_oneof![
            Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY),
            Just(tiny), Just(-tiny), Just(huge), Just(-huge), Just(1e10), Just(-1e10),
        ],
    ];
    let value = if dtype == DType::U8 { (0u8..=255).prop_map(f64::from).boxed() } else { value.boxed() };
    proptest::collection::vec(value, n)
        .prop_map(move |v| Literal::from_fn(dtype, &dims, |i| Scalar::F64(v[i])))
        .boxed()
}

/// Values of which no two are closer than 0.03, in random order: away from the ties of extrema.
pub fn distinct(dtype: DType, dims: Vec<usize>) -> BoxedStrategy<Literal> {
    let n = dims.iter().product::<usize>();
    let order = Just((0..n).collect::<Vec<usize>>()).prop_shuffle();
    order
        .prop_map(move |order| {
            let value = |i: usize| (order[i] as f64 - n as f64 / 2.0) * 0.03;
            Literal::from_fn(dtype, &dims, |i| Scalar::F64(value(i)))
        })
        .boxed()
}

/// Few different values, so that ties of extrema are frequent: small integers, and rarely NaN.
pub fn tied(dtype: DType, dims: Vec<usize>) -> BoxedStrategy<Literal> {
    let n = dims.iter().product::<usize>();
    let value = prop_oneof![20 => (-1i32..2).prop_map(f64::from), 1 => Just(f64::NAN), 1 => Just(-0.0)];
    proptest::collection::vec(value, n)
        .prop_map(move |v| Literal::from_fn(dtype, &dims, |i| Scalar::F64(v[i])))
        .boxed()
}

/// Moves a value at least 0.05 away from integers, within its unit interval.
pub fn away_from_integers(value: f64) -> f64 {
    value.floor() + 0.05 + 0.9 * (value - value.floor())
}

/// Any float type.
pub fn float() -> BoxedStrategy<DType> {
    prop_oneof![Just(DType::F32), Just(DType::F64)].boxed()
}

/// Any type with arithmetic.
pub fn number() -> BoxedStrategy<DType> {
    prop_oneof![3 => Just(DType::F32), 2 => Just(DType::F64), 1 => Just(DType::I32), 1 => Just(DType::I64), 1 => Just(DType::U8)]
        .boxed()
}
