//! The order of dimensions in memory, chosen for each buffer of the arena.
//!
//! What a convolution reads and writes lies channels-last (batch, positions, channels): its rows
//! are then runs of channels, and so are those of bias, batch normalization and pooling. The choice
//! spreads to all buffers that some kernel accesses alike. Ports, state and constants are row-major,
//! as are buffers that a kernel addresses as a whole.

use crate::fuse::Fused;
use crate::kernel::{BufferId, ContractionPart, Kernel, KernelBody};
use graphc_ir::{Function, IndexExpr, NodeId, Op};
use petgraph::unionfind::UnionFind;
use rustc_hash::{FxHashMap, FxHashSet};

/// Sets the strides of the buffers of `fused`, the kernels of `f`.
pub(crate) fn choose(f: &Function, fused: &mut Fused) {
    let free = free_buffers(f, fused);
    let mut groups: UnionFind<BufferId> = UnionFind::new(fused.buffers.len());
    let mut channels_last: Vec<BufferId> = Vec::new();
    for k in &fused.kernels {
        let mut link = |alike: Vec<BufferId>| {
            let alike: Vec<BufferId> = alike.into_iter().filter(|&b| free[b as usize]).collect();
            alike.windows(2).for_each(|pair| {
                groups.union(pair[0], pair[1]);
            });
        };
        match &k.body {
            KernelBody::SelectAndScatter { x, ct: other, out, .. }
            | KernelBody::SelectAndGather { x, values: other, out, .. } => link(vec![*x, *other, *out]),
            _ => accessed_alike(k).into_iter().for_each(link),
        }
        if let KernelBody::Contraction(parts) = &k.body {
            channels_last.extend(parts.iter().flat_map(|p| activations(k, p)));
        }
    }
    channels_last.retain(|&b| free[b as usize]);
    let chosen: FxHashSet<BufferId> = channels_last.into_iter().map(|b| groups.find(b)).collect();
    for (i, b) in fused.buffers.iter_mut().enumerate() {
        let dims = &b.ty.dims;
        // With one channel or one position both orders are the same.
        let differs = dims.len() > 2 && dims[1] > 1 && dims[2..].iter().any(|&d| d > 1);
        if free[i] && differs && chosen.contains(&groups.find(i as BufferId)) {
            b.strides = channels_last_strides(dims);
        }
    }
}

/// The strides of dimensions that lie in memory in the order 0, 2, 3, .., 1.
fn channels_last_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    let mut next = dims[1];
    for d in (2..dims.len()).rev().chain([0]) {
        strides[d] = next;
        next *= dims[d];
    }
    strides
}

/// Buffers whose order may be chosen.
fn free_buffers(f: &Function, fused: &Fused) -> Vec<bool> {
    let results: FxHashSet<NodeId> = f.results().collect();
    let given = |n| matches!(f.graph.op(n), Op::Input(_) | Op::ReadState(_) | Op::Constant(_));
    let of_buffer = |b: &crate::fuse::FusedBuffer| {
        // Index checks read integers as a whole.
        b.ty.dtype.is_float() && b.ty.dims.len() > 2 && !given(b.node) && !results.contains(&b.node)
    };
    let mut free: Vec<bool> = fused.buffers.iter().map(of_buffer).collect();
    // So do regions.
    for k in fused.kernels.iter().filter(|k| matches!(k.body, KernelBody::Region { .. })) {
        k.reads().iter().chain(&k.writes()).for_each(|&b| free[b as usize] = false);
    }
    free
}

/// Buffers that a kernel loads and stores at the same batch entry and channel, group by group.
fn accessed_alike(k: &Kernel) -> Vec<Vec<BufferId>> {
    let mut groups: FxHashMap<(usize, &[IndexExpr]), Vec<BufferId>> = FxHashMap::default();
    let loads = k.exprs.loads(&k.roots()).into_iter().map(|(buffer, index, _)| (buffer, index));
    let stores = k.stores.iter().map(|s| (s.buffer, s.index.as_slice()));
    for (buffer, index) in loads.chain(stores).filter(|(_, index)| index.len() > 2) {
        groups.entry((index.len(), &index[..2])).or_default().push(buffer);
    }
    groups.into_values().collect()
}

/// What a convolution reads and writes other than its weights: the left factor, and the result or,
/// where the result is the gradient of the weights, the right factor. Nothing for other products.
fn activations(k: &Kernel, part: &ContractionPart) -> Vec<BufferId> {
    let [n_batch, n_m, n_n, n_k] = part.ranks;
    if (n_batch, n_n) != (1, 1) || n_m != n_k || n_m < 2 {
        return Vec::new();
    }
    let loads = |f: &crate::kernel::Factor| -> Vec<BufferId> {
        f.exprs.loads(&[f.value]).into_iter().filter(|l| l.1.len() == n_m + 1).map(|l| l.0).collect()
    };
    // After the batch or channels come the positions.
    let positions =
        |first: usize, rank: usize| -> i64 { part.space.extents[first + 1..first + rank].iter().product() };
    let of_weights = positions(n_batch, n_m) < positions(n_batch + n_m + n_n, n_k);
    let other = if of_weights { loads(&part.rhs) } else { k.stores.iter().map(|s| s.buffer).collect() };
    loads(&part.lhs).into_iter().chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_innermost() {
        assert_eq!(channels_last_strides(&[2, 3, 5, 7]), [105, 1, 21, 3]);
        assert_eq!(channels_last_strides(&[2, 3, 5]), [15, 1, 3]);
        assert_eq!(channels_last_strides(&[2, 3, 0, 7]), [0, 1, 21, 3]);
    }
}
