//! The order of dimensions in memory, chosen for each buffer of the arena.
//!
//! What a convolution reads and writes lies channels-last (batch, positions, channels): its rows
//! are then runs of channels, and so are those of bias, batch normalization and pooling. The choice
//! spreads to all buffers that some kernel accesses alike. Ports, state and constants are row-major,
//! as are buffers that a kernel addresses as a whole.

use crate::fuse::{Fused, FusedBuffer};
use crate::kernel::{BufferId, ContractionPart, ExprOp, Kernel, KernelBody};
use crate::program::Layout;
use graphc_ir::{Atom, Function, IndexExpr, NodeId, Op};
use petgraph::unionfind::UnionFind;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

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

fn is_given(f: &Function, node: NodeId) -> bool {
    matches!(f.graph.op(node), Op::Input(_) | Op::ReadState(_) | Op::Constant(_))
}

/// Buffers whose order may be chosen.
fn free_buffers(f: &Function, fused: &Fused) -> Vec<bool> {
    let results: FxHashSet<NodeId> = f.results().collect();
    let of_buffer = |b: &FusedBuffer| {
        // Index checks read integers as a whole.
        b.ty.dtype.is_float() && b.ty.dims.len() > 2 && !is_given(f, b.node) && !results.contains(&b.node)
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

/// Leaves out kernels that only reverse what [`choose`] did: a product whose transpose is wanted, where both lie in memory in one
/// order, writes the transpose.
pub(crate) fn leave_out_transposes(f: &Function, fused: &mut Fused) {
    let mut uses = Uses::of(f, fused);
    let mut kept = vec![true; fused.kernels.len()];
    for (k, kept) in kept.iter_mut().enumerate() {
        let Some((from, transpose)) = uses.transposed(fused, k) else { continue };
        *kept = false;
        let to = fused.kernels[k].stores[0].buffer;
        let sources = fused.kernels[k].sources.clone();
        fused.buffer_of.remove(&fused.buffers[from as usize].node);
        uses.writers[to as usize] = std::mem::take(&mut uses.writers[from as usize]);
        for &producer in &uses.writers[to as usize] {
            let producer = &mut fused.kernels[producer];
            for s in producer.stores.iter_mut().filter(|s| s.buffer == from) {
                let at = |d: &Option<usize>| d.map_or_else(IndexExpr::default, |d| s.index[d].clone());
                s.index = transpose.iter().map(at).collect();
                s.buffer = to;
            }
            producer.sources.extend(&sources);
        }
    }
    let mut kept = kept.into_iter();
    fused.kernels.retain(|_| kept.next().expect("one for each"));
}

/// What uses each buffer.
struct Uses {
    /// Whether it is used otherwise than by kernels.
    outside: Vec<bool>,
    /// How many kernels read it.
    readers: Vec<usize>,
    /// The kernels that write it.
    writers: Vec<SmallVec<[usize; 1]>>,
}

impl Uses {
    fn of(f: &Function, fused: &Fused) -> Self {
        let n = fused.buffers.len();
        let results: FxHashSet<NodeId> = f.results().collect();
        let outside = |b: &FusedBuffer| is_given(f, b.node) || results.contains(&b.node);
        let mut uses = Self {
            outside: fused.buffers.iter().map(outside).collect(),
            readers: vec![0; n],
            writers: vec![SmallVec::new(); n],
        };
        let others = fused.ports.iter().copied().chain(fused.checks.iter().map(|c| c.buffer));
        others.for_each(|b| uses.outside[b as usize] = true);
        for (i, k) in fused.kernels.iter().enumerate() {
            k.reads().iter().for_each(|&b| uses.readers[b as usize] += 1);
            k.writes().iter().for_each(|&b| uses.writers[b as usize].push(i));
        }
        uses
    }

    /// What a kernel copies, if it only changes the order of the dimensions of a product that nobody else reads, and no element
    /// moves: the buffer, and the dimension of it that each of the copy is.
    fn transposed(&self, fused: &Fused, k: usize) -> Option<(BufferId, Vec<Option<usize>>)> {
        let kernel = &fused.kernels[k];
        let (KernelBody::Loop { .. }, [store]) = (&kernel.body, &kernel.stores[..]) else { return None };
        let ExprOp::Load { buffer, index, guards } = &kernel.exprs.get(store.value).op else { return None };
        let (from, to) = (&fused.buffers[*buffer as usize], &fused.buffers[store.buffer as usize]);
        let is_product = |&i: &usize| matches!(fused.kernels[i].body, KernelBody::Contraction(_));
        let b = *buffer as usize;
        let free = guards.is_empty()
            && !self.outside[b]
            && self.readers[b] == 1
            && self.writers[b].iter().all(is_product)
            && fused.buffer_of.get(&from.node) == Some(buffer);
        if !free || to.offset(&store.index) != from.offset(index) {
            return None;
        }
        let is_var = |e: &IndexExpr| matches!(e.terms(), [(Atom::Var(v), _)] if *e == IndexExpr::var(*v));
        let dimension = |(d, e): (usize, &IndexExpr)| match to.ty.dims[d] {
            1 => Some(None),
            extent => {
                let from_dim = index.iter().position(|i| i == e)?;
                (from.ty.dims[from_dim] == extent && is_var(e)).then_some(Some(from_dim))
            }
        };
        let transpose = store.index.iter().enumerate().map(dimension).collect::<Option<Vec<_>>>()?;
        let same = from.ty.dims.iter().product::<usize>() == to.ty.dims.iter().product::<usize>();
        same.then_some((*buffer, transpose))
    }
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
