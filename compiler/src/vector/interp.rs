//! Runs programs by interpreting their vector IR: the oracle for code generators. Slow and literal.
//!
//! Every access is checked to lie in what its [`MemRef`] names: the bytes of that one buffer, or the
//! scratch memory that the kernel asked for. Scratch and arena hold rubbish at first, so that a
//! read of what was never written shows in the results.

use super::{Base, Bound, Loop, MemRef, Stmt, VFunc, VOp, Val};
use crate::kernel::KernelBody;
use crate::narrow::lane_type;
use crate::program::{Control, ControlKind, Place, Program, Stacked, Step};
use graphc_ir::{Atom, DType, Guard, IndexExpr, Literal, Scalar, ScalarOp, Var};
use smallvec::{SmallVec, smallvec};

/// What memory holds before it is written.
const RUBBISH: u8 = 0xa5;

/// What an index is in lanes beyond the end of a loop.
const NOWHERE: i64 = i64::from_le_bytes([RUBBISH; 8]);

/// Why a program stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpError {
    /// An access outside of what its reference names: a defect of the compiler.
    #[error("{function}: element {index} ({dtype}) is outside of {base:?}, which has {bytes} bytes")]
    OutOfBounds {
        /// The function.
        function: String,
        /// Relative to what.
        base: Base,
        /// Element offset.
        index: i64,
        /// Element type.
        dtype: DType,
        /// Size of what the reference names.
        bytes: usize,
    },
    /// A write to an input or a constant: a defect of the compiler.
    #[error("{function}: writes to {base:?}, which is read-only")]
    ReadOnly {
        /// The function.
        function: String,
        /// What it writes to.
        base: Base,
    },
    /// An index operand is out of range: the program's own failure.
    #[error("site {site}: index {value} at position {position} is out of range 0..{bound}")]
    Index {
        /// Number of the fault site.
        site: u64,
        /// Position in the index operand.
        position: usize,
        /// The value found there.
        value: i64,
        /// Exclusive upper bound.
        bound: i64,
    },
    /// The memory does not fit the program: a mistake of the caller, or a plan out of bounds.
    #[error("{what} has {bytes} bytes, {needed} are needed")]
    Memory {
        /// Which part.
        what: String,
        /// What it has.
        bytes: usize,
        /// What it needs.
        needed: usize,
    },
}

/// The memory that a program works on.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The arena, with scratch memory at its end.
    pub arena: Vec<u8>,
    /// The state region.
    pub state: Vec<u8>,
    /// The constants.
    pub constants: Vec<u8>,
    /// The inputs.
    pub inputs: Vec<Vec<u8>>,
    /// The outputs.
    pub outputs: Vec<Vec<u8>>,
}

impl Memory {
    /// Memory for `program` and this many workers. What the program does not give is rubbish.
    pub fn new(program: &Program, inputs: &[Literal], state: Vec<u8>, workers: usize) -> Self {
        let outputs = output_buffers(program).map(|b| vec![RUBBISH; program.buffers[b].bytes()]).collect();
        Self {
            arena: vec![RUBBISH; program.scratch_offset + program.scratch_stride * workers.max(1)],
            state,
            constants: program.constants.clone(),
            inputs: inputs.iter().map(literal_bytes).collect(),
            outputs,
        }
    }

    fn part(&self, region: Region) -> &[u8] {
        match region {
            Region::Arena => &self.arena,
            Region::State => &self.state,
            Region::Constants => &self.constants,
            Region::Input(i) => self.inputs.get(i).map_or(&[], Vec::as_slice),
            Region::Output(i) => self.outputs.get(i).map_or(&[], Vec::as_slice),
        }
    }

    fn part_mut(&mut self, region: Region) -> &mut [u8] {
        match region {
            Region::Arena => &mut self.arena,
            Region::State => &mut self.state,
            Region::Output(i) => self.outputs.get_mut(i).map_or(&mut [], Vec::as_mut_slice),
            Region::Constants | Region::Input(_) => &mut [],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Region {
    Arena,
    State,
    Constants,
    Input(usize),
    Output(usize),
}

/// A range of memory, and a position in it.
#[derive(Clone, Copy, Debug)]
struct Window {
    region: Region,
    /// First byte.
    start: usize,
    /// Number of bytes.
    bytes: usize,
    /// Byte position of element 0, from `start`.
    at: i64,
}

/// Runs a whole program with every kernel's units in `pieces` pieces, one worker each, the last
/// piece first. `state` is updated in place. Gives the outputs.
///
/// # Errors
/// An index out of range, or a defect of the compiler; state may then be half updated.
///
/// # Panics
/// If an index expression divides a negative number: a defect of the compiler.
pub fn run_program(
    program: &Program,
    inputs: &[Literal],
    state: &mut Vec<u8>,
    pieces: u64,
) -> Result<Vec<Literal>, InterpError> {
    let mut memory = Memory::new(program, inputs, std::mem::take(state), pieces as usize);
    let done = run_steps(program, &mut memory, pieces.max(1));
    *state = std::mem::take(&mut memory.state);
    done?;
    let outputs = output_buffers(program).zip(&memory.outputs);
    Ok(outputs
        .map(|(b, bytes)| {
            let b = &program.buffers[b];
            Literal::from_fn(b.dtype, &b.dims, |i| read(bytes, i * b.dtype.size_bytes(), b.dtype))
        })
        .collect())
}

fn run_steps(program: &Program, memory: &mut Memory, pieces: u64) -> Result<(), InterpError> {
    for step in &program.steps {
        match *step {
            Step::Run(k) if program.controls.contains_key(&k) => run_control(program, k, memory, pieces)?,
            Step::Run(k) => {
                let units = program.scheduled[k].units;
                let share = units.div_ceil(pieces);
                for piece in (0..pieces).rev() {
                    let (first, end) = (piece * share, ((piece + 1) * share).min(units));
                    if first < end {
                        run_kernel(program, k, memory, first, end, piece as usize)?;
                    }
                }
            }
            Step::Check { buffer, bound, site } => check(program, memory, buffer, bound, site)?,
        }
    }
    Ok(())
}

/// Runs the regions of a kernel, each step with memory of its own.
fn run_control(program: &Program, k: usize, memory: &mut Memory, pieces: u64) -> Result<(), InterpError> {
    let KernelBody::Region { operands, results, .. } = &program.kernels[k].body else { return Ok(()) };
    let Control { kind, bodies, .. } = &program.controls[&k];
    let load = |memory: &Memory, buffer: u32| -> Result<Literal, InterpError> {
        let b = &program.buffers[buffer as usize];
        let window = buffer_window(program, memory, buffer)?;
        let bytes = &memory.part(window.region)[window.start..];
        Ok(Literal::from_fn(b.dtype, &b.dims, |i| read(bytes, i * b.dtype.size_bytes(), b.dtype)))
    };
    let x: Vec<Literal> = operands.iter().map(|&b| load(memory, b)).collect::<Result<_, _>>()?;
    let run = |i: usize, inputs: &[Literal]| {
        run_program(&bodies[i].assembled.program, inputs, &mut Vec::new(), pieces)
    };
    let values = match *kind {
        ControlKind::Call => run(0, &x)?,
        ControlKind::Cond => run(usize::from(x[0].get(0) == Scalar::Bool(false)), &x[1..])?,
        ControlKind::While { carries } => {
            let mut x = x;
            while run(0, &x)?[0].get(0) == Scalar::Bool(true) {
                let next = run(1, &x)?;
                x.splice(..carries, next);
            }
            x.truncate(carries);
            x
        }
        ControlKind::Scan { length, carries, sequences, reverse, stacked: ref sources } => {
            let (mut current, mut stacked) =
                (x[..carries].to_vec(), vec![Vec::new(); results.len() - carries]);
            for step in 0..length {
                let t = if reverse { length - 1 - step } else { step };
                let elements = x[carries..carries + sequences].iter().map(|s| s.element(t));
                let constants = x[carries + sequences..].iter().cloned();
                let inputs: Vec<Literal> = current.into_iter().chain(elements).chain(constants).collect();
                current = run(0, &inputs)?;
                for (all, &source) in stacked.iter_mut().zip(sources) {
                    all.push(match source {
                        Stacked::Output(i) | Stacked::Next(i) => current[i].clone(),
                        Stacked::Before(i) => inputs[i].clone(),
                    });
                }
                current.truncate(carries);
            }
            for mut all in stacked {
                if reverse {
                    all.reverse();
                }
                current.push(Literal::stack(all[0].dtype(), all[0].dims(), &all));
            }
            current
        }
    };
    for (&buffer, value) in results.iter().zip(&values) {
        let window = buffer_window(program, memory, buffer)?;
        let bytes = literal_bytes(value);
        memory.part_mut(window.region)[window.start..window.start + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(())
}

fn check(program: &Program, memory: &Memory, buffer: u32, bound: i64, site: u64) -> Result<(), InterpError> {
    let b = &program.buffers[buffer as usize];
    let window = buffer_window(program, memory, buffer)?;
    let bytes = &memory.part(window.region)[window.start..];
    for position in 0..b.dims.iter().product() {
        let value = read(bytes, position * b.dtype.size_bytes(), b.dtype).cast(DType::I64).bits() as i64;
        if !(0..bound).contains(&value) {
            return Err(InterpError::Index { site, position, value, bound });
        }
    }
    Ok(())
}

/// Runs units `first..end` of a kernel as worker number `worker`.
///
/// # Errors
/// A defect of the compiler: an access out of bounds, or memory that does not fit.
///
/// # Panics
/// If an index expression divides a negative number: a defect of the compiler.
pub fn run_kernel(
    program: &Program,
    kernel: usize,
    memory: &mut Memory,
    first: u64,
    end: u64,
    worker: usize,
) -> Result<(), InterpError> {
    let s = &program.scheduled[kernel];
    let start = program.scratch_offset + worker * program.scratch_stride;
    let fits = s.scratch <= program.scratch_stride && start + s.scratch <= memory.arena.len();
    if !fits {
        let what = format!("scratch memory of {}", s.function.name);
        return Err(InterpError::Memory { what, bytes: program.scratch_stride, needed: s.scratch });
    }
    memory.arena[start..start + s.scratch].fill(RUBBISH);
    let scratch = Window { region: Region::Arena, start, bytes: s.scratch, at: 0 };
    let scalars = [first as i64, end as i64];
    Machine::new(program, memory, &s.function, scratch, &scalars).run()
}

/// Buffers of the outputs in order.
fn output_buffers(program: &Program) -> impl Iterator<Item = usize> + use<'_> {
    let find = |i| program.buffers.iter().position(|b| b.place == Place::Output(i));
    (0..).map_while(find)
}

fn buffer_window(program: &Program, memory: &Memory, buffer: u32) -> Result<Window, InterpError> {
    let b = &program.buffers[buffer as usize];
    let (region, start) = match b.place {
        Place::Arena(at) => (Region::Arena, at),
        Place::State(at) => (Region::State, at),
        Place::Constant(at) => (Region::Constants, at),
        Place::Input(i) => (Region::Input(i), 0),
        Place::Output(i) => (Region::Output(i), 0),
    };
    let bytes = b.bytes();
    // Buffers lie before scratch memory.
    let limit = if region == Region::Arena { program.planned_bytes } else { memory.part(region).len() };
    if bytes > 0 && start + bytes > limit {
        let what = format!("the memory of b{buffer} at {start} in {region:?}");
        return Err(InterpError::Memory { what, bytes: limit, needed: start + bytes });
    }
    Ok(Window { region, start, bytes, at: 0 })
}

fn literal_bytes(l: &Literal) -> Vec<u8> {
    let size = l.dtype().size_bytes();
    let mut bytes = vec![0; l.len() * size];
    (0..l.len()).for_each(|i| write(&mut bytes, i * size, l.get(i)));
    bytes
}

/// The element at byte `at` of memory.
pub(crate) fn read(bytes: &[u8], at: usize, dtype: DType) -> Scalar {
    let mut word = [0; 8];
    let size = dtype.size_bytes();
    word[..size].copy_from_slice(&bytes[at..at + size]);
    // The order of bytes is that of the machine whose memory this would be.
    let bits = if cfg!(target_endian = "big") {
        u64::from_be_bytes(word) >> (64 - 8 * size)
    } else {
        u64::from_le_bytes(word)
    };
    Scalar::from_bits(dtype, bits)
}

fn write(bytes: &mut [u8], at: usize, value: Scalar) {
    let size = value.dtype().size_bytes();
    let word = value.bits();
    let word = if cfg!(target_endian = "big") {
        (word << (64 - 8 * size)).to_be_bytes()
    } else {
        word.to_le_bytes()
    };
    bytes[at..at + size].copy_from_slice(&word[..size]);
}

/// One value: a scalar for each lane.
type Lanes = SmallVec<[Scalar; 16]>;

/// The innermost vector loop's current iteration.
#[derive(Clone, Copy)]
struct Vector {
    var: Var,
    /// Lanes below the end of the loop.
    active: usize,
}

struct Machine<'a> {
    program: &'a Program,
    memory: &'a mut Memory,
    f: &'a VFunc,
    scratch: Window,
    values: Vec<Lanes>,
    vars: Vec<i64>,
    vector: Option<Vector>,
}

impl<'a> Machine<'a> {
    fn new(
        program: &'a Program,
        memory: &'a mut Memory,
        f: &'a VFunc,
        scratch: Window,
        scalars: &[i64],
    ) -> Self {
        let mut values = vec![Lanes::new(); f.types.len()];
        for (&p, &x) in f.params.iter().zip(scalars) {
            values[p as usize] = smallvec![Scalar::I64(x)];
        }
        Self { program, memory, f, scratch, values, vars: vec![0; f.n_vars as usize], vector: None }
    }

    fn run(mut self) -> Result<(), InterpError> {
        self.block(&self.f.body)
    }

    fn block(&mut self, body: &'a [Stmt]) -> Result<(), InterpError> {
        for s in body {
            match s {
                Stmt::Def { dst, op, args } => {
                    let value = self.define(*dst, op, args)?;
                    debug_assert_eq!(value.len(), self.lanes(*dst));
                    self.values[*dst as usize] = value;
                }
                Stmt::Store { mem, value } => {
                    let value = self.values[*value as usize].clone();
                    for (lane, &x) in value.iter().enumerate() {
                        if self.is_active(lane, value.len()) {
                            self.store(mem, lane, x)?;
                        }
                    }
                }
                Stmt::Prefetch(_) => {}
                Stmt::Loop(l) => self.repeat(l)?,
            }
        }
        Ok(())
    }

    fn repeat(&mut self, l: &'a Loop) -> Result<(), InterpError> {
        let (lo, hi) = (self.bound(&l.lo), self.bound(&l.hi));
        for c in &l.carried {
            self.values[c.phi as usize] = self.values[c.init as usize].clone();
        }
        let outer = self.vector;
        let mut at = lo;
        while at < hi {
            self.vars[l.var as usize] = at;
            let active = (hi - at).min(i64::from(l.lanes)) as usize;
            if l.lanes > 1 {
                self.vector = Some(Vector { var: l.var, active });
            }
            self.block(&l.body)?;
            let next: Vec<Lanes> = l.carried.iter().map(|c| self.values[c.next as usize].clone()).collect();
            for (c, next) in l.carried.iter().zip(next) {
                let carried = &mut self.values[c.phi as usize];
                // Lanes beyond the end keep what they have. In a scalar loop all are taken.
                let taken = if l.lanes > 1 { active } else { next.len() };
                carried[..taken].copy_from_slice(&next[..taken]);
            }
            at += l.step;
        }
        self.vector = outer;
        Ok(())
    }

    fn bound(&self, b: &Bound) -> i64 {
        match b {
            Bound::Expr(e) => self.index(e, 0),
            Bound::Min(x, y) => self.index(x, 0).min(self.index(y, 0)),
        }
    }

    fn lanes(&self, v: Val) -> usize {
        usize::from(self.f.types[v as usize].lanes)
    }

    /// Whether lane `lane` of a value of `lanes` lanes touches memory.
    fn is_active(&self, lane: usize, lanes: usize) -> bool {
        lanes == 1 || self.vector.is_some_and(|v| lane < v.active)
    }

    fn index(&self, e: &IndexExpr, lane: usize) -> i64 {
        e.terms().iter().fold(e.offset_value(), |sum, (atom, c)| {
            let value = match atom {
                Atom::Var(v) => {
                    let shifted = self.vector.is_some_and(|x| x.var == *v);
                    self.vars[*v as usize] + if shifted { lane as i64 } else { 0 }
                }
                Atom::Dynamic(v) => self.values[*v as usize][0].bits() as i64,
                Atom::Div(e, m) => self.dividend(e, lane).div_euclid(*m),
                Atom::Mod(e, m) => self.dividend(e, lane).rem_euclid(*m),
            };
            sum + c * value
        })
    }

    /// What is divided; code generators divide as if it were unsigned.
    fn dividend(&self, e: &IndexExpr, lane: usize) -> i64 {
        let value = self.index(e, lane);
        assert!(value >= 0, "{}: {e} is {value} and is divided", self.f.name);
        value
    }

    fn holds(&self, guards: &[Guard], lane: usize) -> bool {
        guards.iter().all(|g| (g.lo..g.hi).contains(&self.index(&g.expr, lane)))
    }

    fn define(&mut self, dst: Val, op: &VOp, args: &[Val]) -> Result<Lanes, InterpError> {
        let ty = self.f.types[dst as usize];
        let n = usize::from(ty.lanes);
        Ok(match op {
            VOp::Scalar(op) => (0..n)
                .map(|l| {
                    let args: SmallVec<[Scalar; 3]> =
                        args.iter().map(|&a| self.values[a as usize][l]).collect();
                    op.eval(&args)
                })
                .collect(),
            VOp::Splat => smallvec![self.values[args[0] as usize][0]; n],
            VOp::Load(mem, guards) => {
                let zero = Scalar::from_bits(lane_type(mem.dtype), 0);
                (0..n)
                    .map(|l| {
                        let reads = self.is_active(l, n) && self.holds(guards, l);
                        if reads { self.load(mem, l) } else { Ok(zero) }
                    })
                    .collect::<Result<_, _>>()?
            }
            // Beyond the end of a loop positions may be out of any range: generated code has any number
            // there, and lets nothing depend on it.
            VOp::Index(e) => (0..n)
                .map(|l| Scalar::I64(if self.is_active(l, n) { self.index(e, l) } else { NOWHERE }))
                .collect(),
            VOp::Guard(guards) => {
                (0..n).map(|l| Scalar::Bool(!self.is_active(l, n) || self.holds(guards, l))).collect()
            }
            VOp::Fold(kind) => smallvec![fold(kind.op(), self.values[args[0] as usize].clone())],
        })
    }

    /// What `mem` names, positioned at its element.
    fn window(&self, mem: &MemRef, lane: usize) -> Result<Window, InterpError> {
        let base = match mem.base {
            Base::Buffer(i) => buffer_window(self.program, self.memory, i)?,
            Base::Scratch(offset) => Window { at: i64::from(offset), ..self.scratch },
        };
        Ok(Window { at: base.at + self.index(&mem.index, lane) * mem.dtype.size_bytes() as i64, ..base })
    }

    /// Region and byte of an element, which must lie in what `mem` names.
    fn locate(&self, mem: &MemRef, lane: usize) -> Result<(Region, usize), InterpError> {
        let w = self.window(mem, lane)?;
        let size = mem.dtype.size_bytes() as i64;
        if w.at < 0 || w.at + size > w.bytes as i64 {
            return Err(InterpError::OutOfBounds {
                function: self.f.name.clone(),
                base: mem.base,
                index: self.index(&mem.index, lane),
                dtype: mem.dtype,
                bytes: w.bytes,
            });
        }
        Ok((w.region, w.start + w.at as usize))
    }

    fn load(&self, mem: &MemRef, lane: usize) -> Result<Scalar, InterpError> {
        let (region, at) = self.locate(mem, lane)?;
        let element = read(self.memory.part(region), at, mem.dtype);
        Ok(Scalar::from_bits(lane_type(mem.dtype), element.bits()))
    }

    fn store(&mut self, mem: &MemRef, lane: usize, value: Scalar) -> Result<(), InterpError> {
        let (region, at) = self.locate(mem, lane)?;
        if matches!(region, Region::Input(_) | Region::Constants) {
            return Err(InterpError::ReadOnly { function: self.f.name.clone(), base: mem.base });
        }
        let element = Scalar::from_bits(mem.dtype, value.bits());
        write(self.memory.part_mut(region), at, element);
        Ok(())
    }
}

/// `l[j] = op(l[j], l[j + h])` for `h` = 8, 4, 2, 1; gives `l[0]`.
fn fold(op: ScalarOp, mut lanes: Lanes) -> Scalar {
    let mut half = lanes.len() / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = op.eval(&[lanes[j], lanes[j + half]]);
        }
        half /= 2;
    }
    lanes[0]
}
