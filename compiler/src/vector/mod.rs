//! Vector IR: the body of a kernel as structured loops around straight-line SSA over vectors.
//!
//! A value has an element type and a number of lanes: 1 for a scalar, or the lanes of the vector
//! loop it is in. How many registers a vector takes is the emitter's affair, so the same function
//! serves 128-, 256- and 512-bit machines. There are three readers: the Cranelift emitter and the
//! emitter of wide x86 code (both in `codegen`), and the interpreter ([`interp`]). All give the same
//! bits: [`ScalarOp::eval`] is the meaning of each lane.
//!
//! A loop with `lanes > 1` takes `lanes` values of its variable at a time: lane `l` stands for
//! `var + l`. In the last, partial, iteration only the lanes below `hi` are active: others touch no
//! memory, and carried values keep their previous lanes. There are no vector loops inside vector
//! loops, but scalar loops may be inside vector loops and the other way round.

use graphc_ir::{DType, Guard, IndexExpr, ReduceKind, ScalarOp};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

pub mod builder;
pub mod interp;
pub mod print;
pub mod verify;

/// A value of a function, defined once.
pub type Val = u32;

/// Type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VType {
    /// Element type.
    pub dtype: DType,
    /// 1, or the lanes of the enclosing vector loop.
    pub lanes: u16,
}

/// What a memory access is relative to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Base {
    /// A buffer of the program, by number.
    Buffer(u32),
    /// The worker's scratch memory, at a byte offset.
    Scratch(u32),
}

/// Element `index` of `base`, in units of `dtype`. Variables of the index are loop variables of the
/// function; dynamic values are scalar `I64` values of it, by number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MemRef {
    /// Relative to what.
    pub base: Base,
    /// Element type in memory.
    pub dtype: DType,
    /// Element offset.
    pub index: IndexExpr,
}

impl MemRef {
    fn with_buffers(&self, buffers: &FxHashMap<u32, u32>) -> Self {
        let base = match self.base {
            Base::Buffer(b) => Base::Buffer(buffers[&b]),
            scratch @ Base::Scratch(_) => scratch,
        };
        Self { base, dtype: self.dtype, index: self.index.clone() }
    }
}

/// What a value is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum VOp {
    /// Lane-wise instruction on values of one lane count.
    Scalar(ScalarOp),
    /// A scalar in every lane.
    Splat,
    /// Memory; where a guard fails the lane is 0 and nothing is read.
    Load(MemRef, Vec<Guard>),
    /// An index expression as `I64`.
    Index(IndexExpr),
    /// Whether all guards hold.
    Guard(Vec<Guard>),
    /// All lanes of a vector into a scalar, by the fixed tree `l[j] = op(l[j], l[j + h])` for
    /// `h` = 8, 4, 2, 1.
    Fold(ReduceKind),
}

/// A bound of a loop.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Bound {
    /// An index expression.
    Expr(IndexExpr),
    /// The smaller of two.
    Min(IndexExpr, IndexExpr),
}

/// A value carried around a loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Carried {
    /// The value inside an iteration, and after the loop.
    pub phi: Val,
    /// Before the first iteration.
    pub init: Val,
    /// At the end of an iteration.
    pub next: Val,
}

/// A counted loop `for var in (lo..hi).step_by(step)`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Loop {
    /// Its variable.
    pub var: graphc_ir::Var,
    /// First value.
    pub lo: Bound,
    /// Exclusive end.
    pub hi: Bound,
    /// Distance of iterations; equal to `lanes` if that is above 1.
    pub step: i64,
    /// 1 for a scalar loop.
    pub lanes: u16,
    /// Values carried around.
    pub carried: Vec<Carried>,
    /// One iteration.
    pub body: Vec<Stmt>,
}

impl Loop {
    /// Distance of the bounds, if it is known at compile time.
    pub fn extent(&self) -> Option<i64> {
        match (&self.lo, &self.hi) {
            (Bound::Expr(lo), Bound::Expr(hi)) => hi.add(&lo.scale(-1)).as_constant(),
            _ => None,
        }
    }
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stmt {
    /// Defines a value.
    Def {
        /// The value.
        dst: Val,
        /// What it is.
        op: VOp,
        /// Operands.
        args: SmallVec<[Val; 3]>,
    },
    /// Writes a value.
    Store {
        /// Where.
        mem: MemRef,
        /// What; of the element type of `mem`.
        value: Val,
    },
    /// Says that the line of memory around an element is needed soon. It changes nothing, and the
    /// element need not exist.
    Prefetch(MemRef),
    /// A loop.
    Loop(Loop),
}

/// A function: a kernel's body.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct VFunc {
    /// Name in dumps.
    pub name: String,
    /// Type of each value.
    pub types: Vec<VType>,
    /// Number of loop variables.
    pub n_vars: u32,
    /// Scalar parameters: the first unit and the end of the units.
    pub params: Vec<Val>,
    /// The statements.
    pub body: Vec<Stmt>,
    /// Whether the emitter should keep the order of instructions: that of register tiles.
    pub scheduled: bool,
    /// Buffers too large for caches that it writes and nobody reads soon: stores may go past the caches.
    pub streams: Vec<u32>,
}

impl VFunc {
    /// The same function with this name, and these buffers in the place of its own.
    pub(crate) fn with_buffers(&self, name: &str, buffers: &FxHashMap<u32, u32>) -> Self {
        Self {
            name: name.to_owned(),
            types: self.types.clone(),
            params: self.params.clone(),
            body: with_buffers(&self.body, buffers),
            streams: self.streams.iter().map(|b| buffers[b]).collect(),
            ..*self
        }
    }
}

fn with_buffers(body: &[Stmt], buffers: &FxHashMap<u32, u32>) -> Vec<Stmt> {
    let each = |stmt: &Stmt| match stmt {
        Stmt::Def { dst, op: VOp::Load(mem, guards), args } => Stmt::Def {
            dst: *dst,
            op: VOp::Load(mem.with_buffers(buffers), guards.clone()),
            args: args.clone(),
        },
        Stmt::Store { mem, value } => Stmt::Store { mem: mem.with_buffers(buffers), value: *value },
        Stmt::Prefetch(mem) => Stmt::Prefetch(mem.with_buffers(buffers)),
        Stmt::Loop(l) => {
            let (lo, hi, carried) = (l.lo.clone(), l.hi.clone(), l.carried.clone());
            Stmt::Loop(Loop { lo, hi, carried, body: with_buffers(&l.body, buffers), ..*l })
        }
        other @ Stmt::Def { .. } => other.clone(),
    };
    body.iter().map(each).collect()
}
