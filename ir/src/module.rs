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

    /// A node in one line: `%name = operation : type @scope`, with its number if it has no name.
    pub fn label(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        let name = node.origin.name.as_ref().map_or_else(|| id.index().to_string(), ToString::to_string);
        let scope = node.origin.scope.as_ref().map_or(String::new(), |s| format!(" @{s}"));
        format!("%{name} = {} : {}{scope}", node.op.name(), node.ty)
    }

    /// [`Self::label`], and where the user declared the node: ` at file:line:column`.
    pub fn label_at(&self, id: NodeId) -> String {
        let at = self.graph.node(id).origin.loc.as_ref().map_or(String::new(), |loc| format!(" at {loc}"));
        self.label(id) + &at
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
        let mut names: Vec<Arc<str>> = Vec::new();
        function.visit_dims(&mut |d| names.extend(d.names()));
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

    /// The dimension with bound names replaced; as it is if it has no value then, see [`Dim::bind`].
    pub fn dim(&self, dim: &Dim) -> Dim {
        dim.bind(self).unwrap_or_else(|_| dim.clone())
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
            let mut problem = None;
            node.op.visit_dims(&mut |d| problem = problem.take().or(d.bind(bindings).err()));
            node.ty.shape.iter().for_each(|d| problem = problem.take().or(d.bind(bindings).err()));
            if let Some(message) = problem {
                let types: Vec<TensorType> =
                    self.graph.operands(id).iter().map(|&o| self.graph.ty(o).clone()).collect();
                let error = crate::TypeError::new(node.op.name(), &types, message);
                return Err(error.at(node.origin.loc.clone()));
            }
            node.op.bind(bindings);
            for region in node.op.regions_mut() {
                *region = region.bind(bindings)?;
            }
            let operands = self.graph.operands(id);
            let types: Vec<TensorType> = operands.iter().map(|&o| graph.ty(o).clone()).collect();
            node.ty = node.op.infer(&types).map_err(|e| e.at(node.origin.loc.clone()))?;
            graph.push(node, &operands);
        }
        Ok(Self { graph, ..self.clone() })
    }

    /// Calls `visit` with each dimension of its types and attributes, those of its regions included.
    pub fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        for id in self.graph.ids() {
            self.graph.ty(id).shape.iter().for_each(&mut *visit);
            let op = self.graph.op(id);
            op.visit_dims(visit);
            op.regions().into_iter().for_each(|r| r.function().visit_dims(visit));
        }
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

/// A node without its id: how [`Function`]s are compared.
#[derive(PartialEq)]
enum Place {
    Input(usize),
    State(StateId),
    /// Position among the other nodes.
    Node(usize),
}

impl Function {
    fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(self.graph.len());
        let mut next = 0;
        let inputs: BTreeMap<NodeId, usize> =
            self.inputs.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        for id in self.graph.ids() {
            places.push(match (self.graph.op(id), inputs.get(&id)) {
                (_, Some(&i)) => Place::Input(i),
                (Op::ReadState(r), _) => Place::State(r.state),
                _ => {
                    next += 1;
                    Place::Node(next - 1)
                }
            });
        }
        places
    }
}

/// Structural equality: the same operations with the same attributes, names and scopes in the same
/// order, on the same operands. Ignored are source locations, where inputs and reads of state stand
/// among the nodes, and the scopes of inputs and the names and scopes of reads.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.graph, &other.graph);
        let (at_a, at_b) = (self.places(), other.places());
        let nodes = |f: &Self, places: &[Place]| -> Vec<NodeId> {
            f.graph.ids().filter(|id| matches!(places[id.index()], Place::Node(_))).collect()
        };
        let same = |x: NodeId, y: NodeId| match (at_a.get(x.index()), at_b.get(y.index())) {
            (Some(p), Some(q)) => p == q,
            (None, None) => x == y,
            _ => false,
        };
        let same_node = |&x: &NodeId, &y: &NodeId| {
            let (n, m) = (a.node(x), b.node(y));
            let (xs, ys) = (a.operands(x), b.operands(y));
            n.op == m.op
                && n.ty == m.ty
                && n.origin.name == m.origin.name
                && n.origin.scope == m.origin.scope
                && xs.len() == ys.len()
                && xs.iter().zip(&ys).all(|(&x, &y)| same(x, y))
        };
        let same_input = |&x: &NodeId, &y: &NodeId| {
            x.index() < a.len()
                && y.index() < b.len()
                && a.op(x) == b.op(y)
                && a.ty(x) == b.ty(y)
                && self.input_name(x) == other.input_name(y)
        };
        let (xs, ys) = (nodes(self, &at_a), nodes(other, &at_b));
        self.name == other.name
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(x, y)| same_input(x, y))
            && xs.len() == ys.len()
            && xs.iter().zip(&ys).all(|(x, y)| same_node(x, y))
            && self.outputs.len() == other.outputs.len()
            && self.outputs.iter().zip(&other.outputs).all(|(o, p)| o.name == p.name && same(o.node, p.node))
            && self.updates.len() == other.updates.len()
            && self
                .updates
                .iter()
                .zip(&other.updates)
                .all(|(u, v)| u.state == v.state && same(u.value, v.value))
    }
}

/// As of [`Function`]; numbers of initializers are compared by their bits.
impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        let bits = |init: &Initializer| {
            let (name, numbers) = init.parts();
            (name, numbers.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        };
        let same_state = |s: &StateVar, t: &StateVar| {
            s.name == t.name && s.ty == t.ty && s.trainable == t.trainable && bits(&s.init) == bits(&t.init)
        };
        self.name == other.name
            && self.state.len() == other.state.len()
            && self.state.iter().zip(&other.state).all(|(s, t)| same_state(s, t))
            && self.functions == other.functions
    }
}
