//! Encodes instructions. One row per instruction serves every vector width and both encodings: VEX
//! for AVX2, EVEX for AVX-512 (Intel, Software Developer's Manual, volume 2A, sections 2.3 and 2.7).
//! The tests hold the rows against a disassembler.

use rustc_hash::FxHashMap;

/// A general-purpose register by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gpr(pub u8);

pub(super) const RAX: Gpr = Gpr(0);
pub(super) const RCX: Gpr = Gpr(1);
pub(super) const RDX: Gpr = Gpr(2);
pub(super) const RBX: Gpr = Gpr(3);
pub(super) const RSP: Gpr = Gpr(4);
pub(super) const RBP: Gpr = Gpr(5);
pub(super) const RSI: Gpr = Gpr(6);
pub(super) const RDI: Gpr = Gpr(7);
pub(super) const R12: Gpr = Gpr(12);
pub(super) const R13: Gpr = Gpr(13);
pub(super) const R14: Gpr = Gpr(14);
pub(super) const R15: Gpr = Gpr(15);

/// A place in the code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Label(u32);

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mem {
    /// `[base + index << scale + disp]`
    At { base: Gpr, index: Option<(Gpr, u8)>, disp: i32 },
    /// Data behind the code.
    Data(Label),
}

impl Mem {
    pub(super) fn at(base: Gpr, disp: i32) -> Self {
        Self::At { base, index: None, disp }
    }

    /// The operand `bytes` further on; data is addressed at its start only.
    pub(super) fn offset(self, bytes: i32) -> Self {
        match self {
            Self::At { base, index, disp } => Self::At { base, index, disp: disp + bytes },
            Self::Data(_) => {
                debug_assert_eq!(bytes, 0);
                self
            }
        }
    }
}

/// The last operand of an instruction: a register by number, or memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rm {
    Reg(u8),
    Mem(Mem),
}

/// Bytes of a memory operand relative to those of the vector; scales EVEX's short displacements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tuple {
    Full,
    Half,
    Quarter,
    /// One element of so many bytes.
    Scalar(u8),
}

/// A vector instruction: mandatory prefix (0 none, 1 `66`, 2 `F3`, 3 `F2`), opcode map, W, opcode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ins {
    pub pp: u8,
    pub map: u8,
    pub w: u8,
    pub op: u8,
    pub tuple: Tuple,
}

pub(super) const fn ins(pp: u8, map: u8, w: u8, op: u8) -> Ins {
    Ins { pp, map, w, op, tuple: Tuple::Full }
}

impl Ins {
    pub(super) const fn tuple(self, tuple: Tuple) -> Self {
        Self { tuple, ..self }
    }
}

/// Vector width.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Width {
    X,
    Y,
    Z,
}

impl Width {
    pub(super) const fn bytes(self) -> usize {
        16 << self as usize
    }

    /// The narrowest width that holds so many bytes.
    pub(super) const fn of(bytes: usize) -> Self {
        match bytes {
            0..=16 => Self::X,
            17..=32 => Self::Y,
            _ => Self::Z,
        }
    }
}

/// EVEX's extras.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Evex {
    /// Mask register, 0 for none.
    pub mask: u8,
    /// Lanes masked out become zero (else they keep what the destination holds).
    pub zero: bool,
    /// The memory operand is one element for all lanes.
    pub broadcast: bool,
}

/// Condition codes of `jcc`, `setcc` and `cmovcc`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cond {
    Below = 2,
    Equal = 4,
    NotEqual = 5,
    Less = 12,
    GreaterEqual = 13,
    Greater = 15,
}

/// Two-operand integer arithmetic, by the opcode of its `r, r/m` form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alu {
    Add = 0x03,
    And = 0x23,
    Sub = 0x2b,
    Cmp = 0x3b,
}

/// Finished machine code.
#[derive(Clone, Debug)]
pub(in crate::codegen) struct Code {
    /// Instructions, then constants.
    pub bytes: Vec<u8>,
    /// Bytes of instructions.
    pub instructions: usize,
    /// What the code at an offset is for.
    pub notes: Vec<(usize, String)>,
}

/// Machine code under construction.
pub(super) struct Assembler {
    pub code: Vec<u8>,
    /// Whether vector instructions are EVEX-encoded.
    evex: bool,
    labels: Vec<Option<usize>>,
    /// Where a 32-bit distance to a label goes, and the end of its instruction.
    fixups: Vec<(usize, usize, Label)>,
    /// What the code at an offset is for.
    notes: Vec<(usize, String)>,
    /// Data behind the code, by content; all of it is aligned to its size.
    data: Vec<(Vec<u8>, Label)>,
    known_data: FxHashMap<Vec<u8>, Label>,
}

impl Assembler {
    pub(super) fn new(evex: bool) -> Self {
        Self {
            code: Vec::with_capacity(4096),
            evex,
            labels: Vec::new(),
            fixups: Vec::new(),
            notes: Vec::new(),
            data: Vec::new(),
            known_data: FxHashMap::default(),
        }
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label((self.labels.len() - 1) as u32)
    }

    /// Places a label here.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = Some(self.code.len());
    }

    /// Places a label at the next multiple of 32 bytes, where loops begin.
    pub(super) fn bind_aligned(&mut self, label: Label) {
        while !self.code.len().is_multiple_of(32) {
            let rest = 32 - self.code.len() % 32;
            let nop = NOPS[rest.min(NOPS.len()) - 1];
            self.code.extend_from_slice(nop);
        }
        self.bind(label);
    }

    /// Says what the code from here on is for.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push((self.code.len(), text));
    }

    /// Data behind the code.
    pub(super) fn constant(&mut self, bytes: Vec<u8>) -> Label {
        if let Some(&l) = self.known_data.get(&bytes) {
            return l;
        }
        let label = self.label();
        self.data.push((bytes.clone(), label));
        self.known_data.insert(bytes, label);
        label
    }

    /// The code with its data, to be placed at a multiple of 64 bytes.
    pub(super) fn finish(mut self) -> Code {
        let instructions = self.code.len();
        let mut data = std::mem::take(&mut self.data);
        data.sort_by_key(|d| std::cmp::Reverse(d.0.len()));
        if !data.is_empty() {
            self.code.resize(self.code.len().next_multiple_of(64), 0xcc);
        }
        for (bytes, label) in data {
            self.bind(label);
            self.code.extend(bytes);
        }
        for &(at, end, label) in &self.fixups {
            let target = self.labels[label.0 as usize].expect("every label is placed");
            let distance = target as i64 - end as i64;
            self.code[at..at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
        }
        Code { bytes: self.code, instructions, notes: self.notes }
    }

    fn byte(&mut self, b: u8) {
        self.code.push(b);
    }

    fn imm32(&mut self, v: i32) {
        self.code.extend_from_slice(&v.to_le_bytes());
    }

    /// ModRM, SIB and displacement. `scale` is what an 8-bit displacement is multiplied by;
    /// `trailing` the bytes of the instruction that follow.
    fn operand(&mut self, reg: u8, rm: Rm, scale: usize, trailing: usize) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => self.byte(0xc0 | reg | r & 7),
            Rm::Mem(Mem::Data(label)) => {
                self.byte(reg | 5);
                let at = self.code.len();
                self.imm32(0);
                self.fixups.push((at, at + 4 + trailing, label));
            }
            Rm::Mem(Mem::At { base, index, disp }) => {
                let short = (disp as i64 % scale as i64 == 0)
                    .then(|| disp as i64 / scale as i64)
                    .and_then(|d| i8::try_from(d).ok());
                // Base registers 5 and 13 always have a displacement.
                let mode = match short {
                    Some(0) if base.0 & 7 != 5 => 0,
                    Some(_) => 0x40,
                    None => 0x80,
                };
                match index {
                    Some((i, s)) => {
                        debug_assert_ne!(i, RSP, "the stack pointer is no index");
                        self.byte(mode | reg | 4);
                        self.byte(s << 6 | (i.0 & 7) << 3 | base.0 & 7);
                    }
                    None if base.0 & 7 == 4 => {
                        self.byte(mode | reg | 4);
                        self.byte(0x20 | base.0 & 7);
                    }
                    None => self.byte(mode | reg | base.0 & 7),
                }
                match (mode, short) {
                    (0, _) => {}
                    (0x40, Some(d)) => self.byte(d as u8),
                    _ => self.imm32(disp),
                }
            }
        }
    }

    /// Bits 3 and 4 of the operand's register, or of base and index: (B, X).
    fn extension(rm: Rm) -> (bool, bool) {
        match rm {
            Rm::Reg(r) => (r & 8 != 0, r & 16 != 0),
            Rm::Mem(Mem::Data(_)) => (false, false),
            Rm::Mem(Mem::At { base, index, .. }) => {
                (base.0 & 8 != 0, index.is_some_and(|(i, _)| i.0 & 8 != 0))
            }
        }
    }

    /// A vector instruction `reg = op(vvvv, rm)`; `vvvv` is 0 where there is no second operand.
    #[expect(clippy::too_many_arguments, reason = "the fields of an instruction")]
    pub(super) fn vector(
        &mut self,
        i: Ins,
        width: Width,
        reg: u8,
        vvvv: u8,
        rm: Rm,
        imm: Option<u8>,
        x: Evex,
    ) {
        if self.evex {
            self.evex(i, width, reg, vvvv, rm, imm, x);
        } else {
            self.vex(i, width as u8, reg, vvvv, rm, imm);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an instruction")]
    fn evex(&mut self, i: Ins, width: Width, reg: u8, vvvv: u8, rm: Rm, imm: Option<u8>, x: Evex) {
        let (b, index) = Self::extension(rm);
        let inverted = |bit: bool, at: u8| u8::from(!bit) << at;
        self.byte(0x62);
        self.byte(
            inverted(reg & 8 != 0, 7)
                | inverted(index, 6)
                | inverted(b, 5)
                | inverted(reg & 16 != 0, 4)
                | i.map,
        );
        self.byte(i.w << 7 | (!vvvv & 15) << 3 | 4 | i.pp);
        self.byte(
            u8::from(x.zero) << 7
                | (width as u8) << 5
                | u8::from(x.broadcast) << 4
                | inverted(vvvv & 16 != 0, 3)
                | x.mask,
        );
        self.byte(i.op);
        let scale = match i.tuple {
            _ if x.broadcast => 4 << i.w,
            Tuple::Full => width.bytes(),
            Tuple::Half => width.bytes() / 2,
            Tuple::Quarter => width.bytes() / 4,
            Tuple::Scalar(n) => n as usize,
        };
        self.operand(reg, rm, scale, imm.map_or(0, |_| 1));
        if let Some(v) = imm {
            self.byte(v);
        }
    }

    /// A VEX instruction with vector length bit `l`; also those on mask and general registers.
    pub(super) fn vex(&mut self, i: Ins, l: u8, reg: u8, vvvv: u8, rm: Rm, imm: Option<u8>) {
        debug_assert!(reg < 16 && vvvv < 16, "VEX names 16 registers");
        let (b, x) = Self::extension(rm);
        let not = |bit: bool, at: u8| u8::from(!bit) << at;
        let tail = (!vvvv & 15) << 3 | l << 2 | i.pp;
        if !b && !x && i.map == 1 && i.w == 0 {
            self.byte(0xc5);
            self.byte(not(reg & 8 != 0, 7) | tail);
        } else {
            self.byte(0xc4);
            self.byte(not(reg & 8 != 0, 7) | not(x, 6) | not(b, 5) | i.map);
            self.byte(i.w << 7 | tail);
        }
        self.byte(i.op);
        self.operand(reg, rm, 1, imm.map_or(0, |_| 1));
        if let Some(v) = imm {
            self.byte(v);
        }
    }

    /// A 64-bit (`wide`) or 32-bit integer instruction with a ModRM operand.
    fn integer(&mut self, wide: bool, opcode: &[u8], reg: u8, rm: Rm, trailing: usize) {
        let (b, x) = Self::extension(rm);
        let rex = 0x40 | u8::from(wide) << 3 | (reg & 8) >> 1 | u8::from(x) << 1 | u8::from(b);
        if rex != 0x40 {
            self.byte(rex);
        }
        self.code.extend_from_slice(opcode);
        self.operand(reg, rm, 1, trailing);
    }

    pub(super) fn mov(&mut self, dst: Gpr, src: Gpr) {
        if dst != src {
            self.integer(true, &[0x8b], dst.0, Rm::Reg(src.0), 0);
        }
    }

    pub(super) fn mov_imm(&mut self, dst: Gpr, value: i64) {
        if let Ok(v) = u32::try_from(value) {
            if dst.0 & 8 != 0 {
                self.byte(0x41);
            }
            self.byte(0xb8 | dst.0 & 7);
            self.imm32(v as i32);
        } else if let Ok(v) = i32::try_from(value) {
            self.integer(true, &[0xc7], 0, Rm::Reg(dst.0), 4);
            self.imm32(v);
        } else {
            self.byte(0x48 | u8::from(dst.0 & 8 != 0));
            self.byte(0xb8 | dst.0 & 7);
            self.code.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn load(&mut self, dst: Gpr, mem: Mem) {
        self.integer(true, &[0x8b], dst.0, Rm::Mem(mem), 0);
    }

    pub(super) fn store(&mut self, mem: Mem, src: Gpr) {
        self.integer(true, &[0x89], src.0, Rm::Mem(mem), 0);
    }

    /// Loads 1, 4 or 8 bytes; fewer than 8 are zero-extended.
    pub(super) fn load_bytes(&mut self, dst: Gpr, mem: Mem, bytes: usize) {
        match bytes {
            1 => self.integer(false, &[0x0f, 0xb6], dst.0, Rm::Mem(mem), 0),
            2 => self.integer(false, &[0x0f, 0xb7], dst.0, Rm::Mem(mem), 0),
            4 => self.integer(false, &[0x8b], dst.0, Rm::Mem(mem), 0),
            _ => self.load(dst, mem),
        }
    }

    /// Stores the low 1, 2, 4 or 8 bytes of one of the first four registers.
    pub(super) fn store_bytes(&mut self, mem: Mem, src: Gpr, bytes: usize) {
        debug_assert!(src.0 < 4, "the others need a prefix for their low byte");
        match bytes {
            1 => self.integer(false, &[0x88], src.0, Rm::Mem(mem), 0),
            2 => {
                self.byte(0x66);
                self.integer(false, &[0x89], src.0, Rm::Mem(mem), 0);
            }
            4 => self.integer(false, &[0x89], src.0, Rm::Mem(mem), 0),
            _ => self.store(mem, src),
        }
    }

    pub(super) fn store_imm(&mut self, mem: Mem, value: i32) {
        self.integer(true, &[0xc7], 0, Rm::Mem(mem), 4);
        self.imm32(value);
    }

    pub(super) fn lea(&mut self, dst: Gpr, mem: Mem) {
        self.integer(true, &[0x8d], dst.0, Rm::Mem(mem), 0);
    }

    pub(super) fn alu(&mut self, op: Alu, dst: Gpr, src: Rm) {
        self.integer(true, &[op as u8], dst.0, src, 0);
    }

    pub(super) fn alu_imm(&mut self, op: Alu, dst: Rm, value: i32) {
        let digit = (op as u8) >> 3;
        if let Ok(v) = i8::try_from(value) {
            self.integer(true, &[0x83], digit, dst, 1);
            self.byte(v as u8);
        } else {
            self.integer(true, &[0x81], digit, dst, 4);
            self.imm32(value);
        }
    }

    /// `mem += src`
    pub(super) fn add_to(&mut self, mem: Mem, src: Gpr) {
        self.integer(true, &[0x01], src.0, Rm::Mem(mem), 0);
    }

    pub(super) fn imul_imm(&mut self, dst: Gpr, src: Rm, value: i32) {
        self.integer(true, &[0x69], dst.0, src, 4);
        self.imm32(value);
    }

    pub(super) fn imul(&mut self, dst: Gpr, src: Gpr) {
        self.integer(true, &[0x0f, 0xaf], dst.0, Rm::Reg(src.0), 0);
    }

    /// `rdx:rax = rax * src`, unsigned.
    pub(super) fn mul(&mut self, src: Gpr) {
        self.integer(true, &[0xf7], 4, Rm::Reg(src.0), 0);
    }

    /// `rax = rdx:rax / src`, unsigned; the remainder in `rdx`.
    pub(super) fn div(&mut self, src: Gpr) {
        self.integer(true, &[0xf7], 6, Rm::Reg(src.0), 0);
    }

    /// Into all caches.
    pub(super) fn prefetch(&mut self, mem: Mem) {
        self.integer(false, &[0x0f, 0x18], 1, Rm::Mem(mem), 0);
    }

    pub(super) fn shl(&mut self, dst: Gpr, by: u8) {
        self.integer(true, &[0xc1], 4, Rm::Reg(dst.0), 1);
        self.byte(by);
    }

    pub(super) fn shr(&mut self, dst: Gpr, by: u8) {
        self.integer(true, &[0xc1], 5, Rm::Reg(dst.0), 1);
        self.byte(by);
    }

    pub(super) fn neg(&mut self, dst: Gpr) {
        self.integer(true, &[0xf7], 3, Rm::Reg(dst.0), 0);
    }

    pub(super) fn cmov(&mut self, cond: Cond, dst: Gpr, src: Rm) {
        self.integer(true, &[0x0f, 0x40 | cond as u8], dst.0, src, 0);
    }

    /// `dst = cond`, one of the first four registers.
    pub(super) fn set(&mut self, cond: Cond, dst: Gpr) {
        debug_assert!(dst.0 < 4, "the others need a prefix for their low byte");
        self.integer(false, &[0x0f, 0x90 | cond as u8], 0, Rm::Reg(dst.0), 0);
        self.integer(false, &[0x0f, 0xb6], dst.0, Rm::Reg(dst.0), 0);
    }

    pub(super) fn jump_if(&mut self, cond: Cond, label: Label) {
        self.code.extend_from_slice(&[0x0f, 0x80 | cond as u8]);
        self.distance(label);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.byte(0xe9);
        self.distance(label);
    }

    /// Makes stores past the caches visible before any later store.
    pub(super) fn sfence(&mut self) {
        self.code.extend_from_slice(&[0x0f, 0xae, 0xf8]);
    }

    fn distance(&mut self, label: Label) {
        let at = self.code.len();
        self.imm32(0);
        self.fixups.push((at, at + 4, label));
    }

    pub(super) fn push(&mut self, r: Gpr) {
        if r.0 & 8 != 0 {
            self.byte(0x41);
        }
        self.byte(0x50 | r.0 & 7);
    }

    pub(super) fn pop(&mut self, r: Gpr) {
        if r.0 & 8 != 0 {
            self.byte(0x41);
        }
        self.byte(0x58 | r.0 & 7);
    }

    pub(super) fn ret(&mut self) {
        self.byte(0xc3);
    }

    /// Clears the upper halves of vector registers, as callers of other code expect.
    pub(super) fn vzeroupper(&mut self) {
        self.code.extend_from_slice(&[0xc5, 0xf8, 0x77]);
    }
}

/// Instructions that do nothing, of 1 to 8 bytes.
const NOPS: [&[u8]; 8] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

#[cfg(test)]
mod tests {
    use super::super::table::{self, FmaOrder};
    use super::*;
    use crate::codegen::disassemble;
    use graphc_ir::DType;

    /// The instructions that `emit` writes, as a disassembler reads them.
    fn text(evex: bool, emit: impl FnOnce(&mut Assembler)) -> Vec<String> {
        let mut a = Assembler::new(evex);
        emit(&mut a);
        let code = a.finish().bytes;
        let words = |l: &str| l.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ");
        disassemble(&code, &[]).lines().map(words).collect()
    }

    const NONE: Evex = Evex { mask: 0, zero: false, broadcast: false };

    fn vector(evex: bool, i: Ins, w: Width, regs: (u8, u8), rm: Rm, imm: Option<u8>, x: Evex) -> String {
        text(evex, |a| a.vector(i, w, regs.0, regs.1, rm, imm, x)).remove(0)
    }

    #[test]
    fn registers_reach_every_field() {
        let add = table::float(DType::F32, table::ADD);
        let r = |evex, w, d, x, y| vector(evex, add, w, (d, x), Rm::Reg(y), None, NONE);
        assert_eq!(r(false, Width::Y, 1, 2, 3), "vaddps ymm1,ymm2,ymm3");
        assert_eq!(r(false, Width::X, 9, 10, 11), "vaddps xmm9,xmm10,xmm11");
        assert_eq!(r(true, Width::Z, 31, 16, 8), "vaddps zmm31,zmm16,zmm8");
        assert_eq!(r(true, Width::Y, 8, 31, 24), "vaddps ymm8,ymm31,ymm24");
    }

    #[test]
    fn memory_operands_have_the_shortest_displacement_that_fits() {
        let add = table::float(DType::F64, table::ADD);
        let m = |evex, mem, x| vector(evex, add, Width::Y, (1, 2), Rm::Mem(mem), None, x);
        assert_eq!(m(true, Mem::at(R12, 64), NONE), "vaddpd ymm1,ymm2,[r12+40h]");
        assert_eq!(m(true, Mem::at(R13, 0), NONE), "vaddpd ymm1,ymm2,[r13]");
        assert_eq!(m(false, Mem::at(RBP, 1000), NONE), "vaddpd ymm1,ymm2,[rbp+3E8h]");
        let indexed = Mem::At { base: RSP, index: Some((R15, 3)), disp: -8 };
        assert_eq!(m(false, indexed, NONE), "vaddpd ymm1,ymm2,[rsp+r15*8-8]");
        let one = Evex { broadcast: true, ..NONE };
        assert_eq!(m(true, Mem::at(RAX, 24), one), "vaddpd ymm1,ymm2,[rax+18h]{1to4}");
        assert_eq!(m(true, Mem::at(RAX, 20), one), "vaddpd ymm1,ymm2,[rax+14h]{1to4}");
    }

    #[test]
    fn masks_and_immediates() {
        let x = Evex { mask: 7, zero: true, broadcast: false };
        let load = vector(true, table::MOVUPS_LOAD, Width::Z, (5, 0), Rm::Mem(Mem::at(RSI, 128)), None, x);
        assert_eq!(load, "vmovups zmm5{k7}{z},[rsi+80h]");
        let cmp = table::float(DType::F32, table::CMP);
        let to_mask = vector(true, cmp, Width::Z, (3, 20), Rm::Reg(21), Some(3), NONE);
        assert_eq!(to_mask, "vcmpunordps k3,zmm20,zmm21");
        let blend = vector(false, table::BLENDVPS, Width::Y, (1, 2), Rm::Reg(3), Some(4 << 4), NONE);
        assert_eq!(blend, "vblendvps ymm1,ymm2,ymm3,ymm4");
        let shift = vector(true, table::PSHIFTD, Width::Z, (2, 9), Rm::Reg(17), Some(23), NONE);
        assert_eq!(shift, "vpsrld zmm9,zmm17,17h");
        let fma =
            vector(true, table::fma(DType::F32, FmaOrder::O231), Width::Z, (1, 2), Rm::Reg(3), None, NONE);
        assert_eq!(fma, "vfmadd231ps zmm1,zmm2,zmm3");
        let k = |i, l, d, x, y| text(true, |a| a.vex(i, l, d, x, Rm::Reg(y), None)).remove(0);
        assert_eq!(k(table::KANDN, 1, 1, 2, 3), "kandnw k1,k2,k3");
        assert_eq!(k(table::KMOVW_TO_GPR, 0, RAX.0, 0, 5), "kmovw eax,k5");
    }

    /// Every row of the table in the widths and encodings it is used in.
    #[test]
    fn every_row_is_the_instruction_of_its_name() {
        let both: &[(Ins, &str)] = &[
            (table::PADDD, "vpaddd"),
            (table::PADDQ, "vpaddq"),
            (table::PSUBD, "vpsubd"),
            (table::PSUBQ, "vpsubq"),
            (table::PMULLD, "vpmulld"),
            (table::PMULUDQ, "vpmuludq"),
            (table::PMINSD, "vpminsd"),
            (table::PMAXSD, "vpmaxsd"),
        ];
        for (i, name) in both {
            for (evex, w, r) in [(false, Width::X, "xmm"), (false, Width::Y, "ymm"), (true, Width::Z, "zmm")]
            {
                let expected = format!("{name} {r}1,{r}2,{r}3");
                assert_eq!(vector(evex, *i, w, (1, 2), Rm::Reg(3), None, NONE), expected);
            }
        }
        let two: &[(bool, Ins, &str)] = &[
            (false, table::BROADCASTSS, "vbroadcastss ymm1,xmm3"),
            (false, table::PBROADCASTQ_VEX, "vpbroadcastq ymm1,xmm3"),
            (false, table::PMOVSXDQ, "vpmovsxdq ymm1,xmm3"),
            (false, table::CVTDQ2PS, "vcvtdq2ps ymm1,ymm3"),
            (false, table::CVTTPS2DQ, "vcvttps2dq ymm1,ymm3"),
            (false, table::CVTPS2PD, "vcvtps2pd ymm1,xmm3"),
            (false, table::CVTPD2PS, "vcvtpd2ps xmm1,ymm3"),
            (false, table::CVTDQ2PD, "vcvtdq2pd ymm1,xmm3"),
            (true, table::PBROADCASTQ, "vpbroadcastq ymm1,xmm3"),
            (true, table::PBROADCASTD_GPR, "vpbroadcastd ymm1,ebx"),
            (true, table::CVTQQ2PD, "vcvtqq2pd ymm1,ymm3"),
            (true, table::CVTQQ2PS, "vcvtqq2ps xmm1,ymm3"),
            (true, table::PMOVQD, "vpmovqd xmm3,ymm1"),
            (true, table::PABSQ, "vpabsq ymm1,ymm3"),
        ];
        for (evex, i, expected) in two {
            assert_eq!(vector(*evex, *i, Width::Y, (1, 0), Rm::Reg(3), None, NONE), *expected);
        }
        let three: &[(bool, Ins, Option<u8>, &str)] = &[
            (false, table::PCMPGTQ, None, "vpcmpgtq ymm1,ymm2,ymm3"),
            (false, table::PCMPEQQ, None, "vpcmpeqq ymm1,ymm2,ymm3"),
            (false, table::PAND, None, "vpand ymm1,ymm2,ymm3"),
            (false, table::PANDN, None, "vpandn ymm1,ymm2,ymm3"),
            (false, table::SHUFPS, Some(0x88), "vshufps ymm1,ymm2,ymm3,88h"),
            (false, table::INSERT128, Some(1), "vinserti128 ymm1,ymm2,xmm3,1"),
            (true, table::PMULLQ, None, "vpmullq ymm1,ymm2,ymm3"),
            (true, table::PMINSQ, None, "vpminsq ymm1,ymm2,ymm3"),
            (true, table::PMAXSQ, None, "vpmaxsq ymm1,ymm2,ymm3"),
            (true, table::BLENDMPD, None, "vblendmpd ymm1,ymm2,ymm3"),
            (true, table::PCMPQ_MASK, Some(6), "vpcmpnleq k1,ymm2,ymm3"),
        ];
        for (evex, i, imm, expected) in three {
            assert_eq!(vector(*evex, *i, Width::Y, (1, 2), Rm::Reg(3), *imm, NONE), *expected);
        }
        for (evex, name) in [(false, "vroundpd"), (true, "vrndscalepd")] {
            let i = table::round(DType::F64, evex);
            assert_eq!(
                vector(evex, i, Width::Y, (1, 0), Rm::Reg(3), Some(9), NONE),
                format!("{name} ymm1,ymm3,9")
            );
        }
    }

    #[test]
    fn rows_between_registers_and_memory() {
        let at = Rm::Mem(Mem::at(RSI, 32));
        let y = Width::Y;
        // Whether EVEX, instruction, width, first and second register, last operand, text.
        type Row = (bool, Ins, Width, (u8, u8), Rm, &'static str);
        let rows: &[Row] = &[
            (false, table::MOVUPS_LOAD, y, (1, 0), at, "vmovups ymm1,[rsi+20h]"),
            (false, table::MOVUPS_STORE, y, (1, 0), at, "vmovups [rsi+20h],ymm1"),
            (true, table::MOVUPD_LOAD, y, (1, 0), at, "vmovupd ymm1,[rsi+20h]"),
            (true, table::MOVUPD_STORE, y, (1, 0), at, "vmovupd [rsi+20h],ymm1"),
            (false, table::MOVNTPS, Width::X, (1, 0), at, "vmovntps [rsi+20h],xmm1"),
            (true, table::MOVNTPS, Width::X, (17, 0), at, "vmovntps [rsi+20h],xmm17"),
            (false, table::MOVSS_LOAD, Width::X, (1, 0), at, "vmovss xmm1,[rsi+20h]"),
            (false, table::MOVSS_STORE, Width::X, (1, 0), at, "vmovss [rsi+20h],xmm1"),
            (true, table::MOVSD_LOAD, Width::X, (1, 0), at, "vmovsd xmm1,[rsi+20h]"),
            (true, table::MOVSD_STORE, Width::X, (1, 0), at, "vmovsd [rsi+20h],xmm1"),
            (false, table::MOVD_LOAD, Width::X, (1, 0), at, "vmovd xmm1,[rsi+20h]"),
            (false, table::MOVD_STORE, Width::X, (1, 0), at, "vmovd [rsi+20h],xmm1"),
            (true, table::MOVQ_LOAD, Width::X, (1, 0), Rm::Reg(3), "vmovq xmm1,rbx"),
            (true, table::MOVQ_STORE, Width::X, (1, 0), Rm::Reg(3), "vmovq rbx,xmm1"),
            (false, table::MASKMOVPS_LOAD, y, (1, 2), at, "vmaskmovps ymm1,ymm2,[rsi+20h]"),
            (false, table::MASKMOVPD_LOAD, y, (1, 2), at, "vmaskmovpd ymm1,ymm2,[rsi+20h]"),
            (true, table::MOVDQU8_LOAD, Width::X, (1, 0), at, "vmovdqu8 xmm1,[rsi+20h]"),
            (true, table::MOVDQU8_STORE, Width::X, (1, 0), at, "vmovdqu8 [rsi+20h],xmm1"),
            (false, table::PMOVZXBD, y, (1, 0), at, "vpmovzxbd ymm1,[rsi+20h]"),
            (true, table::PMOVZXWD, Width::Z, (1, 0), at, "vpmovzxwd zmm1,[rsi+20h]"),
            (true, table::PMOVDB, Width::Z, (1, 0), at, "vpmovdb [rsi+20h],zmm1"),
            (true, table::PMOVDW, Width::Z, (1, 0), at, "vpmovdw [rsi+20h],zmm1"),
            (true, table::EXTRACT128, y, (1, 0), Rm::Reg(3), "vextracti32x4 xmm3,ymm1,1"),
            (false, table::EXTRACTPS, Width::X, (1, 0), at, "vextractps [rsi+20h],xmm1,1"),
            (false, table::EXTRACT128_VEX, y, (1, 0), Rm::Reg(3), "vextracti128 xmm3,ymm1,1"),
            (true, table::EXTRACT256, Width::Z, (1, 0), Rm::Reg(3), "vextracti64x4 ymm3,zmm1,1"),
            (true, table::INSERT256, Width::Z, (1, 2), Rm::Reg(3), "vinserti64x4 zmm1,zmm2,ymm3,1"),
            (true, table::INSERT128, y, (1, 2), Rm::Reg(3), "vinserti32x4 ymm1,ymm2,xmm3,1"),
            (false, table::INSERTPS, Width::X, (1, 2), at, "vinsertps xmm1,xmm2,[rsi+20h],1"),
            (false, table::PERMQ, y, (1, 0), Rm::Reg(3), "vpermq ymm1,ymm3,1"),
            (false, table::PSHUFD, y, (1, 0), Rm::Reg(3), "vpshufd ymm1,ymm3,1"),
        ];
        let immediates = ["vextract", "vinsert", "vpermq", "vpshufd"];
        for (evex, i, width, regs, rm, expected) in rows {
            let imm = immediates.iter().any(|m| expected.starts_with(m)).then_some(1);
            assert_eq!(vector(*evex, *i, *width, *regs, *rm, imm, NONE), *expected);
        }
    }

    #[test]
    fn rows_of_logic_comparison_and_shifts() {
        let rows: &[(bool, Ins, Option<u8>, &str)] = &[
            (false, table::POR, None, "vpor ymm1,ymm2,ymm3"),
            (false, table::PXOR, None, "vpxor ymm1,ymm2,ymm3"),
            (true, table::PAND, None, "vpandd ymm1,ymm2,ymm3"),
            (true, table::POR, None, "vpord ymm1,ymm2,ymm3"),
            (true, table::PXOR, None, "vpxord ymm1,ymm2,ymm3"),
            (true, Ins { w: 1, ..table::PXOR }, None, "vpxorq ymm1,ymm2,ymm3"),
            (false, table::PCMPEQD, None, "vpcmpeqd ymm1,ymm2,ymm3"),
            (false, table::PCMPGTD, None, "vpcmpgtd ymm1,ymm2,ymm3"),
            (true, table::PCMPD_MASK, Some(1), "vpcmpltd k1,ymm2,ymm3"),
            (true, table::PTESTMB, None, "vptestmb k1,ymm2,ymm3"),
            (false, table::PACKUSDW, None, "vpackusdw ymm1,ymm2,ymm3"),
            (false, table::PACKUSWB, None, "vpackuswb ymm1,ymm2,ymm3"),
            (false, table::BLENDVPD, Some(4 << 4), "vblendvpd ymm1,ymm2,ymm3,ymm4"),
            (true, table::BLENDMPS, None, "vblendmps ymm1,ymm2,ymm3"),
            (false, table::float(DType::F64, table::SUB), None, "vsubpd ymm1,ymm2,ymm3"),
            (false, table::float(DType::F32, table::MUL), None, "vmulps ymm1,ymm2,ymm3"),
            (false, table::float(DType::F32, table::DIV), None, "vdivps ymm1,ymm2,ymm3"),
            (true, table::float(DType::F32, table::MIN), None, "vminps ymm1,ymm2,ymm3"),
            (false, table::float(DType::F64, table::MAX), None, "vmaxpd ymm1,ymm2,ymm3"),
            (false, table::fma(DType::F32, FmaOrder::O132), None, "vfmadd132ps ymm1,ymm2,ymm3"),
            (true, table::fma(DType::F64, FmaOrder::O213), None, "vfmadd213pd ymm1,ymm2,ymm3"),
        ];
        for (evex, i, imm, expected) in rows {
            assert_eq!(vector(*evex, *i, Width::Y, (1, 2), Rm::Reg(3), *imm, NONE), *expected);
        }
        let sqrt = table::float(DType::F64, table::SQRT);
        assert_eq!(vector(false, sqrt, Width::Y, (1, 0), Rm::Reg(3), None, NONE), "vsqrtpd ymm1,ymm3");
        let abs = vector(false, table::PABSD, Width::Y, (1, 0), Rm::Reg(3), None, NONE);
        assert_eq!(abs, "vpabsd ymm1,ymm3");
        // The digit is where the destination is in others, and that where their second operand is.
        let shifts: &[(bool, Ins, u8, &str)] = &[
            (false, table::PSHIFTD, table::SHIFT_RIGHT_ARITHMETIC, "vpsrad ymm2,ymm3,5"),
            (false, table::PSHIFTD, table::SHIFT_LEFT, "vpslld ymm2,ymm3,5"),
            (false, table::PSHIFTQ, table::SHIFT_RIGHT, "vpsrlq ymm2,ymm3,5"),
            (true, table::PSHIFTQ, table::SHIFT_LEFT, "vpsllq ymm2,ymm3,5"),
            (true, table::PSRAQ, table::SHIFT_RIGHT_ARITHMETIC, "vpsraq ymm2,ymm3,5"),
        ];
        for (evex, i, digit, expected) in shifts {
            assert_eq!(vector(*evex, *i, Width::Y, (*digit, 2), Rm::Reg(3), Some(5), NONE), *expected);
        }
        // Instruction, length bit, first and second register, last operand, immediate, text.
        type Row = (Ins, u8, (u8, u8), Rm, Option<u8>, &'static str);
        let masks: &[Row] = &[
            (table::KMOVW, 0, (1, 0), Rm::Reg(3), None, "kmovw k1,k3"),
            (table::KMOVW, 0, (1, 0), Rm::Mem(Mem::at(RSP, 8)), None, "kmovw k1,[rsp+8]"),
            (table::KMOVW_STORE, 0, (1, 0), Rm::Mem(Mem::at(RSP, 8)), None, "kmovw [rsp+8],k1"),
            (table::KMOVW_FROM_GPR, 0, (1, 0), Rm::Reg(RAX.0), None, "kmovw k1,eax"),
            (table::KAND, 1, (1, 2), Rm::Reg(3), None, "kandw k1,k2,k3"),
            (table::KNOT, 0, (1, 0), Rm::Reg(3), None, "knotw k1,k3"),
            (table::KOR, 1, (1, 2), Rm::Reg(3), None, "korw k1,k2,k3"),
            (table::KXNOR, 1, (1, 2), Rm::Reg(3), None, "kxnorw k1,k2,k3"),
            (table::KXOR, 1, (1, 2), Rm::Reg(3), None, "kxorw k1,k2,k3"),
            (table::KSHIFTR, 0, (1, 0), Rm::Reg(3), Some(4), "kshiftrw k1,k3,4"),
        ];
        for (i, l, (reg, vvvv), rm, imm, expected) in masks {
            assert_eq!(text(true, |a| a.vex(*i, *l, *reg, *vvvv, *rm, *imm)).remove(0), *expected);
        }
    }

    #[test]
    fn integer_instructions() {
        let lines = text(false, |a| {
            a.mov(R15, RAX);
            a.mov_imm(RDI, -1);
            a.mov_imm(R12, 1 << 40);
            a.alu_imm(Alu::And, Rm::Reg(RSP.0), -64);
            a.alu(Alu::Cmp, R13, Rm::Mem(Mem::at(RSP, 8)));
            a.imul_imm(RCX, Rm::Mem(Mem::at(RSP, 16)), 1000);
            a.cmov(Cond::Less, RAX, Rm::Reg(RCX.0));
            a.store_bytes(Mem::at(R14, 3), RDX, 1);
            a.add_to(Mem::at(RSP, 24), RAX);
        });
        let expected = [
            "mov r15,rax",
            "mov rdi,0FFFFFFFFFFFFFFFFh",
            "mov r12,10000000000h",
            "and rsp,0FFFFFFFFFFFFFFC0h",
            "cmp r13,[rsp+8]",
            "imul rcx,[rsp+10h],3E8h",
            "cmovl rax,rcx",
            "mov [r14+3],dl",
            "add [rsp+18h],rax",
        ];
        assert_eq!(lines, expected);
    }
}
