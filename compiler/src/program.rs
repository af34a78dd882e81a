//! A program: the kernels of one function, the buffers they work on and the order they run in.

use crate::assemble::Assembled;
use crate::kernel::{BufferId, Kernel};
pub use crate::stacked::Stacked;
use crate::vector::VFunc;
use graphc_ir::{DType, Function, IndexExpr, NodeId};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Where a buffer lives, with its byte offset or port number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the arena.
    Arena(usize),
    /// In the state region.
    State(usize),
    /// Among the constants.
    Constant(usize),
    /// The caller's input.
    Input(usize),
    /// The caller's output.
    Output(usize),
}

/// A tensor in memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<usize>,
    /// Distance in elements between neighbours along each dimension. Ports, state and constants
    /// are dense and row-major; buffers in the arena may have their dimensions in another order.
    pub strides: Vec<usize>,
    /// Where it lives.
    pub place: Place,
    /// The node whose value it holds.
    pub node: NodeId,
}

impl Buffer {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        if self.dims.contains(&0) {
            return 0;
        }
        let last: usize = self.dims.iter().zip(&self.strides).map(|(d, s)| (d - 1) * s).sum();
        (last + 1) * self.dtype.size_bytes()
    }

    /// Element offset of a multi-dimensional index.
    pub fn linear(&self, index: &[IndexExpr]) -> IndexExpr {
        IndexExpr::linear(index, &self.strides)
    }
}

/// What gives each element of a tensor a place.
pub(crate) trait Layout {
    /// Element offset of a multi-dimensional index.
    fn offset(&self, index: &[IndexExpr]) -> IndexExpr;
}

impl Layout for Buffer {
    fn offset(&self, index: &[IndexExpr]) -> IndexExpr {
        self.linear(index)
    }
}

/// One entry of the program's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Runs a kernel.
    Run(usize),
    /// Fails unless every element of an integer buffer is in `0..bound`.
    Check {
        /// What is checked.
        buffer: BufferId,
        /// Exclusive upper bound.
        bound: i64,
        /// Number of the fault site, from 1.
        site: u64,
    },
}

/// How a kernel of the kind [`KernelBody::Region`](crate::kernel::KernelBody::Region) runs its
/// programs. Operands and results are the kernel's, in the order of the operation's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlKind {
    /// `length` times, see [`graphc_ir::ops::Scan`].
    Scan {
        /// Number of steps, at least 1.
        length: usize,
        /// Number of carries.
        carries: usize,
        /// Number of sequences.
        sequences: usize,
        /// From the last step to the first.
        reverse: bool,
        /// Where each stacked value comes from.
        stacked: Vec<Stacked>,
    },
    /// The second as long as the first gives true, see [`graphc_ir::ops::While`].
    While {
        /// Number of carries.
        carries: usize,
    },
    /// The first or the second, see [`graphc_ir::ops::Cond`].
    Cond,
    /// Once, see [`graphc_ir::ops::Call`].
    Call,
}

/// A region as a program with its place in the memory of the program around it.
#[derive(Clone, Debug)]
pub struct Body {
    /// The function after the passes.
    pub function: Function,
    /// Its program and plan.
    pub assembled: Assembled,
    /// Where its constants begin among those of the program around it.
    pub constants: usize,
    /// Where its context lies in the workspace.
    pub context: usize,
    /// Where the pointers to its inputs lie in the workspace.
    pub inputs: usize,
    /// Where the pointers to its outputs lie in the workspace.
    pub outputs: usize,
    /// Where its arena begins in the workspace.
    pub arena: usize,
}

/// What a kernel with regions runs.
#[derive(Clone, Debug)]
pub struct Control {
    /// In which way.
    pub kind: ControlKind,
    /// The regions, in the order of the operation's attributes.
    pub bodies: Vec<Body>,
    /// Two places in the workspace for the carries of a step, by carry. Then, for a `while`, that of the
    /// condition.
    pub slots: Vec<usize>,
    /// Size of the workspace, in bytes.
    pub workspace: usize,
}

/// A kernel as scheduled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// Its vector IR.
    pub function: VFunc,
    /// Number of units of its parallel dimension.
    pub units: u64,
    /// Whether its units are spread over threads.
    pub parallel: bool,
    /// Scratch memory that a worker needs, in bytes.
    pub scratch: usize,
}

impl Scheduled {
    /// The schedule of a kernel of the same structure that has this name, and these buffers in the place of this one's.
    pub(crate) fn with_buffers(&self, name: &str, buffers: &FxHashMap<BufferId, BufferId>) -> Self {
        Self { function: self.function.with_buffers(name, buffers), ..*self }
    }
}

/// A compiled function before code generation.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Name of the function.
    pub name: String,
    /// Buffers by number.
    pub buffers: Vec<Buffer>,
    /// Kernel IR.
    pub kernels: Vec<Kernel>,
    /// For each kernel a number: those that have the same one have the same structure.
    pub alike: Vec<usize>,
    /// The kernels' schedules, in the same order. Those with regions have no units.
    pub scheduled: Vec<Scheduled>,
    /// The regions of kernels that have some, by kernel.
    pub controls: BTreeMap<usize, Control>,
    /// The order of execution.
    pub steps: Vec<Step>,
    /// Bytes of the constants.
    pub constants: Vec<u8>,
    /// Bytes of the arena without scratch.
    pub planned_bytes: usize,
    /// Where the workers' scratch memory begins in the arena.
    pub scratch_offset: usize,
    /// Scratch bytes of each worker.
    pub scratch_stride: usize,
}

impl Program {
    /// Number of inputs, with those that loops give their bodies besides the function's.
    pub(crate) fn inputs(&self) -> usize {
        let number = |b: &Buffer| if let Place::Input(i) = b.place { i + 1 } else { 0 };
        self.buffers.iter().map(number).max().unwrap_or(0)
    }

    /// This program and those of its regions, inner ones before those around them.
    pub fn all(&self) -> Vec<&Self> {
        let mut all = Vec::new();
        self.collect(&mut all);
        all
    }

    fn collect<'a>(&'a self, all: &mut Vec<&'a Self>) {
        for body in self.controls.values().flat_map(|c| &c.bodies) {
            body.assembled.program.collect(all);
        }
        all.push(self);
    }

    /// Whether running it can fail, or go on without end.
    pub fn can_fail(&self) -> bool {
        let own = |p: &Self| {
            p.steps.iter().any(|s| matches!(s, Step::Check { .. }))
                || p.controls.values().any(|c| matches!(c.kind, ControlKind::While { .. }))
        };
        self.all().into_iter().any(own)
    }
}
