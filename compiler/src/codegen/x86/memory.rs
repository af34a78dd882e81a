//! Loads, stores, and what moves values between lanes.

use super::address::Place;
use super::asm::{Alu, Cond, Evex, Ins, Mem, RAX, RCX, RDX, RSP, Rm, Width};
use super::regs::{Class, Home, MASK_TAIL, MASK_TEMP};
use super::{Active, Emitted, Emitter, Isa, LANE_BYTES, Mode, Refused, Transposed, lane_bytes, table};
use crate::narrow::lane_type;
use crate::vector::{Base, MemRef, Val};
use graphc_ir::{DType, Guard, IndexExpr, ReduceKind, Scalar};

/// Lanes of a memory access that exist.
#[derive(Clone, Copy)]
enum Lanes {
    All,
    None,
    /// AVX-512: those of a mask register.
    Mask(u8),
    /// AVX2: those of a vector register's sign bits.
    Vector(u8),
}

impl Emitter<'_> {
    /// Places a constant: behind the code, from where instructions read it.
    pub(super) fn constant(&mut self, dst: Val, c: Scalar) {
        let label = match (self.isa, c) {
            (Isa::Avx512, Scalar::Bool(v)) => {
                let i = if v { table::KXNOR } else { table::KXOR };
                let k = self.take(Class::Mask);
                self.a.vex(i, 1, k, k, Rm::Reg(k), None);
                self.own(dst, 0, k);
                return;
            }
            _ => {
                let size = lane_bytes(c.dtype());
                let bits =
                    if let Scalar::Bool(v) = c { u64::from(v) * u64::from(u32::MAX) } else { c.bits() };
                let element = &bits.to_le_bytes()[..size];
                let copies = if self.isa == Isa::Avx512 { 1 } else { 32 / size };
                self.a.constant(element.repeat(copies))
            }
        };
        for part in &mut self.placed_mut(dst).parts {
            part.home = Home::Constant(label);
        }
    }

    /// Whether all lanes of vectors exist.
    pub(super) fn whole(&self) -> bool {
        matches!(self.mode, Mode::Vector { active: Active::All, .. })
    }

    /// Lanes of vectors that exist, where that is known now.
    fn existing(&self) -> Option<usize> {
        match self.mode {
            Mode::Vector { active: Active::All, lanes, .. } => Some(lanes),
            Mode::Vector { active: Active::Lowest(n), .. } => Some(n),
            Mode::Vector { active: Active::Slot(_), .. } | Mode::Scalar => None,
        }
    }

    /// Whether a vector fills the registers that it takes.
    pub(super) fn fills_registers(&self, v: Val) -> bool {
        let (width, parts) = self.shape_of(v);
        self.lanes(v) * lane_bytes(self.dtype(v)) == parts * width.bytes()
    }

    /// Whether a load of `mem` may be left to the instruction that uses it.
    pub(super) fn folds(&self, dst: Val, mem: &MemRef) -> bool {
        self.whole()
            && self.tail_depth == 0
            && self.shape_of(dst).1 == 1
            && self.fills_registers(dst)
            && self.lane_stride(&mem.index) == Some(1)
    }

    /// The pending load of a value, as an operand.
    pub(super) fn folded_operand(&mut self, v: Val) -> Option<(Rm, Evex)> {
        let (mem, broadcast) = self.folded.remove(&v)?;
        let mem = self.address(&mem, 0);
        Some((Rm::Mem(mem), Evex { broadcast, ..Evex::default() }))
    }

    pub(super) fn splat(&mut self, dst: Val, x: Val) -> Emitted {
        if self.is_constant(x) {
            let home = self.placed(x).parts[0].home;
            self.place(dst);
            for part in &mut self.placed_mut(dst).parts {
                part.home = home;
            }
            return Ok(());
        }
        let (width, parts) = self.shape_of(dst);
        let size = lane_bytes(self.dtype(dst));
        let broadcast = match (self.isa, size) {
            (Isa::Avx512, 8) => table::PBROADCASTQ,
            (Isa::Avx2, 8) => table::PBROADCASTQ_VEX,
            _ => table::BROADCASTSS,
        };
        if let Some(mem) = self.broadcasts.get(&x).cloned() {
            self.place(dst);
            if self.foldable.contains(&dst) && self.isa == Isa::Avx512 && parts == 1 {
                self.folded.insert(dst, (mem, true));
                return Ok(());
            }
            let at = self.address(&mem, 0);
            let first = self.take(Class::Vector);
            let i = if self.lanes(dst) == 1 { scalar_load(size) } else { broadcast };
            self.a.vector(i, width, first, 0, Rm::Mem(at), None, Evex::default());
            self.own(dst, 0, first);
            return Ok(());
        }
        if self.lanes(dst) == 1 {
            let dies = self.dies(x);
            self.alias(dst, x, dies);
            return Ok(());
        }
        self.place(dst);
        if self.class_of(dst) == Class::Mask {
            let k = self.in_register(x, 0);
            self.a.vex(table::KMOVW_TO_GPR, 0, RAX.0, 0, Rm::Reg(k), None);
            self.a.alu_imm(Alu::And, Rm::Reg(RAX.0), 1);
            self.a.neg(RAX);
            let k = self.take(Class::Mask);
            self.a.vex(table::KMOVW_FROM_GPR, 0, k, 0, Rm::Reg(RAX.0), None);
            self.own(dst, 0, k);
            return Ok(());
        }
        let source = self.in_register(x, 0);
        let first = self.take(Class::Vector);
        self.a.vector(broadcast, width, first, 0, Rm::Reg(source), None, Evex::default());
        self.own(dst, 0, first);
        Ok(())
    }

    /// Puts a mask of the lowest `n` lanes into a mask register.
    pub(super) fn lowest_mask(&mut self, k: u8, n: usize) {
        self.a.mov_imm(RAX, (1 << n) - 1);
        self.a.vex(table::KMOVW_FROM_GPR, 0, k, 0, Rm::Reg(RAX.0), None);
    }

    /// Which lanes of part `p`, of `per` lanes, exist: the last part of a vector need not be full where the loop was made
    /// for wider elements. Uses `rax` and the temporaries.
    fn active(&mut self, p: usize, per: usize, size: usize) -> Lanes {
        if !matches!(self.mode, Mode::Vector { .. }) {
            return Lanes::All;
        }
        match self.existing() {
            Some(n) => {
                let here = n.saturating_sub(p * per).min(per);
                if here == per {
                    return Lanes::All;
                }
                if here == 0 {
                    return Lanes::None;
                }
                if self.isa == Isa::Avx512 {
                    // That for parts of 16 lanes is there already.
                    if !self.whole() && here == n % 16 {
                        return Lanes::Mask(MASK_TAIL);
                    }
                    self.lowest_mask(MASK_TEMP, here);
                    return Lanes::Mask(MASK_TEMP);
                }
                let bytes: Vec<u8> = (0..32)
                    .map(|b| if b / size + usize::from(fault!(27)) < here { 0xff } else { 0 })
                    .collect();
                let label = self.a.constant(bytes);
                let temp = self.temp();
                let mem = Rm::Mem(Mem::Data(label));
                self.a.vector(table::MOVUPS_LOAD, Width::Y, temp, 0, mem, None, Evex::default());
                Lanes::Vector(temp)
            }
            None => {
                if p * per == 0 {
                    return Lanes::Mask(MASK_TAIL);
                }
                self.a.vex(table::KSHIFTR, 0, MASK_TEMP, 0, Rm::Reg(MASK_TAIL), Some((p * per) as u8));
                Lanes::Mask(MASK_TEMP)
            }
        }
    }

    pub(super) fn load(&mut self, dst: Val, mem: &MemRef, guards: &[Guard]) -> Emitted {
        let size = mem.dtype.size_bytes();
        if self.lanes(dst) == 1 {
            let at = self.guarded_address(mem, guards, 0);
            return self.load_scalar(dst, mem.dtype, at);
        }
        let (width, parts) = self.shape_of(dst);
        let stride = self.lane_stride(&mem.index);
        let var = self.vector_variable();
        let varying = guards.iter().any(|g| g.expr.uses(var));
        if stride != Some(1) {
            return self.load_lanes(dst, mem, guards, stride);
        }
        if self.class_of(dst) == Class::Mask {
            return self.load_mask(dst, mem, guards, varying);
        }
        if lane_bytes(mem.dtype) != size {
            return self.load_narrow(dst, mem, guards, varying);
        }
        let per = width.bytes() / size;
        if varying {
            if !guards.iter().all(|g| g.expr.coefficient(var).is_some()) {
                return self.load_lanes(dst, mem, guards, stride);
            }
            for p in 0..parts {
                let r = self.take(Class::Vector);
                let lanes = self.lane_guard(guards, p, per, size)?;
                let at = self.address(mem, 0).offset((p * width.bytes()) as i32);
                self.load_part(r, width, size, at, lanes);
                self.own(dst, p, r);
                self.unlock(Class::Vector, r);
            }
            return Ok(());
        }
        let at = self.guarded_address(mem, guards, 0);
        // `active` uses `rax`, which may hold the address.
        let at = self.keep_address(at, per);
        for p in 0..parts {
            let r = self.take(Class::Vector);
            let lanes = self.active(p, per, size);
            self.load_part(r, width, size, at.offset((p * width.bytes()) as i32), lanes);
            self.own(dst, p, r);
            self.unlock(Class::Vector, r);
        }
        Ok(())
    }

    /// Consecutive truth values, each a bit of a mask register.
    fn load_mask(&mut self, dst: Val, mem: &MemRef, guards: &[Guard], varying: bool) -> Emitted {
        let (lanes, parts) = (self.lanes(dst), self.shape_of(dst).1);
        let few = self.whole() && matches!(lanes, 4 | 8);
        let i = match lanes {
            _ if varying => None,
            4 if few => Some(table::MOVD_LOAD),
            8 if few => Some(table::MOVQ_LOAD),
            _ => lanes.is_multiple_of(16).then_some(table::MOVDQU8_LOAD),
        };
        let Some(i) = i else { return self.load_lanes(dst, mem, guards, Some(1)) };
        let at = self.guarded_address(mem, guards, 0);
        let at = self.keep_address(at, 16);
        for p in 0..parts {
            let temp = self.temp();
            let k = self.take(Class::Mask);
            let lanes = if few { Lanes::All } else { self.active(p, 16, 1) };
            self.load_by(i, Width::X, temp, at.offset((p * 16) as i32), lanes);
            self.a.vector(table::PTESTMB, Width::X, k, temp, Rm::Reg(temp), None, Evex::default());
            self.own(dst, p, k);
            self.unlock(Class::Mask, k);
        }
        Ok(())
    }

    /// Consecutive elements of 8 or 16 bits, each in 32. Truth values fill their lanes.
    fn load_narrow(&mut self, dst: Val, mem: &MemRef, guards: &[Guard], varying: bool) -> Emitted {
        let (width, parts) = self.shape_of(dst);
        let (per, size) = (width.bytes() / 4, mem.dtype.size_bytes());
        if varying || (self.isa == Isa::Avx2 && !self.whole()) || !self.lanes(dst).is_multiple_of(per) {
            return self.load_lanes(dst, mem, guards, Some(1));
        }
        let i = if size == 1 { table::PMOVZXBD } else { table::PMOVZXWD };
        let at = self.guarded_address(mem, guards, 0);
        let at = self.keep_address(at, per);
        for p in 0..parts {
            let r = self.take(Class::Vector);
            let lanes = self.active(p, per, 4);
            self.load_by(i, width, r, at.offset((p * per * size) as i32), lanes);
            if mem.dtype == DType::Bool {
                let zero = self.temp();
                self.zero(zero);
                self.a.vector(table::PSUBD, width, r, zero, Rm::Reg(r), None, Evex::default());
            }
            self.own(dst, p, r);
            self.unlock(Class::Vector, r);
        }
        Ok(())
    }

    /// The bits of mask registers to consecutive truth values.
    fn store_mask(&mut self, mem: &MemRef, value: Val) -> Emitted {
        let parts = self.shape_of(value).1;
        let ones = self.a.constant(vec![1; 16]);
        let at = self.address(mem, 0);
        let at = self.keep_address(at, 16);
        for p in 0..parts {
            let k = self.in_register(value, p);
            let lanes = self.active(p, 16, 1);
            let temp = self.temp();
            let set = Evex { mask: k, zero: true, broadcast: false };
            self.a.vector(table::MOVDQU8_LOAD, Width::X, temp, 0, Rm::Mem(Mem::Data(ones)), None, set);
            self.store_by(table::MOVDQU8_STORE, Width::X, temp, at.offset((p * 16) as i32), lanes);
            self.unlock(Class::Mask, k);
        }
        Ok(())
    }

    /// The low 8 or 16 bits of each lane, of a truth value the lowest, to consecutive elements.
    fn store_narrow(&mut self, mem: &MemRef, value: Val) -> Emitted {
        let (width, parts) = self.shape_of(value);
        let (per, size) = (width.bytes() / 4, mem.dtype.size_bytes());
        if (self.isa == Isa::Avx2 && !self.whole()) || !self.lanes(value).is_multiple_of(per) {
            return self.store_lanes(mem, value, Some(1));
        }
        let at = self.address(mem, 0);
        let at = self.keep_address(at, per);
        for p in 0..parts {
            let r = self.in_register(value, p);
            self.unlock(Class::Vector, r);
            let to = at.offset((p * per * size) as i32);
            if self.isa == Isa::Avx512 {
                let i = if size == 1 { table::PMOVDB } else { table::PMOVDW };
                let lanes = self.active(p, per, 4);
                self.store_by(i, width, r, to, lanes);
                continue;
            }
            let (temp, x) = (self.temp(), Evex::default());
            let mask = match mem.dtype {
                DType::Bool => 1u32,
                _ if size == 1 => 0xff,
                _ => 0xffff,
            };
            let mask = self.a.constant(mask.to_le_bytes().repeat(width.bytes() / 4));
            self.a.vector(table::PAND, width, temp, r, Rm::Mem(Mem::Data(mask)), None, x);
            self.a.vector(table::PACKUSDW, width, temp, temp, Rm::Reg(temp), None, x);
            if width == Width::Y {
                // Each half of the register was narrowed by itself.
                self.a.vector(table::PERMQ, width, temp, 0, Rm::Reg(temp), Some(0b1000), x);
            }
            if size == 1 {
                self.a.vector(table::PACKUSWB, Width::X, temp, temp, Rm::Reg(temp), None, x);
            }
            let i = match per * size {
                16 => table::MOVUPS_STORE,
                8 => table::MOVQ_STORE,
                _ => table::MOVD_STORE,
            };
            self.a.vector(i, Width::X, temp, 0, Rm::Mem(to), None, x);
        }
        Ok(())
    }

    /// The address with `rdx` in place of `rax`, if a mask must be made before it is used: for parts of `per` lanes, of which the
    /// last one need not be full.
    fn keep_address(&mut self, at: Mem, per: usize) -> Mem {
        let masked = match self.mode {
            Mode::Vector { active: Active::All, lanes, .. } => {
                self.isa == Isa::Avx512 && !lanes.is_multiple_of(per)
            }
            Mode::Vector { active: Active::Lowest(_), .. } => true,
            _ => false,
        };
        match at {
            Mem::At { base, index, disp } if masked && base == RAX => {
                self.a.mov(RDX, RAX);
                Mem::At { base: RDX, index, disp }
            }
            other => other,
        }
    }

    fn load_part(&mut self, r: u8, width: Width, size: usize, at: Mem, lanes: Lanes) {
        let double = size == 8;
        if let Lanes::Vector(m) = lanes {
            let i = if double { table::MASKMOVPD_LOAD } else { table::MASKMOVPS_LOAD };
            self.a.vector(i, width, r, m, Rm::Mem(at), None, Evex::default());
        } else {
            let i = if double { table::MOVUPD_LOAD } else { table::MOVUPS_LOAD };
            self.load_by(i, width, r, at, lanes);
        }
    }

    /// Loads by an instruction that a mask register may govern: all lanes, unless that says which. The others are zero.
    fn load_by(&mut self, i: Ins, width: Width, r: u8, at: Mem, lanes: Lanes) {
        let mut x = Evex::default();
        match lanes {
            Lanes::None => return self.zero(r),
            Lanes::Mask(mask) => x = Evex { mask, zero: true, broadcast: false },
            Lanes::All | Lanes::Vector(_) => {}
        }
        self.a.vector(i, width, r, 0, Rm::Mem(at), None, x);
    }

    /// Stores as [`Self::load_by`] loads.
    fn store_by(&mut self, i: Ins, width: Width, r: u8, at: Mem, lanes: Lanes) {
        let mut x = Evex::default();
        match lanes {
            Lanes::None => return,
            Lanes::Mask(mask) => x = Evex { mask, zero: false, broadcast: false },
            Lanes::All | Lanes::Vector(_) => {}
        }
        self.a.vector(i, width, r, 0, Rm::Mem(at), None, x);
    }

    /// Clears a register.
    pub(super) fn zero(&mut self, r: u8) {
        self.a.vector(table::PXOR, Width::X, r, r, Rm::Reg(r), None, Evex::default());
    }

    pub(super) fn vector_variable(&self) -> graphc_ir::Var {
        match self.mode {
            Mode::Vector { var, .. } => var,
            Mode::Scalar => graphc_ir::Var::MAX,
        }
    }

    /// The address at a lane, or that of zeros where a guard fails.
    fn guarded_address(&mut self, mem: &MemRef, guards: &[Guard], lane: i64) -> Mem {
        if guards.is_empty() {
            return self.address(mem, lane);
        }
        self.guard(guards, lane);
        let ok = self.temp_slot(1);
        self.save(ok, RDX);
        let at = self.address(mem, lane);
        if let Mem::At { base, index: None, disp: 0 } = at {
            self.a.mov(RAX, base);
        } else {
            self.a.lea(RAX, at);
        }
        self.a.alu_imm(Alu::Cmp, Rm::Mem(Mem::at(RSP, ok)), 0);
        self.a.cmov(Cond::Equal, RAX, Rm::Mem(Mem::at(RSP, self.bases.constants)));
        Mem::at(RAX, 0)
    }

    fn load_scalar(&mut self, dst: Val, dtype: DType, at: Mem) -> Emitted {
        if dtype == DType::Bool {
            self.a.load_bytes(RAX, at, 1);
            return self.truth_from_rax(dst);
        }
        let r = self.take(Class::Vector);
        if lane_type(dtype) != dtype {
            self.a.load_bytes(RAX, at, dtype.size_bytes());
            self.a.vector(table::MOVD_LOAD, Width::X, r, 0, Rm::Reg(RAX.0), None, Evex::default());
            self.own(dst, 0, r);
            return Ok(());
        }
        self.a.vector(scalar_load(dtype.size_bytes()), Width::X, r, 0, Rm::Mem(at), None, Evex::default());
        self.own(dst, 0, r);
        Ok(())
    }

    /// A scalar truth value from 0 or 1 in `rax`.
    fn truth_from_rax(&mut self, dst: Val) -> Emitted {
        if self.class_of(dst) == Class::Mask {
            let k = self.take(Class::Mask);
            self.a.vex(table::KMOVW_FROM_GPR, 0, k, 0, Rm::Reg(RAX.0), None);
            self.own(dst, 0, k);
        } else {
            self.a.neg(RAX);
            let r = self.take(Class::Vector);
            self.a.vector(table::MOVD_LOAD, Width::X, r, 0, Rm::Reg(RAX.0), None, Evex::default());
            self.own(dst, 0, r);
        }
        Ok(())
    }

    /// Lane by lane, through the frame.
    fn load_lanes(&mut self, dst: Val, mem: &MemRef, guards: &[Guard], stride: Option<i64>) -> Emitted {
        let lanes = self.lanes(dst);
        let size = mem.dtype.size_bytes();
        let (width, parts) = self.shape_of(dst);
        let per = if self.class_of(dst) == Class::Mask { 16 } else { width.bytes() / lane_bytes(mem.dtype) };
        let whole = self.whole();
        for p in 0..parts {
            let lanes_here = per.min(lanes - p * per);
            if let (Some(s), 4, true, true) = (stride, size, guards.is_empty(), whole) {
                let r = self.take(Class::Vector);
                let first = self.address(mem, 0);
                let at = |lane: usize| Rm::Mem(first.offset((((p * per) + lane) as i64 * s) as i32 * 4));
                self.collect(r, lanes_here, at);
                self.own(dst, p, r);
                self.unlock(Class::Vector, r);
                continue;
            }
            self.gather(p * per, lanes_here, lane_bytes(mem.dtype), |e, lane, slot| {
                let at = match stride {
                    Some(s) if guards.is_empty() => {
                        e.address(mem, 0).offset((lane as i64 * s) as i32 * size as i32)
                    }
                    _ => e.guarded_address(mem, guards, lane as i64),
                };
                e.a.load_bytes(RAX, at, size);
                if mem.dtype == DType::Bool {
                    e.a.neg(RAX);
                }
                e.a.store_bytes(Mem::at(RSP, slot), RAX, lane_bytes(mem.dtype));
            });
            self.gathered(dst, p, width);
        }
        Ok(())
    }

    /// Four vectors of 32-bit elements of which the first elements are neighbours in memory, as are the second ones
    /// and so on: four elements at a time are loaded and transposed.
    pub(super) fn load_transposed(&mut self, loads: &Transposed<'_>) {
        let [(first, mem), ..] = loads[..] else { unreachable!("there are four") };
        let stride = self.lane_stride(&mem.index).expect("known to the caller");
        let (width, parts) = self.shape_of(first);
        let (per, x) = (width.bytes() / 4, Evex::default());
        loads.iter().for_each(|l| self.place(l.0));
        for p in 0..parts {
            let at = self.address(mem, 0);
            // Register `i` has what lanes i, i + 4, .. of the four vectors are made of.
            let rows: [u8; 4] = std::array::from_fn(|i| {
                let r = self.take(Class::Vector);
                for quarter in 0..per / 4 {
                    let lane = (p * per + 4 * quarter + i) as i64;
                    let from = Rm::Mem(at.offset((lane * stride) as i32 * 4));
                    match quarter {
                        0 => self.a.vector(table::MOVUPS_LOAD, Width::X, r, 0, from, None, x),
                        q => self.a.vector(table::INSERT128, width, r, r, from, Some(q as u8), x),
                    }
                }
                r
            });
            let [a, b, c, d] = rows;
            let low = self.take(Class::Vector);
            // The first two elements of a and b, of c and d, in pairs; then the last two.
            self.a.vector(table::UNPCKLPS, width, low, a, Rm::Reg(b), None, x);
            self.a.vector(table::UNPCKHPS, width, a, a, Rm::Reg(b), None, x);
            self.a.vector(table::UNPCKLPS, width, b, c, Rm::Reg(d), None, x);
            self.a.vector(table::UNPCKHPS, width, c, c, Rm::Reg(d), None, x);
            let [first_halves, second_halves] = [0x44, 0xee].map(Some);
            self.a.vector(table::SHUFPS, width, d, low, Rm::Reg(b), first_halves, x);
            self.a.vector(table::SHUFPS, width, low, low, Rm::Reg(b), second_halves, x);
            self.a.vector(table::SHUFPS, width, b, a, Rm::Reg(c), first_halves, x);
            self.a.vector(table::SHUFPS, width, a, a, Rm::Reg(c), second_halves, x);
            for ((v, _), r) in loads.iter().zip([d, low, b, a]) {
                self.own(*v, p, r);
                self.unlock(Class::Vector, r);
            }
            self.unlock(Class::Vector, c);
        }
    }

    /// 4, 8 or 16 elements of 32 bits, from anywhere, into a register.
    fn collect(&mut self, r: u8, n: usize, at: impl Fn(usize) -> Rm) {
        let other = self.take(Class::Vector);
        let x = Evex::default();
        for quarter in 0..n / 4 {
            let q = if quarter == 0 { r } else { other };
            self.a.vector(table::MOVSS_LOAD, Width::X, q, 0, at(4 * quarter), None, x);
            for l in 1..4 {
                let place = Some((l as u8) << 4);
                self.a.vector(table::INSERTPS, Width::X, q, q, at(4 * quarter + l), place, x);
            }
            if quarter > 0 {
                let width = Width::of(n * 4);
                self.a.vector(table::INSERT128, width, r, r, Rm::Reg(other), Some(quarter as u8), x);
            }
        }
        self.unlock(Class::Vector, other);
    }

    /// Writes lanes `first..first + n` to the frame, those that exist by `each` and zero for others.
    fn gather(&mut self, first: usize, n: usize, size: usize, each: impl Fn(&mut Self, usize, i32)) {
        let slot = self.lane_slot;
        let lowest = match self.mode {
            Mode::Vector { active: Active::Lowest(a), .. } => a,
            _ => usize::MAX,
        };
        if self.active_slot().is_some() || lowest < first + n {
            let temp = self.temp();
            self.zero(temp);
            for at in (0..LANE_BYTES).step_by(self.isa.width().bytes()) {
                let mem = Rm::Mem(Mem::at(RSP, slot + at as i32));
                self.a.vector(table::MOVUPS_STORE, self.isa.width(), temp, 0, mem, None, Evex::default());
            }
        }
        let done = self.a.label();
        for l in 0..n {
            let lane = first + l;
            if lane >= lowest {
                break;
            }
            if let Some(rest) = self.active_slot() {
                self.compare(Place::Slot(rest), Place::Imm(lane as i64 + 1));
                self.a.jump_if(Cond::Less, done);
            }
            each(self, lane, slot + (l * size) as i32);
        }
        self.a.bind(done);
    }

    /// Makes part `p` of `dst` from the lanes in the frame (truth values are 0 or -1).
    fn gathered(&mut self, dst: Val, p: usize, width: Width) {
        let slot = Rm::Mem(Mem::at(RSP, self.lane_slot));
        if self.class_of(dst) == Class::Mask {
            let temp = self.temp();
            let lanes = Width::of(self.lanes(dst).min(16) * 4);
            self.a.vector(table::MOVUPS_LOAD, lanes, temp, 0, slot, None, Evex::default());
            let k = self.take(Class::Mask);
            // vptestmd
            let test = super::asm::ins(1, 2, 0, 0x27);
            self.a.vector(test, lanes, k, temp, Rm::Reg(temp), None, Evex::default());
            self.own(dst, p, k);
            self.unlock(Class::Mask, k);
            return;
        }
        let r = self.take(Class::Vector);
        self.a.vector(table::MOVUPS_LOAD, width, r, 0, slot, None, Evex::default());
        self.own(dst, p, r);
        self.unlock(Class::Vector, r);
    }

    pub(super) fn store(&mut self, mem: &MemRef, value: Val) -> Emitted {
        let size = mem.dtype.size_bytes();
        if self.lanes(value) == 1 {
            let at = self.address(mem, 0);
            if mem.dtype == DType::Bool {
                return self.store_truth(value, at);
            }
            let r = self.in_register(value, 0);
            if lane_type(mem.dtype) != mem.dtype {
                self.a.vector(table::MOVD_STORE, Width::X, r, 0, Rm::Reg(RDX.0), None, Evex::default());
                self.a.store_bytes(at, RDX, size);
                return Ok(());
            }
            let i = if size == 8 { table::MOVSD_STORE } else { table::MOVSS_STORE };
            self.a.vector(i, Width::X, r, 0, Rm::Mem(at), None, Evex::default());
            return Ok(());
        }
        let (width, parts) = self.shape_of(value);
        let lanes = self.lanes(value);
        let stride = self.lane_stride(&mem.index);
        let mask = self.class_of(value) == Class::Mask;
        if stride != Some(1) || mask && !lanes.is_multiple_of(16) {
            return self.store_lanes(mem, value, stride);
        }
        if mask {
            return self.store_mask(mem, value);
        }
        if lane_bytes(mem.dtype) != size {
            return self.store_narrow(mem, value);
        }
        let per = width.bytes() / size;
        let at = self.address(mem, 0);
        let at = self.keep_address(at, per);
        let streams = matches!(mem.base, Base::Buffer(b) if self.f.streams.contains(&b));
        let done = self.a.label();
        let full = self.whole() && width == self.isa.width() && lanes.is_multiple_of(per);
        if streams && full && parts < self.isa.registers() as usize {
            // Both ways must find the parts in the same registers.
            let regs: Vec<u8> = (0..parts).map(|p| self.in_register(value, p)).collect();
            let ordinary = self.a.label();
            // Allocators align large buffers of callers to 16 bytes, not to a vector.
            self.a.lea(RDX, at);
            self.a.alu_imm(Alu::And, Rm::Reg(RDX.0), 15);
            self.a.jump_if(Cond::NotEqual, ordinary);
            for (p, &r) in regs.iter().enumerate() {
                self.stream_part(at.offset((p * width.bytes()) as i32), width, r);
            }
            self.a.jump(done);
            self.a.bind(ordinary);
        }
        for p in 0..parts {
            let r = self.in_register(value, p);
            self.unlock(Class::Vector, r);
            let at = at.offset((p * width.bytes()) as i32);
            if self.isa == Isa::Avx2 {
                let existing = self.existing().unwrap_or(lanes);
                self.store_bytes_of(r, width, at, existing.saturating_sub(p * per).min(per) * size);
            } else {
                let i = if size == 8 { table::MOVUPD_STORE } else { table::MOVUPS_STORE };
                let lanes = self.active(p, per, size);
                self.store_by(i, width, r, at, lanes);
            }
        }
        self.a.bind(done);
        Ok(())
    }

    /// Writes the lowest `bytes` of a register, whole elements, by the largest pieces: a masked store of AVX2 takes about a
    /// hundred cycles on Zen 3.
    fn store_bytes_of(&mut self, mut r: u8, width: Width, mut at: Mem, mut bytes: usize) {
        let piece = |e: &mut Self, i: Ins, width: Width, r: u8, at: Mem, imm: Option<u8>| {
            e.a.vector(i, width, r, 0, Rm::Mem(at), imm, Evex::default());
        };
        if bytes == width.bytes() {
            return piece(self, table::MOVUPS_STORE, width, r, at, None);
        }
        if bytes >= 16 {
            piece(self, table::MOVUPS_STORE, Width::X, r, at, None);
            if bytes == 16 {
                return;
            }
            let upper = self.temp();
            self.a.vector(table::EXTRACT128_VEX, width, r, 0, Rm::Reg(upper), Some(1), Evex::default());
            (r, at, bytes) = (upper, at.offset(16), bytes - 16);
        }
        match bytes {
            0 => {}
            4 => piece(self, table::MOVSS_STORE, Width::X, r, at, None),
            8 => piece(self, table::MOVSD_STORE, Width::X, r, at, None),
            12 => {
                piece(self, table::MOVSD_STORE, Width::X, r, at, None);
                piece(self, table::EXTRACTPS, Width::X, r, at.offset(8), Some(2));
            }
            _ => unreachable!("elements have 4 or 8 bytes"),
        }
    }

    /// Writes a register past the caches, by 16 bytes.
    fn stream_part(&mut self, at: Mem, width: Width, r: u8) {
        let temp = self.temp();
        for piece in 0..(width.bytes() / 16) as u8 {
            let extract = if self.isa == Isa::Avx512 { table::EXTRACT128 } else { table::EXTRACT128_VEX };
            let from = if piece == 0 { r } else { temp };
            if piece > 0 {
                self.a.vector(extract, width, r, 0, Rm::Reg(temp), Some(piece), Evex::default());
            }
            let to = Rm::Mem(at.offset(16 * i32::from(piece)));
            self.a.vector(table::MOVNTPS, Width::X, from, 0, to, None, Evex::default());
        }
    }

    /// Stores a scalar truth value as a byte.
    fn store_truth(&mut self, v: Val, at: Mem) -> Emitted {
        if self.class_of(v) == Class::Mask {
            let k = self.in_register(v, 0);
            self.a.vex(table::KMOVW_TO_GPR, 0, RDX.0, 0, Rm::Reg(k), None);
        } else {
            let r = self.in_register(v, 0);
            self.a.vector(table::MOVD_STORE, Width::X, r, 0, Rm::Reg(RDX.0), None, Evex::default());
        }
        self.a.alu_imm(Alu::And, Rm::Reg(RDX.0), 1);
        self.a.store_bytes(at, RDX, 1);
        Ok(())
    }

    /// Lane by lane, through the frame; lanes with one address are written in order.
    fn store_lanes(&mut self, mem: &MemRef, value: Val, stride: Option<i64>) -> Emitted {
        let lanes = self.lanes(value);
        let size = mem.dtype.size_bytes();
        let lane_size = lane_bytes(mem.dtype);
        let (width, parts) = self.shape_of(value);
        let mask = self.class_of(value) == Class::Mask;
        let per = if mask { 16 } else { width.bytes() / lane_size };
        let lowest = match self.mode {
            Mode::Vector { active: Active::Lowest(a), .. } => a,
            _ => usize::MAX,
        };
        let done = self.a.label();
        for p in 0..parts {
            let r = self.in_register(value, p);
            let slot = self.lane_slot;
            if mask {
                let temp = self.temp();
                // vpmovm2d
                let expand = super::asm::ins(2, 2, 0, 0x38);
                self.a.vector(expand, Width::Z, temp, 0, Rm::Reg(r), None, Evex::default());
                let to = Rm::Mem(Mem::at(RSP, slot));
                self.a.vector(table::MOVUPS_STORE, Width::Z, temp, 0, to, None, Evex::default());
            } else {
                let to = Rm::Mem(Mem::at(RSP, slot));
                self.a.vector(table::MOVUPS_STORE, width, r, 0, to, None, Evex::default());
            }
            self.unlock(self.class_of(value), r);
            for l in 0..per.min(lanes - p * per) {
                let lane = p * per + l;
                if lane >= lowest {
                    break;
                }
                if let Some(rest) = self.active_slot() {
                    self.compare(Place::Slot(rest), Place::Imm(lane as i64 + 1));
                    self.a.jump_if(Cond::Less, done);
                }
                let at = match stride {
                    Some(s) => self.address(mem, 0).offset((lane as i64 * s) as i32 * size as i32),
                    None => self.address(mem, lane as i64),
                };
                self.a.load_bytes(RDX, Mem::at(RSP, slot + (l * lane_size) as i32), lane_size);
                if mem.dtype == DType::Bool {
                    self.a.alu_imm(Alu::And, Rm::Reg(RDX.0), 1);
                }
                self.a.store_bytes(at, RDX, size);
            }
        }
        self.a.bind(done);
        Ok(())
    }

    /// An index expression as a value.
    pub(super) fn index_value(&mut self, dst: Val, e: &IndexExpr) -> Emitted {
        let lanes = self.lanes(dst);
        let (width, parts) = self.shape_of(dst);
        if lanes == 1 {
            self.index(e, 0);
            let r = self.take(Class::Vector);
            self.a.vector(table::MOVQ_LOAD, Width::X, r, 0, Rm::Reg(RAX.0), None, Evex::default());
            self.own(dst, 0, r);
            return Ok(());
        }
        let per = width.bytes() / 8;
        let stride = self.lane_stride(e);
        for p in 0..parts {
            let Some(s) = stride else {
                self.gather(p * per, per, 8, |e2, lane, slot| {
                    e2.index(e, lane as i64);
                    e2.a.store(Mem::at(RSP, slot), RAX);
                });
                self.gathered(dst, p, width);
                continue;
            };
            self.index(e, 0);
            let r = self.take(Class::Vector);
            self.a.vector(table::MOVQ_LOAD, Width::X, r, 0, Rm::Reg(RAX.0), None, Evex::default());
            let broadcast = if self.isa == Isa::Avx512 { table::PBROADCASTQ } else { table::PBROADCASTQ_VEX };
            self.a.vector(broadcast, width, r, 0, Rm::Reg(r), None, Evex::default());
            let offsets: Vec<u8> =
                (0..per).flat_map(|l| (((p * per + l) as i64) * s).to_le_bytes()).collect();
            let offsets = self.a.constant(offsets);
            self.a.vector(table::PADDQ, width, r, r, Rm::Mem(Mem::Data(offsets)), None, Evex::default());
            self.own(dst, p, r);
            self.unlock(Class::Vector, r);
        }
        Ok(())
    }

    /// Whether guards hold, as a value.
    pub(super) fn guard_value(&mut self, dst: Val, guards: &[Guard]) -> Emitted {
        let lanes = self.lanes(dst);
        let var = self.vector_variable();
        if lanes == 1 {
            self.guard(guards, 0);
            self.a.mov(RAX, RDX);
            return self.truth_from_rax(dst);
        }
        let (width, parts) = self.shape_of(dst);
        let linear = guards.iter().all(|g| g.expr.coefficient(var).is_some());
        let per = if self.class_of(dst) == Class::Mask { 16 } else { width.bytes() / 4 };
        for p in 0..parts {
            if !linear {
                self.gather(p * per, per.min(lanes - p * per), 4, |e, lane, slot| {
                    e.guard(guards, lane as i64);
                    e.a.neg(RDX);
                    e.a.store_bytes(Mem::at(RSP, slot), RDX, 4);
                });
                self.gathered(dst, p, width);
                continue;
            }
            let outer = self.mode;
            if let Mode::Vector { active, .. } = &mut self.mode {
                // Lanes that do not exist may have any value.
                *active = Active::All;
            }
            let class = self.class_of(dst);
            let r = self.take(class);
            let found = self.lane_guard(guards, p, per, 4);
            self.mode = outer;
            match found? {
                Lanes::Mask(k) => self.a.vex(table::KMOVW, 0, r, 0, Rm::Reg(k), None),
                Lanes::Vector(m) => self.vmov(width, r, m),
                Lanes::All | Lanes::None => return Err(Refused("a guard without conditions")),
            }
            self.own(dst, p, r);
            self.unlock(class, r);
        }
        Ok(())
    }

    /// The lanes of part `p` for which all guards hold and which exist; the guards are linear in
    /// the vector variable. The result is in a temporary.
    fn lane_guard(&mut self, guards: &[Guard], p: usize, per: usize, size: usize) -> Emitted<Lanes> {
        let var = self.vector_variable();
        let mut mask: Option<u8> = match self.active(p, per, size) {
            Lanes::Mask(k) => Some(k),
            Lanes::All => None,
            Lanes::None => return Ok(Lanes::None),
            Lanes::Vector(_) if size == 8 => return Err(Refused("guards on wide lanes")),
            Lanes::Vector(m) => Some(m),
        };
        if self.isa == Isa::Avx2 && size == 8 {
            return Err(Refused("guards on wide lanes"));
        }
        let width = Width::of(per * 4);
        let bound = self.take(Class::Vector);
        let other = if self.isa == Isa::Avx2 { self.take(Class::Vector) } else { 0 };
        for g in guards {
            let c = g.expr.coefficient(var).expect("linear");
            let offsets: Vec<u8> =
                (0..per).flat_map(|l| (((p * per + l) as i64 * c) as i32).to_le_bytes()).collect();
            let offsets = self.a.constant(offsets);
            // lo <= e + c * lane < hi
            for (limit, low) in [(g.lo, true), (g.hi, false)] {
                self.index(&g.expr, 0);
                self.a.neg(RAX);
                self.a.mov_imm(RCX, limit);
                self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
                for (bound, cond) in [(1 << 30, Cond::Greater), (-(1 << 30), Cond::Less)] {
                    self.a.mov_imm(RCX, bound);
                    self.a.alu(Alu::Cmp, RAX, Rm::Reg(RCX.0));
                    self.a.cmov(cond, RAX, Rm::Reg(RCX.0));
                }
                let data = Rm::Mem(Mem::Data(offsets));
                if self.isa == Isa::Avx512 {
                    let x = Evex::default();
                    self.a.vector(table::PBROADCASTD_GPR, width, bound, 0, Rm::Reg(RAX.0), None, x);
                    // limit <= offset, or limit > offset
                    let predicate = if low { 2 } else { 6 };
                    let x = Evex { mask: mask.unwrap_or(0), ..Evex::default() };
                    self.a.vector(table::PCMPD_MASK, width, MASK_TEMP, bound, data, Some(predicate), x);
                    mask = Some(MASK_TEMP);
                    continue;
                }
                let x = Evex::default();
                if low {
                    self.a.alu_imm(Alu::Sub, Rm::Reg(RAX.0), 1);
                }
                self.a.vector(table::MOVD_LOAD, Width::X, bound, 0, Rm::Reg(RAX.0), None, x);
                self.a.vector(table::BROADCASTSS, width, bound, 0, Rm::Reg(bound), None, x);
                if low {
                    self.a.vector(table::MOVUPS_LOAD, width, other, 0, data, None, x);
                    self.a.vector(table::PCMPGTD, width, bound, other, Rm::Reg(bound), None, x);
                } else {
                    self.a.vector(table::PCMPGTD, width, bound, bound, data, None, x);
                }
                let temp = self.temp();
                match mask {
                    None => self.vmov(width, temp, bound),
                    Some(_) => self.a.vector(table::PAND, width, temp, temp, Rm::Reg(bound), None, x),
                }
                mask = Some(temp);
            }
        }
        self.unlock(Class::Vector, bound);
        if self.isa == Isa::Avx2 {
            self.unlock(Class::Vector, other);
        }
        Ok(match (mask, self.isa) {
            (None, _) => Lanes::All,
            (Some(k), Isa::Avx512) => Lanes::Mask(k),
            (Some(m), Isa::Avx2) => Lanes::Vector(m),
        })
    }

    /// `phi = next` in the lowest `active` lanes.
    pub(super) fn merge(&mut self, phi: Val, next: Val, active: usize) -> Emitted {
        let (width, parts) = self.shape_of(phi);
        let size = lane_bytes(self.dtype(phi));
        if self.class_of(phi) == Class::Mask {
            return Err(Refused("carried truth values in a partial vector"));
        }
        let per = width.bytes() / size;
        for p in 0..parts {
            let old = self.in_register(phi, p);
            let new = self.in_register(next, p);
            let here = active.saturating_sub(p * per).min(per);
            if here == 0 {
                continue;
            }
            if here == per {
                self.vmov(width, old, new);
            } else {
                match self.active(p, per, size) {
                    Lanes::Mask(mask) => {
                        let i = if size == 8 { table::MOVUPD_LOAD } else { table::MOVUPS_LOAD };
                        let x = Evex { mask, zero: false, broadcast: false };
                        self.a.vector(i, width, old, 0, Rm::Reg(new), None, x);
                    }
                    Lanes::Vector(m) => {
                        let i = table::BLENDVPS;
                        self.a.vector(i, width, old, old, Rm::Reg(new), Some(m << 4), Evex::default());
                    }
                    Lanes::All | Lanes::None => {}
                }
            }
            self.placed_mut(phi).part_mut(p).home = Home::None;
            self.unlock_all();
        }
        Ok(())
    }

    /// The lanes of a vector into a scalar, by halves: 8, 4, 2, 1.
    pub(super) fn fold(&mut self, dst: Val, kind: ReduceKind, v: Val) -> Emitted {
        let dtype = self.dtype(v);
        if dtype == DType::Bool {
            return Err(Refused("a fold of truth values"));
        }
        let op = kind.op();
        let (mut width, parts) = self.shape_of(v);
        if !self.fills_registers(v) || !parts.is_power_of_two() {
            return Err(Refused("a fold of vectors that have no halves"));
        }
        // Copies, because the halves are combined in place.
        let mut regs: Vec<u8> = Vec::new();
        for p in 0..parts {
            let r = self.take(Class::Vector);
            let source = self.in_register(v, p);
            self.vmov(width, r, source);
            self.unlock(Class::Vector, source);
            regs.push(r);
        }
        while regs.len() > 1 {
            let half = regs.len() / 2;
            for p in 0..half {
                self.binary(op, dtype, width, regs[p], regs[p], regs[p + half])?;
                self.unlock(Class::Vector, regs[p + half]);
            }
            regs.truncate(half);
        }
        let r = regs[0];
        let other = self.take(Class::Vector);
        let x = Evex::default();
        while width != Width::X {
            let (extract, narrow) = match (width, self.isa) {
                (Width::Z, _) => (table::EXTRACT256, Width::Y),
                (_, Isa::Avx512) => (table::EXTRACT128, Width::X),
                (_, Isa::Avx2) => (table::EXTRACT128_VEX, Width::X),
            };
            self.a.vector(extract, width, r, 0, Rm::Reg(other), Some(1), x);
            self.binary(op, dtype, narrow, r, r, other)?;
            width = narrow;
        }
        // The high two quarters, then the second.
        let steps: &[u8] = if dtype.size_bytes() == 8 { &[0xee] } else { &[0xee, 0x55] };
        for &order in steps {
            self.a.vector(table::PSHUFD, Width::X, other, 0, Rm::Reg(r), Some(order), x);
            self.binary(op, dtype, Width::X, r, r, other)?;
        }
        self.place(dst);
        self.own(dst, 0, r);
        Ok(())
    }
}

fn scalar_load(size: usize) -> Ins {
    if size == 8 { table::MOVSD_LOAD } else { table::MOVSS_LOAD }
}
