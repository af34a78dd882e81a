//! Splits a long reduction to few points, which would be work for one thread, into one of parts that
//! run in parallel and one that combines them. The parts are subtrees of the tree in which [`Reduce`]
//! combines blocks, so the bits stay the same, whatever the number of threads.

use crate::fuse::FusedBuffer;
use crate::kernel::{BufferId, Expr, ExprId, ExprOp, Exprs, Kernel, KernelBody, Store};
use graphc_ir::{IndexCx, IndexExpr, Reduce, ReduceKind, ScalarBuilder, StaticType, row_major_strides};

/// Elements of the smallest part.
const PART: i64 = 8 * Reduce::BLOCK as i64;

/// Fewest and most parts.
const PARTS: std::ops::RangeInclusive<i64> = 4..=32;

/// Most points: as many columns are one unit of work.
const POINTS: i64 = 64;

/// The kernels with long reductions to few points split; partial results get new buffers.
pub(crate) fn split(kernels: Vec<Kernel>, buffers: &mut Vec<FusedBuffer>) -> Vec<Kernel> {
    let mut all = Vec::with_capacity(kernels.len());
    for k in kernels {
        match in_two(&k, buffers) {
            Some(two) => all.extend(two),
            None => all.push(k),
        }
    }
    all
}

fn in_two(k: &Kernel, buffers: &mut Vec<FusedBuffer>) -> Option<[Kernel; 2]> {
    let KernelBody::Loop { outer, reductions } = &k.body else { return None };
    let (outer_extents, inner) = k.space.extents.split_at(*outer);
    let n: i64 = inner.iter().product();
    let one_stage = k.stages().iter().max() == Some(&0);
    let plain = k.exprs.dynamics.is_empty() && k.stores.iter().all(|s| !s.inner);
    if !one_stage
        || !plain
        || !(1..=POINTS).contains(&outer_extents.iter().product())
        || n < PART * PARTS.start()
    {
        return None;
    }
    let mut part = PART;
    while n / part > *PARTS.end() {
        part *= 2;
    }
    let (parts, rest) = (n / part, if fault!(42) { 0 } else { n % part });

    let points: Vec<IndexExpr> = (0..*outer as u32).map(IndexExpr::var).collect();
    let at_point = |part: IndexExpr| [&[part], &points[..]].concat();

    // The parts: variable `outer` is the part, the next the position in it.
    let mut space = IndexCx { extents: outer_extents.to_vec(), dynamic: Vec::new() };
    let (which, position) = (space.var(parts as usize), space.var(part as usize));
    let at = inner_variables(&space, *outer, inner, &which.scale(part).add(&position));
    let mut exprs = Exprs::default();
    let values = substituted(k, reductions, &mut exprs, &space, &at);
    let mut partial: Vec<BufferId> = Vec::new();
    let mut stores = Vec::new();
    for (i, &value) in values.iter().enumerate() {
        let dtype = exprs.get(value).dtype;
        let dims: Vec<usize> = [parts].iter().chain(outer_extents).map(|&e| e as usize).collect();
        partial.push(buffers.len() as BufferId);
        let strides = row_major_strides(&dims);
        buffers.push(FusedBuffer { node: k.sources[0], ty: StaticType { dtype, dims }, strides });
        let value = exprs.add(ExprOp::Reduced(i as u32), &[], dtype);
        stores.push(Store { buffer: partial[i], index: at_point(which.clone()), value, inner: false });
    }
    let reduced = |values: Vec<ExprId>| reductions.iter().map(|r| r.0).zip(values).collect();
    let first = Kernel {
        name: format!("{}_parts", k.name),
        space,
        exprs,
        body: KernelBody::Loop { outer: outer + 1, reductions: reduced(values) },
        stores,
        sources: k.sources.clone(),
    };

    // What is left, and everything combined.
    let mut space = IndexCx { extents: outer_extents.to_vec(), dynamic: Vec::new() };
    let mut exprs = Exprs::default();
    let mut values = Vec::new();
    if rest > 0 {
        let position = space.var(rest as usize).offset(parts * part);
        let at = inner_variables(&space, *outer, inner, &position);
        values = substituted(k, reductions, &mut exprs, &space, &at);
    }
    let mut replace = |into: &mut Exprs, e: &Expr| match e.op {
        ExprOp::Reduced(i) => {
            let load = |j| at_point(IndexExpr::constant(j));
            let loads = (0..parts).map(|j| into.load(partial[i as usize], load(j), Vec::new(), e.dtype));
            let mut all: Vec<ExprId> = loads.collect();
            if rest > 0 {
                all.push(into.add(e.op.clone(), &[], e.dtype));
            }
            Some(pairwise(into, reductions[i as usize].0, all))
        }
        _ => None,
    };
    let roots: Vec<ExprId> = k.stores.iter().map(|s| s.value).collect();
    let copies = k.exprs.copy_into(&mut exprs, &roots, &IndexExpr::clone, &mut replace);
    let stores = k.stores.iter().zip(copies).map(|(s, value)| Store { value, ..s.clone() }).collect();
    let second = Kernel {
        name: k.name.clone(),
        space,
        exprs,
        body: KernelBody::Loop { outer: *outer, reductions: reduced(values) },
        stores,
        sources: k.sources.clone(),
    };
    Some([first, second])
}

/// The variables of a kernel where its inner space is at `position` in row-major order.
fn inner_variables(cx: &IndexCx, outer: usize, inner: &[i64], position: &IndexExpr) -> Vec<IndexExpr> {
    let mut vars: Vec<IndexExpr> = (0..outer as u32).map(IndexExpr::var).collect();
    let mut stride: i64 = inner.iter().product();
    for &extent in inner {
        stride /= extent;
        vars.push(cx.rem(&cx.div(position, stride), extent));
    }
    vars
}

/// The values that `k` reduces, with `at` for its variables.
fn substituted(
    k: &Kernel,
    reductions: &[(ReduceKind, ExprId)],
    into: &mut Exprs,
    cx: &IndexCx,
    at: &[IndexExpr],
) -> Vec<ExprId> {
    let roots: Vec<ExprId> = reductions.iter().map(|r| r.1).collect();
    let index = |e: &IndexExpr| e.substitute(cx, &|v| at[v as usize].clone());
    k.exprs.copy_into(into, &roots, &index, &mut |_, _| None)
}

/// `b[i] = op(b[i], b[i + s])` for `s` = 1, 2, 4, ..; gives `b[0]`.
fn pairwise(exprs: &mut Exprs, kind: ReduceKind, mut b: Vec<ExprId>) -> ExprId {
    let mut s = 1;
    while s < b.len() {
        for i in (0..b.len() - s).step_by(2 * s) {
            b[i] = exprs.op(kind.op(), &[b[i], b[i + s]]);
        }
        s *= 2;
    }
    b[0]
}
