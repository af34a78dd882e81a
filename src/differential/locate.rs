//! Finds the node at which a compiled function begins to differ from the interpreter.

use super::{ElementDifference, Mismatch, OptLevel, Results, Values, remove_dead, same_results};
use crate::ir::{NodeId, Output, evaluate_nodes, print_function};
use crate::{Function, Literal, Module};
use std::fmt;

/// Compiles a function with the same inputs and runs it.
pub type Run<'a> = dyn Fn(&Function) -> Result<Results, Mismatch> + 'a;

/// The first node that differs.
#[derive(Clone, Debug)]
pub struct NodeDifference {
    /// The node as a line of the text form.
    pub node: String,
    /// Where it was declared.
    pub location: Option<String>,
    /// The element.
    pub difference: ElementDifference,
}

impl fmt::Display for NodeDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ElementDifference { element, expected, got, .. } = &self.difference;
        write!(f, "{}: element {element}: interpreter {expected:?}, generated {got:?}", self.node)?;
        self.location.as_ref().map_or(Ok(()), |l| write!(f, " (declared at {l})"))
    }
}

/// The first node whose value is not the interpreter's where functions are compiled and run by `run` (such as
/// [`execute`](super::execute) in the configuration that differs); `None` if every node is right by itself, which is so where a fault needs what fusion made of several.
///
/// All nodes are made outputs first. That changes how they are fused, so where it hides the difference
/// each node is asked for alone, from the results back to operands, as far as one differs.
pub fn locate(
    module: &Module,
    function: &Function,
    values: &Values,
    run: &Run<'_>,
) -> Option<NodeDifference> {
    let f = remove_dead(function);
    let expected = evaluate_nodes(&f, &values.inputs, |id| values.state[id.index()].clone()).ok()?;
    let probe = Probe { module, f: &f, values, run, expected: &expected };
    let all: Vec<NodeId> = f.graph.ids().collect();
    let (node, difference) = probe.first(&all).or_else(|| probe.descend())?;
    let names = unique_names(&f);
    let text = print_function(module, &names);
    let name = format!("%{}", names.graph.node(node).origin.name.as_deref().unwrap_or_default());
    let is_line =
        |line: &&str| line.trim_start().strip_prefix(name.as_str()).is_some_and(|r| r.starts_with(' '));
    let node_text = text.lines().find(is_line).map_or(name.as_str(), str::trim).to_owned();
    let location = f.graph.node(node).origin.loc.as_ref().map(ToString::to_string);
    Some(NodeDifference { node: node_text, location, difference })
}

/// The function with a name for every node, its own where it has one.
fn unique_names(f: &Function) -> Function {
    let mut named = f.clone();
    for id in f.graph.ids() {
        let origin = named.graph.origin_mut(id);
        if origin.name.is_none() {
            origin.name = Some(format!("node{}", id.index()).into());
        }
    }
    named
}

struct Probe<'a> {
    module: &'a Module,
    f: &'a Function,
    values: &'a Values,
    run: &'a Run<'a>,
    /// Of every node.
    expected: &'a [Literal],
}

impl Probe<'_> {
    /// The first of these nodes that differs if they are the only outputs.
    fn first(&self, nodes: &[NodeId]) -> Option<(NodeId, ElementDifference)> {
        let outputs = nodes.iter().map(|&node| Output { name: format!("n{}", node.index()).into(), node });
        let f = Function { outputs: outputs.collect(), updates: Vec::new(), ..self.f.clone() };
        let wanted = Results {
            outputs: nodes.iter().map(|id| self.expected[id.index()].clone()).collect(),
            state: self.values.state.clone(),
            failure: None,
            may_fail: None,
        };
        let got = (self.run)(&f).ok()?;
        match same_results(self.module, &f, &wanted, &got, OptLevel::O0) {
            Err(Mismatch::Element(d)) if d.position < nodes.len() => Some((nodes[d.position], d)),
            _ => None,
        }
    }

    fn descend(&self) -> Option<(NodeId, ElementDifference)> {
        let mut found = self.f.results().find_map(|id| self.first(&[id]))?;
        let mut asked = vec![false; self.f.graph.len()];
        loop {
            let operands = self.f.graph.operands(found.0);
            let new = |id: &NodeId| !std::mem::replace(&mut asked[id.index()], true);
            let ask: Vec<NodeId> = operands.into_iter().filter(new).collect();
            match ask.into_iter().find_map(|id| self.first(&[id])) {
                Some(operand) => found = operand,
                None => return Some(found),
            }
        }
    }
}
