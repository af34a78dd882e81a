//! Index expressions and addresses in general registers.
//!
//! A *region* is a run of statements that is emitted in one go: the body of a run-time loop, of a
//! loop that runs once, or of the function. At the entry of a loop's region the part of each address
//! that does not change in it is computed; what changes with the loop's variable is an index
//! register, or a pointer that moves with it. That serves the loops that run once inside of it too:
//! their variables are known in terms of those around them.

use super::asm::{Alu, Cond, Gpr, Mem, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Rm};
use super::{Active, Emitter, Mode, Node};
use crate::program;
use crate::vector::{Base, Bound, Loop, MemRef, Stmt, VOp};
use graphc_ir::{Atom, Guard, IndexExpr, Var};
use rustc_hash::FxHashMap;

/// Registers that callers expect unchanged.
pub(super) const SAVED: [Gpr; 6] = [RBX, RBP, R12, R13, R14, R15];

/// Registers that regions use; the others (`rax`, `rcx`, `rdx`) are temporaries.
pub(super) const ALLOCATABLE: [Gpr; 12] =
    [RBX, RBP, RSI, RDI, Gpr(8), Gpr(9), Gpr(10), Gpr(11), R12, R13, R14, R15];

/// Where an integer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Imm(i64),
    Reg(Gpr),
    /// A slot of the frame.
    Slot(i32),
}

/// Slots of the context's pointers.
#[derive(Default, Debug)]
pub(super) struct Bases {
    pub arena: i32,
    pub state: i32,
    pub constants: i32,
    pub scratch: i32,
    /// Those of buffers with pointers of their own: inputs, outputs, and all whose places are in a table.
    pub buffers: FxHashMap<u32, i32>,
}

/// The part of an address that a region computes at its entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Family {
    base: Base,
    /// Bytes per unit of each atom.
    terms: Vec<(Atom, i64)>,
    /// Bytes that the pointer moves per unit of the region's variable; 0 if it does not move.
    moves: i64,
}

/// The variable of a region's loop.
#[derive(Clone, Copy, Debug)]
struct LoopVar {
    var: Var,
    place: Place,
    end: Place,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Region {
    var: Option<LoopVar>,
    pointers: Vec<(Family, Place)>,
    owned: Vec<Gpr>,
    /// Position where it begins: what is defined later changes in it.
    begin: u32,
}

/// An address taken apart for a region.
struct Split {
    family: Family,
    /// Bytes per unit of the region's variable, as an index: 1, 2, 4 or 8; 0 without.
    scale: i64,
    disp: i32,
}

impl Emitter<'_> {
    /// Enters a region; `var` is its loop's variable with first value, end and step.
    pub(super) fn region(&mut self, var: Option<(Var, Place, Place, i64)>, body: &[Node<'_>], begin: u32) {
        // Parameters are defined at position 0, before all else.
        let begin = begin.max(1);
        let mut region = Region { var: None, pointers: Vec::new(), owned: Vec::new(), begin };
        let spare = if var.is_some() { inner_needs(body).min(ALLOCATABLE.len() - 2) } else { 0 };
        let mut free = self.free_gprs.len().saturating_sub(spare);
        let mut claim = |e: &mut Self, region: &mut Region| {
            if free == 0 {
                return None;
            }
            free -= 1;
            let r = e.free_gprs.pop()?;
            region.owned.push(r);
            Some(r)
        };
        if let Some((var, lo, hi, _)) = var {
            let place = claim(self, &mut region).map_or_else(|| Place::Slot(self.frame_slot(8)), Place::Reg);
            self.copy(place, lo);
            let end = match hi {
                Place::Slot(_) => match claim(self, &mut region) {
                    Some(r) => {
                        self.copy(Place::Reg(r), hi);
                        Place::Reg(r)
                    }
                    None => hi,
                },
                other => other,
            };
            self.vars.insert(var, place);
            region.var = Some(LoopVar { var, place, end });
        }
        // How often each family occurs, in order of first occurrence.
        let mut families: Vec<(Family, usize)> = Vec::new();
        let mut accesses = Vec::new();
        self.accesses(body, &FxHashMap::default(), var.is_some(), &mut accesses);
        self.regions.push(region);
        for mem in accesses {
            if var.is_none() && self.pointed(&mem).is_some() {
                continue;
            }
            let region = self.regions.last().expect("pushed above");
            let Some(split) = self.split(&mem, region) else { continue };
            match families.iter_mut().find(|f| f.0 == split.family) {
                Some(f) => f.1 += 1,
                None => families.push((split.family, 1)),
            }
        }
        let mut region = self.regions.pop().expect("pushed above");
        families.sort_by_key(|f| std::cmp::Reverse(f.1));
        for (family, count) in families {
            // Outside of loops a single use computes its address where it is.
            if var.is_none() && count == 1 {
                continue;
            }
            let place = claim(self, &mut region).map_or_else(|| Place::Slot(self.frame_slot(8)), Place::Reg);
            self.pointer(&family, region.var.map(|v| v.place));
            self.copy(place, Place::Reg(RAX));
            region.pointers.push((family, place));
        }
        self.regions.push(region);
    }

    /// Leaves the innermost region.
    pub(super) fn close_region(&mut self) {
        let region = self.regions.pop().expect("a region is open");
        self.free_gprs.extend(region.owned);
    }

    /// At the end of an iteration: moves the variable and the pointers on, and compares the variable
    /// with its end.
    pub(super) fn advance(&mut self, step: i64) {
        let region = self.regions.last().expect("a region is open");
        let LoopVar { place, end, .. } = region.var.expect("of a loop");
        let moving: Vec<(Place, i64)> =
            region.pointers.iter().filter(|p| p.0.moves != 0).map(|p| (p.1, p.0.moves * step)).collect();
        for (at, by) in moving {
            self.add_imm(at, by);
        }
        self.add_imm(place, step);
        self.compare(place, end);
    }

    fn add_imm(&mut self, at: Place, by: i64) {
        let rm = match at {
            Place::Reg(r) => Rm::Reg(r.0),
            Place::Slot(s) => Rm::Mem(Mem::at(RSP, s)),
            Place::Imm(_) => unreachable!("a variable is in a register or a slot"),
        };
        if let Ok(by) = i32::try_from(by) {
            self.a.alu_imm(Alu::Add, rm, by);
            return;
        }
        self.a.mov_imm(RAX, by);
        match at {
            Place::Reg(r) => self.a.alu(Alu::Add, r, Rm::Reg(RAX.0)),
            Place::Slot(s) => self.a.add_to(Mem::at(RSP, s), RAX),
            Place::Imm(_) => {}
        }
    }

    /// Flags of `x - y`, as signed numbers.
    pub(super) fn compare(&mut self, x: Place, y: Place) {
        let x = match x {
            Place::Reg(r) => r,
            other => {
                self.place_into(RAX, other);
                RAX
            }
        };
        match y {
            Place::Imm(v) if i32::try_from(v).is_ok() => self.a.alu_imm(Alu::Cmp, Rm::Reg(x.0), v as i32),
            Place::Imm(v) => {
                self.a.mov_imm(RCX, v);
                self.a.alu(Alu::Cmp, x, Rm::Reg(RCX.0));
            }
            Place::Reg(r) => self.a.alu(Alu::Cmp, x, Rm::Reg(r.0)),
            Place::Slot(s) => self.a.alu(Alu::Cmp, x, Rm::Mem(Mem::at(RSP, s))),
        }
    }

    pub(super) fn place_into(&mut self, r: Gpr, place: Place) {
        match place {
            Place::Imm(v) => self.a.mov_imm(r, v),
            Place::Reg(s) => self.a.mov(r, s),
            Place::Slot(s) => self.a.load(r, Mem::at(RSP, s)),
        }
    }

    fn copy(&mut self, to: Place, from: Place) {
        match (to, from) {
            (Place::Reg(r), from) => self.place_into(r, from),
            (Place::Slot(s), Place::Imm(v)) if i32::try_from(v).is_ok() => {
                self.a.store_imm(Mem::at(RSP, s), v as i32);
            }
            (Place::Slot(s), Place::Reg(r)) => self.save(s, r),
            (Place::Slot(s), from) => {
                self.place_into(RCX, from);
                self.save(s, RCX);
            }
            (Place::Imm(_), _) => unreachable!("an immediate is not written"),
        }
    }

    /// A loop bound, computed now.
    pub(super) fn bound_place(&mut self, bound: &Bound) -> Place {
        match bound {
            Bound::Expr(e) => self.index_place(e),
            Bound::Min(x, y) => {
                let (x, y) = (self.index_place(x), self.index_place(y));
                if let (Place::Imm(x), Place::Imm(y)) = (x, y) {
                    return Place::Imm(x.min(y));
                }
                self.place_into(RDX, x);
                self.compare(Place::Reg(RDX), y);
                // Moves change no flags.
                self.place_into(RCX, y);
                self.a.cmov(Cond::Greater, RDX, Rm::Reg(RCX.0));
                let slot = self.frame_slot(8);
                self.save(slot, RDX);
                Place::Slot(slot)
            }
        }
    }

    fn index_place(&mut self, e: &IndexExpr) -> Place {
        if let Some(c) = self.known(e) {
            return Place::Imm(c);
        }
        self.index(e, 0);
        let slot = self.frame_slot(8);
        self.save(slot, RAX);
        Place::Slot(slot)
    }

    /// The value of an expression whose variables are all known.
    fn known(&self, e: &IndexExpr) -> Option<i64> {
        e.terms().iter().try_fold(e.offset_value(), |sum, (atom, c)| {
            let value = match atom {
                Atom::Var(v) => match self.vars.get(v) {
                    Some(Place::Imm(x)) => *x,
                    _ => return None,
                },
                Atom::Dynamic(_) => return None,
                Atom::Div(e, m) => self.known(e)?.div_euclid(*m),
                Atom::Mod(e, m) => self.known(e)?.rem_euclid(*m),
            };
            Some(sum + c * value)
        })
    }

    /// `place + by`, with what is computed now.
    pub(super) fn place_offset(&mut self, place: Place, by: i64) -> Place {
        match place {
            Place::Imm(v) => Place::Imm(v + by),
            _ if by == 0 => place,
            _ => {
                self.place_into(RAX, place);
                self.add_imm(Place::Reg(RAX), by);
                let slot = self.frame_slot(8);
                self.save(slot, RAX);
                Place::Slot(slot)
            }
        }
    }

    /// `lo + (hi - lo)` rounded down to a multiple of `lanes`, a power of two.
    pub(super) fn whole_end(&mut self, lo: Place, hi: Place, lanes: i64) -> Place {
        self.place_into(RAX, hi);
        self.place_into(RCX, lo);
        self.a.alu(Alu::Sub, RAX, Rm::Reg(RCX.0));
        self.a.alu_imm(Alu::And, Rm::Reg(RAX.0), -(lanes as i32));
        self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
        // A range that ends before it begins is empty.
        self.a.alu(Alu::Cmp, RAX, Rm::Reg(RCX.0));
        self.a.cmov(Cond::Less, RAX, Rm::Reg(RCX.0));
        let slot = self.frame_slot(8);
        self.save(slot, RAX);
        Place::Slot(slot)
    }

    /// The value of an expression into `rax`, at a lane of the vector variable.
    pub(super) fn index(&mut self, e: &IndexExpr, lane: i64) {
        let complex = |a: &Atom| matches!(a, Atom::Div(..) | Atom::Mod(..));
        let constant: i64 = e.offset_value();
        let mut have = false;
        self.index_depth += 1;
        let partial = 1 + self.index_depth;
        for (atom, c) in e.terms().iter().filter(|t| complex(&t.0)) {
            if have {
                let slot = self.temp_slot(partial);
                self.save(slot, RAX);
            }
            let (inner, m) = match atom {
                Atom::Div(e, m) | Atom::Mod(e, m) => (e, *m),
                _ => unreachable!("filtered"),
            };
            self.index(inner, lane);
            self.divide(m, matches!(atom, Atom::Mod(..)));
            self.scale(*c);
            if have {
                let slot = self.temp_slot(partial);
                self.a.alu(Alu::Add, RAX, Rm::Mem(Mem::at(RSP, slot)));
            }
            have = true;
        }
        self.index_depth -= 1;
        let mut sum = constant;
        for (atom, c) in e.terms().iter().filter(|t| !complex(&t.0)) {
            let place = match atom {
                Atom::Var(v) => {
                    if lane != 0 && self.vector_var() == Some(*v) {
                        sum += lane * c;
                    }
                    self.vars[v]
                }
                Atom::Dynamic(v) => Place::Slot(self.dynamic_slots[v]),
                _ => unreachable!("filtered"),
            };
            if let Place::Imm(x) = place {
                sum += x * c;
                continue;
            }
            if !have {
                self.place_into(RAX, place);
                self.scale(*c);
                have = true;
            } else if *c == 1 {
                match place {
                    Place::Reg(r) => self.a.alu(Alu::Add, RAX, Rm::Reg(r.0)),
                    Place::Slot(s) => self.a.alu(Alu::Add, RAX, Rm::Mem(Mem::at(RSP, s))),
                    Place::Imm(_) => {}
                }
            } else {
                self.term(place, *c);
                self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
            }
        }
        if !have {
            self.a.mov_imm(RAX, sum);
        } else if sum != 0 {
            self.add_constant(sum);
        }
    }

    /// `rax += c`
    fn add_constant(&mut self, c: i64) {
        if let Ok(c) = i32::try_from(c) {
            self.a.alu_imm(Alu::Add, Rm::Reg(RAX.0), c);
        } else {
            self.a.mov_imm(RCX, c);
            self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
        }
    }

    /// `rcx = place * c`
    fn term(&mut self, place: Place, c: i64) {
        if let (Ok(c), true) = (i32::try_from(c), c.count_ones() != 1) {
            let rm = match place {
                Place::Reg(r) => Rm::Reg(r.0),
                Place::Slot(s) => Rm::Mem(Mem::at(RSP, s)),
                Place::Imm(_) => unreachable!("folded into the constant"),
            };
            self.a.imul_imm(RCX, rm, c);
            return;
        }
        self.place_into(RCX, place);
        if c > 0 && c.count_ones() == 1 {
            self.a.shl(RCX, c.trailing_zeros() as u8);
        } else {
            self.a.mov_imm(RDX, c);
            self.a.imul(RCX, RDX);
        }
    }

    /// `rax *= c`
    fn scale(&mut self, c: i64) {
        if c == 1 {
        } else if c > 0 && c.count_ones() == 1 {
            self.a.shl(RAX, c.trailing_zeros() as u8);
        } else if let Ok(c) = i32::try_from(c) {
            self.a.imul_imm(RAX, Rm::Reg(RAX.0), c);
        } else {
            self.a.mov_imm(RCX, c);
            self.a.imul(RAX, RCX);
        }
    }

    /// `rax / m` or `rax % m` for `0 <= rax < 2^40`, by the high half of a product with
    /// `ceil(2^64 / m)` (see the Cranelift emitter).
    fn divide(&mut self, m: i64, remainder: bool) {
        if m.count_ones() == 1 {
            if !remainder {
                if m > 1 {
                    self.a.shr(RAX, m.trailing_zeros() as u8);
                }
            } else if let Ok(mask) = i32::try_from(m - 1) {
                self.a.alu_imm(Alu::And, Rm::Reg(RAX.0), mask);
            } else {
                self.a.mov_imm(RCX, m - 1);
                self.a.alu(Alu::And, RAX, Rm::Reg(RCX.0));
            }
            return;
        }
        if (3..1 << 23).contains(&m) {
            let reciprocal = (u128::from(u64::MAX) + 1).div_ceil(m as u128) as u64;
            let kept = remainder.then(|| self.temp_slot(0));
            if let Some(slot) = kept {
                self.save(slot, RAX);
            }
            self.a.mov_imm(RCX, reciprocal as i64);
            self.a.mul(RCX);
            match kept {
                None => self.a.mov(RAX, RDX),
                Some(slot) => {
                    self.a.imul_imm(RCX, Rm::Reg(RDX.0), m as i32);
                    self.a.load(RAX, Mem::at(RSP, slot));
                    self.a.alu(Alu::Sub, RAX, Rm::Reg(RCX.0));
                }
            }
            return;
        }
        self.a.mov_imm(RDX, 0);
        self.a.mov_imm(RCX, m);
        self.a.div(RCX);
        if remainder {
            self.a.mov(RAX, RDX);
        }
    }

    /// Slot number `i` for intermediate results of integer arithmetic.
    pub(super) fn temp_slot(&mut self, i: usize) -> i32 {
        while self.temp_slots.len() <= i {
            let slot = self.frame_slot(8);
            self.temp_slots.push(slot);
        }
        self.temp_slots[i]
    }

    fn vector_var(&self) -> Option<Var> {
        match self.mode {
            Mode::Vector { var, .. } => Some(var),
            Mode::Scalar => None,
        }
    }

    /// Slot of a base pointer and the byte offset that goes with it.
    fn base(&self, base: Base) -> (i32, i64) {
        match base {
            Base::Scratch(offset) => (self.bases.scratch, i64::from(offset)),
            Base::Buffer(i) => match (self.bases.buffers.get(&i), self.program.buffers[i as usize].place) {
                (Some(&slot), _) => (slot, 0),
                (None, program::Place::Arena(offset)) => (self.bases.arena, offset as i64),
                (None, program::Place::State(offset)) => (self.bases.state, offset as i64),
                (None, program::Place::Constant(offset)) => (self.bases.constants, offset as i64),
                (None, program::Place::Input(_) | program::Place::Output(_)) => {
                    unreachable!("it has a pointer")
                }
            },
        }
    }

    /// What the statements of a region read and write, those of loops that run once included where
    /// `deep` says so; `inner` are the variables of these.
    fn accesses(
        &self,
        body: &[Node<'_>],
        inner: &FxHashMap<Var, IndexExpr>,
        deep: bool,
        all: &mut Vec<MemRef>,
    ) {
        for n in body {
            if let Some(mem) = memory_of(n) {
                all.push(MemRef { index: self.in_outer(&mem.index, inner), ..mem.clone() });
            }
            if let (Stmt::Loop(l), true) = (n.stmt, deep && self.tail_depth == 0)
                && let Some(at) = runs_once(l)
            {
                let mut inner = inner.clone();
                inner.insert(l.var, self.in_outer(&at, &inner));
                self.accesses(&n.body, &inner, deep, all);
            }
        }
    }

    /// An index expression without the variables of loops that run once: the open ones, and `more`.
    fn in_outer(&self, e: &IndexExpr, more: &FxHashMap<Var, IndexExpr>) -> IndexExpr {
        let known = |v: &Var| more.get(v).or_else(|| self.once.get(v));
        let direct = e.terms().iter().any(|(atom, _)| matches!(atom, Atom::Var(v) if known(v).is_some()));
        if !direct {
            return e.clone();
        }
        e.terms().iter().fold(IndexExpr::constant(e.offset_value()), |sum, (atom, c)| {
            let term = match atom {
                Atom::Var(v) => known(v).cloned().unwrap_or_else(|| IndexExpr::var(*v)),
                other => IndexExpr::atom(other.clone()),
            };
            sum.add(&term.scale(*c))
        })
    }

    /// The variable of a loop that runs once is `at`, in terms of others.
    pub(super) fn enter_once(&mut self, var: Var, at: &IndexExpr) {
        let at = self.in_outer(at, &FxHashMap::default());
        self.once.insert(var, at);
    }

    /// An address by a pointer of the innermost regions that do not loop, or of the loop around them.
    fn pointed(&self, mem: &MemRef) -> Option<(&Region, Split, Place)> {
        let index = self.in_outer(&mem.index, &FxHashMap::default());
        let mem = MemRef { index, ..mem.clone() };
        for region in self.regions.iter().rev() {
            if let Some(split) = self.split(&mem, region)
                && let Some(p) = region.pointers.iter().find(|p| p.0 == split.family)
            {
                return Some((region, split, p.1));
            }
            if region.var.is_some() {
                return None;
            }
        }
        None
    }

    /// An address taken apart for a region, or `None` if it must be computed where it is.
    fn split(&self, mem: &MemRef, region: &Region) -> Option<Split> {
        let size = mem.dtype.size_bytes() as i64;
        let mut disp = mem.index.offset_value() * size;
        let mut terms = Vec::new();
        let mut own = 0;
        for (atom, c) in mem.index.terms() {
            match atom {
                Atom::Var(v) if region.var.is_some_and(|r| r.var == *v) => own += c * size,
                Atom::Var(v) => match self.vars.get(v)? {
                    Place::Imm(x) => disp += c * x * size,
                    _ => terms.push((atom.clone(), c * size)),
                },
                Atom::Dynamic(v) if self.defined[*v as usize] >= region.begin => return None,
                Atom::Dynamic(_) => terms.push((atom.clone(), c * size)),
                Atom::Div(e, _) | Atom::Mod(e, _) => {
                    if self.changes(e, region) {
                        return None;
                    }
                    terms.push((atom.clone(), c * size));
                }
            }
        }
        let indexed =
            matches!(own, 1 | 2 | 4 | 8) && matches!(region.var, Some(LoopVar { place: Place::Reg(_), .. }));
        let (scale, moves) = if indexed { (own, 0) } else { (0, own) };
        let base = self.base(mem.base).1;
        // Vectors reach a little further.
        let near = |d: i64| i32::try_from(d).ok().filter(|d| d.abs() < 1 << 30);
        near(disp + base)?;
        Some(Split { family: Family { base: mem.base, terms, moves }, scale, disp: near(disp)? })
    }

    /// Whether an expression changes within a region.
    fn changes(&self, e: &IndexExpr, region: &Region) -> bool {
        e.terms().iter().any(|(atom, _)| match atom {
            Atom::Var(v) => region.var.is_some_and(|r| r.var == *v) || !self.vars.contains_key(v),
            Atom::Dynamic(v) => self.defined[*v as usize] >= region.begin,
            Atom::Div(e, _) | Atom::Mod(e, _) => self.changes(e, region),
        })
    }

    /// The first value of a family's pointer into `rax`.
    fn pointer(&mut self, family: &Family, var: Option<Place>) {
        let sum = family
            .terms
            .iter()
            .fold(IndexExpr::default(), |sum, (atom, c)| sum.add(&IndexExpr::atom(atom.clone()).scale(*c)));
        let (slot, offset) = self.base(family.base);
        if sum.terms().is_empty() {
            self.a.load(RAX, Mem::at(RSP, slot));
        } else {
            self.index(&sum, 0);
            self.a.alu(Alu::Add, RAX, Rm::Mem(Mem::at(RSP, slot)));
        }
        if offset != 0 {
            self.add_constant(offset);
        }
        if family.moves != 0 {
            match var.expect("only in loops") {
                Place::Imm(x) => self.add_constant(x * family.moves),
                place => {
                    self.term(place, family.moves);
                    self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
                }
            }
        }
    }

    /// The address of an element, at a lane of the vector variable; it may use `rax` and `rcx`,
    /// and holds until the next address.
    pub(super) fn address(&mut self, mem: &MemRef, lane: i64) -> Mem {
        if lane == 0
            && let Some((region, split, place)) = self.pointed(mem)
        {
            let index = match (split.scale, region.var.map(|v| v.place)) {
                (0, _) => None,
                (s, Some(Place::Reg(r))) => Some((r, s.trailing_zeros() as u8)),
                _ => unreachable!("an index is in a register"),
            };
            let base = match place {
                Place::Reg(r) => r,
                other => {
                    self.place_into(RAX, other);
                    RAX
                }
            };
            return Mem::At { base, index, disp: split.disp };
        }
        let (slot, offset) = self.base(mem.base);
        let size = mem.dtype.size_bytes() as i64;
        let constant = offset + size * mem.index.offset_value();
        let variable = mem.index.offset(-mem.index.offset_value());
        self.index(&variable.scale(size), lane);
        self.a.alu(Alu::Add, RAX, Rm::Mem(Mem::at(RSP, slot)));
        match i32::try_from(constant).ok().filter(|d| d.abs() < 1 << 30) {
            Some(disp) => Mem::at(RAX, disp),
            None => {
                self.add_constant(constant);
                Mem::at(RAX, 0)
            }
        }
    }

    /// Distance in elements between neighbouring lanes, if it is the same for all.
    pub(super) fn lane_stride(&self, e: &IndexExpr) -> Option<i64> {
        let Mode::Vector { var, aligned, lanes, .. } = self.mode else { return Some(0) };
        let mut stride = 0;
        for (atom, c) in e.terms() {
            stride += match atom {
                Atom::Var(v) if *v == var => *c,
                Atom::Div(inner, m) | Atom::Mod(inner, m) if inner.uses(var) => {
                    // In an aligned loop the lanes of `v / m` agree and those of `v % m` count up,
                    // for `m` a multiple of the lanes.
                    if !aligned || *inner.as_ref() != IndexExpr::var(var) || m % lanes as i64 != 0 {
                        return None;
                    }
                    if matches!(atom, Atom::Mod(..)) { *c } else { 0 }
                }
                _ => 0,
            };
        }
        Some(stride)
    }

    /// Whether all guards hold at a lane: 0 or 1 into `rdx`. It uses all temporaries.
    pub(super) fn guard(&mut self, guards: &[Guard], lane: i64) {
        let all = self.temp_slot(1);
        for (i, g) in guards.iter().enumerate() {
            self.index(&g.expr, lane);
            if g.lo != 0 {
                self.add_constant(-g.lo);
            }
            // One unsigned comparison checks both ends.
            let span = (g.hi - g.lo).max(0);
            self.a.mov_imm(RCX, span);
            self.a.alu(Alu::Cmp, RAX, Rm::Reg(RCX.0));
            self.a.set(Cond::Below, RDX);
            if i > 0 {
                self.a.alu(Alu::And, RDX, Rm::Mem(Mem::at(RSP, all)));
            }
            if i + 1 < guards.len() {
                self.save(all, RDX);
            }
        }
        if guards.is_empty() {
            self.a.mov_imm(RDX, 1);
        }
    }

    /// Slot of the number of active lanes, if it is known at run time only.
    pub(super) fn active_slot(&self) -> Option<i32> {
        match self.mode {
            Mode::Vector { active: Active::Slot(s), .. } => Some(s),
            _ => None,
        }
    }
}

/// Where the variable of a loop is that has one iteration, of all lanes or fewer.
pub(super) fn runs_once(l: &Loop) -> Option<IndexExpr> {
    let Bound::Expr(lo) = &l.lo else { return None };
    (l.lanes > 1 && l.extent().is_some_and(|n| (1..=i64::from(l.lanes)).contains(&n))).then(|| lo.clone())
}

/// What a statement reads or writes.
fn memory_of<'n>(n: &Node<'n>) -> Option<&'n MemRef> {
    match n.stmt {
        Stmt::Def { op: VOp::Load(mem, _), .. } | Stmt::Store { mem, .. } | Stmt::Prefetch(mem) => Some(mem),
        _ => None,
    }
}

/// Registers that loops inside would use: a variable, an end, and a pointer for each access that
/// differs in more than its constant.
fn inner_needs(body: &[Node<'_>]) -> usize {
    let loops = body.iter().filter(|n| matches!(n.stmt, Stmt::Loop(_)));
    loops
        .map(|n| {
            if let Stmt::Loop(l) = n.stmt
                && runs_once(l).is_some()
            {
                return inner_needs(&n.body);
            }
            let mut seen: Vec<(Base, IndexExpr)> = Vec::new();
            for mem in n.body.iter().filter_map(memory_of) {
                let key = (mem.base, mem.index.offset(-mem.index.offset_value()));
                if !seen.contains(&key) {
                    seen.push(key);
                }
            }
            2 + seen.len() + inner_needs(&n.body)
        })
        .max()
        .unwrap_or(0)
}
