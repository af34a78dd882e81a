//! The reference interpreter: the meaning of a function. Slow and obvious.

use crate::error::EvalError;
use crate::literal::Literal;
use crate::module::{Function, StateId};
use crate::ops::{Op, StaticType};
use std::collections::HashMap;

/// Results of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Outputs in order.
    pub outputs: Vec<Literal>,
    /// Next values of the updated state variables, in order of the updates.
    pub updates: Vec<(StateId, Literal)>,
}

/// Evaluates a verified function whose dimensions are all numbers.
///
/// `inputs` are given in order; `state` gives the value of each variable that the function reads.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// If a value is not of the declared type: callers check what users give them.
pub fn evaluate(
    function: &Function,
    inputs: &[Literal],
    state: impl Fn(StateId) -> Literal,
) -> Result<Evaluation, EvalError> {
    let values = evaluate_nodes(function, inputs, state)?;
    let value = |id: crate::NodeId| values[id.index()].clone();
    Ok(Evaluation {
        outputs: function.outputs.iter().map(|o| value(o.node)).collect(),
        updates: function.updates.iter().map(|u| (u.state, value(u.value))).collect(),
    })
}

/// Like [`evaluate`], but gives the value of every node, in order.
///
/// # Errors
/// An index out of range.
///
/// # Panics
/// As [`evaluate`].
pub fn evaluate_nodes(
    function: &Function,
    inputs: &[Literal],
    state: impl Fn(StateId) -> Literal,
) -> Result<Vec<Literal>, EvalError> {
    assert_eq!(inputs.len(), function.inputs.len(), "one value per input");
    let given: HashMap<_, _> = function.inputs.iter().copied().zip(inputs).collect();
    let graph = &function.graph;
    let mut values: Vec<Literal> = Vec::with_capacity(graph.len());
    // Further results of nodes that have several, from the second on.
    let mut further: HashMap<crate::NodeId, Vec<Literal>> = HashMap::new();
    for id in graph.ids() {
        let out = StaticType::of(graph.ty(id)).expect("every dimension is bound before evaluation");
        let value = match graph.op(id) {
            Op::Input(_) => given[&id].clone(),
            Op::ReadState(r) => state(r.state),
            Op::ResultOf(r) => further[&graph.operands(id)[0]][r.index - 1].clone(),
            op => {
                let operands = graph.operands(id);
                let operands: Vec<&Literal> = operands.iter().map(|o| &values[o.index()]).collect();
                let mut results = op.eval_results(&operands, &out)?;
                if results.len() > 1 {
                    further.insert(id, results.split_off(1));
                }
                results.swap_remove(0)
            }
        };
        assert_eq!(
            (value.dtype(), value.dims()),
            (out.dtype, out.dims.as_slice()),
            "value of {:?}",
            graph.op(id)
        );
        values.push(value);
    }
    Ok(values)
}
