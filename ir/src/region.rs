//! Regions: functions that an operation such as `scan` runs.

use crate::error::{EvalError, TypeError};
use crate::graph::NodeId;
use crate::literal::Literal;
use crate::module::{Bindings, Function};
use crate::ops::Op;
use crate::types::TensorType;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A function inside an operation: the body of a loop, a branch, a function that is called. It has
/// inputs and outputs but neither reads nor updates state; what it needs of its surroundings it gets
/// as inputs. Cheap to clone. Equal regions have the same name and equal functions.
#[derive(Clone, Debug)]
pub struct Region {
    function: Arc<Function>,
    depth: usize,
    nodes: usize,
}

/// How deep regions may be nested.
pub const MAX_REGION_DEPTH: usize = 16;
/// How many nodes a region may have, those of its own regions counted wherever they are used.
pub const MAX_REGION_NODES: usize = 1 << 22;

impl Region {
    /// The region of that function. [`crate::verify`] checks that it can be one.
    pub fn new(function: Function) -> Self {
        let (mut depth, mut nodes) = (1, function.graph.len());
        for id in function.graph.ids() {
            for r in function.graph.op(id).regions() {
                depth = depth.max(r.depth.saturating_add(1));
                nodes = nodes.saturating_add(r.nodes);
            }
        }
        Self { function: Arc::new(function), depth, nodes }
    }

    /// The function.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Levels of nesting, itself included.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Nodes, those of inner regions included as often as they are used.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// True if both are the very same region in memory.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function)
    }

    /// Types of the inputs.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = &TensorType> {
        self.function.inputs.iter().map(|&i| self.function.graph.ty(i))
    }

    /// Types of the outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = &TensorType> {
        self.function.outputs.iter().map(|o| self.function.graph.ty(o.node))
    }

    /// Why this function can not be a region, if it can not.
    pub fn problem(&self) -> Option<String> {
        let f = &self.function;
        let missing = |id: NodeId| id.index() >= f.graph.len();
        if f.inputs.iter().copied().chain(f.outputs.iter().map(|o| o.node)).any(missing) {
            Some("an input or an output is a node that does not exist".to_owned())
        } else if f.graph.ids().any(|id| matches!(f.graph.op(id), Op::ReadState(_))) {
            Some("it reads state; state is passed to it as an input".to_owned())
        } else if !f.updates.is_empty() {
            Some("it updates state".to_owned())
        } else if self.depth > MAX_REGION_DEPTH {
            Some(format!("regions are nested deeper than {MAX_REGION_DEPTH}"))
        } else if self.nodes > MAX_REGION_NODES {
            Some(format!("it has more than {MAX_REGION_NODES} nodes, inner regions included"))
        } else {
            None
        }
    }

    /// The region with named dimensions replaced by numbers.
    ///
    /// # Errors
    /// As [`Function::bind`].
    pub fn bind(&self, bindings: &Bindings) -> Result<Self, TypeError> {
        self.function.bind(bindings).map(Self::new)
    }

    /// The outputs for these inputs, by the reference interpreter.
    ///
    /// # Errors
    /// What the operations inside refuse.
    pub fn evaluate(&self, inputs: &[Literal]) -> Result<Vec<Literal>, EvalError> {
        let stateless = |_| unreachable!("regions read no state");
        crate::interp::evaluate(&self.function, inputs, stateless).map(|e| e.outputs)
    }
}

impl PartialEq for Region {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
            || (self.depth, self.nodes) == (other.depth, other.nodes) && self.function == other.function
    }
}

impl Eq for Region {}

impl Hash for Region {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Equal regions have equal names and sizes; comparing the rest is left to `eq`.
        self.function.name.hash(state);
        self.nodes.hash(state);
    }
}
