//! Operations on one element of a batch: which axes of operands go with which of the result, and what
//! remains of an operation without them.

use graphc_ir::ops::{
    Broadcast, Concatenate, Constant, DotGeneral, Iota, Pad, ReduceMax, ReduceMin, ReduceProd, ReduceSum,
    Slice, Transpose,
};
use graphc_ir::{Dim, Function, Literal, NodeId, Op, Pattern, Shape, StaticType};

/// The axes of a value that the steps of a loop run along, in the order of the loop's. Empty for a value
/// that is the same in all steps.
pub(super) type Axes = Vec<usize>;

/// `list` without `axes`, which leave it, in the numbers that are left.
fn without(list: &[usize], axes: &[usize]) -> Vec<usize> {
    let left = list.iter().filter(|a| !axes.contains(a));
    left.map(|&a| a - axes.iter().filter(|&&gone| gone < a).count()).collect()
}

/// The axes that stay, in order.
fn rest(rank: usize, axes: &[usize]) -> impl Iterator<Item = usize> {
    (0..rank).filter(|a| !axes.contains(a))
}

/// All axes, `axes` before the others.
pub(super) fn in_front(rank: usize, axes: &[usize]) -> Vec<usize> {
    axes.iter().copied().chain(rest(rank, axes)).collect()
}

/// A shape without `axes`.
pub(super) fn shape_without(shape: &Shape, axes: &[usize]) -> Vec<Dim> {
    rest(shape.rank(), axes).map(|a| shape[a].clone()).collect()
}

/// The axes over which an operation reduces, if it does.
fn reduced(op: &Op) -> Option<&[usize]> {
    match op {
        Op::ReduceSum(r) => Some(&r.axes),
        Op::ReduceProd(r) => Some(&r.axes),
        Op::ReduceMax(r) => Some(&r.axes),
        Op::ReduceMin(r) => Some(&r.axes),
        _ => None,
    }
}

pub(super) fn is_elementwise(f: &Function, id: NodeId) -> bool {
    let ty = |id: NodeId| StaticType::of(f.graph.ty(id));
    let operands: Option<Vec<StaticType>> = f.graph.operands(id).into_iter().map(ty).collect();
    let (Some(operands), Some(out)) = (operands, ty(id)) else { return false };
    !operands.is_empty() && matches!(f.graph.op(id).pattern(&operands, &out), Pattern::Elementwise(_))
}

/// Whether an operation only moves elements, along some of its axes.
pub(super) fn moves(op: &Op) -> bool {
    matches!(op, Op::Concatenate(_) | Op::Pad(_) | Op::Slice(_))
}

/// Whether a node that [`moves`] elements does so along none of `axes` of its result.
fn moves_along_others(f: &Function, id: NodeId, axes: &[usize]) -> bool {
    let mut each = axes.iter().copied();
    match f.graph.op(id) {
        Op::Concatenate(c) => !axes.contains(&c.axis),
        Op::Pad(p) => each.all(|a| (p.low[a], p.high[a], p.interior[a]) == (0, 0, 0)),
        Op::Slice(s) => {
            let operand = f.graph.ty(f.graph.operands(id)[0]);
            each.all(|a| (&s.starts[a], &s.limits[a], s.strides[a]) == (&Dim::Const(0), &operand.shape[a], 1))
        }
        _ => false,
    }
}

/// The axes of a node's operands that go with `axes` of its result; none if its elements along them do not
/// depend on those of the operands at the same place alone.
pub(super) fn of_operands(f: &Function, id: NodeId, axes: &[usize]) -> Option<Vec<Axes>> {
    let rank = |operand: usize| f.graph.ty(f.graph.operands(id)[operand]).rank();
    let op = f.graph.op(id);
    match op {
        Op::Constant(c) => (axes.is_empty() || c.value.splat_value().is_some()).then(Vec::new),
        Op::Iota(i) => (!axes.contains(&i.axis)).then(Vec::new),
        Op::Transpose(t) => Some(vec![axes.iter().map(|&a| t.permutation[a]).collect()]),
        Op::Broadcast(b) => {
            let at = |a: &usize| b.axes.iter().position(|to| to == a);
            let found: Axes = axes.iter().filter_map(at).collect();
            let operand = f.graph.ty(f.graph.operands(id)[0]);
            let whole = axes.iter().zip(&found).all(|(&to, &from)| b.shape[to] == operand.shape[from]);
            (found.is_empty() || found.len() == axes.len() && whole).then(|| vec![found])
        }
        Op::DotGeneral(d) => {
            let of = |batch: &[usize]| axes.iter().map(|&a| batch.get(a).copied()).collect::<Option<Axes>>();
            Some(vec![of(&d.lhs_batch)?, of(&d.rhs_batch)?])
        }
        Op::Pad(_) => moves_along_others(f, id, axes).then(|| vec![axes.to_vec(), Axes::new()]),
        Op::Concatenate(_) | Op::Slice(_) => {
            moves_along_others(f, id, axes).then(|| vec![axes.to_vec(); f.graph.operands(id).len()])
        }
        _ => match reduced(op) {
            Some(reduced) => {
                let kept: Vec<usize> = rest(rank(0), reduced).collect();
                Some(vec![axes.iter().map(|&a| kept[a]).collect()])
            }
            None => is_elementwise(f, id).then(|| vec![axes.to_vec(); f.graph.operands(id).len()]),
        },
    }
}

/// The axes of a node's result that go with `axes` of operand `i`.
pub(super) fn of_result(f: &Function, id: NodeId, i: usize, axes: &[usize]) -> Option<Axes> {
    let op = f.graph.op(id);
    let place = |list: &[usize]| axes.iter().map(|a| list.iter().position(|b| b == a)).collect();
    match op {
        Op::Transpose(t) => place(&t.permutation),
        Op::Broadcast(b) => Some(axes.iter().map(|&a| b.axes[a]).collect()),
        Op::DotGeneral(d) => place(if i == 0 { &d.lhs_batch } else { &d.rhs_batch }),
        // The number that a pad is filled with has no axes.
        Op::Pad(_) if i > 0 => None,
        _ if moves(op) => moves_along_others(f, id, axes).then(|| axes.to_vec()),
        _ => match reduced(op) {
            Some(reduced) => {
                let left = without(axes, reduced);
                (left.len() == axes.len()).then_some(left)
            }
            None => is_elementwise(f, id).then(|| axes.to_vec()),
        },
    }
}

/// What is left of a node's operation in one step. `operands` are the axes of its operands, as from [`of_operands`].
pub(super) fn in_step(f: &Function, id: NodeId, axes: &[usize], operands: &[Axes]) -> Op {
    let op = f.graph.op(id);
    let shape = || Shape::from(shape_without(&f.graph.ty(id).shape, axes));
    match op {
        Op::Constant(c) if !axes.is_empty() => {
            let value = c.value.splat_value().expect("only such constants are the same along an axis");
            let dims = shape().as_static().expect("extents are numbers");
            Constant { value: Literal::full(&dims, value) }.into()
        }
        Op::Iota(i) => Iota { shape: shape(), dtype: i.dtype, axis: without(&[i.axis], axes)[0] }.into(),
        Op::Transpose(t) => Transpose { permutation: without(&t.permutation, &operands[0]) }.into(),
        Op::Broadcast(b) => Broadcast { shape: shape(), axes: without(&b.axes, axes) }.into(),
        Op::DotGeneral(d) => {
            let [lhs, rhs] = [&operands[0], &operands[1]];
            let op = DotGeneral {
                lhs_batch: without(&d.lhs_batch, lhs),
                rhs_batch: without(&d.rhs_batch, rhs),
                lhs_contract: without(&d.lhs_contract, lhs),
                rhs_contract: without(&d.rhs_contract, rhs),
            };
            op.into()
        }
        Op::Concatenate(c) => Concatenate { axis: without(&[c.axis], axes)[0] }.into(),
        Op::Pad(p) => {
            let left = |list: &[i64]| rest(list.len(), axes).map(|a| list[a]).collect::<Vec<i64>>();
            let interior = rest(p.interior.len(), axes).map(|a| p.interior[a]).collect();
            Pad { low: left(&p.low), high: left(&p.high), interior }.into()
        }
        Op::Slice(s) => {
            let left = |list: &[Dim]| rest(list.len(), axes).map(|a| list[a].clone()).collect::<Vec<Dim>>();
            let strides = rest(s.strides.len(), axes).map(|a| s.strides[a]).collect();
            Slice { starts: left(&s.starts), limits: left(&s.limits), strides }.into()
        }
        Op::ReduceSum(r) => ReduceSum { axes: without(&r.axes, &operands[0]) }.into(),
        Op::ReduceProd(r) => ReduceProd { axes: without(&r.axes, &operands[0]) }.into(),
        Op::ReduceMax(r) => ReduceMax { axes: without(&r.axes, &operands[0]) }.into(),
        Op::ReduceMin(r) => ReduceMin { axes: without(&r.axes, &operands[0]) }.into(),
        _ => op.clone(),
    }
}
