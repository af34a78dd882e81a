//! Makes the factors of contractions direct: tiles read them in place, without further arithmetic.
//!
//! A factor is direct if it is a load whose index is affine and, for the right one, whose own
//! dimensions lie side by side in memory, so that the lanes of a tile are neighbours. A left factor
//! that is zero outside of its buffer (a padded convolution) is direct too: the schedule copies what
//! a unit of work needs. Every other factor is written to a buffer of its own by a kernel before the
//! contraction: transposed, computed, or with rows that do not collide in the cache.

use crate::fuse::{Fused, FusedBuffer};
use crate::kernel::{BufferId, ContractionPart, ExprOp, Exprs, Factor, Kernel, KernelBody, Store};
use crate::lower::Target;
use graphc_ir::{Atom, Guard, IndexCx, IndexExpr, NodeId, StaticType, Var, row_major_strides};
use rustc_hash::FxHashSet;
use std::ops::Range;

/// Rows at multiples of this many bytes collide in the first-level cache.
pub(crate) const ALIAS_BYTES: usize = 4096;
/// Elements after which a row of a buffer is continued if it would collide with the next.
const ALIAS_GAP: usize = 16;
/// A factor of fewer bytes fits in caches in spite of collisions.
pub(crate) const ALIAS_LEAST: usize = 128 << 10;
/// Positions that may collide without harm: the cache holds as many of a kind.
const ALIAS_ROWS: i64 = 16;
/// Rows of a result for which the right factor is written in panels: a tile of fewer is wider than that.
const PANEL_ROWS: i64 = 4;
/// Positions of a batch dimension along which lanes may run instead of columns.
const LEAST_LANES: i64 = 4;
/// Kernels between two uses of one copy, at most.
const NEAR: usize = 8;
/// Times that each element of a colliding factor is used at least for a copy to pay.
const ALIAS_REUSE: i64 = 32;
/// The same for a factor of at least so many bytes if its rows collide, of which a tile reads few at a time.
const ALIAS_LARGE: (usize, i64) = (4 << 20, 512);

/// Puts a kernel before each contraction for every factor that is not direct.
///
/// `same` are buffers that have one value in all steps of the loop whose body this is: what is written of
/// them alone leaves the loop, so a copy pays even where a factor could be read in place.
pub(crate) fn make_direct(fused: &mut Fused, same: &FxHashSet<BufferId>, target: &Target) {
    let mut kernels = Vec::with_capacity(fused.kernels.len());
    for mut kernel in std::mem::take(&mut fused.kernels) {
        let (name, node) = (kernel.name.clone(), kernel.sources[0]);
        if let KernelBody::Contraction(parts) = &mut kernel.body {
            // Where there is no point or no term, nothing is read.
            for (i, part) in parts.iter_mut().enumerate().filter(|(_, p)| !p.space.extents.contains(&0)) {
                lanes_along_batch(part, &fused.buffers);
                let [batch, m, n, k] = groups(part);
                if !is_direct_lhs(part, &fused.buffers) {
                    let own = [batch.clone(), m, k.clone()];
                    let name = format!("{name}_lhs{i}");
                    let copy = pack(name, node, &mut part.lhs, own, &part.space, &mut fused.buffers);
                    push_once(&mut kernels, copy, &mut part.lhs, &fused.buffers);
                }
                let name = format!("{name}_rhs{i}");
                let panel = panel_columns(part, target);
                if !is_direct_rhs(part, &fused.buffers) {
                    kernels.push(match panel {
                        Some(columns) => pack_panels(name, node, part, columns, &mut fused.buffers),
                        None => {
                            let own = [batch, k, n];
                            pack(name, node, &mut part.rhs, own, &part.space, &mut fused.buffers)
                        }
                    });
                } else if let Some(columns) = panel.filter(|_| is_large(&part.rhs, same, &fused.buffers)) {
                    kernels.push(pack_panels(name, node, part, columns, &mut fused.buffers));
                }
            }
        }
        kernels.push(kernel);
    }
    fused.kernels = kernels;
}

/// Adds a kernel that writes a factor, unless one of the kernels just before writes the same: then the
/// factor reads that. Copies of long ago are not kept in memory until now.
fn push_once(kernels: &mut Vec<Kernel>, copy: Kernel, factor: &mut Factor, buffers: &[FusedBuffer]) {
    let to = |k: &Kernel| &buffers[k.stores[0].buffer as usize];
    let same = |k: &&Kernel| {
        matches!((&k.body, &k.stores[..]), (KernelBody::Loop { .. }, [store]) if store.index == copy.stores[0].index)
            && k.space.extents == copy.space.extents
            && k.exprs.iter().eq(copy.exprs.iter())
            && (to(k).strides == to(&copy).strides)
            && k.stores[0].value == copy.stores[0].value
    };
    match kernels.iter().rev().take(NEAR).find(same) {
        Some(k) => factor.exprs.rename(copy.stores[0].buffer, k.stores[0].buffer),
        None => kernels.push(copy),
    }
}

/// Makes the last batch dimension one of n where that has no columns and the left factor lies side by
/// side along it, as in a depthwise convolution over channels.
fn lanes_along_batch(part: &mut ContractionPart, buffers: &[FusedBuffer]) {
    let [batch, m, n, k] = groups(part);
    let extent = |v: Var| part.space.extents[v as usize];
    let Some(channel) = batch.clone().rev().find(|&v| extent(v) > 1) else { return };
    let side_by_side = affine(&part.lhs, buffers)
        .is_some_and(|(b, index, _)| IndexExpr::linear(index, &b.strides).coefficient(channel) == Some(1));
    if !side_by_side || extent(channel) < LEAST_LANES || n.clone().any(|v| extent(v) > 1) {
        return;
    }
    let others = batch.filter(|&v| v != channel);
    let order: Vec<Var> = others.chain(m).chain(n).chain([channel]).chain(k).collect();
    let mut space = IndexCx::default();
    let mut vars = vec![IndexExpr::default(); order.len()];
    for &v in &order {
        vars[v as usize] = space.var(extent(v) as usize);
    }
    let renamed = |e: &IndexExpr| e.substitute(&space, &|v| vars[v as usize].clone());
    for factor in [&mut part.lhs, &mut part.rhs] {
        let mut exprs = Exprs::default();
        let value = factor.exprs.copy_into(&mut exprs, &[factor.value], &renamed, &mut |_, _| None)[0];
        *factor = Factor { exprs, value };
    }
    part.out = part.out.iter().map(renamed).collect();
    part.ranks[0] -= 1;
    part.ranks[2] += 1;
    part.space = space;
}

/// The variables of batch, m, n and k.
fn groups(part: &ContractionPart) -> [Range<Var>; 4] {
    let mut from = 0;
    part.ranks.map(|n| {
        let own = from..from + n as Var;
        from = own.end;
        own
    })
}

/// A factor's buffer with the index of the element in it, if it is a load and affine.
fn affine<'a>(
    factor: &'a Factor,
    buffers: &'a [FusedBuffer],
) -> Option<(&'a FusedBuffer, &'a [IndexExpr], &'a [Guard])> {
    let ExprOp::Load { buffer, index, guards } = &factor.exprs.get(factor.value).op else { return None };
    let is_affine = |e: &IndexExpr| e.terms().iter().all(|(atom, _)| matches!(atom, Atom::Var(_)));
    index.iter().all(is_affine).then(|| (&buffers[*buffer as usize], index.as_slice(), guards.as_slice()))
}

fn is_direct_lhs(part: &ContractionPart, buffers: &[FusedBuffer]) -> bool {
    let Some((buffer, index, guards)) = affine(&part.lhs, buffers) else { return false };
    // Zero outside of the buffer, and only there.
    let is_range = |g: &Guard| {
        index.iter().zip(&buffer.ty.dims).any(|(e, &d)| {
            let shift = g.expr.add(&e.scale(-1)).as_constant();
            shift.is_some_and(|c| g.lo <= c && d as i64 + c <= g.hi)
        })
    };
    if !guards.is_empty() {
        return guards.iter().all(is_range);
    }
    let [_, m, n, k] = groups(part);
    !collides(buffer, index, part, [m, k], n)
}

fn is_direct_rhs(part: &ContractionPart, buffers: &[FusedBuffer]) -> bool {
    let Some((buffer, index, guards)) = affine(&part.rhs, buffers) else { return false };
    let [_, _, n, _] = groups(part);
    let linear = IndexExpr::linear(index, &buffer.strides);
    let mut next = 1;
    let in_order = n.rev().filter(|&v| part.space.extents[v as usize] > 1).all(|v| {
        let expected = next;
        next *= part.space.extents[v as usize];
        linear.coefficient(v) == Some(expected)
    });
    guards.is_empty() && in_order
}

/// Whether positions of m or k collide in the cache and are read so often, once for each of `uses`, that a
/// copy pays. Variables that continue one another in memory count as one.
fn collides(
    buffer: &FusedBuffer,
    index: &[IndexExpr],
    part: &ContractionPart,
    [m, k]: [Range<Var>; 2],
    uses: Range<Var>,
) -> bool {
    let size = buffer.ty.dtype.size_bytes();
    let extent = |v: Var| part.space.extents[v as usize];
    let linear = IndexExpr::linear(index, &buffer.strides);
    let aliases = |vars: Range<Var>| {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for v in vars.rev().filter(|&v| extent(v) > 1) {
            let stride = linear.coefficient(v).unwrap_or(0).saturating_abs();
            match runs.last_mut() {
                Some((inner, positions)) if stride == inner.saturating_mul(*positions) => {
                    *positions *= extent(v)
                }
                _ => runs.push((stride, extent(v))),
            }
        }
        let collide = |&(stride, positions): &(i64, i64)| {
            stride > 0 && (stride as usize * size).is_multiple_of(ALIAS_BYTES) && positions >= ALIAS_ROWS
        };
        runs.iter().any(collide)
    };
    let bytes = buffer.ty.dims.iter().product::<usize>() * size;
    let uses: i64 = uses.map(extent).product();
    let rows_matter = bytes < ALIAS_LARGE.0 || uses >= ALIAS_LARGE.1;
    bytes >= ALIAS_LEAST && uses >= ALIAS_REUSE && (rows_matter && aliases(m) || aliases(k))
}

/// Columns of the panels in which the right factor is written, if it can be: those of a tile, which divide
/// its columns.
fn panel_columns(part: &ContractionPart, target: &Target) -> Option<i64> {
    let [_, m, n, _] = groups(part);
    let extents =
        |mut vars: Range<Var>| vars.try_fold(1i64, |p, v| p.checked_mul(part.space.extents[v as usize]));
    let columns: Vec<i64> = n.clone().map(|v| part.space.extents[v as usize]).filter(|&e| e > 1).collect();
    let dtype = part.rhs.exprs.get(part.rhs.value).dtype;
    let vector = (i64::from(target.vector_lanes) * 4 / dtype.size_bytes() as i64).max(4);
    let &[columns] = &columns[..] else { return None };
    // Lanes of both factors take a narrower tile.
    if n.clone().any(|v| part.lhs.uses(v)) {
        return None;
    }
    let fits = |lanes: &i64| columns % lanes == 0 && columns > *lanes;
    (dtype.is_float() && extents(m)? >= PANEL_ROWS).then_some(())?;
    [2 * vector, vector].into_iter().find(fits)
}

/// Whether a factor is a load from one of these buffers and too large for the first-level caches.
fn is_large(factor: &Factor, same: &FxHashSet<BufferId>, buffers: &[FusedBuffer]) -> bool {
    let ExprOp::Load { buffer, .. } = &factor.exprs.get(factor.value).op else { return false };
    let ty = &buffers[*buffer as usize].ty;
    same.contains(buffer) && ty.dims.iter().product::<usize>() * ty.dtype.size_bytes() >= ALIAS_LEAST
}

/// A kernel that writes the right factor of a part in panels of so many columns; the factor becomes a load
/// of them.
fn pack_panels(
    name: String,
    node: NodeId,
    part: &mut ContractionPart,
    columns: i64,
    buffers: &mut Vec<FusedBuffer>,
) -> Kernel {
    let [batch, _, mut n, k] = groups(part);
    let extent = |v: Var| part.space.extents[v as usize] as usize;
    let column = n.find(|&v| extent(v) > 1).expect("there are several columns");
    let batch: Vec<Var> = batch.filter(|&v| part.rhs.uses(v)).collect();
    let k: Vec<Var> = k.filter(|&v| part.rhs.uses(v)).collect();
    // Over batch, panel, k and the column in the panel.
    let mut space = IndexCx::default();
    let mut vars = vec![IndexExpr::default(); part.space.extents.len()];
    for &v in &batch {
        vars[v as usize] = space.var(extent(v));
    }
    let panel = space.var(extent(column) / columns as usize);
    for &v in &k {
        vars[v as usize] = space.var(extent(v));
    }
    vars[column as usize] = panel.scale(columns).add(&space.var(columns as usize));
    let at = IndexExpr::var(column);
    let place = batch.iter().map(|&v| IndexExpr::var(v)).chain([part.space.div(&at, columns)]);
    let place = place.chain(k.iter().map(|&v| IndexExpr::var(v))).chain([part.space.rem(&at, columns)]);
    let place = place.collect();
    let dims: Vec<usize> = space.extents.iter().map(|&e| e as usize).collect();
    part.panel = Some(columns);
    written((name, node), &mut part.rhs, (space, &vars), row_major_strides(&dims), place, buffers)
}

/// A kernel that writes a factor to a new buffer over its own variables, in this order; the factor
/// becomes a load of it.
fn pack(
    name: String,
    node: NodeId,
    factor: &mut Factor,
    order: [Range<Var>; 3],
    part: &IndexCx,
    buffers: &mut Vec<FusedBuffer>,
) -> Kernel {
    let [_, _, row] = &order;
    // Each lane has an element of its own even where all are equal.
    let own: Vec<Var> = order
        .iter()
        .cloned()
        .flatten()
        .filter(|v| row.contains(v) && !fault!(47) || factor.uses(*v))
        .collect();
    let dims: Vec<usize> = own.iter().map(|&v| part.extents[v as usize] as usize).collect();
    let size = factor.exprs.get(factor.value).dtype.size_bytes();
    let mut strides = row_major_strides(&dims);
    let columns: usize = own.iter().zip(&dims).filter(|(v, _)| row.contains(v)).map(|(_, d)| d).product();
    if (columns * size).is_multiple_of(ALIAS_BYTES) {
        for (stride, _) in strides.iter_mut().zip(&own).filter(|(_, v)| !row.contains(v)) {
            *stride = *stride / columns * (columns + ALIAS_GAP);
        }
    }
    let mut space = IndexCx::default();
    let mut vars = vec![IndexExpr::default(); part.extents.len()];
    for (&v, &extent) in own.iter().zip(&dims) {
        vars[v as usize] = space.var(extent);
    }
    let place = own.iter().map(|&v| IndexExpr::var(v)).collect();
    written((name, node), factor, (space, &vars), strides, place, buffers)
}

/// A kernel that writes a factor to a new buffer, over a space in which the factor's variables are `vars`;
/// the factor becomes a load from `place` in it.
fn written(
    (name, node): (String, NodeId),
    factor: &mut Factor,
    (space, vars): (IndexCx, &[IndexExpr]),
    strides: Vec<usize>,
    place: Vec<IndexExpr>,
    buffers: &mut Vec<FusedBuffer>,
) -> Kernel {
    let dtype = factor.exprs.get(factor.value).dtype;
    let dims = space.extents.iter().map(|&e| e as usize).collect();
    let buffer = buffers.len() as BufferId;
    buffers.push(FusedBuffer { node, ty: StaticType { dtype, dims }, strides });
    let mut exprs = Exprs::default();
    let over_own = |e: &IndexExpr| e.substitute(&space, &|v| vars[v as usize].clone());
    let value = factor.exprs.copy_into(&mut exprs, &[factor.value], &over_own, &mut |_, _| None)[0];
    let mut direct = Exprs::default();
    let load = direct.load(buffer, place, Vec::new(), dtype);
    *factor = Factor { exprs: direct, value: load };
    let outer = space.extents.len();
    let index = (0..outer as Var).map(IndexExpr::var).collect();
    Kernel {
        name,
        exprs,
        body: KernelBody::Loop { outer, reductions: Vec::new() },
        space,
        stores: vec![Store { buffer, index, value, inner: false }],
        sources: vec![node],
    }
}
