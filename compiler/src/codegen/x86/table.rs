//! The instructions in use, by opcode (Intel, Software Developer's Manual, volumes 2B to 2D).

use super::asm::{Ins, Tuple, ins};
use graphc_ir::DType;

pub(super) const MOVUPS_LOAD: Ins = ins(0, 1, 0, 0x10);
pub(super) const MOVUPS_STORE: Ins = ins(0, 1, 0, 0x11);
/// Past the caches, to an aligned address.
pub(super) const MOVNTPS: Ins = ins(0, 1, 0, 0x2b);
pub(super) const MOVUPD_LOAD: Ins = ins(1, 1, 1, 0x10);
pub(super) const MOVUPD_STORE: Ins = ins(1, 1, 1, 0x11);
pub(super) const MOVSS_LOAD: Ins = ins(2, 1, 0, 0x10).tuple(Tuple::Scalar(4));
pub(super) const MOVSS_STORE: Ins = ins(2, 1, 0, 0x11).tuple(Tuple::Scalar(4));
pub(super) const MOVSD_LOAD: Ins = ins(3, 1, 1, 0x10).tuple(Tuple::Scalar(8));
pub(super) const MOVSD_STORE: Ins = ins(3, 1, 1, 0x11).tuple(Tuple::Scalar(8));
/// From a general register or 4 bytes of memory; with W set 8 bytes.
pub(super) const MOVD_LOAD: Ins = ins(1, 1, 0, 0x6e).tuple(Tuple::Scalar(4));
pub(super) const MOVQ_LOAD: Ins = ins(1, 1, 1, 0x6e).tuple(Tuple::Scalar(8));
pub(super) const MOVD_STORE: Ins = ins(1, 1, 0, 0x7e).tuple(Tuple::Scalar(4));
pub(super) const MOVQ_STORE: Ins = ins(1, 1, 1, 0x7e).tuple(Tuple::Scalar(8));
pub(super) const MASKMOVPS_LOAD: Ins = ins(1, 2, 0, 0x2c);
pub(super) const MASKMOVPD_LOAD: Ins = ins(1, 2, 0, 0x2d);
pub(super) const MOVDQU8_LOAD: Ins = ins(3, 1, 0, 0x6f);
pub(super) const MOVDQU8_STORE: Ins = ins(3, 1, 0, 0x7f);

pub(super) const BROADCASTSS: Ins = ins(1, 2, 0, 0x18).tuple(Tuple::Scalar(4));
/// 64-bit elements in all widths (`vbroadcastsd` has no 128-bit form).
pub(super) const PBROADCASTQ: Ins = ins(1, 2, 1, 0x59).tuple(Tuple::Scalar(8));
/// VEX wants W clear.
pub(super) const PBROADCASTQ_VEX: Ins = ins(1, 2, 0, 0x59).tuple(Tuple::Scalar(8));
pub(super) const PBROADCASTD_GPR: Ins = ins(1, 2, 0, 0x7c);

pub(super) const PADDD: Ins = ins(1, 1, 0, 0xfe);
pub(super) const PADDQ: Ins = ins(1, 1, 1, 0xd4);
pub(super) const PSUBD: Ins = ins(1, 1, 0, 0xfa);
pub(super) const PSUBQ: Ins = ins(1, 1, 1, 0xfb);
pub(super) const PMULLD: Ins = ins(1, 2, 0, 0x40);
pub(super) const PMULLQ: Ins = ins(1, 2, 1, 0x40);
pub(super) const PMULUDQ: Ins = ins(1, 1, 1, 0xf4);
pub(super) const PAND: Ins = ins(1, 1, 0, 0xdb);
pub(super) const PANDN: Ins = ins(1, 1, 0, 0xdf);
pub(super) const POR: Ins = ins(1, 1, 0, 0xeb);
pub(super) const PXOR: Ins = ins(1, 1, 0, 0xef);
pub(super) const PABSD: Ins = ins(1, 2, 0, 0x1e);
pub(super) const PABSQ: Ins = ins(1, 2, 1, 0x1f);
pub(super) const PMINSD: Ins = ins(1, 2, 0, 0x39);
pub(super) const PMINSQ: Ins = ins(1, 2, 1, 0x39);
pub(super) const PMAXSD: Ins = ins(1, 2, 0, 0x3d);
pub(super) const PMAXSQ: Ins = ins(1, 2, 1, 0x3d);
pub(super) const PCMPEQD: Ins = ins(1, 1, 0, 0x76);
pub(super) const PCMPGTD: Ins = ins(1, 1, 0, 0x66);
pub(super) const PCMPEQQ: Ins = ins(1, 2, 1, 0x29);
pub(super) const PCMPGTQ: Ins = ins(1, 2, 1, 0x37);
/// Into a mask register, with a predicate.
pub(super) const PCMPD_MASK: Ins = ins(1, 3, 0, 0x1f);
pub(super) const PCMPQ_MASK: Ins = ins(1, 3, 1, 0x1f);
pub(super) const PTESTMB: Ins = ins(1, 2, 0, 0x26);
/// Shifts by an immediate: the digit is in the register field.
pub(super) const PSHIFTD: Ins = ins(1, 1, 0, 0x72);
pub(super) const PSHIFTQ: Ins = ins(1, 1, 1, 0x73);
pub(super) const PSRAQ: Ins = ins(1, 1, 1, 0x72);
pub(super) const SHIFT_RIGHT: u8 = 2;
pub(super) const SHIFT_RIGHT_ARITHMETIC: u8 = 4;
pub(super) const SHIFT_LEFT: u8 = 6;

pub(super) const PMOVSXDQ: Ins = ins(1, 2, 0, 0x25).tuple(Tuple::Half);
/// Elements of 8 or 16 bits with zeros above them, in 32.
pub(super) const PMOVZXBD: Ins = ins(1, 2, 0, 0x31).tuple(Tuple::Quarter);
pub(super) const PMOVZXWD: Ins = ins(1, 2, 0, 0x33).tuple(Tuple::Half);
/// The low 8 or 16 bits of each 32-bit element.
pub(super) const PMOVDB: Ins = ins(2, 2, 0, 0x31).tuple(Tuple::Quarter);
pub(super) const PMOVDW: Ins = ins(2, 2, 0, 0x33).tuple(Tuple::Half);
/// Pairs of signed elements into unsigned ones of half the width, saturating.
pub(super) const PACKUSDW: Ins = ins(1, 2, 0, 0x2b);
pub(super) const PACKUSWB: Ins = ins(1, 1, 0, 0x67);
/// Truncates 64-bit elements to half the width.
pub(super) const PMOVQD: Ins = ins(2, 2, 0, 0x35).tuple(Tuple::Half);
pub(super) const SHUFPS: Ins = ins(0, 1, 0, 0xc6);
pub(super) const UNPCKLPS: Ins = ins(0, 1, 0, 0x14);
pub(super) const UNPCKHPS: Ins = ins(0, 1, 0, 0x15);
pub(super) const PERMQ: Ins = ins(1, 3, 1, 0x00);
pub(super) const PSHUFD: Ins = ins(1, 1, 0, 0x70);
pub(super) const EXTRACTPS: Ins = ins(1, 3, 0, 0x17);
pub(super) const EXTRACT128_VEX: Ins = ins(1, 3, 0, 0x39);
pub(super) const EXTRACT128: Ins = ins(1, 3, 0, 0x39);
pub(super) const EXTRACT256: Ins = ins(1, 3, 1, 0x3b);
pub(super) const INSERT128: Ins = ins(1, 3, 0, 0x38).tuple(Tuple::Scalar(16));
pub(super) const INSERT256: Ins = ins(1, 3, 1, 0x3a);
/// A 32-bit element of memory into the lane that the immediate names.
pub(super) const INSERTPS: Ins = ins(1, 3, 0, 0x21).tuple(Tuple::Scalar(4));
/// `mask ? last : second`, the mask a vector register in the immediate.
pub(super) const BLENDVPS: Ins = ins(1, 3, 0, 0x4a);
pub(super) const BLENDVPD: Ins = ins(1, 3, 0, 0x4b);
/// `k ? last : second`
pub(super) const BLENDMPS: Ins = ins(1, 2, 0, 0x65);
pub(super) const BLENDMPD: Ins = ins(1, 2, 1, 0x65);

pub(super) const CVTDQ2PS: Ins = ins(0, 1, 0, 0x5b);
pub(super) const CVTTPS2DQ: Ins = ins(2, 1, 0, 0x5b);
pub(super) const CVTPS2PD: Ins = ins(0, 1, 0, 0x5a).tuple(Tuple::Half);
pub(super) const CVTPD2PS: Ins = ins(1, 1, 1, 0x5a);
pub(super) const CVTDQ2PD: Ins = ins(2, 1, 0, 0xe6).tuple(Tuple::Half);
pub(super) const CVTQQ2PD: Ins = ins(2, 1, 1, 0xe6);
pub(super) const CVTQQ2PS: Ins = ins(0, 1, 1, 0x5b);

/// Mask registers: these are VEX instructions whatever the width of vectors.
pub(super) const KMOVW: Ins = ins(0, 1, 0, 0x90);
pub(super) const KMOVW_STORE: Ins = ins(0, 1, 0, 0x91);
pub(super) const KMOVW_FROM_GPR: Ins = ins(0, 1, 0, 0x92);
pub(super) const KMOVW_TO_GPR: Ins = ins(0, 1, 0, 0x93);
pub(super) const KAND: Ins = ins(0, 1, 0, 0x41);
pub(super) const KANDN: Ins = ins(0, 1, 0, 0x42);
pub(super) const KNOT: Ins = ins(0, 1, 0, 0x44);
pub(super) const KOR: Ins = ins(0, 1, 0, 0x45);
pub(super) const KXNOR: Ins = ins(0, 1, 0, 0x46);
pub(super) const KXOR: Ins = ins(0, 1, 0, 0x47);
pub(super) const KSHIFTR: Ins = ins(1, 3, 1, 0x30);

/// The single- or double-precision form of a float instruction.
pub(super) fn float(dtype: DType, op: u8) -> Ins {
    if dtype == DType::F64 { ins(1, 1, 1, op) } else { ins(0, 1, 0, op) }
}

pub(super) const ADD: u8 = 0x58;
pub(super) const MUL: u8 = 0x59;
pub(super) const SUB: u8 = 0x5c;
pub(super) const MIN: u8 = 0x5d;
pub(super) const DIV: u8 = 0x5e;
pub(super) const MAX: u8 = 0x5f;
pub(super) const SQRT: u8 = 0x51;
pub(super) const CMP: u8 = 0xc2;

/// `dst = dst * last + second`, `dst * second + last` or `second * last + dst`.
pub(super) fn fma(dtype: DType, order: FmaOrder) -> Ins {
    ins(1, 2, u8::from(dtype == DType::F64), order as u8)
}

/// Which operands are multiplied, by Intel's numbering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FmaOrder {
    /// First times third plus second.
    O132 = 0x98,
    /// Second times first plus third.
    O213 = 0xa8,
    /// Second times third plus first.
    O231 = 0xb8,
}

/// Rounding to integral values; the AVX-512 form has the same meaning for these immediates.
pub(super) fn round(dtype: DType, evex: bool) -> Ins {
    ins(1, 3, u8::from(evex && dtype == DType::F64), if dtype == DType::F64 { 9 } else { 8 })
}
