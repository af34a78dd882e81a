//! Moves kernels out of the body of a `scan` whose values are the same in all steps: the packed weights of a
//! recurrent product are then written once for all steps, not in each.
//!
//! What the graph shows to be the same in all steps has left the body before, as nodes
//! ([`crate::passes`]). This is about kernels that are only made for generating code.

use crate::fuse::{Fused, FusedBuffer};
use crate::kernel::{BufferId, Kernel, KernelBody};
use graphc_ir::{Function, NodeId, row_major_strides};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// A kernel for outside of the loop, whose numbers of buffers are the body's.
pub(crate) struct Hoisted {
    kernel: Kernel,
    /// Body buffers that it reads, with the number of the operand that each of them is.
    reads: Vec<(BufferId, usize)>,
    /// What it writes: in the body one more input, after those there are.
    buffer: FusedBuffer,
}

/// Takes the kernels out of a body that read nothing but the inputs `same`, which are equal in all steps. What reads
/// at a computed index stays: the index is checked in the body, and there only if there is a step.
pub(crate) fn take(body: &Function, fused: &mut Fused, same: Range<usize>) -> Vec<Hoisted> {
    let given: FxHashMap<BufferId, usize> =
        same.filter_map(|i| Some((*fused.buffer_of.get(&body.inputs[i])?, i))).collect();
    let results: Vec<BufferId> = body.results().filter_map(|n| fused.buffer_of.get(&n).copied()).collect();
    let mut hoisted = Vec::new();
    if given.is_empty() {
        return hoisted;
    }
    let mut kept = Vec::with_capacity(fused.kernels.len());
    for kernel in std::mem::take(&mut fused.kernels) {
        let reads: Option<Vec<(BufferId, usize)>> =
            kernel.reads().iter().map(|b| Some((*b, *given.get(b)?))).collect();
        let plain = matches!(&kernel.body, KernelBody::Loop { reductions, .. } if reductions.is_empty());
        let movable = plain && kernel.exprs.dynamics.is_empty();
        let (Some(reads), [store], true) = (reads, &kernel.stores[..], movable) else {
            kept.push(kernel);
            continue;
        };
        let id = store.buffer;
        let Some(buffer) = row_major(&fused.buffers[id as usize]).filter(|_| !results.contains(&id)) else {
            kept.push(kernel);
            continue;
        };
        fused.buffers[id as usize] = buffer.clone();
        fused.ports.push(id);
        hoisted.push(Hoisted { kernel, reads, buffer });
    }
    fused.kernels = kept;
    hoisted
}

/// The buffer with whatever is between its rows as part of them, as ports are row-major.
fn row_major(buffer: &FusedBuffer) -> Option<FusedBuffer> {
    let mut b = buffer.clone();
    // Of a buffer without elements, strides say nothing.
    if let [.., row, 1] = b.strides[..]
        && !b.ty.dims.contains(&0)
    {
        *b.ty.dims.last_mut()? = row;
    }
    (row_major_strides(&b.ty.dims) == b.strides).then_some(b)
}

impl Hoisted {
    /// Puts the kernel among those of the function around the loop, whose kernel `scan`, of `node`, it
    /// precedes; the loop has one more operand.
    pub(crate) fn place(self, scan: &mut Kernel, node: NodeId, buffers: &mut Vec<FusedBuffer>) -> Kernel {
        let Self { mut kernel, reads, buffer } = self;
        let KernelBody::Region { operands, .. } = &mut scan.body else {
            unreachable!("a scan is a kernel with a region")
        };
        let own = buffers.len() as BufferId;
        buffers.push(FusedBuffer { node, ..buffer });
        let store = kernel.stores[0].buffer;
        let outside: Vec<(BufferId, BufferId)> =
            reads.iter().map(|&(inside, i)| (inside, operands[i])).chain([(store, own)]).collect();
        // By way of numbers that neither side has.
        for (n, (inside, _)) in (0..).zip(&outside) {
            kernel.rename(*inside, BufferId::MAX - n);
        }
        for (n, (_, outside)) in (0..).zip(&outside) {
            kernel.rename(BufferId::MAX - n, *outside);
        }
        kernel.name = format!("{}.{}", scan.name, kernel.name);
        kernel.sources = vec![node];
        operands.push(own);
        kernel
    }
}
