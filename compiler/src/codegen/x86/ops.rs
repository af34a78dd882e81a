//! Lane-wise instructions. Results equal `ScalarOp::eval` bit for bit (NaN payloads aside).

use super::asm::{Evex, Ins, Rm, Width, ins};
use super::regs::{Class, MASK_TEMP};
use super::table::{self, FmaOrder};
use super::{Emitted, Emitter, Isa, Refused, lane_bytes};
use crate::vector::Val;
use graphc_ir::{CmpKind, DType, ScalarOp};
use smallvec::SmallVec;

const NONE: Evex = Evex { mask: 0, zero: false, broadcast: false };

impl Emitter<'_> {
    /// The instruction for a binary operation that needs no more than one, if there is one.
    fn plain(&self, op: ScalarOp, dtype: DType) -> Option<Ins> {
        let float = dtype.is_float();
        let wide = dtype.size_bytes() == 8;
        let pick = |narrow: Ins, double: Ins| Some(if wide { double } else { narrow });
        match op {
            ScalarOp::Add if float => Some(table::float(dtype, table::ADD)),
            ScalarOp::Sub if float => Some(table::float(dtype, table::SUB)),
            ScalarOp::Mul if float => Some(table::float(dtype, table::MUL)),
            ScalarOp::Div if float => Some(table::float(dtype, table::DIV)),
            ScalarOp::Add => pick(table::PADDD, table::PADDQ),
            ScalarOp::Sub => pick(table::PSUBD, table::PSUBQ),
            ScalarOp::Mul if dtype == DType::I32 => Some(table::PMULLD),
            ScalarOp::Mul if self.isa == Isa::Avx512 => Some(table::PMULLQ),
            // W states the size of an element that is read for all lanes.
            ScalarOp::And => Some(Ins { w: u8::from(wide), ..table::PAND }),
            ScalarOp::Or => Some(Ins { w: u8::from(wide), ..table::POR }),
            ScalarOp::Xor => Some(Ins { w: u8::from(wide), ..table::PXOR }),
            ScalarOp::Min if dtype == DType::I32 => Some(table::PMINSD),
            ScalarOp::Max if dtype == DType::I32 => Some(table::PMAXSD),
            ScalarOp::Min if dtype == DType::I64 && self.isa == Isa::Avx512 => Some(table::PMINSQ),
            ScalarOp::Max if dtype == DType::I64 && self.isa == Isa::Avx512 => Some(table::PMAXSQ),
            _ => None,
        }
    }

    fn v(&mut self, i: Ins, width: Width, dst: u8, x: u8, y: impl Into<Operand>) {
        let (rm, evex) = y.into().0;
        self.a.vector(i, width, dst, x, rm, None, evex);
    }

    fn vi(&mut self, i: Ins, width: Width, dst: u8, x: u8, y: u8, imm: u8) {
        self.a.vector(i, width, dst, x, Rm::Reg(y), Some(imm), NONE);
    }

    /// `dst = op(x, y)` on registers; `dst` may be `x`.
    pub(super) fn binary(
        &mut self,
        op: ScalarOp,
        dtype: DType,
        width: Width,
        dst: u8,
        x: u8,
        y: u8,
    ) -> Emitted {
        if let Some(i) = self.plain(op, dtype) {
            self.v(i, width, dst, x, y);
            return Ok(());
        }
        match op {
            ScalarOp::Min | ScalarOp::Max if dtype.is_float() => {
                // Intel's gives the second operand where either is NaN; wanted is the first if that
                // is NaN.
                let code = if op == ScalarOp::Min { table::MIN } else { table::MAX };
                let temp = self.temp();
                if fault!(28) {
                    self.v(table::float(dtype, code), width, dst, x, y);
                } else if self.isa == Isa::Avx512 {
                    self.vi(table::float(dtype, table::CMP), width, MASK_TEMP, x, x, 3);
                    self.v(table::float(dtype, code), width, temp, x, y);
                    let i = if dtype == DType::F64 { table::BLENDMPD } else { table::BLENDMPS };
                    self.a.vector(i, width, dst, temp, Rm::Reg(x), None, Evex { mask: MASK_TEMP, ..NONE });
                } else {
                    let pick = self.take(Class::Vector);
                    self.v(table::float(dtype, code), width, pick, x, y);
                    self.vi(table::float(dtype, table::CMP), width, temp, x, x, 3);
                    self.blend(dtype, width, dst, temp, x, pick);
                    self.unlock(Class::Vector, pick);
                }
                Ok(())
            }
            ScalarOp::Min | ScalarOp::Max => {
                // 64-bit integers on AVX2.
                let temp = self.temp();
                let (a, b) = if op == ScalarOp::Min { (y, x) } else { (x, y) };
                self.v(table::PCMPGTQ, width, temp, a, b);
                self.blend(dtype, width, dst, temp, x, y);
                Ok(())
            }
            ScalarOp::Mul => {
                // 64-bit integers on AVX2: low product and the two crossed ones.
                if fault!(32) {
                    self.v(table::PMULUDQ, width, dst, x, y);
                    return Ok(());
                }
                let (temp, other) = (self.temp(), self.take(Class::Vector));
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, temp, x, 32);
                self.v(table::PMULUDQ, width, temp, temp, y);
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, other, y, 32);
                self.v(table::PMULUDQ, width, other, other, x);
                self.v(table::PADDQ, width, temp, temp, other);
                self.shift(table::PSHIFTQ, table::SHIFT_LEFT, width, temp, temp, 32);
                self.v(table::PMULUDQ, width, other, x, y);
                self.v(table::PADDQ, width, dst, temp, other);
                self.unlock(Class::Vector, other);
                Ok(())
            }
            ScalarOp::MulHiU => {
                // Products of even and of odd lanes, high halves interleaved.
                let (temp, other) = (self.temp(), self.take(Class::Vector));
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, temp, x, 32);
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, other, y, 32);
                self.v(table::PMULUDQ, width, temp, temp, other);
                self.v(table::PMULUDQ, width, other, x, y);
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, other, other, 32);
                let high = self.vector_constant(&0xffff_ffff_0000_0000_u64.to_le_bytes());
                self.v(table::PAND, width, temp, temp, Rm::Mem(high));
                self.v(table::POR, width, dst, temp, other);
                self.unlock(Class::Vector, other);
                Ok(())
            }
            _ => Err(Refused("an integer division")),
        }
    }

    /// A whole vector of an element, behind the code.
    fn vector_constant(&mut self, element: &[u8]) -> super::Mem {
        let bytes = element.repeat(self.isa.width().bytes() / element.len());
        super::Mem::Data(self.a.constant(bytes))
    }

    fn shift(&mut self, i: Ins, digit: u8, width: Width, dst: u8, x: u8, by: u8) {
        // The destination is in the second operand's field, the digit in the first's.
        self.a.vector(i, width, digit, dst, Rm::Reg(x), Some(by), NONE);
    }

    /// AVX2: `dst = mask ? x : y` by the sign bits of `mask`.
    fn blend(&mut self, dtype: DType, width: Width, dst: u8, mask: u8, x: u8, y: u8) {
        let i = if lane_bytes(dtype) == 8 { table::BLENDVPD } else { table::BLENDVPS };
        self.vi(i, width, dst, y, x, mask << 4);
    }

    /// A register for part `p` of `dst`: that of an operand part which dies, else a free one.
    fn destination(&mut self, dst: Val, p: usize, args: &[Val]) -> u8 {
        for &a in args {
            let same = self.r.placed[a as usize].as_ref().is_some_and(|x| {
                x.class == self.placed(dst).class
                    && x.width == self.placed(dst).width
                    && p < x.count
                    && x.is_last_of_its_place(p)
            });
            if same
                && self.dies(a)
                && args.iter().filter(|&&b| b == a).count() == 1
                && let Some(r) = self.inherit(a, p)
            {
                self.own(dst, p, r);
                return r;
            }
        }
        let r = self.take(self.placed(dst).class);
        self.own(dst, p, r);
        r
    }

    /// An operand as the last of an instruction, its pending load included.
    fn last(&mut self, v: Val, p: usize) -> Operand {
        match self.folded_operand(v) {
            Some(x) => Operand(x),
            None => Operand(self.operand(v, p)),
        }
    }

    /// An operand in a register, its pending load included.
    fn register(&mut self, v: Val, p: usize) -> u8 {
        if let Some((rm, x)) = self.folded_operand(v) {
            let width = self.placed(v).width;
            let r = self.take(Class::Vector);
            let i = match (x.broadcast, self.placed(v).size) {
                (false, _) => table::MOVUPS_LOAD,
                (true, 8) => table::PBROADCASTQ,
                (true, _) => table::BROADCASTSS,
            };
            self.a.vector(i, width, r, 0, rm, None, NONE);
            self.own(v, p, r);
            return r;
        }
        self.in_register(v, p)
    }

    fn is_pending(&self, v: Val) -> bool {
        self.folded.contains_key(&v)
    }

    /// Whether a part would be read from memory.
    fn rests(&self, v: Val, p: usize) -> bool {
        self.is_pending(v) || p < self.placed(v).count && self.placed(v).part(p).reg.is_none()
    }

    pub(super) fn scalar_op(&mut self, op: ScalarOp, dst: Val, args: &[Val]) -> Emitted {
        let from = self.dtype(args[0]);
        let to = self.dtype(dst);
        let (width, parts) = self.shape_of(dst);
        match op {
            ScalarOp::Bitcast(_) => {
                self.materialize(args[0]);
                let dies = self.dies(args[0]) && !self.is_constant(args[0]);
                self.alias(dst, args[0], dies);
                self.placed_mut(dst).size = lane_bytes(to);
                return Ok(());
            }
            ScalarOp::Cast(_) if from == to => {
                self.materialize(args[0]);
                let dies = self.dies(args[0]) && !self.is_constant(args[0]);
                self.alias(dst, args[0], dies);
                return Ok(());
            }
            ScalarOp::Cast(_) => return self.cast(dst, args[0], from, to),
            _ => {}
        }
        self.place(dst);
        if self.class_of(dst) == Class::Mask && from == DType::Bool {
            for p in 0..parts {
                self.mask_op(op, dst, args, p)?;
                self.unlock_all();
            }
            return Ok(());
        }
        for p in 0..parts {
            match op {
                ScalarOp::Cmp(kind) => self.compare_lanes(kind, from, dst, args, p)?,
                ScalarOp::Select => self.select(to, width, dst, args, p)?,
                ScalarOp::Fma => self.fma(to, width, dst, args, p),
                _ if args.len() == 2 => self.binary_part(op, to, width, dst, args, p)?,
                _ => self.unary(op, to, width, dst, args, p)?,
            }
            self.unlock_all();
        }
        Ok(())
    }

    /// Puts a pending load into a register.
    fn materialize(&mut self, v: Val) {
        if self.is_pending(v) {
            self.register(v, 0);
            self.unlock_all();
        }
    }

    fn binary_part(
        &mut self,
        op: ScalarOp,
        dtype: DType,
        width: Width,
        dst: Val,
        args: &[Val],
        p: usize,
    ) -> Emitted {
        let commutes =
            matches!(op, ScalarOp::Add | ScalarOp::Mul | ScalarOp::And | ScalarOp::Or | ScalarOp::Xor);
        let [mut x, mut y] = [args[0], args[1]];
        if let Some(i) = self.plain(op, dtype) {
            // NaN operands: the payload may differ, which is no part of a result.
            if commutes && self.rests(x, p) && !self.rests(y, p) {
                std::mem::swap(&mut x, &mut y);
            }
            let a = self.register(x, p);
            let b = self.last(y, p);
            let d = self.destination(dst, p, args);
            self.v(i, width, d, a, b);
            return Ok(());
        }
        if matches!(op, ScalarOp::Min | ScalarOp::Max)
            && let Some(limit) = self.limit(args)
        {
            // The constant comes first: Intel's gives the second operand where either is NaN, and where both
            // are equal. Of equal operands the second counts, which tells apart zeros only.
            if limit != Limit::First {
                std::mem::swap(&mut x, &mut y);
            }
            let c = self.register(x, p);
            let b = self.last(y, p);
            let d = self.destination(dst, p, &[y]);
            let code = if op == ScalarOp::Min { table::MIN } else { table::MAX };
            self.v(table::float(dtype, code), width, d, c, b);
            if limit == Limit::SecondIsZero && !fault!(29) {
                // Of the zeros, the sum is the positive one; all else stays.
                self.v(table::float(dtype, table::ADD), width, d, d, c);
            }
            return Ok(());
        }
        let a = self.register(x, p);
        let b = self.register(y, p);
        let d = self.take(Class::Vector);
        self.own(dst, p, d);
        self.binary(op, dtype, width, d, a, b)
    }

    /// The operand of a minimum or maximum that is a constant number, if one is.
    fn limit(&self, args: &[Val]) -> Option<Limit> {
        let [x, y] = [args[0], args[1]].map(|v| self.numbers.get(&v).copied());
        match (x, y) {
            (Some(c), _) if !c.is_nan() => Some(Limit::First),
            (_, Some(c)) if c == 0.0 && c.is_sign_positive() => Some(Limit::SecondIsZero),
            (_, Some(c)) if !c.is_nan() && c != 0.0 => Some(Limit::Second),
            _ => None,
        }
    }

    fn fma(&mut self, dtype: DType, width: Width, dst: Val, args: &[Val], p: usize) {
        let [x, y, z] = [args[0], args[1], args[2]];
        let single = |v: Val| args.iter().filter(|&&a| a == v).count() == 1;
        let dying = |e: &Self, v: Val| {
            single(v)
                && !e.is_pending(v)
                && e.dies(v)
                && p < e.placed(v).count
                && e.placed(v).part(p).reg.is_some()
                && e.placed(v).is_last_of_its_place(p)
                && e.placed(v).width == width
        };
        // One operand may stay in memory; the accumulator is overwritten if it dies, else a factor
        // that does.
        let in_memory = [y, x, z].into_iter().find(|&v| self.rests(v, p) && single(v));
        let overwritten = [z, x, y].into_iter().find(|&v| Some(v) != in_memory && dying(self, v));
        let (order, first, second, third) = match (overwritten, in_memory) {
            // second * third + first
            (Some(v), m) if v == z => {
                let (a, b) = if m == Some(x) { (y, x) } else { (x, y) };
                (FmaOrder::O231, z, a, b)
            }
            // first * third + second, or second * first + third
            (Some(v), m) => {
                let other = if v == x { y } else { x };
                let last_is_factor = if fault!(31) { FmaOrder::O213 } else { FmaOrder::O132 };
                if m == Some(other) { (last_is_factor, v, z, other) } else { (FmaOrder::O213, v, other, z) }
            }
            (None, m) if m == Some(z) => (FmaOrder::O213, x, y, z),
            (None, m) => {
                let (a, b) = if m == Some(x) { (y, x) } else { (x, y) };
                (FmaOrder::O231, z, a, b)
            }
        };
        if overwritten == Some(first) {
            // Locked there: a register for the second operand must not push it out.
            self.in_register(first, p);
        } else {
            self.materialize(first);
        }
        let b = self.register(second, p);
        let d = if overwritten == Some(first) {
            let r = self.inherit(first, p).expect("it is in a register");
            self.own(dst, p, r);
            r
        } else {
            let r = self.take(Class::Vector);
            self.copy_part(first, p, r);
            self.own(dst, p, r);
            r
        };
        let c = self.last(third, p);
        self.v(table::fma(dtype, order), width, d, b, c);
    }

    fn unary(
        &mut self,
        op: ScalarOp,
        dtype: DType,
        width: Width,
        dst: Val,
        args: &[Val],
        p: usize,
    ) -> Emitted {
        let float = dtype.is_float();
        let wide = dtype.size_bytes() == 8;
        let size = lane_bytes(dtype);
        let x = args[0];
        let sign = if wide { 1u64 << 63 } else { 1 << 31 };
        let a = self.register(x, p);
        match op {
            ScalarOp::Sqrt => {
                let d = self.destination(dst, p, args);
                self.v(table::float(dtype, table::SQRT), width, d, 0, a);
            }
            ScalarOp::Floor | ScalarOp::Ceil | ScalarOp::Trunc | ScalarOp::Round => {
                let mode = match op {
                    ScalarOp::Floor => 9,
                    ScalarOp::Ceil => 10,
                    ScalarOp::Trunc => 11,
                    _ => 8,
                };
                let d = self.destination(dst, p, args);
                self.vi(table::round(dtype, self.isa == Isa::Avx512), width, d, 0, a, mode);
            }
            ScalarOp::Neg if float => {
                let c = self.vector_constant(&sign.to_le_bytes()[..size]);
                let d = self.destination(dst, p, args);
                self.v(table::PXOR, width, d, a, Rm::Mem(c));
            }
            ScalarOp::Abs if float => {
                let c = self.vector_constant(&(sign - 1).to_le_bytes()[..size]);
                let d = self.destination(dst, p, args);
                self.v(table::PAND, width, d, a, Rm::Mem(c));
            }
            ScalarOp::Not => {
                let c = self.vector_constant(&u64::MAX.to_le_bytes()[..size]);
                let d = self.destination(dst, p, args);
                self.v(table::PXOR, width, d, a, Rm::Mem(c));
            }
            ScalarOp::Neg => {
                let temp = self.temp();
                self.zero(temp);
                let d = self.destination(dst, p, args);
                self.v(if wide { table::PSUBQ } else { table::PSUBD }, width, d, temp, a);
            }
            ScalarOp::Abs if !wide || self.isa == Isa::Avx512 => {
                let d = self.destination(dst, p, args);
                self.v(if wide { table::PABSQ } else { table::PABSD }, width, d, 0, a);
            }
            ScalarOp::Abs => {
                // (x ^ s) - s with s the sign in every bit.
                let temp = self.temp();
                self.zero(temp);
                self.v(table::PCMPGTQ, width, temp, temp, a);
                let d = self.destination(dst, p, args);
                self.v(table::PXOR, width, d, a, temp);
                self.v(table::PSUBQ, width, d, d, temp);
            }
            ScalarOp::Shl(n) | ScalarOp::ShrL(n) => {
                let digit =
                    if matches!(op, ScalarOp::Shl(_)) { table::SHIFT_LEFT } else { table::SHIFT_RIGHT };
                let d = self.destination(dst, p, args);
                self.shift(if wide { table::PSHIFTQ } else { table::PSHIFTD }, digit, width, d, a, n);
            }
            ScalarOp::ShrA(n) if !wide || self.isa == Isa::Avx512 => {
                let d = self.destination(dst, p, args);
                let i = if wide { table::PSRAQ } else { table::PSHIFTD };
                self.shift(i, table::SHIFT_RIGHT_ARITHMETIC, width, d, a, n);
            }
            ScalarOp::ShrA(n) => {
                // A logical shift, and the sign above it.
                let temp = self.temp();
                self.zero(temp);
                self.v(table::PCMPGTQ, width, temp, temp, a);
                if n == 0 {
                    self.zero(temp);
                } else {
                    self.shift(table::PSHIFTQ, table::SHIFT_LEFT, width, temp, temp, 64 - n);
                }
                let d = self.destination(dst, p, args);
                self.shift(table::PSHIFTQ, table::SHIFT_RIGHT, width, d, a, n);
                self.v(table::POR, width, d, d, temp);
            }
            _ => return Err(Refused("an instruction")),
        }
        Ok(())
    }

    fn compare_lanes(&mut self, kind: CmpKind, from: DType, dst: Val, args: &[Val], p: usize) -> Emitted {
        let float_predicate = match kind {
            CmpKind::Eq => 0x00,
            CmpKind::Ne if fault!(30) => 0x0c,
            CmpKind::Ne => 0x04,
            CmpKind::Lt => 0x11,
            CmpKind::Le => 0x12,
            CmpKind::Gt => 0x1e,
            CmpKind::Ge => 0x1d,
        };
        let int_predicate = match kind {
            CmpKind::Eq => 0,
            CmpKind::Lt => 1,
            CmpKind::Le => 2,
            CmpKind::Ne => 4,
            CmpKind::Ge => 5,
            CmpKind::Gt => 6,
        };
        let wide = from.size_bytes() == 8;
        let width = if self.lanes(args[0]) == 1 { Width::X } else { self.placed(args[0]).width };
        if self.isa == Isa::Avx512 {
            // One or two vectors make one mask.
            let from_parts = self.placed(args[0]).count.max(self.placed(args[1]).count);
            let from_parts = if self.lanes(args[0]) == 1 { 1 } else { from_parts };
            let per = width.bytes() / lane_bytes(from);
            let vectors: Vec<usize> = (0..from_parts).filter(|q| q * per / 16 == p).collect();
            let k = self.take(Class::Mask);
            self.own(dst, p, k);
            for (n, &q) in vectors.iter().enumerate() {
                let a = self.register(args[0], q);
                let Operand((rm, x)) = self.last(args[1], q);
                let (i, predicate) = if from.is_float() {
                    (table::float(from, table::CMP), float_predicate)
                } else {
                    (if wide { table::PCMPQ_MASK } else { table::PCMPD_MASK }, int_predicate)
                };
                let to = if n == 0 { k } else { MASK_TEMP };
                self.a.vector(i, width, to, a, rm, Some(predicate), x);
                if n > 0 {
                    // kshiftlw, then merge
                    let left = ins(1, 3, 1, 0x32);
                    self.a.vex(left, 0, MASK_TEMP, 0, Rm::Reg(MASK_TEMP), Some((n * per) as u8));
                    self.a.vex(table::KOR, 1, k, k, Rm::Reg(MASK_TEMP), None);
                }
                self.unlock(Class::Vector, a);
            }
            return Ok(());
        }
        if from == DType::Bool {
            return self.compare_truths(kind, dst, args, p);
        }
        // AVX2: a mask of 32 bits for each lane, from one or two vectors.
        let narrow = wide && self.lanes(args[0]) > 1;
        let (first, second) =
            if narrow && self.placed(args[0]).count > 1 { self.pair(args[0], p) } else { (p, None) };
        let mut found: SmallVec<[u8; 2]> = SmallVec::new();
        for q in [Some(first), second].into_iter().flatten() {
            let a = self.register(args[0], q);
            let b = self.register(args[1], q);
            let d = self.take(Class::Vector);
            if from.is_float() {
                self.vi(table::float(from, table::CMP), width, d, a, b, float_predicate);
            } else {
                let (eq, gt) =
                    if wide { (table::PCMPEQQ, table::PCMPGTQ) } else { (table::PCMPEQD, table::PCMPGTD) };
                let (i, x, y, invert) = match kind {
                    CmpKind::Eq => (eq, a, b, false),
                    CmpKind::Ne => (eq, a, b, true),
                    CmpKind::Gt => (gt, a, b, false),
                    CmpKind::Le => (gt, a, b, true),
                    CmpKind::Lt => (gt, b, a, false),
                    CmpKind::Ge => (gt, b, a, true),
                };
                self.v(i, width, d, x, y);
                if invert {
                    let ones = self.vector_constant(&[0xff; 8]);
                    self.v(table::PXOR, width, d, d, Rm::Mem(ones));
                }
            }
            self.unlock(Class::Vector, a);
            self.unlock(Class::Vector, b);
            found.push(d);
        }
        let d = found[0];
        if narrow {
            self.narrow(d, d, found.get(1).copied().unwrap_or(d), width);
        }
        self.own(dst, p, d);
        Ok(())
    }

    /// The parts of `x` whose lanes make part `p` of a value with lanes of half the size. The last has
    /// no second one where `x` has an odd number of parts.
    fn pair(&self, x: Val, p: usize) -> (usize, Option<usize>) {
        (2 * p, Some(2 * p + 1).filter(|&q| q < self.placed(x).count))
    }

    /// AVX2: the low halves of the 64-bit lanes of one or two vectors.
    fn narrow(&mut self, dst: u8, lo: u8, hi: u8, width: Width) {
        self.vi(table::SHUFPS, width, dst, lo, hi, 0x88);
        if width == Width::Y {
            // The halves of the two were interleaved.
            self.vi(table::PERMQ, Width::Y, dst, 0, dst, 0xd8);
        }
    }

    /// AVX2: comparison of truth values, masks of 32 bits.
    fn compare_truths(&mut self, kind: CmpKind, dst: Val, args: &[Val], p: usize) -> Emitted {
        let (width, _) = self.shape_of(dst);
        let a = self.register(args[0], p);
        let b = self.register(args[1], p);
        let d = self.take(Class::Vector);
        self.own(dst, p, d);
        let ones = self.vector_constant(&[0xff; 8]);
        // False is less than true.
        match kind {
            CmpKind::Ne | CmpKind::Eq => self.v(table::PXOR, width, d, a, b),
            CmpKind::Lt | CmpKind::Ge => self.v(table::PANDN, width, d, a, b),
            CmpKind::Gt | CmpKind::Le => self.v(table::PANDN, width, d, b, a),
        }
        if matches!(kind, CmpKind::Eq | CmpKind::Ge | CmpKind::Le) {
            self.v(table::PXOR, width, d, d, Rm::Mem(ones));
        }
        Ok(())
    }

    /// AVX-512: logic on mask registers.
    fn mask_op(&mut self, op: ScalarOp, dst: Val, args: &[Val], p: usize) -> Emitted {
        let regs: SmallVec<[u8; 3]> = args.iter().map(|&a| self.in_register(a, p)).collect();
        let d = self.take(Class::Mask);
        self.own(dst, p, d);
        let mut k = |i: Ins, dst: u8, x: u8, y: u8| self.a.vex(i, 1, dst, x, Rm::Reg(y), None);
        let (x, y) = (regs[0], *regs.get(1).unwrap_or(&0));
        match op {
            ScalarOp::And => k(table::KAND, d, x, y),
            ScalarOp::Or => k(table::KOR, d, x, y),
            ScalarOp::Xor | ScalarOp::Cmp(CmpKind::Ne) => k(table::KXOR, d, x, y),
            ScalarOp::Cmp(CmpKind::Eq) => k(table::KXNOR, d, x, y),
            ScalarOp::Cmp(CmpKind::Lt) => k(table::KANDN, d, x, y),
            ScalarOp::Cmp(CmpKind::Gt) => k(table::KANDN, d, y, x),
            ScalarOp::Cmp(CmpKind::Ge) => {
                k(table::KANDN, d, x, y);
                self.a.vex(table::KNOT, 0, d, 0, Rm::Reg(d), None);
            }
            ScalarOp::Cmp(CmpKind::Le) => {
                k(table::KANDN, d, y, x);
                self.a.vex(table::KNOT, 0, d, 0, Rm::Reg(d), None);
            }
            ScalarOp::Not => self.a.vex(table::KNOT, 0, d, 0, Rm::Reg(x), None),
            ScalarOp::Select => {
                k(table::KANDN, MASK_TEMP, x, regs[2]);
                k(table::KAND, d, x, y);
                k(table::KOR, d, d, MASK_TEMP);
            }
            _ => return Err(Refused("arithmetic on truth values")),
        }
        Ok(())
    }

    fn select(&mut self, dtype: DType, width: Width, dst: Val, args: &[Val], p: usize) -> Emitted {
        let [c, x, y] = [args[0], args[1], args[2]];
        if self.isa == Isa::Avx512 {
            let per = width.bytes() / lane_bytes(dtype);
            let scalar = self.lanes(dst) == 1;
            let q = if scalar { 0 } else { p * per / 16 };
            let shift = if scalar { 0 } else { p * per % 16 };
            let mut k = self.in_register(c, q);
            if shift > 0 {
                self.a.vex(table::KSHIFTR, 0, MASK_TEMP, 0, Rm::Reg(k), Some(shift as u8));
                k = MASK_TEMP;
            }
            let b = self.register(y, p);
            let Operand((rm, mut e)) = self.last(x, p);
            let d = self.destination(dst, p, &args[1..]);
            e.mask = k;
            let i = if lane_bytes(dtype) == 8 { table::BLENDMPD } else { table::BLENDMPS };
            self.a.vector(i, width, d, b, rm, None, e);
            return Ok(());
        }
        let wide = lane_bytes(dtype) == 8;
        if wide && self.lanes(dst) > 1 {
            // A mask part has twice the lanes of a value part.
            let mask_parts = self.placed(c).count;
            let parts = self.placed(dst).count;
            let q = p * mask_parts / parts;
            let mut m = self.in_register(c, q);
            let temp = self.temp();
            if parts > mask_parts && p % 2 == 1 {
                let half = if self.placed(c).width == Width::Y {
                    self.a.vector(table::EXTRACT128_VEX, Width::Y, m, 0, Rm::Reg(temp), Some(1), NONE);
                    temp
                } else {
                    self.vi(table::PSHUFD, Width::X, temp, 0, m, 0xee);
                    temp
                };
                m = half;
            }
            self.v(table::PMOVSXDQ, width, temp, 0, m);
            let a = self.register(x, p);
            let b = self.register(y, p);
            let d = self.take(Class::Vector);
            self.own(dst, p, d);
            self.blend(dtype, width, d, temp, a, b);
            return Ok(());
        }
        let m = self.in_register(c, p);
        let (a, b) = (self.register(x, p), self.register(y, p));
        let d = self.take(Class::Vector);
        self.own(dst, p, d);
        if wide {
            // A scalar: the mask's low 32 bits into 64.
            let temp = self.temp();
            self.v(table::PMOVSXDQ, width, temp, 0, m);
            self.blend(dtype, width, d, temp, a, b);
        } else {
            self.blend(dtype, width, d, m, a, b);
        }
        Ok(())
    }

    fn cast(&mut self, dst: Val, x: Val, from: DType, to: DType) -> Emitted {
        self.materialize(x);
        self.place(dst);
        let (width, parts) = self.shape_of(dst);
        let lanes = self.lanes(dst);
        let x_width = self.shape_of(x).0;
        let scalar = lanes == 1;
        match (from, to) {
            (DType::F32, DType::I32) => {
                for p in 0..parts {
                    let a = self.in_register(x, p);
                    let d = self.take(Class::Vector);
                    self.own(dst, p, d);
                    self.truncate(width, d, a);
                    self.unlock_all();
                }
            }
            (DType::I32, DType::F32) => self.each_part(dst, x, table::CVTDQ2PS),
            (DType::I64, DType::F64) if self.isa == Isa::Avx512 => self.each_part(dst, x, table::CVTQQ2PD),
            (DType::I32, DType::I64 | DType::F64) | (DType::F32, DType::F64) => {
                let i = match (from, to) {
                    (DType::F32, _) => table::CVTPS2PD,
                    (_, DType::I64) => table::PMOVSXDQ,
                    _ => table::CVTDQ2PD,
                };
                let x_parts = self.placed(x).count;
                for p in 0..parts {
                    let q = if scalar { 0 } else { p * x_parts.min(parts) / parts };
                    let mut a = self.in_register(x, q);
                    let temp = self.temp();
                    if !scalar && parts > x_parts && p % 2 == 1 {
                        self.upper_half(x_width, temp, a);
                        a = temp;
                    }
                    let d = self.take(Class::Vector);
                    self.own(dst, p, d);
                    self.v(i, width, d, 0, a);
                    self.unlock_all();
                }
            }
            (DType::F64, DType::F32) => self.halves(dst, x, table::CVTPD2PS)?,
            (DType::I64, DType::F32) if self.isa == Isa::Avx512 => self.halves(dst, x, table::CVTQQ2PS)?,
            (DType::I64, DType::I32) if self.isa == Isa::Avx512 => self.halves(dst, x, table::PMOVQD)?,
            (DType::I64, DType::I32) => {
                for p in 0..parts {
                    let wide_parts = self.placed(x).count;
                    let pair = !scalar && wide_parts > parts;
                    let (first, second) = if pair { self.pair(x, p) } else { (p, None) };
                    let a = self.in_register(x, first);
                    let b = second.map_or(a, |q| self.in_register(x, q));
                    let d = self.take(Class::Vector);
                    self.own(dst, p, d);
                    self.narrow(d, a, b, x_width);
                    self.unlock_all();
                }
            }
            (DType::Bool, _) => {
                let one = graphc_ir::Scalar::from_f64(to, 1.0).bits().to_le_bytes();
                let one = self.vector_constant(&one[..to.size_bytes()]);
                self.truth_to(dst, x, to, one)?;
            }
            (_, DType::Bool) => {
                for p in 0..parts {
                    self.not_zero(from, dst, x, p)?;
                    self.unlock_all();
                }
            }
            _ => return Err(Refused("a cast")),
        }
        Ok(())
    }

    fn each_part(&mut self, dst: Val, x: Val, i: Ins) {
        let (width, parts) = self.shape_of(dst);
        for p in 0..parts {
            let a = self.in_register(x, p);
            let d = self.destination(dst, p, &[x]);
            self.v(i, width, d, 0, a);
            self.unlock_all();
        }
    }

    /// The upper half of a register.
    fn upper_half(&mut self, width: Width, dst: u8, x: u8) {
        match (width, self.isa) {
            (Width::Z, _) => self.a.vector(table::EXTRACT256, width, x, 0, Rm::Reg(dst), Some(1), NONE),
            (Width::Y, Isa::Avx512) => {
                self.a.vector(table::EXTRACT128, width, x, 0, Rm::Reg(dst), Some(1), NONE)
            }
            (Width::Y, Isa::Avx2) => {
                self.a.vector(table::EXTRACT128_VEX, width, x, 0, Rm::Reg(dst), Some(1), NONE)
            }
            (Width::X, _) => self.vi(table::PSHUFD, Width::X, dst, 0, x, 0xee),
        }
    }

    /// A conversion to elements of half the size: two parts make one.
    fn halves(&mut self, dst: Val, x: Val, i: Ins) -> Emitted {
        let (width, parts) = self.shape_of(dst);
        let scalar = self.lanes(dst) == 1;
        let x_width = self.shape_of(x).0;
        // `vpmovqd` names its source last in the encoding's register field.
        let reversed = i.op == table::PMOVQD.op && i.pp == table::PMOVQD.pp && i.map == table::PMOVQD.map;
        let convert = |e: &mut Self, d: u8, s: u8| {
            if reversed {
                e.a.vector(i, x_width, s, 0, Rm::Reg(d), None, NONE);
            } else {
                e.v(i, x_width, d, 0, s);
            }
        };
        for p in 0..parts {
            let pair = !scalar && self.placed(x).count > parts;
            let (first, second) = if pair { self.pair(x, p) } else { (p, None) };
            let a = self.in_register(x, first);
            let d = self.take(Class::Vector);
            self.own(dst, p, d);
            convert(self, d, a);
            if let Some(q) = second {
                let b = self.in_register(x, q);
                let temp = self.temp();
                convert(self, temp, b);
                match width {
                    Width::Z => self.vi(table::INSERT256, width, d, d, temp, 1),
                    Width::Y => self.vi(table::INSERT128, width, d, d, temp, 1),
                    Width::X => return Err(Refused("halves of a short vector")),
                }
            }
            self.unlock_all();
        }
        Ok(())
    }

    /// Truncation to `I32`, saturating, NaN to 0.
    fn truncate(&mut self, width: Width, d: u8, a: u8) {
        let limit = self.vector_constant(&(2_147_483_648.0_f32).to_le_bytes());
        let cmp = table::float(DType::F32, table::CMP);
        let temp = self.temp();
        if self.isa == Isa::Avx512 {
            let max = self.vector_constant(&i32::MAX.to_le_bytes());
            self.v(table::CVTTPS2DQ, width, d, 0, a);
            self.a.vector(cmp, width, MASK_TEMP, a, Rm::Mem(limit), Some(0x1d), NONE);
            self.a.vector(
                table::MOVUPS_LOAD,
                width,
                d,
                0,
                Rm::Mem(max),
                None,
                Evex { mask: MASK_TEMP, ..NONE },
            );
            self.vi(cmp, width, MASK_TEMP, a, a, 3);
            self.v(table::PXOR, width, temp, temp, temp);
            self.a.vector(
                table::MOVUPS_LOAD,
                width,
                d,
                0,
                Rm::Reg(temp),
                None,
                Evex { mask: MASK_TEMP, ..NONE },
            );
            return;
        }
        // Out of range gives the least number, whose complement is the greatest.
        self.v(table::CVTTPS2DQ, width, d, 0, a);
        self.a.vector(cmp, width, temp, a, Rm::Mem(limit), Some(0x1d), NONE);
        self.v(table::PXOR, width, d, d, temp);
        self.vi(cmp, width, temp, a, a, 7);
        self.v(table::PAND, width, d, d, temp);
    }

    /// A truth value as 0 or 1 of a number type.
    fn truth_to(&mut self, dst: Val, c: Val, to: DType, one: super::Mem) -> Emitted {
        let (width, parts) = self.shape_of(dst);
        let scalar = self.lanes(dst) == 1;
        let wide = to.size_bytes() == 8;
        for p in 0..parts {
            if self.isa == Isa::Avx512 {
                let per = if scalar { 16 } else { width.bytes() / to.size_bytes() };
                let mut k = self.in_register(c, p * per / 16);
                if p * per % 16 > 0 {
                    self.a.vex(table::KSHIFTR, 0, MASK_TEMP, 0, Rm::Reg(k), Some((p * per % 16) as u8));
                    k = MASK_TEMP;
                }
                let d = self.take(Class::Vector);
                self.own(dst, p, d);
                let i = if wide { table::MOVUPD_LOAD } else { table::MOVUPS_LOAD };
                self.a.vector(
                    i,
                    width,
                    d,
                    0,
                    Rm::Mem(one),
                    None,
                    Evex { mask: k, zero: true, broadcast: false },
                );
            } else {
                let mask_parts = self.placed(c).count;
                let q = if scalar { 0 } else { p * mask_parts.min(parts) / parts };
                let mut m = self.in_register(c, q);
                let d = self.take(Class::Vector);
                self.own(dst, p, d);
                if wide {
                    let temp = self.temp();
                    if !scalar && parts > mask_parts && p % 2 == 1 {
                        let mask_width = self.placed(c).width;
                        self.upper_half(mask_width, temp, m);
                        m = temp;
                    }
                    self.v(table::PMOVSXDQ, width, d, 0, m);
                    m = d;
                }
                self.v(table::PAND, width, d, m, Rm::Mem(one));
            }
            self.unlock_all();
        }
        Ok(())
    }

    /// Part `p` of `dst = x != 0`.
    fn not_zero(&mut self, from: DType, dst: Val, x: Val, p: usize) -> Emitted {
        let zero = self.vector_constant(&[0; 8]);
        let wide = from.size_bytes() == 8;
        let scalar = self.lanes(dst) == 1;
        let width = if scalar { Width::X } else { self.placed(x).width };
        if self.isa == Isa::Avx512 {
            let per = width.bytes() / lane_bytes(from);
            let k = self.take(Class::Mask);
            self.own(dst, p, k);
            let from_parts = if scalar { 1 } else { self.placed(x).count };
            for (n, q) in (0..from_parts).filter(|q| q * per / 16 == p).enumerate() {
                let a = self.in_register(x, q);
                let (i, predicate) = if from.is_float() {
                    (table::float(from, table::CMP), 4)
                } else {
                    (if wide { table::PCMPQ_MASK } else { table::PCMPD_MASK }, 4)
                };
                let to = if n == 0 { k } else { MASK_TEMP };
                self.a.vector(i, width, to, a, Rm::Mem(zero), Some(predicate), NONE);
                if n > 0 {
                    let left = ins(1, 3, 1, 0x32);
                    self.a.vex(left, 0, MASK_TEMP, 0, Rm::Reg(MASK_TEMP), Some((n * per) as u8));
                    self.a.vex(table::KOR, 1, k, k, Rm::Reg(MASK_TEMP), None);
                }
            }
            return Ok(());
        }
        if wide && !scalar {
            return Err(Refused("a truth value of wide lanes"));
        }
        let a = self.in_register(x, p);
        let d = self.take(Class::Vector);
        self.own(dst, p, d);
        if from.is_float() {
            self.a.vector(table::float(from, table::CMP), width, d, a, Rm::Mem(zero), Some(4), NONE);
        } else {
            let eq = if wide { table::PCMPEQQ } else { table::PCMPEQD };
            let ones = self.vector_constant(&[0xff; 8]);
            self.a.vector(eq, width, d, a, Rm::Mem(zero), None, NONE);
            self.v(table::PXOR, width, d, d, Rm::Mem(ones));
        }
        Ok(())
    }
}

/// Which operand of a minimum or maximum is a constant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    First,
    /// Neither NaN nor zero.
    Second,
    SecondIsZero,
}

/// The last operand of an instruction.
pub(super) struct Operand(pub (Rm, Evex));

impl From<u8> for Operand {
    fn from(r: u8) -> Self {
        Self((Rm::Reg(r), NONE))
    }
}

impl From<Rm> for Operand {
    fn from(rm: Rm) -> Self {
        Self((rm, NONE))
    }
}
