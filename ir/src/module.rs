//! Modules: named state and the functions over it.

use crate::graph::{Graph, NodeId};
use crate::init::Initializer;
use crate::ops::Op;
use crate::types::{DType, Dim, Shape, TensorType};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Identifies a state variable of a module by its position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StateId(pub u32);

impl StateId {
    /// Position in [`Module::state`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A named variable that functions read and update: a parameter, an optimizer slot, a counter.
#[derive(Clone, Debug, PartialEq)]
pub struct StateVar {
    /// Path, such as `encoder/0/weight`; unique in the module.
    pub name: Arc<str>,
    /// Type; all dimensions are numbers.
    pub ty: TensorType,
    /// How it starts.
    pub init: Initializer,
    /// True if training changes it by its gradient (`param` in the text form, else `state`).
    pub trainable: bool,
}

/// An argument of a function: a node whose operation is `Op::Input`.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name by which callers find it.
    pub name: Arc<str>,
    /// The value.
    pub node: NodeId,
}

/// A new value for a state variable, visible after the function has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which variable.
    pub state: StateId,
    /// Its next value.
    pub value: NodeId,
}

/// A pure graph with inputs and outputs that ends with updates of state.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// The nodes.
    pub graph: Graph,
    /// Input nodes in order; each has a name in its origin.
    pub inputs: Vec<NodeId>,
    /// Outputs in order.
    pub outputs: Vec<Output>,
    /// Updates in order of declaration, at most one per variable.
    pub updates: Vec<Update>,
}

impl Function {
    /// Name of an input node.
    pub fn input_name(&self, id: NodeId) -> &str {
        self.graph.node(id).origin.name.as_deref().unwrap_or("")
    }

    /// Nodes whose value leaves the function: outputs, then updates.
    pub fn results(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outputs.iter().map(|o| o.node).chain(self.updates.iter().map(|u| u.value))
    }
}

/// State and the functions over it.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Name of the module.
    pub name: Arc<str>,
    /// State variables in order of declaration.
    pub state: Vec<StateVar>,
    /// Functions in order of declaration.
    pub functions: Vec<Function>,
}

impl Module {
    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| &*f.name == name)
    }

    /// The state variable of that name.
    pub fn state_id(&self, name: &str) -> Option<StateId> {
        self.state.iter().position(|s| &*s.name == name).map(|i| StateId(i as u32))
    }

    /// Ids of the trainable state variables.
    pub fn trainable(&self) -> impl Iterator<Item = StateId> + '_ {
        (0..self.state.len() as u32).map(StateId).filter(|id| self.state[id.index()].trainable)
    }

    /// Names of the dimensions that `function` leaves open, sorted.
    pub fn open_dims(&self, function: &Function) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = function
            .graph
            .ids()
            .flat_map(|id| function.graph.ty(id).shape.dims().to_vec())
            .filter_map(|d| match d {
                Dim::Named(n) => Some(n),
                Dim::Const(_) => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Numbers for named dimensions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bindings(BTreeMap<Arc<str>, usize>);

impl Bindings {
    /// No bindings.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds or replaces a binding.
    pub fn with(mut self, name: &str, extent: usize) -> Self {
        self.0.insert(name.into(), extent);
        self
    }

    /// The number bound to `name`.
    pub fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    /// The dimension, as a number if its name is bound.
    pub fn dim(&self, dim: &Dim) -> Dim {
        match dim {
            Dim::Named(n) => self.get(n).map_or_else(|| dim.clone(), Dim::Const),
            Dim::Const(_) => dim.clone(),
        }
    }

    /// The shape, with every bound name replaced.
    pub fn shape(&self, shape: &Shape) -> Shape {
        shape.iter().map(|d| self.dim(d)).collect()
    }

    /// Every binding by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(k, v)| (&**k, *v))
    }
}

impl<'a> FromIterator<(&'a str, usize)> for Bindings {
    fn from_iter<I: IntoIterator<Item = (&'a str, usize)>>(iter: I) -> Self {
        Self(iter.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }
}

impl fmt::Display for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{k}={v}")?;
        }
        Ok(())
    }
}

impl Function {
    /// The function with named dimensions replaced by numbers. Types are inferred anew, so a
    /// binding that breaks a shape rule is found here.
    pub fn bind(&self, bindings: &Bindings) -> Result<Self, crate::TypeError> {
        let mut graph = Graph::default();
        for id in self.graph.ids() {
            let mut node = self.graph.node(id).clone();
            node.op.bind(bindings);
            let operands = self.graph.operands(id);
            let types: Vec<TensorType> = operands.iter().map(|&o| graph.ty(o).clone()).collect();
            node.ty = node.op.infer(&types).map_err(|e| e.at(node.origin.loc.clone()))?;
            graph.push(node, &operands);
        }
        Ok(Self { graph, ..self.clone() })
    }

    /// Ids of the state variables it reads, in order of first reading.
    pub fn reads(&self) -> Vec<StateId> {
        self.graph
            .ids()
            .filter_map(|id| match self.graph.op(id) {
                Op::ReadState(r) => Some(r.state),
                _ => None,
            })
            .collect()
    }

    /// True if it computes with elements of this type anywhere.
    pub fn uses_dtype(&self, dtype: DType) -> bool {
        self.graph.ids().any(|id| self.graph.ty(id).dtype == dtype)
    }
}
