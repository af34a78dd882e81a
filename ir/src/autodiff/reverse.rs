//! Reverse mode: the backward pass.
//!
//! [`gradients`] walks the nodes from the output back to the inputs, asks each operation's rule for
//! the cotangents of its operands and adds up those that meet. Gradients are ordinary nodes, so
//! they can be differentiated again.

use super::active_nodes;
use crate::builder::{FunctionBuilder, Param, Tensor};
use crate::error::{BuildError, BuildErrors};
use crate::graph::{NodeId, SourceLoc};
use crate::module::{Function, Module};
use crate::ops::{Op, VjpCx};
use std::collections::BTreeMap;

/// Gradients of the scalar `output` with respect to each of `wrt`, in order: tensors of their
/// types. An input that `output` does not depend on, or that is not a float, gets exact zeros.
///
/// A missing gradient rule, or an `output` that is not a float scalar, is recorded in the builder
/// as a mistake at the caller's line, and the results are poisoned.
#[track_caller]
pub fn gradients<'f>(output: Tensor<'f>, wrt: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    let f = output.builder();
    if output.is_poison() {
        return vec![f.poison(); wrt.len()];
    }
    let ty = output.ty();
    if ty.rank() != 0 || !ty.dtype.is_float() {
        f.misuse(format!("gradients: the output is {ty}, it must be a float scalar"));
        return vec![f.poison(); wrt.len()];
    }
    vjp(&[(output, f.scalar(ty.dtype, 1.0))], wrt)
}

/// The gradients of a function of `module` as a function `{name}.grad`: it has the inputs, outputs
/// and updates of `function`, and for each trainable state variable an output `grad/{variable}`, the
/// gradient of the first output. The module is not changed.
///
/// # Errors
/// If there is no such function, if its first output is not a float scalar, if an output has the
/// name of a gradient, or if an operation on the way has no gradient rule.
#[track_caller]
pub fn gradient_function(module: &Module, function: &str) -> Result<Function, BuildErrors> {
    let trainable: Vec<&str> = module.trainable().map(|id| &*module.state[id.index()].name).collect();
    gradient_function_of(module, function, &trainable)
}

/// As [`gradient_function`], with respect to the inputs and state variables of these names: for each an output
/// `grad/{name}`.
///
/// # Errors
/// As [`gradient_function`]; also a name that is neither an input of the function nor a state variable, or is
/// not of floats.
#[track_caller]
pub fn gradient_function_of(module: &Module, function: &str, wrt: &[&str]) -> Result<Function, BuildErrors> {
    let loc = SourceLoc::from(std::panic::Location::caller());
    let fail = |message: String| Err(BuildErrors(vec![BuildError::Misuse { message, loc }]));
    let Some(f) = module.function(function) else {
        let known: Vec<String> = module.functions.iter().map(|f| format!("`{}`", f.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return fail(format!("the module has no function `{function}`; it has {known}"));
    };
    let Some(first) = f.outputs.first() else {
        return fail(format!("function `{function}` has no output to differentiate"));
    };
    let ty = f.graph.ty(first.node);
    if ty.rank() != 0 || !ty.dtype.is_float() {
        return fail(format!(
            "output `{}` of function `{function}` is {ty}, must be a float scalar",
            first.name
        ));
    }
    let input = |name: &str| f.inputs.iter().copied().find(|&i| f.input_name(i) == name);
    for name in wrt {
        let state = module.state_id(name).map(|id| &module.state[id.index()].ty);
        match input(name).map(|i| f.graph.ty(i)).or(state) {
            Some(ty) if ty.dtype.is_float() => {}
            Some(ty) => return fail(format!("`{name}` is {ty}: only floats have gradients")),
            None => {
                let inputs = f.inputs.iter().map(|&i| f.input_name(i));
                let known = inputs.chain(module.state.iter().filter(|s| s.trainable).map(|s| &*s.name));
                let known: Vec<String> = known.map(|n| format!("`{n}`")).collect();
                return fail(format!(
                    "`{name}` is no input of function `{function}` and no state variable; there are {}",
                    known.join(", ")
                ));
            }
        }
    }
    let mut extended = FunctionBuilder::extend(module, f, |b: &FunctionBuilder| {
        let value = |name: &&str| match (input(name), module.state_id(name)) {
            (Some(id), _) => Some(b.tensor(id)),
            (None, Some(id)) => Some(b.read(&Param { id, ty: module.state[id.index()].ty.clone() })),
            (None, None) => None,
        };
        let values: Vec<Tensor<'_>> = wrt.iter().filter_map(value).collect();
        for (name, gradient) in wrt.iter().zip(gradients(b.tensor(first.node), &values)) {
            b.output(&format!("grad/{name}"), gradient);
        }
    })?;
    extended.name = format!("{function}.grad").into();
    Ok(extended)
}

/// Vector-Jacobian product: for pairs (output, cotangent of its type) the cotangents of `wrt`.
/// [`gradients`] is the case of one scalar output with cotangent 1. Mistakes are recorded likewise.
#[track_caller]
pub fn vjp<'f>(outputs: &[(Tensor<'f>, Tensor<'f>)], wrt: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    let Some((first, _)) = outputs.first() else { return Vec::new() };
    let f = first.builder();
    let mut all = outputs.iter().flat_map(|&(y, ct)| [y, ct]).chain(wrt.iter().copied());
    if all.any(Tensor::is_poison) {
        return vec![f.poison(); wrt.len()];
    }
    for &(y, ct) in outputs {
        if y.ty() != ct.ty() {
            f.misuse(format!("vjp: the output is {}, its cotangent {}", y.ty(), ct.ty()));
            return vec![f.poison(); wrt.len()];
        }
    }
    let ids: Vec<NodeId> = wrt.iter().filter_map(|t| t.id()).collect();
    let tops: Vec<NodeId> = outputs.iter().filter_map(|(y, _)| y.id()).collect();
    let order = active_nodes(f, &tops, &ids);

    let mut cotangents: Cotangents<'f> = BTreeMap::new();
    for &(y, ct) in outputs {
        if let Some(id) = y.id() {
            accumulate(&mut cotangents, (id, 0), ct);
        }
    }
    for &id in order.iter().rev() {
        let (op, operands, origin) =
            f.with_graph(|g| (g.op(id).clone(), g.operands(id), g.node(id).origin.clone()));
        if operands.is_empty() {
            continue;
        }
        if let Op::ResultOf(r) = &op {
            if let Some(&ct) = cotangents.get(&(id, 0)) {
                accumulate(&mut cotangents, (operands[0], r.index), ct);
            }
            continue;
        }
        let last = cotangents.range((id, 0)..=(id, usize::MAX)).next_back();
        let Some((&(_, last), _)) = last else { continue };
        let results = if op.regions().is_empty() { 1 } else { last + 1 };
        let cts: Vec<Option<Tensor<'f>>> = (0..results).map(|i| cotangents.get(&(id, i)).copied()).collect();
        // What is wrong has been recorded; rules need not expect what came of it.
        if cts.iter().flatten().any(|ct| ct.is_poison()) {
            return vec![f.poison(); wrt.len()];
        }
        let tensors: Vec<Tensor<'f>> = operands.iter().map(|&o| f.tensor(o)).collect();
        let cx = VjpCx { operands: &tensors, result: f.tensor(id) };
        let cotangents_of_operands = match f.at(&origin, || op.vjp_of_results(&cx, &cts)) {
            Ok(cts) => cts,
            Err(error) => {
                f.no_gradient(error);
                return vec![f.poison(); wrt.len()];
            }
        };
        debug_assert_eq!(
            cotangents_of_operands.len(),
            operands.len(),
            "{} gives one cotangent per operand",
            op.name()
        );
        for (&operand, ct) in operands.iter().zip(cotangents_of_operands) {
            if let Some(ct) = ct.filter(|_| order.binary_search(&operand).is_ok()) {
                f.at(&origin, || accumulate(&mut cotangents, (operand, 0), ct));
            }
        }
    }
    let of = |&t: &Tensor<'f>| {
        let known = t.id().and_then(|id| cotangents.get(&(id, 0))).copied();
        known.unwrap_or_else(|| f.full(t.dtype(), t.shape(), 0.0))
    };
    wrt.iter().map(of).collect()
}

/// By node and result.
type Cotangents<'f> = BTreeMap<(NodeId, usize), Tensor<'f>>;

fn accumulate<'f>(cotangents: &mut Cotangents<'f>, at: (NodeId, usize), ct: Tensor<'f>) {
    let sum = cotangents.get(&at).map_or(ct, |&earlier| earlier + ct);
    cotangents.insert(at, sum);
}
