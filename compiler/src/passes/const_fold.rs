//! Computes at compile time what depends on constants alone.

use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::ops::{Broadcast, Constant};
use graphc_ir::{Function, Literal, NodeId, Op, Origin, Pattern, StaticType};

/// Largest value that is computed or kept for folding.
const MAX_BYTES: usize = 64 << 10;

/// Largest `iota` whose users are folded: a mask made from it as the program runs is cheaper than a
/// large table of it.
const MAX_IOTA_BYTES: usize = 1 << 10;

/// Most element operations spent on one node: the reference interpreter takes some 50 ns for each,
/// and compiling is to take milliseconds.
const MAX_WORK: usize = 1 << 16;

/// Replaces nodes that depend on constants alone by their values, computed by the reference
/// interpreter, which has the bits of the compiled code. Values over 64 KiB and long computations
/// stay. So do broadcasts of constants and `iota`, which are cheaper than their values; an operation *on* one
/// is folded. Index checks fold only if they succeed. Random numbers are never folded: they would
/// be data in the code instead of a few instructions.
pub struct ConstFold;

impl Pass for ConstFold {
    fn name(&self) -> &'static str {
        "const_fold"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        let graph = &function.graph;
        let mut rebuilder = Rebuilder::new(function);
        let mut known: Vec<Known> = Vec::with_capacity(graph.len());
        for id in graph.ids() {
            let later = can_be_known(function, id, &known);
            if later {
                graph.operands(id).iter().for_each(|&o| evaluate(function, o, &mut known));
            }
            known.push(if later { Known::Later } else { Known::Never });
            if !stays(graph.op(id)) {
                evaluate(function, id, &mut known);
            }
            match &known[id.index()] {
                Known::Value(value) if !stays(graph.op(id)) => {
                    let new = emit(&mut rebuilder, value, &graph.node(id).origin)?;
                    rebuilder.replace(id, new);
                }
                _ => {
                    rebuilder.keep(id);
                }
            }
        }
        Ok(rebuilder.finish())
    }
}

/// What is known of a node's value.
enum Known {
    /// It depends on what is not constant, or takes too long.
    Never,
    /// It can be computed; nothing has asked for it.
    Later,
    /// The value.
    Value(Literal),
}

/// True for operations that are kept although their value is known.
fn stays(op: &Op) -> bool {
    matches!(op, Op::Constant(_) | Op::Broadcast(_) | Op::Iota(_))
}

/// Whether a node depends on constants alone and is cheap.
fn can_be_known(function: &Function, id: NodeId, known: &[Known]) -> bool {
    let graph = &function.graph;
    let op = graph.op(id);
    let largest = if matches!(op, Op::Iota(_)) { MAX_IOTA_BYTES } else { MAX_BYTES };
    if matches!(op, Op::Input(_) | Op::ReadState(_)) || graph.ty(id).size_bytes().is_none_or(|n| n > largest)
    {
        return false;
    }
    let operands = graph.operands(id);
    if matches!(op, Op::Constant(_)) {
        return true;
    }
    let known = |o: &NodeId| !matches!(known[o.index()], Known::Never);
    let types = || operands.iter().map(|&o| StaticType::of(graph.ty(o))).collect::<Option<Vec<_>>>();
    let cheap = |types: Vec<StaticType>| {
        let out = StaticType::of(graph.ty(id))?;
        // Before the pattern is asked for: an elementary function's is long.
        (out.len() <= MAX_WORK).then_some(())?;
        Some(work(op, &op.pattern(&types, &out), &types, &out)? <= MAX_WORK)
    };
    operands.iter().all(known) && types().and_then(cheap) == Some(true)
}

/// Computes the value of a node, if it can be known; its operands have been evaluated.
fn evaluate(function: &Function, id: NodeId, known: &mut [Known]) {
    let Known::Later = known[id.index()] else { return };
    let graph = &function.graph;
    let value = match graph.op(id) {
        Op::Constant(c) => Some(c.value.clone()),
        op => {
            let value = |o: &NodeId| match &known[o.index()] {
                Known::Value(value) => Some(value),
                Known::Never | Known::Later => None,
            };
            let operands: Option<Vec<&Literal>> = graph.operands(id).iter().map(value).collect();
            // An index out of range is the user's error when the program runs, if it runs.
            operands.zip(StaticType::of(graph.ty(id))).and_then(|(x, out)| op.eval(&x, &out).ok())
        }
    };
    known[id.index()] = value.map_or(Known::Never, Known::Value);
}

/// Element operations that the interpreter needs, or `None` for what is not folded.
fn work(op: &Op, pattern: &Pattern, operands: &[StaticType], out: &StaticType) -> Option<usize> {
    let read: usize = operands.iter().map(StaticType::len).sum();
    match pattern {
        // What else generates values generates random ones.
        Pattern::Generate { .. } => matches!(op, Op::Iota(_)).then_some(out.len()),
        Pattern::Elementwise(body) => out.len().checked_mul(body.insts().len().max(1)),
        Pattern::Injective(_) | Pattern::Gather(_) | Pattern::CheckIndex { .. } => Some(out.len()),
        Pattern::Reduce(r) => r.extents.iter().try_fold(out.len().max(1), |n, &d| n.checked_mul(d.max(1))),
        Pattern::ArgReduce { .. }
        | Pattern::ArgSort { .. }
        | Pattern::Cumulative { .. }
        | Pattern::Scatter { .. } => Some(read + out.len()),
        Pattern::Contraction(parts) => parts.iter().try_fold(0usize, |total, c| {
            let dims = [&c.batch, &c.m, &c.n, &c.k];
            total.checked_add(dims.into_iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(d))?)
        }),
        _ => None,
    }
}

/// A node with this value: a broadcast of a scalar where that is all there is to it.
fn emit(rebuilder: &mut Rebuilder<'_>, value: &Literal, origin: &Origin) -> Result<NodeId, CompileError> {
    let ty = value.ty();
    match value.splat_value() {
        Some(scalar) if ty.rank() > 0 => {
            let scalar = rebuilder.push(Constant { value: Literal::scalar(scalar) }, &[], origin)?;
            rebuilder.push(Broadcast { shape: ty.shape, axes: Vec::new() }, &[scalar], origin)
        }
        _ => rebuilder.push(Constant { value: value.clone() }, &[], origin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Dce;
    use crate::passes::testing::{check, function};
    use expect_test::expect;
    use graphc_ir::DType;

    #[test]
    fn folds_through_broadcasts_but_keeps_them() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            let c = f.full(DType::F32, [2], 3.0) * f.full(DType::F32, [2], 2.0);
            f.output("a", x * c);
            f.output("b", c.reduce_sum(&[0]));
            f.output("c", f.full(DType::F32, [4], 1.0));
        });
        check(
            &[&ConstFold, &Dce],
            &f,
            expect![[r#"
                %0 = input : f32[2]
                %1 = constant {6.0} : f32[]
                %2 = broadcast %1 {shape = [2], axes = []} : f32[2]
                %3 = mul %0 %2 : f32[2]
                %4 = constant {12.0} : f32[]
                %5 = constant {1.0} : f32[]
                %6 = broadcast %5 {shape = [4], axes = []} : f32[4]
                return a %3, b %4, c %6
            "#]],
        );
    }

    #[test]
    fn large_values_and_long_computations_stay() {
        let f = function(|f| {
            let a =
                f.constant(Literal::from_fn(DType::F32, &[128, 128], |i| graphc_ir::Scalar::I32(i as i32)));
            f.output("long", a.dot(a));
            f.output("large", f.full(DType::F32, [1 << 20], 1.0) + 1.0);
        });
        let (folded, _) = crate::run_passes(&f, &[&ConstFold, &Dce], &Default::default()).unwrap();
        let count = |name| folded.graph.ids().filter(|&id| folded.graph.op(id).name() == name).count();
        assert_eq!((count("dot_general"), count("add")), (1, 1));
    }
}
