//! Counter-based random bits.

use crate::{ScalarBuilder, ScalarOp};

/// Multipliers of the two halves.
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key grows by each round: the golden ratio and sqrt(3) - 1, as fractions of 2^32.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32-10: 128 random bits as a function of a 128-bit counter and a 64-bit key. All values
/// are `i32`, taken as unsigned.
///
/// Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC11 (2011); tested with the known answers of its Random123 library. Integers only, so
/// the bits are the same everywhere. Panics if the builder refuses the operand types.
#[inline(always)]
pub fn philox4x32_10<B: ScalarBuilder>(b: &mut B, counter: [B::V; 4], key: [B::V; 2]) -> [B::V; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let (m0, m1) = (b.i32(MULTIPLIER[0] as i32), b.i32(MULTIPLIER[1] as i32));
    let (w0, w1) = (b.i32(WEYL[0] as i32), b.i32(WEYL[1] as i32));
    for round in 0..10 {
        if round > 0 {
            k0 = b.add(k0, w0);
            k1 = b.add(k1, w1);
        }
        let (hi0, lo0) = (b.op(ScalarOp::MulHiU, &[c0, m0]), b.mul(c0, m0));
        let (hi1, lo1) = (b.op(ScalarOp::MulHiU, &[c2, m1]), b.mul(c2, m1));
        c0 = b.xor(hi1, c1);
        c0 = b.xor(c0, k0);
        c2 = b.xor(hi0, c3);
        c2 = b.xor(c2, k1);
        c1 = lo1;
        c3 = lo0;
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Native, Scalar};

    fn check(counter: [u32; 4], key: [u32; 2], expected: [u32; 4]) {
        let v = |x: u32| Scalar::I32(x as i32);
        let got = philox4x32_10(&mut Native, counter.map(v), key.map(v));
        assert_eq!(got, expected.map(v));
    }

    /// The kat_vectors of Random123.
    #[test]
    fn known_answers() {
        check([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        check([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        check(
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        );
    }
}
