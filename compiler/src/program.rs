//! A program: the kernels of one function, the buffers they work on and the order they run in.

use crate::kernel::{BufferId, Kernel};
use crate::vector::VFunc;
use graphc_ir::{DType, IndexExpr, NodeId};

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

/// A kernel as scheduled.
#[derive(Clone, Debug)]
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

/// A compiled function before code generation.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Name of the function.
    pub name: String,
    /// Buffers by number.
    pub buffers: Vec<Buffer>,
    /// Kernel IR.
    pub kernels: Vec<Kernel>,
    /// The kernels' schedules, in the same order.
    pub scheduled: Vec<Scheduled>,
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
