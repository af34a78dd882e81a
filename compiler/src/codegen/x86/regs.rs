//! Register allocation: each part of a value is in a register, in a slot of the frame, or (a
//! constant) behind the code. Registers are handed out as code is emitted; when there is none left,
//! the part whose next use is farthest gives up its own (Belady 1966). What is in which place at the
//! head of a loop is restored at its end.

use super::asm::{Evex, Gpr, Label, Mem, RSP, Rm, Width};
use super::table;
use super::{Emitter, Isa};
use crate::vector::Val;
use smallvec::SmallVec;

/// Kind of register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Vector,
    /// AVX-512's mask registers: 16 truth values each.
    Mask,
}

/// Mask registers beyond those that hold values: a temporary, and the active lanes of a tail.
pub(super) const MASK_TEMP: u8 = 6;
pub(super) const MASK_TAIL: u8 = 7;

/// Where a part can be read from besides a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    None,
    /// A slot of the frame.
    Slot(i32),
    /// One element (AVX-512) or a whole vector (AVX2) behind the code.
    Constant(Label),
}

/// One register's worth of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub reg: Option<u8>,
    pub home: Home,
}

/// Where a value is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    pub class: Class,
    pub width: Width,
    /// Bytes of an element.
    pub size: usize,
    /// Parts that the value has.
    pub count: usize,
    /// Where they are: each for itself, or one for all of a value that is the same in every lane.
    pub parts: SmallVec<[Part; 2]>,
}

impl Placed {
    /// Index in `parts` of part `p`.
    fn index(&self, p: usize) -> usize {
        if self.parts.len() == 1 { 0 } else { p }
    }

    /// Where part `p` is.
    pub(super) fn part(&self, p: usize) -> Part {
        self.parts[self.index(p)]
    }

    pub(super) fn part_mut(&mut self, p: usize) -> &mut Part {
        let i = self.index(p);
        &mut self.parts[i]
    }

    /// Whether no part after `p` is where that one is.
    pub(super) fn is_last_of_its_place(&self, p: usize) -> bool {
        self.parts.len() == self.count || p + 1 == self.count
    }
}

/// Who has which register.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub vectors: Vec<Option<(Val, u8)>>,
    pub masks: Vec<Option<(Val, u8)>>,
    pub placed: Vec<Option<Placed>>,
}

impl Registers {
    fn file(&mut self, class: Class) -> &mut Vec<Option<(Val, u8)>> {
        match class {
            Class::Vector => &mut self.vectors,
            Class::Mask => &mut self.masks,
        }
    }
}

/// A place that a part is moved from or to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spot {
    Reg(u8),
    Slot(i32),
    Constant(Label),
}

impl Part {
    /// Where it is best read from.
    fn spot(self) -> Spot {
        match (self.reg, self.home) {
            (Some(r), _) => Spot::Reg(r),
            (None, Home::Slot(s)) => Spot::Slot(s),
            (None, Home::Constant(l)) => Spot::Constant(l),
            (None, Home::None) => unreachable!("a part is somewhere"),
        }
    }
}

impl Emitter<'_> {
    /// The vector register that is no value's.
    pub(super) fn temp(&self) -> u8 {
        self.isa.registers() - 1
    }

    /// Marks registers as in use by the instruction being emitted.
    pub(super) fn lock(&mut self, class: Class, reg: u8) {
        self.locked[class as usize] |= 1 << reg;
    }

    pub(super) fn unlock_all(&mut self) {
        self.locked = [0; 2];
    }

    pub(super) fn unlock(&mut self, class: Class, reg: u8) {
        self.locked[class as usize] &= !(1 << reg);
    }

    fn is_locked(&self, class: Class, reg: u8) -> bool {
        self.locked[class as usize] & 1 << reg != 0
    }

    /// A free register, locked; its owner is for the caller to state.
    pub(super) fn take(&mut self, class: Class) -> u8 {
        let (first, end) = match class {
            Class::Vector => (0, self.isa.registers() - 1),
            Class::Mask => (1, MASK_TEMP),
        };
        let free =
            (first..end).find(|&r| self.r.file(class)[r as usize].is_none() && !self.is_locked(class, r));
        let reg = free.unwrap_or_else(|| {
            let owned = |r: &u8| !self.is_locked(class, *r);
            let file = match class {
                Class::Vector => &self.r.vectors,
                Class::Mask => &self.r.masks,
            };
            let far = (first..end)
                .filter(owned)
                .max_by_key(|&r| file[r as usize].map_or(0, |(v, _)| self.next_use(v)))
                .expect("an instruction locks a few registers only");
            self.evict(class, far);
            far
        });
        self.lock(class, reg);
        reg
    }

    /// Frees a register; its part is stored if it is nowhere else.
    pub(super) fn evict(&mut self, class: Class, reg: u8) {
        let Some((v, p)) = self.r.file(class)[reg as usize].take() else { return };
        let width = self.placed(v).width;
        let home = self.placed(v).part(p as usize).home;
        let home = if home == Home::None {
            let slot = self.slot(class, width);
            self.spill(class, width, reg, slot);
            Home::Slot(slot)
        } else {
            home
        };
        let part = self.placed_mut(v).part_mut(p as usize);
        part.reg = None;
        part.home = home;
    }

    fn spill(&mut self, class: Class, width: Width, reg: u8, slot: i32) {
        let mem = Rm::Mem(Mem::at(RSP, slot));
        match class {
            Class::Vector => self.vmov_store(width, reg, mem),
            Class::Mask => self.a.vex(table::KMOVW_STORE, 0, reg, 0, mem, None),
        }
    }

    fn vmov_store(&mut self, width: Width, reg: u8, mem: Rm) {
        self.a.vector(table::MOVUPS_STORE, width, reg, 0, mem, None, Evex::default());
    }

    /// Copies a vector register.
    pub(super) fn vmov(&mut self, width: Width, dst: u8, src: u8) {
        if dst != src {
            self.a.vector(table::MOVUPS_LOAD, width, dst, 0, Rm::Reg(src), None, Evex::default());
        }
    }

    /// A frame slot for a part.
    fn slot(&mut self, class: Class, width: Width) -> i32 {
        let bytes = if class == Class::Mask { 8 } else { width.bytes() };
        if let Some(i) = self.free_slots.iter().position(|s| s.1 == bytes) {
            return self.free_slots.swap_remove(i).0;
        }
        self.frame_slot(bytes)
    }

    /// `bytes` of the frame, aligned to their number (at most 64).
    pub(super) fn frame_slot(&mut self, bytes: usize) -> i32 {
        self.frame = self.frame.next_multiple_of(bytes.clamp(8, 64));
        self.frame += bytes;
        (self.frame - bytes) as i32
    }

    pub(super) fn placed(&self, v: Val) -> &Placed {
        self.r.placed[v as usize].as_ref().expect("a value is placed when it is defined")
    }

    pub(super) fn placed_mut(&mut self, v: Val) -> &mut Placed {
        self.r.placed[v as usize].as_mut().expect("a value is placed when it is defined")
    }

    /// Forgets a value.
    pub(super) fn drop_value(&mut self, v: Val) {
        let Some(placed) = self.r.placed[v as usize].take() else { return };
        for part in &placed.parts {
            if let Some(r) = part.reg {
                self.r.file(placed.class)[r as usize] = None;
            }
            if let Home::Slot(s) = part.home
                && !self.pinned_slots.contains(&s)
            {
                let bytes = if placed.class == Class::Mask { 8 } else { placed.width.bytes() };
                self.free_slots.push((s, bytes));
            }
        }
    }

    /// Takes the register of a part whose value dies with this instruction, if it has one.
    pub(super) fn inherit(&mut self, v: Val, p: usize) -> Option<u8> {
        let class = self.placed(v).class;
        let reg = self.placed_mut(v).part_mut(p).reg.take()?;
        self.r.file(class)[reg as usize] = None;
        self.lock(class, reg);
        Some(reg)
    }

    /// States that part `p` of `v` is in `reg`.
    pub(super) fn own(&mut self, v: Val, p: usize, reg: u8) {
        let class = self.placed(v).class;
        self.r.file(class)[reg as usize] = Some((v, p as u8));
        self.placed_mut(v).part_mut(p).reg = Some(reg);
    }

    /// A part in a register, locked.
    pub(super) fn in_register(&mut self, v: Val, p: usize) -> u8 {
        let class = self.placed(v).class;
        if let Some(r) = self.placed(v).part(p).reg {
            self.lock(class, r);
            return r;
        }
        let reg = self.take(class);
        self.copy_part(v, p, reg);
        self.own(v, p, reg);
        reg
    }

    /// A part as the last operand of an instruction: its register, or where it rests.
    pub(super) fn operand(&mut self, v: Val, p: usize) -> (Rm, Evex) {
        let placed = self.placed(v);
        let (class, size, part) = (placed.class, placed.size, placed.part(p));
        if let Some(r) = part.reg {
            self.lock(class, r);
            return (Rm::Reg(r), Evex::default());
        }
        match part.home {
            Home::Slot(s) => (Rm::Mem(Mem::at(RSP, s)), Evex::default()),
            Home::Constant(l) if size >= 4 => {
                let broadcast = self.isa == Isa::Avx512;
                (Rm::Mem(Mem::Data(l)), Evex { broadcast, ..Evex::default() })
            }
            _ => (Rm::Reg(self.in_register(v, p)), Evex::default()),
        }
    }

    /// Copies a part into a register, from where it rests or from its own.
    pub(super) fn copy_part(&mut self, v: Val, p: usize, reg: u8) {
        let placed = self.placed(v);
        let (class, width, size, from) = (placed.class, placed.width, placed.size, placed.part(p).spot());
        self.move_part(class, width, size, Spot::Reg(reg), from);
    }

    fn move_part(&mut self, class: Class, width: Width, size: usize, to: Spot, from: Spot) {
        match (class, to, from) {
            (Class::Vector, Spot::Reg(d), Spot::Reg(s)) => self.vmov(width, d, s),
            (Class::Vector, Spot::Reg(d), Spot::Slot(s)) => {
                let mem = Rm::Mem(Mem::at(RSP, s));
                self.a.vector(table::MOVUPS_LOAD, width, d, 0, mem, None, Evex::default());
            }
            (Class::Vector, Spot::Reg(d), Spot::Constant(l)) => self.load_constant(width, size, d, l),
            (Class::Vector, Spot::Slot(d), Spot::Reg(s)) => self.spill(class, width, s, d),
            (Class::Mask, Spot::Reg(d), Spot::Reg(s)) => {
                self.a.vex(table::KMOVW, 0, d, 0, Rm::Reg(s), None);
            }
            (Class::Mask, Spot::Reg(d), Spot::Slot(s)) => {
                self.a.vex(table::KMOVW, 0, d, 0, Rm::Mem(Mem::at(RSP, s)), None);
            }
            (Class::Mask, Spot::Slot(d), Spot::Reg(s)) => self.spill(class, width, s, d),
            (_, Spot::Slot(_), from) => {
                let temp = if class == Class::Mask { MASK_TEMP } else { self.temp() };
                self.move_part(class, width, size, Spot::Reg(temp), from);
                self.move_part(class, width, size, to, Spot::Reg(temp));
            }
            (_, Spot::Constant(_), _) | (Class::Mask, _, Spot::Constant(_)) => {
                unreachable!("constants are not written, nor are masks constants in memory")
            }
        }
    }

    /// A constant in every lane of a register.
    pub(super) fn load_constant(&mut self, width: Width, size: usize, reg: u8, label: Label) {
        let mem = Rm::Mem(Mem::Data(label));
        let i = match (self.isa, size) {
            (Isa::Avx2, _) => table::MOVUPS_LOAD,
            (Isa::Avx512, 8) => table::PBROADCASTQ,
            (Isa::Avx512, _) => table::BROADCASTSS,
        };
        self.a.vector(i, width, reg, 0, mem, None, Evex::default());
    }

    /// Gives `to` the parts of `from`: takes them over if `from` dies, else copies registers.
    pub(super) fn alias(&mut self, to: Val, from: Val, dies: bool) {
        if dies {
            let placed = self.r.placed[from as usize].take().expect("an operand is placed");
            for (p, part) in placed.parts.iter().enumerate() {
                if let Some(r) = part.reg {
                    self.r.file(placed.class)[r as usize] = Some((to, p as u8));
                }
            }
            self.r.placed[to as usize] = Some(placed);
            return;
        }
        let placed = self.placed(from).clone();
        let constant = placed.parts.iter().all(|p| matches!(p.home, Home::Constant(_)));
        let none = Part { reg: None, home: Home::None };
        let parts = placed.parts.iter().map(|p| if constant { Part { reg: None, ..*p } } else { none });
        self.r.placed[to as usize] = Some(Placed { parts: parts.collect(), ..placed.clone() });
        if constant {
            return;
        }
        for p in 0..placed.parts.len() {
            let s = self.in_register(from, p);
            let d = self.take(placed.class);
            self.move_part(placed.class, placed.width, placed.size, Spot::Reg(d), Spot::Reg(s));
            self.own(to, p, d);
            self.unlock_all();
        }
    }

    /// Gives each part of a value a place of its own, a register or a slot that is nobody else's.
    pub(super) fn settle(&mut self, v: Val) {
        let Placed { class, width, size, count, parts: ref places } = *self.placed(v);
        let shared = places.len() < count;
        let first = self.in_register(v, 0);
        self.placed_mut(v).parts[0].home = Home::None;
        if shared {
            let none = Part { reg: None, home: Home::None };
            self.placed_mut(v).parts.resize(count, none);
        } else {
            self.unlock_all();
        }
        for p in 1..count {
            if shared {
                let r = self.take(class);
                self.move_part(class, width, size, Spot::Reg(r), Spot::Reg(first));
                self.own(v, p, r);
                self.unlock(class, r);
            } else {
                self.in_register(v, p);
                self.placed_mut(v).parts[p].home = Home::None;
                self.unlock_all();
            }
        }
        self.unlock_all();
    }

    /// Brings every value of `head` back to where it was there, and `moves` of carried values
    /// `(phi, next)` into the place of the first; all at once.
    pub(super) fn restore(&mut self, head: &Registers, moves: &[(Val, Val)]) {
        for class in [Class::Vector, Class::Mask] {
            // (to, from, width, element size)
            let mut pending: Vec<(Spot, Spot, Width, usize)> = Vec::new();
            for (v, before) in head.placed.iter().enumerate() {
                let Some(before) = before.as_ref().filter(|b| b.class == class) else { continue };
                let source = moves.iter().find(|m| m.0 as usize == v).map_or(v, |m| m.1 as usize);
                let now = self.r.placed[source].as_ref().expect("what lives at the head lives at the end");
                for (p, b) in before.parts.iter().enumerate() {
                    let from = now.part(p).spot();
                    if let Some(r) = b.reg {
                        pending.push((Spot::Reg(r), from, before.width, before.size));
                    }
                    if let (Home::Slot(s), true) = (b.home, source != v) {
                        pending.push((Spot::Slot(s), from, before.width, before.size));
                    }
                }
            }
            self.move_all(class, pending);
        }
        self.r = head.clone();
        self.unlock_all();
    }

    /// A parallel move: no source is overwritten before it is read.
    fn move_all(&mut self, class: Class, mut pending: Vec<(Spot, Spot, Width, usize)>) {
        pending.retain(|m| m.0 != m.1);
        while !pending.is_empty() {
            let ready = pending.iter().position(|m| !pending.iter().any(|o| o.1 == m.0));
            if let Some(i) = ready {
                let (to, from, width, size) = pending.swap_remove(i);
                self.move_part(class, width, size, to, from);
                continue;
            }
            // Only cycles are left: one of them is opened through memory.
            let (_, from, width, size) = pending[0];
            let slot = self.slot(class, Width::Z.max(width));
            self.move_part(class, width, size, Spot::Slot(slot), from);
            for m in pending.iter_mut().filter(|m| m.1 == from) {
                m.1 = Spot::Slot(slot);
            }
        }
    }

    /// Position of the next use of a value, or the largest number.
    fn next_use(&self, v: Val) -> u32 {
        let uses = &self.uses[v as usize];
        let i = uses.partition_point(|&p| p <= self.position);
        uses.get(i).copied().unwrap_or(u32::MAX)
    }

    /// Before a loop (positions `begin..=end`): frees enough registers for its body by evicting what
    /// it does not use, so that this is done once and not in each iteration.
    pub(super) fn make_room(&mut self, begin: u32, end: u32) {
        for class in [Class::Vector, Class::Mask] {
            let available = match class {
                Class::Vector => self.isa.registers() as usize - 1,
                Class::Mask => MASK_TEMP as usize - 1,
            };
            let needed = self.pressure(class, begin, end);
            let mut excess = needed.saturating_sub(available);
            let mut idle: Vec<(u32, u8)> = self
                .r
                .file(class)
                .clone()
                .iter()
                .enumerate()
                .filter_map(|(r, owner)| {
                    let next = self.next_use(owner.as_ref()?.0);
                    // Uses inside are at positions up to the end; `end` itself keeps it alive only.
                    (next >= end).then_some((next, r as u8))
                })
                .collect();
            idle.sort_unstable();
            while excess > 0
                && let Some((_, r)) = idle.pop()
            {
                self.evict(class, r);
                excess -= 1;
            }
        }
    }

    /// Most registers that values need at once within positions `begin..=end`.
    fn pressure(&self, class: Class, begin: u32, end: u32) -> usize {
        let mut change = vec![0i64; (end - begin + 2) as usize];
        for (v, range) in self.live.iter().enumerate() {
            let Some((from, to)) = *range else { continue };
            if to < begin || from > end || self.class_of(v as Val) != class || self.is_constant(v as Val) {
                continue;
            }
            let parts = self.places_of(v as Val) as i64;
            change[(from.max(begin) - begin) as usize] += parts;
            change[(to.min(end) + 1 - begin) as usize] -= parts;
        }
        let mut now = 0;
        change
            .iter()
            .map(|c| {
                now += c;
                now
            })
            .max()
            .unwrap_or(0)
            .max(0) as usize
    }

    /// A general register's value into a slot of the frame.
    pub(super) fn save(&mut self, slot: i32, r: Gpr) {
        self.a.store(Mem::at(RSP, slot), r);
    }
}
