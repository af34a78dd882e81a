//! `rng_bits`: random words of a counter-based generator.

use super::rules::{index_vars, operands, storable};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, TypeError};
use crate::index::IndexExpr;
use crate::literal::{Literal, row_major_strides};
use crate::math;
use crate::pattern::Pattern;
use crate::scalar::{CmpKind, Scalar, ScalarBuilder, ScalarFn, ScalarOp};
use crate::types::{DType, Shape, TensorType};

op! {
    /// Random words, i32 of shape `shape`, from two scalars `seed: i64[]` and `step: i64[]`. Element
    /// `i` in row-major order is word `i mod 4` of Philox4x32-10 (Salmon et al. 2011) with
    ///
    /// - key `(low 32 bits of seed, high 32 bits of seed)`,
    /// - counter `(low 32 bits of i/4, high 32 bits of i/4, stream, low 32 bits of step)`.
    ///
    /// So a value depends on seed, step, stream and position alone. Steps repeat after 2^32. No gradient.
    pub struct RngBits {
        /// Tells apart the places of a program that draw numbers.
        pub stream: u32,
        /// Shape of the result.
        pub shape: Shape,
    }
}

impl OpDef for RngBits {
    const NAME: &'static str = "rng_bits";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        for (i, ty) in operands::<2>(Self::NAME, x)?.iter().enumerate() {
            if *ty != TensorType::scalar(DType::I64) {
                let what = if i == 0 { "the seed" } else { "the step" };
                return Err(TypeError::new(Self::NAME, x, format!("{what} is {ty}, must be i64[]")));
            }
        }
        storable(Self::NAME, &TensorType::new(DType::I32, &self.shape))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None, None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, _: &BatchCx<'_, 'f>) -> Batched<'f> {
        let why = "one seed and step give one tensor: draw it outside, with the batch in its shape";
        Err(NoBatch { op: Self::NAME, why })
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (Scalar::I64(seed), Scalar::I64(step)) = (x[0].get(0), x[1].get(0)) else {
            unreachable!("seed and step are i64");
        };
        let key = [seed as u32, (seed as u64 >> 32) as u32];
        Ok(Literal::from_fn(DType::I32, &out.dims, |i| {
            let block = i as u64 / 4;
            let words = philox([block as u32, (block >> 32) as u32, self.stream, step as u32], key);
            Scalar::I32(words[i % 4] as i32)
        }))
    }

    fn pattern(&self, _: &[StaticType], out: &StaticType) -> Pattern {
        let (_, vars) = index_vars(&out.dims);
        let index = IndexExpr::linear(&vars, &row_major_strides(&out.dims));
        let body = ScalarFn::record(&[DType::I64; 3], |b, args| {
            let halves = |b: &mut ScalarFn, v| {
                let high = b.op(ScalarOp::ShrL(32), &[v]);
                [b.cast(DType::I32, v), b.cast(DType::I32, high)]
            };
            let block = b.op(ScalarOp::ShrL(2), &[args[0]]);
            let [low, high] = halves(b, block);
            let key = halves(b, args[1]);
            let stream = b.i32(self.stream as i32);
            let step = b.cast(DType::I32, args[2]);
            let words = math::philox4x32_10(b, [low, high, stream, step], key);
            let index = b.cast(DType::I32, args[0]);
            let three = b.i32(3);
            let which = b.and(index, three);
            (0..3).rev().fold(words[3], |rest, i| {
                let number = b.i32(i);
                let here = b.cmp(CmpKind::Eq, which, number);
                b.select(here, words[i as usize], rest)
            })
        });
        Pattern::Generate { index, body }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims};
        use proptest::prelude::*;
        let case = (any::<u32>(), dims(6), any::<i64>(), any::<i64>());
        let sample = |(stream, dims, seed, step): (u32, Vec<usize>, i64, i64)| Sample {
            op: Self { stream, shape: dims.as_slice().into() }.into(),
            operands: vec![Literal::scalar(Scalar::I64(seed)), Literal::scalar(Scalar::I64(step))],
            smooth: false,
        };
        Some(case.prop_map(sample).boxed())
    }
}

/// Philox4x32-10 on native words: ten rounds of two wide multiplications.
fn philox(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (p, q) = (u64::from(c[0]) * 0xD251_1F53, u64::from(c[2]) * 0xCD9E_8D57);
        c = [(q >> 32) as u32 ^ c[1] ^ key[0], q as u32, (p >> 32) as u32 ^ c[3] ^ key[1], p as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

impl<'f> Tensor<'f> {
    /// Random words i32 of shape `shape` keyed by the seed `self: i64[]`, `step: i64[]` and `stream`.
    /// See [`RngBits`]; [`crate::composite::RandomStream`] makes numbers of them.
    #[track_caller]
    pub fn rng_bits(self, step: Tensor<'f>, stream: u32, shape: impl Into<Shape>) -> Self {
        self.builder().push(RngBits { stream, shape: shape.into() }, &[self, step])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 library (`kat_vectors`).
    #[test]
    fn philox_gives_the_published_words() {
        let check = |counter, key, expected| assert_eq!(philox(counter, key), expected);
        check([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        check([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn seed_step_and_stream_enter_key_and_counter() {
        let op = RngBits { stream: 0x1319_8a2e, shape: [6].into() };
        let out = StaticType { dtype: DType::I32, dims: vec![6] };
        let scalar = |v: u64| Literal::scalar(Scalar::I64(v as i64));
        let bits = op.eval(&[&scalar(0x299f_31d0_a409_3822), &scalar(0xffff_0000_0370_7344)], &out).unwrap();
        let expected = |i: u32| philox([i / 4, 0, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        for i in 0..6u32 {
            assert_eq!(bits.get(i as usize), Scalar::I32(expected(i)[i as usize % 4] as i32));
        }
    }
}
