//! Vector IR to x86-64 machine code with 256-bit (AVX2) or 512-bit (AVX-512) vectors, one kernel at
//! a time. Cranelift's vectors on x86-64 are 128 bits wide, which leaves half or more of the
//! machine's arithmetic unused; what this emitter does not know it refuses, and Cranelift takes the
//! kernel.
//!
//! Values live in vector registers (scalars in their lowest lane) and mask registers, see `regs`;
//! loop counters and addresses in general registers or slots of the stack frame, see `address`.

mod address;
mod asm;
mod memory;
mod ops;
mod regs;
mod table;

use self::address::{Place, Region};
pub(in crate::codegen) use self::asm::Code;
use self::asm::{Alu, Assembler, Cond, Evex, Gpr, Mem, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Rm, Width};
use self::regs::{Class, Home, MASK_TAIL, Part, Placed, Registers};
use crate::program::{self, Program};
use crate::vector::{Bound, Loop, MemRef, Stmt, VFunc, VOp, Val};
use graphc_ir::{Atom, DType, IndexExpr, ScalarOp, Var};
use graphc_runtime::abi;
use rustc_hash::{FxHashMap, FxHashSet};

/// Which vectors to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::codegen) enum Isa {
    /// 16 registers of 256 bits.
    Avx2,
    /// 32 registers of 512 bits, and mask registers.
    Avx512,
}

impl Isa {
    const fn registers(self) -> u8 {
        match self {
            Self::Avx2 => 16,
            Self::Avx512 => 32,
        }
    }

    const fn width(self) -> Width {
        match self {
            Self::Avx2 => Width::Y,
            Self::Avx512 => Width::Z,
        }
    }
}

/// The emitter does not know something that the function needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::codegen) struct Refused(pub &'static str);

type Emitted<T = ()> = Result<T, Refused>;

/// Machine code of a kernel with the signature of [`abi::KernelFn`] in the System V calling
/// convention; it may be placed at any multiple of 64 bytes.
///
/// # Errors
/// If the function needs something that this emitter does not know.
pub(in crate::codegen) fn compile(
    program: &Program,
    f: &VFunc,
    isa: Isa,
    buffers: Buffers,
) -> Result<Code, Refused> {
    let mut e = Emitter::new(program, f, isa);
    e.buffers = buffers;
    e.function()?;
    Ok(e.a.finish())
}

/// How a kernel knows where its buffers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::codegen) enum Buffers {
    /// Their places are part of the code.
    Own,
    /// From a table whose address is in `r8`, see [`with_table`]: the code serves kernels that differ in them alone.
    Table,
}

/// Code of a kernel that runs shared code with places of its own, of buffers in the order in which the function names
/// them, and the offset of the four bytes for the distance from their end to the shared code.
pub(in crate::codegen) fn with_table(program: &Program, f: &VFunc) -> (Code, usize) {
    // lea r8, [rip + 9]; jmp; the table follows at a multiple of 8.
    let mut bytes = vec![0x4c, 0x8d, 0x05, 9, 0, 0, 0, 0xe9, 0, 0, 0, 0];
    let (instructions, distance) = (bytes.len(), bytes.len() - 4);
    bytes.resize(16, 0);
    for buffer in super::emit::buffers_of(&f.body) {
        let offset = match program.buffers[buffer as usize].place {
            program::Place::Arena(at) | program::Place::State(at) | program::Place::Constant(at) => at,
            program::Place::Input(i) | program::Place::Output(i) => 8 * i,
        };
        bytes.extend((offset as u64).to_le_bytes());
    }
    (Code { bytes, instructions, notes: Vec::new() }, distance)
}

/// A statement with its position in the order of emission; a loop begins and ends at one.
struct Node<'a> {
    begin: u32,
    end: u32,
    stmt: &'a Stmt,
    body: Vec<Node<'a>>,
}

/// Lanes of the current vector iteration that exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Active {
    All,
    /// The lowest so many.
    Lowest(usize),
    /// As many as this slot of the frame says, at most 15; the mask is in [`MASK_TAIL`].
    Slot(i32),
}

/// How the innermost vector loop is being emitted.
#[derive(Clone, Copy)]
enum Mode {
    /// Values have one lane.
    Scalar,
    Vector {
        var: Var,
        active: Active,
        /// `var` is a multiple of the lanes in every iteration.
        aligned: bool,
        lanes: usize,
    },
}

struct Emitter<'a> {
    a: Assembler,
    isa: Isa,
    program: &'a Program,
    f: &'a VFunc,
    buffers: Buffers,
    r: Registers,
    /// Registers that the current instruction uses, per class.
    locked: [u64; 2],
    /// Bytes of the stack frame so far.
    frame: usize,
    free_slots: Vec<(i32, usize)>,
    /// Slots of carried values of open loops.
    pinned_slots: Vec<i32>,
    /// Positions of the uses of each value, in order. A use inside a loop of a value from outside
    /// is also one at the end of the loop: the next iteration needs it again.
    uses: Vec<Vec<u32>>,
    /// First and last position where a value is needed.
    live: Vec<Option<(u32, u32)>>,
    /// The loop of a carried value.
    carried_by: Vec<Option<(u32, u32)>>,
    /// Carried values that must outlive their last use in the body.
    kept: FxHashSet<Val>,
    constants: FxHashSet<Val>,
    /// Values of the constants that are floats.
    numbers: FxHashMap<Val, f64>,
    /// Values in vector registers that are defined to be the same in all lanes.
    uniform: FxHashSet<Val>,
    /// Scalar values that index expressions name, with their slots.
    dynamic_slots: FxHashMap<Val, i32>,
    /// Position of the definition of each value.
    defined: Vec<u32>,
    /// Scalar loads whose only uses are the splats that follow them.
    broadcasts: FxHashMap<Val, MemRef>,
    /// Loads whose only use is an instruction that follows, which can read memory itself.
    foldable: FxHashSet<Val>,
    /// Of these, those pending: where, and whether one element goes to all lanes.
    folded: FxHashMap<Val, (MemRef, bool)>,
    position: u32,
    mode: Mode,
    /// How many scalar tails of vector loops enclose the current point.
    tail_depth: u32,
    vars: FxHashMap<Var, Place>,
    /// Variables of loops that run once, in terms of those around them.
    once: FxHashMap<Var, IndexExpr>,
    regions: Vec<Region>,
    free_gprs: Vec<Gpr>,
    /// Slots that hold the pointers of the kernel's context.
    bases: address::Bases,
    /// Slots for intermediate results of integer arithmetic, by purpose and depth.
    temp_slots: Vec<i32>,
    index_depth: usize,
    /// Where vectors are taken apart.
    lane_slot: i32,
}

impl<'a> Emitter<'a> {
    fn new(program: &'a Program, f: &'a VFunc, isa: Isa) -> Self {
        let n = f.types.len();
        let mut e = Self {
            a: Assembler::new(isa == Isa::Avx512),
            isa,
            program,
            f,
            buffers: Buffers::Own,
            r: Registers {
                vectors: vec![None; isa.registers() as usize],
                masks: vec![None; 8],
                placed: vec![None; n],
            },
            locked: [0; 2],
            frame: 64,
            free_slots: Vec::new(),
            pinned_slots: Vec::new(),
            uses: vec![Vec::new(); n],
            live: vec![None; n],
            carried_by: vec![None; n],
            kept: FxHashSet::default(),
            constants: FxHashSet::default(),
            numbers: FxHashMap::default(),
            uniform: FxHashSet::default(),
            dynamic_slots: FxHashMap::default(),
            defined: vec![0; n],
            broadcasts: FxHashMap::default(),
            foldable: FxHashSet::default(),
            folded: FxHashMap::default(),
            position: 0,
            mode: Mode::Scalar,
            tail_depth: 0,
            vars: FxHashMap::default(),
            once: FxHashMap::default(),
            regions: Vec::new(),
            free_gprs: address::ALLOCATABLE.to_vec(),
            bases: address::Bases::default(),
            temp_slots: Vec::new(),
            index_depth: 0,
            lane_slot: 0,
        };
        e.lane_slot = e.frame_slot(64);
        e.frame += LANE_BYTES - 64;
        e
    }

    fn function(&mut self) -> Emitted {
        let f = self.f;
        let nodes = self.analyze(&f.body)?;
        // The frame is aligned; its first slot keeps the caller's stack pointer.
        for r in address::SAVED {
            self.a.push(r);
        }
        self.a.mov(RAX, RSP);
        let sub = self.a.code.len();
        self.a.alu_imm(Alu::Sub, Rm::Reg(RSP.0), i32::MAX);
        self.a.alu_imm(Alu::And, Rm::Reg(RSP.0), -64);
        self.a.store(Mem::at(RSP, 0), RAX);
        self.context();
        self.region(None, &nodes, 0);
        self.block(&nodes)?;
        self.close_region();
        if !self.f.streams.is_empty() {
            self.a.sfence();
        }
        self.a.vzeroupper();
        self.a.load(RSP, Mem::at(RSP, 0));
        for &r in address::SAVED.iter().rev() {
            self.a.pop(r);
        }
        self.a.ret();
        let frame = self.frame.next_multiple_of(64) as i32;
        self.a.code[sub + 3..sub + 7].copy_from_slice(&frame.to_le_bytes());
        Ok(())
    }

    /// Loads the pointers of the context into the frame. Parameters: context, first unit, end of
    /// units, worker.
    fn context(&mut self) {
        for (i, r) in [RSI, RDX].into_iter().enumerate() {
            let v = self.f.params[i];
            let slot = self.dynamic_slots.get(&v).copied().unwrap_or_else(|| self.frame_slot(16));
            self.dynamic_slots.insert(v, slot);
            self.save(slot, r);
            // It may be needed in index expressions only, which read the slot.
            if self.uses[v as usize].iter().all(|&p| p == 0) {
                continue;
            }
            let part = Part { reg: None, home: Home::Slot(slot) };
            self.pinned_slots.push(slot);
            self.r.placed[v as usize] = Some(Placed {
                class: Class::Vector,
                width: Width::X,
                size: 8,
                count: 1,
                parts: smallvec::smallvec![part],
            });
        }
        self.bases.arena = self.frame_slot(8);
        self.a.load(RAX, Mem::at(RDI, abi::OFFSET_ARENA));
        self.save(self.bases.arena, RAX);
        self.bases.scratch = self.frame_slot(8);
        self.a.mov_imm(RBX, if fault!(50) { 0 } else { self.program.scratch_stride as i64 });
        self.a.imul(RCX, RBX);
        self.a.mov_imm(RBX, self.program.scratch_offset as i64);
        self.a.alu(Alu::Add, RAX, Rm::Reg(RCX.0));
        self.a.alu(Alu::Add, RAX, Rm::Reg(RBX.0));
        self.save(self.bases.scratch, RAX);
        for (offset, state) in [(abi::OFFSET_STATE, true), (abi::OFFSET_CONSTANTS, false)] {
            let slot = self.frame_slot(8);
            self.a.load(RAX, Mem::at(RDI, offset));
            self.save(slot, RAX);
            *(if state { &mut self.bases.state } else { &mut self.bases.constants }) = slot;
        }
        for (entry, buffer) in (0..).zip(super::emit::buffers_of(&self.f.body)) {
            use program::Place;
            let (pointer, port) = match self.program.buffers[buffer as usize].place {
                Place::Input(i) => (abi::OFFSET_INPUTS, Some(i)),
                Place::Output(i) => (abi::OFFSET_OUTPUTS, Some(i)),
                _ if self.buffers == Buffers::Own => continue,
                Place::Arena(_) => (abi::OFFSET_ARENA, None),
                Place::State(_) => (abi::OFFSET_STATE, None),
                Place::Constant(_) => (abi::OFFSET_CONSTANTS, None),
            };
            let slot = self.frame_slot(8);
            self.a.load(RAX, Mem::at(RDI, pointer));
            let own = if self.buffers == Buffers::Table {
                self.a.alu(Alu::Add, RAX, Rm::Mem(Mem::at(TABLE, 8 * entry)));
                0
            } else {
                8 * port.unwrap_or(0) as i32
            };
            if port.is_some() {
                self.a.load(RAX, Mem::at(RAX, own));
            }
            self.save(slot, RAX);
            self.bases.buffers.insert(buffer, slot);
        }
    }

    /// Numbers the statements and finds where values are used.
    fn analyze(&mut self, body: &'a [Stmt]) -> Emitted<Vec<Node<'a>>> {
        let mut a = Analysis {
            e: self,
            next: 1,
            loops: Vec::new(),
            depth: FxHashMap::default(),
            pending: Vec::new(),
        };
        for &p in &a.e.f.params {
            a.depth.insert(p, 0);
        }
        let nodes = a.block(body)?;
        let pending = std::mem::take(&mut a.pending);
        let mut ends = FxHashMap::default();
        fn walk(nodes: &[Node<'_>], ends: &mut FxHashMap<u32, u32>) {
            for n in nodes {
                ends.insert(n.begin, n.end);
                walk(&n.body, ends);
            }
        }
        walk(&nodes, &mut ends);
        for (v, begin) in pending {
            self.uses[v as usize].push(ends[&begin]);
        }
        for v in 0..self.uses.len() {
            self.uses[v].sort_unstable();
            self.uses[v].dedup();
            if let Some(&last) = self.uses[v].last() {
                let end = self.carried_by[v].map_or(0, |l| l.1);
                self.live[v] = Some((self.defined[v], last.max(end)));
            }
        }
        self.fold_loads(&nodes);
        Ok(nodes)
    }

    /// Whether `v` is not needed after the current position, or not before it is set anew.
    fn dies(&self, v: Val) -> bool {
        if self.kept.contains(&v) {
            return false;
        }
        let limit = match self.carried_by[v as usize] {
            Some((begin, end)) if begin < self.position && self.position < end => end,
            _ => u32::MAX,
        };
        let uses = &self.uses[v as usize];
        let i = uses.partition_point(|&p| p <= self.position);
        uses.get(i).is_none_or(|&p| p > limit)
    }

    /// Lanes of a value as emitted now.
    fn lanes(&self, v: Val) -> usize {
        if self.tail_depth > 0 { 1 } else { self.f.types[v as usize].lanes as usize }
    }

    fn dtype(&self, v: Val) -> DType {
        self.f.types[v as usize].dtype
    }

    fn is_constant(&self, v: Val) -> bool {
        self.constants.contains(&v)
    }

    fn class_of(&self, v: Val) -> Class {
        if self.isa == Isa::Avx512 && self.dtype(v) == DType::Bool { Class::Mask } else { Class::Vector }
    }

    /// Width of a part and number of parts. A truth value on AVX2 is a mask of 32 bits.
    fn shape_of(&self, v: Val) -> (Width, usize) {
        let lanes = self.lanes(v);
        if self.class_of(v) == Class::Mask {
            return (Width::X, lanes.div_ceil(16));
        }
        let size = lane_bytes(self.dtype(v));
        if lanes == 1 {
            return (Width::X, 1);
        }
        let width = Width::of(lanes * size).min(self.isa.width());
        (width, (lanes * size).div_ceil(width.bytes()))
    }

    /// Registers that a value takes: one if it is the same in all lanes.
    fn places_of(&self, v: Val) -> usize {
        if self.uniform.contains(&v) { 1 } else { self.shape_of(v).1 }
    }

    /// Makes a place for a value being defined, as yet nowhere.
    fn place(&mut self, v: Val) {
        let (width, count) = self.shape_of(v);
        let none = Part { reg: None, home: Home::None };
        let parts = smallvec::SmallVec::from_elem(none, self.places_of(v));
        let (class, size) = (self.class_of(v), lane_bytes(self.dtype(v)));
        self.r.placed[v as usize] = Some(Placed { class, width, size, count, parts });
    }

    fn block(&mut self, nodes: &[Node<'a>]) -> Emitted {
        let mut rest = nodes;
        while let Some((n, after)) = rest.split_first() {
            if let Some((loads, after)) = self.transposition(rest) {
                self.load_transposed(&loads);
                self.unlock_all();
                rest = after;
                continue;
            }
            rest = after;
            self.position = n.begin;
            match n.stmt {
                Stmt::Def { dst, op, args } => {
                    if !self.uses[*dst as usize].is_empty() {
                        self.define(*dst, op, args)?;
                    }
                    self.unlock_all();
                    for &v in args {
                        if self.r.placed[v as usize].is_some() && self.dies(v) {
                            self.drop_value(v);
                        }
                    }
                    if let Some(&slot) = self.dynamic_slots.get(dst) {
                        self.save_dynamic(*dst, slot);
                    }
                    if self.r.placed[*dst as usize].is_some() && self.dies(*dst) {
                        self.drop_value(*dst);
                    }
                }
                Stmt::Store { mem, value } => {
                    self.store(mem, *value)?;
                    self.unlock_all();
                    if self.r.placed[*value as usize].is_some() && self.dies(*value) {
                        self.drop_value(*value);
                    }
                }
                Stmt::Prefetch(mem) => {
                    let mem = self.address(mem, 0);
                    self.a.prefetch(mem);
                }
                Stmt::Loop(l) => self.emit_loop(l, n)?,
            }
        }
        Ok(())
    }

    /// The first statements and what follows them, if they load vectors whose elements lie across memory and the same
    /// elements of the vectors side by side.
    fn transposition<'n>(&mut self, nodes: &'n [Node<'a>]) -> Option<(Transposed<'a>, &'n [Node<'a>])> {
        let (group, after) = nodes.split_at_checked(TRANSPOSED)?;
        let loads = group.iter().map(|n| match n.stmt {
            Stmt::Def { dst, op: VOp::Load(mem, guards), .. } if guards.is_empty() => Some((*dst, mem)),
            _ => None,
        });
        let loads: Vec<(Val, &MemRef)> = loads.collect::<Option<_>>()?;
        let (first, mem) = loads[0];
        let neighbours = (0..).zip(&loads).all(|(i, (v, m))| {
            (m.base, m.dtype, &m.index) == (mem.base, mem.dtype, &mem.index.offset(i))
                && self.lanes(*v) == self.lanes(first)
                && !self.uses[*v as usize].is_empty()
        });
        let whole = mem.dtype.size_bytes() == 4 && self.fills_registers(first) && self.whole();
        let across = matches!(self.lane_stride(&mem.index), Some(s) if s != 0 && s != 1);
        if !(neighbours && whole && across) {
            return None;
        }
        self.position = group.last()?.begin;
        Some((loads.try_into().ok()?, after))
    }

    /// Keeps a scalar in the slot from which index expressions read it.
    fn save_dynamic(&mut self, v: Val, slot: i32) {
        let reg = self.in_register(v, 0);
        let mem = Rm::Mem(Mem::at(RSP, slot));
        self.a.vector(table::MOVQ_STORE, Width::X, reg, 0, mem, None, Evex::default());
        self.unlock_all();
    }

    fn define(&mut self, dst: Val, op: &VOp, args: &[Val]) -> Emitted {
        match op {
            VOp::Scalar(ScalarOp::Const(c)) => {
                self.place(dst);
                self.constant(dst, *c);
                Ok(())
            }
            VOp::Scalar(op) => self.scalar_op(*op, dst, args),
            VOp::Splat => self.splat(dst, args[0]),
            VOp::Load(mem, guards) => {
                if self.broadcasts.contains_key(&dst) {
                    return Ok(());
                }
                if self.foldable.contains(&dst) && self.folds(dst, mem) {
                    self.folded.insert(dst, (mem.clone(), false));
                    self.place(dst);
                    return Ok(());
                }
                self.place(dst);
                self.load(dst, mem, guards)
            }
            VOp::Index(e) => {
                self.place(dst);
                self.index_value(dst, e)
            }
            VOp::Guard(guards) => {
                self.place(dst);
                self.guard_value(dst, guards)
            }
            VOp::Fold(kind) => self.fold(dst, *kind, args[0]),
        }
    }

    fn emit_loop(&mut self, l: &'a Loop, n: &Node<'a>) -> Emitted {
        let extent = l.extent();
        if l.lanes == 1 {
            let (lo, hi) = (self.bound_place(&l.lo), self.bound_place(&l.hi));
            self.enter_carried(l);
            self.counted(l, n, lo, hi, l.step, extent.is_some_and(|n| n > 0))?;
            self.leave(l, n);
            return Ok(());
        }
        let lanes = l.lanes as usize;
        let outer = (self.mode, self.tail_depth);
        let whole = |c: i64| c % lanes as i64 == 0;
        let aligned = matches!(&l.lo, Bound::Expr(e) if whole(e.offset_value()) && e.terms().iter().all(|t| whole(t.1)));
        let vector = |active| Mode::Vector { var: l.var, active, aligned, lanes };
        let lo = self.bound_place(&l.lo);
        match extent {
            Some(extent) => {
                let full = extent / lanes as i64 * lanes as i64;
                let rest = (extent - full).max(0) as usize;
                self.enter_carried(l);
                self.mode = vector(Active::All);
                let main_end = if full > lanes as i64 || rest > 0 { self.place_offset(lo, full) } else { lo };
                if full == lanes as i64 {
                    self.once(l, n, lo)?;
                } else if full > 0 {
                    self.counted(l, n, lo, main_end, lanes as i64, true)?;
                }
                if rest > 0 {
                    self.mode = vector(Active::Lowest(rest));
                    self.partial(l, n, main_end)?;
                }
            }
            None => {
                if !l.carried.is_empty() || lanes > 16 {
                    return Err(Refused("carried lanes of an open loop"));
                }
                let hi = self.bound_place(&l.hi);
                let main_end = self.whole_end(lo, hi, lanes as i64);
                self.mode = vector(Active::All);
                self.counted(l, n, lo, main_end, lanes as i64, false)?;
                if self.isa == Isa::Avx512 {
                    self.open_tail(l, n, main_end, hi)?;
                } else {
                    self.mode = Mode::Scalar;
                    self.tail_depth += 1;
                    self.counted(l, n, main_end, hi, 1, false)?;
                }
            }
        }
        (self.mode, self.tail_depth) = outer;
        self.leave(l, n);
        Ok(())
    }

    /// Carried values begin as the initial ones.
    fn enter_carried(&mut self, l: &Loop) {
        // One initial value may serve several carried ones: the last of them takes it over.
        for (i, c) in l.carried.iter().enumerate() {
            let again = l.carried[i + 1..].iter().any(|d| d.init == c.init);
            let dies = !again && self.dies(c.init) && !self.is_constant(c.init);
            self.alias(c.phi, c.init, dies);
            self.unlock_all();
        }
    }

    /// Values that the loop was the last to use are forgotten.
    fn leave(&mut self, l: &Loop, n: &Node<'a>) {
        self.position = n.end;
        for c in &l.carried {
            if let Some(&slot) = self.dynamic_slots.get(&c.phi) {
                self.save_dynamic(c.phi, slot);
            }
        }
        for v in 0..self.r.placed.len() as Val {
            if self.r.placed[v as usize].is_some() && self.dies(v) {
                self.drop_value(v);
            }
        }
    }

    /// Forgets what the body of a loop defined.
    fn forget_body(&mut self, n: &Node<'a>) {
        for v in 0..self.r.placed.len() as Val {
            let at = self.defined[v as usize];
            if n.begin < at && at < n.end && self.r.placed[v as usize].is_some() {
                self.drop_value(v);
            }
        }
    }

    /// Carried values of a run-time loop are in registers or slots of their own.
    fn settle_carried(&mut self, l: &Loop) {
        for c in &l.carried {
            self.settle(c.phi);
        }
    }

    /// `for var in (lo..hi).step_by(step)`, tested at the bottom; `sure` if it has an iteration.
    fn counted(&mut self, l: &'a Loop, n: &Node<'a>, lo: Place, hi: Place, step: i64, sure: bool) -> Emitted {
        self.position = n.begin;
        // What was needed for initial values only.
        for v in 0..self.r.placed.len() as Val {
            let carried = l.carried.iter().any(|c| c.phi == v);
            if !carried && self.r.placed[v as usize].is_some() && self.dies(v) {
                self.drop_value(v);
            }
        }
        self.settle_carried(l);
        self.make_room(n.begin, n.end);
        let head = self.r.clone();
        let pinned = self.pinned_slots.len();
        for c in &l.carried {
            for part in self.placed(c.phi).parts.clone() {
                if let Home::Slot(s) = part.home {
                    self.pinned_slots.push(s);
                }
            }
        }
        let (top, exit) = (self.a.label(), self.a.label());
        if !sure {
            self.compare(lo, hi);
            self.a.jump_if(Cond::GreaterEqual, exit);
        }
        self.region(Some((l.var, lo, hi, step)), &n.body, n.begin);
        self.a.note(format!("loop i{} by {step}", l.var));
        self.a.bind_aligned(top);
        for c in &l.carried {
            if let Some(&slot) = self.dynamic_slots.get(&c.phi) {
                self.save_dynamic(c.phi, slot);
            }
        }
        self.block(&n.body)?;
        self.position = n.end;
        let moves: Vec<(Val, Val)> = l.carried.iter().map(|c| (c.phi, c.next)).collect();
        self.restore(&head, &moves);
        self.advance(step);
        self.a.jump_if(Cond::Less, top);
        self.close_region();
        self.a.bind(exit);
        self.pinned_slots.truncate(pinned);
        Ok(())
    }

    /// The loop body once, with the variable at `at`.
    fn once(&mut self, l: &'a Loop, n: &Node<'a>, at: Place) -> Emitted {
        self.simple_carried(l)?;
        self.a.note(format!("once i{}, {} lanes", l.var, l.lanes));
        self.vars.insert(l.var, at);
        if let Some(at) = address::runs_once(l) {
            self.enter_once(l.var, &at);
        }
        self.region(None, &n.body, n.begin);
        for c in &l.carried {
            if let Some(&slot) = self.dynamic_slots.get(&c.phi) {
                self.save_dynamic(c.phi, slot);
            }
        }
        self.block(&n.body)?;
        self.close_region();
        self.position = n.end;
        for c in &l.carried {
            self.drop_value(c.phi);
            let from_body = n.begin < self.defined[c.next as usize] && self.defined[c.next as usize] < n.end;
            let shared = l.carried.iter().filter(|d| d.next == c.next).count() > 1;
            self.alias(c.phi, c.next, from_body && !shared && !self.is_constant(c.next));
            self.unlock_all();
        }
        self.forget_body(n);
        Ok(())
    }

    /// No carried value becomes another's old value.
    fn simple_carried(&self, l: &Loop) -> Emitted {
        let crossed = l.carried.iter().any(|c| l.carried.iter().any(|d| d.phi == c.next));
        if crossed { Err(Refused("carried values that change places")) } else { Ok(()) }
    }

    /// One iteration at `at` in which only the lowest lanes exist (see `mode`); carried values keep
    /// their other lanes.
    fn partial(&mut self, l: &'a Loop, n: &Node<'a>, at: Place) -> Emitted {
        self.simple_carried(l)?;
        self.position = n.begin;
        let Mode::Vector { active: Active::Lowest(active), .. } = self.mode else {
            unreachable!("the caller states how many")
        };
        self.a.note(format!("last {active} lanes of i{}", l.var));
        if self.isa == Isa::Avx512 {
            self.lowest_mask(MASK_TAIL, active % 16);
        }
        self.vars.insert(l.var, at);
        if let Some(at) = address::runs_once(l) {
            self.enter_once(l.var, &at);
        }
        self.region(None, &n.body, n.begin);
        self.kept.extend(l.carried.iter().map(|c| c.phi));
        self.settle_carried(l);
        self.block(&n.body)?;
        self.close_region();
        for c in &l.carried {
            self.kept.remove(&c.phi);
        }
        self.position = n.end;
        for c in &l.carried {
            self.merge(c.phi, c.next, active)?;
            self.unlock_all();
        }
        self.forget_body(n);
        Ok(())
    }

    /// The last lanes of a loop whose extent is known at run time only.
    fn open_tail(&mut self, l: &'a Loop, n: &Node<'a>, main_end: Place, hi: Place) -> Emitted {
        self.position = n.begin;
        self.make_room(n.begin, n.end);
        let head = self.r.clone();
        let done = self.a.label();
        self.compare(main_end, hi);
        self.a.jump_if(Cond::GreaterEqual, done);
        let rest = self.frame_slot(8);
        self.place_into(RCX, hi);
        self.place_into(RAX, main_end);
        self.a.alu(Alu::Sub, RCX, Rm::Reg(RAX.0));
        self.save(rest, RCX);
        self.tail_mask(rest);
        let Mode::Vector { var, aligned, lanes, .. } = self.mode else { unreachable!("set by the caller") };
        self.mode = Mode::Vector { var, active: Active::Slot(rest), aligned, lanes };
        self.a.note(format!("last lanes of i{}", l.var));
        self.vars.insert(l.var, main_end);
        self.region(None, &n.body, n.begin);
        self.block(&n.body)?;
        self.close_region();
        self.position = n.end;
        self.restore(&head, &[]);
        self.a.bind(done);
        Ok(())
    }

    /// Puts a mask of as many lanes as the slot says into [`MASK_TAIL`].
    fn tail_mask(&mut self, rest: i32) {
        self.a.load(RCX, Mem::at(RSP, rest));
        self.a.mov_imm(RAX, -1);
        // bzhi eax, eax, ecx
        self.a.vex(asm::ins(0, 2, 0, 0xf5), 0, RAX.0, RCX.0, Rm::Reg(RAX.0), None);
        self.a.vex(table::KMOVW_FROM_GPR, 0, MASK_TAIL, 0, Rm::Reg(RAX.0), None);
    }
}

/// Where the table of places is at the entry of a kernel.
const TABLE: Gpr = Gpr(8);

/// Vectors that are loaded together, and transposed in registers, where their elements lie across memory.
const TRANSPOSED: usize = 4;

/// Such vectors, and where each lies.
type Transposed<'a> = [(Val, &'a MemRef); TRANSPOSED];

/// Bytes in which a vector is taken apart: 16 elements of 8 bytes.
const LANE_BYTES: usize = 128;

/// Bytes of a lane in a register; of a truth value as a vector.
fn lane_bytes(dtype: DType) -> usize {
    dtype.size_bytes().max(4)
}

/// Numbers statements and records uses.
struct Analysis<'e, 'a> {
    e: &'e mut Emitter<'a>,
    next: u32,
    /// Begins of the open loops.
    loops: Vec<u32>,
    /// How many loops enclose the definition of a value.
    depth: FxHashMap<Val, usize>,
    /// Uses at the ends of loops, by the loops' begins.
    pending: Vec<(Val, u32)>,
}

impl<'a> Analysis<'_, 'a> {
    fn position(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn r#use(&mut self, v: Val, at: u32) {
        self.e.uses[v as usize].push(at);
        let depth = self.depth.get(&v).copied().unwrap_or(0);
        if let Some(&begin) = self.loops.get(depth) {
            self.pending.push((v, begin));
        }
    }

    fn define(&mut self, v: Val, at: u32) {
        self.e.defined[v as usize] = at;
        self.depth.insert(v, self.loops.len());
    }

    fn index(&mut self, e: &IndexExpr) {
        for (atom, _) in e.terms() {
            match atom {
                Atom::Dynamic(v) => {
                    if !self.e.dynamic_slots.contains_key(v) {
                        let slot = self.e.frame_slot(16);
                        self.e.dynamic_slots.insert(*v, slot);
                    }
                    // It is read from its slot; what defines it must not be left out.
                    if self.e.uses[*v as usize].is_empty() {
                        let at = self.e.defined[*v as usize];
                        self.e.uses[*v as usize].push(at);
                    }
                }
                Atom::Div(e, _) | Atom::Mod(e, _) => self.index(e),
                Atom::Var(_) => {}
            }
        }
    }

    fn op(&mut self, op: &VOp) {
        match op {
            VOp::Load(m, guards) => {
                self.index(&m.index);
                guards.iter().for_each(|g| self.index(&g.expr));
            }
            VOp::Index(e) => self.index(e),
            VOp::Guard(guards) => guards.iter().for_each(|g| self.index(&g.expr)),
            VOp::Scalar(_) | VOp::Splat | VOp::Fold(_) => {}
        }
    }

    fn bound(&mut self, b: &Bound) {
        match b {
            Bound::Expr(e) => self.index(e),
            Bound::Min(x, y) => {
                self.index(x);
                self.index(y);
            }
        }
    }

    fn block(&mut self, body: &'a [Stmt]) -> Emitted<Vec<Node<'a>>> {
        let mut nodes = Vec::with_capacity(body.len());
        for stmt in body {
            let begin = self.position();
            let mut node = Node { begin, end: begin, stmt, body: Vec::new() };
            match stmt {
                Stmt::Def { dst, op, args } => {
                    self.op(op);
                    args.iter().for_each(|&v| self.r#use(v, begin));
                    self.define(*dst, begin);
                    let constant = match op {
                        VOp::Scalar(ScalarOp::Const(_)) => self.e.class_of(*dst) == Class::Vector,
                        VOp::Splat => self.e.constants.contains(&args[0]),
                        _ => false,
                    };
                    if constant {
                        self.e.constants.insert(*dst);
                    }
                    let number = match op {
                        VOp::Scalar(ScalarOp::Const(c)) if c.dtype().is_float() => Some(c.to_f64()),
                        VOp::Splat => self.e.numbers.get(&args[0]).copied(),
                        _ => None,
                    };
                    if let Some(c) = number {
                        self.e.numbers.insert(*dst, c);
                    }
                    if matches!(op, VOp::Splat | VOp::Scalar(ScalarOp::Const(_))) {
                        self.e.uniform.insert(*dst);
                    }
                }
                Stmt::Store { mem, value } => {
                    self.index(&mem.index);
                    self.r#use(*value, begin);
                }
                Stmt::Prefetch(mem) => self.index(&mem.index),
                Stmt::Loop(l) => {
                    self.bound(&l.lo);
                    self.bound(&l.hi);
                    l.carried.iter().for_each(|c| self.r#use(c.init, begin));
                    let outside = self.loops.len();
                    self.loops.push(begin);
                    for c in &l.carried {
                        self.define(c.phi, begin);
                    }
                    node.body = self.block(&l.body)?;
                    node.end = self.position();
                    for c in &l.carried {
                        self.e.uses[c.next as usize].push(node.end);
                        if self.depth.get(&c.next).is_some_and(|&d| d <= outside) {
                            // From outside: needed again by each iteration, which the use says.
                            self.r#use(c.next, node.end);
                        }
                    }
                    self.loops.pop();
                    for c in &l.carried {
                        self.e.carried_by[c.phi as usize] = Some((begin, node.end));
                        self.depth.insert(c.phi, outside);
                    }
                }
            }
            nodes.push(node);
        }
        Ok(nodes)
    }
}

impl<'a> Emitter<'a> {
    /// Finds loads of a block that need no register of their own.
    fn fold_loads(&mut self, nodes: &[Node<'_>]) {
        // Positions of the block after which memory may have changed.
        let changes: Vec<u32> = nodes
            .iter()
            .filter(|n| matches!(n.stmt, Stmt::Store { .. } | Stmt::Loop(_)))
            .map(|n| n.begin)
            .collect();
        let changed = |from: u32, to: u32| changes.iter().any(|&c| from < c && c < to);
        let users: FxHashMap<Val, Vec<&Node<'_>>> = nodes.iter().fold(FxHashMap::default(), |mut map, n| {
            if let Stmt::Def { args, .. } = n.stmt {
                args.iter().for_each(|&a| map.entry(a).or_insert_with(Vec::new).push(n));
            }
            map
        });
        let none = Vec::new();
        for n in nodes {
            let Stmt::Def { dst, op, .. } = n.stmt else { continue };
            let uses = &self.uses[*dst as usize];
            let here = users.get(dst).unwrap_or(&none);
            let last = here.last().map_or(0, |u| u.begin);
            // All uses are of this block, and the memory is the same until then.
            if here.is_empty() || uses.len() != here.len() || changed(n.begin, last) {
                continue;
            }
            let arithmetic = |n: &Node<'_>| {
                let Stmt::Def { op: VOp::Scalar(op), args, .. } = n.stmt else { return false };
                let plain = matches!(
                    op,
                    ScalarOp::Add | ScalarOp::Sub | ScalarOp::Mul | ScalarOp::Div | ScalarOp::Fma
                );
                plain && args.iter().filter(|&a| a == dst).count() == 1
            };
            let single = here.len() == 1 && arithmetic(here[0]);
            match op {
                VOp::Load(mem, guards)
                    if guards.is_empty()
                        && mem.dtype.size_bytes() >= 4
                        && !self.dynamic_slots.contains_key(dst) =>
                {
                    if self.f.types[*dst as usize].lanes == 1 {
                        let splats = here.iter().all(|u| matches!(u.stmt, Stmt::Def { op: VOp::Splat, .. }));
                        if splats {
                            self.broadcasts.insert(*dst, mem.clone());
                        }
                    } else if single {
                        self.foldable.insert(*dst);
                    }
                }
                VOp::Splat if single => {
                    let Stmt::Def { args, .. } = n.stmt else { continue };
                    let loaded = self.defined[args[0] as usize];
                    if self.broadcasts.contains_key(&args[0]) && !changed(loaded, last) {
                        self.foldable.insert(*dst);
                    }
                }
                _ => {}
            }
        }
        for n in nodes {
            self.fold_loads(&n.body);
        }
    }
}
