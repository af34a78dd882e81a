//! Graphs: typed nodes in SSA form over a private petgraph. Nodes are only appended, and operands
//! exist before their users, so node order is a topological order. Passes rebuild graphs.

use crate::ops::Op;
use crate::types::TensorType;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Identifies a node of one graph. Ordered by creation, which is a topological order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(u32);

impl NodeId {
    /// Position in creation order.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    fn petgraph(self) -> NodeIndex<u32> {
        NodeIndex::new(self.0 as usize)
    }
}

impl From<NodeIndex<u32>> for NodeId {
    fn from(i: NodeIndex<u32>) -> Self {
        Self(i.index() as u32)
    }
}

/// A place in the user's source: a line of Rust that called the builder, or of a text module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SourceLoc {
    /// File name as given.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for SourceLoc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl From<&std::panic::Location<'_>> for SourceLoc {
    fn from(l: &std::panic::Location<'_>) -> Self {
        Self { file: l.file().into(), line: l.line(), column: l.column() }
    }
}

/// What is known of a node beside its operation: none of it changes what is computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name in the text form, unique in the function; numbered when absent.
    pub name: Option<Arc<str>>,
    /// Path of the scopes it was declared in, such as `encoder/0`.
    pub scope: Option<Arc<str>>,
    /// Where it was declared.
    pub loc: Option<SourceLoc>,
}

/// One operation and its result.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation with its attributes.
    pub op: Op,
    /// Type of the result.
    pub ty: TensorType,
    /// Name, scope and source location.
    pub origin: Origin,
}

/// A directed acyclic graph of nodes.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    // An edge runs from operand to user; its weight is the operand's position.
    g: DiGraph<Node, u32, u32>,
}

impl Graph {
    /// Appends a node whose type the caller has inferred. [`crate::verify`] checks it again.
    ///
    /// # Panics
    /// If an operand is not a node of this graph.
    pub fn push(&mut self, node: Node, operands: &[NodeId]) -> NodeId {
        assert!(operands.iter().all(|o| o.index() < self.len()), "operands are created before their users");
        let id = self.g.add_node(node);
        for (i, operand) in operands.iter().enumerate() {
            self.g.add_edge(operand.petgraph(), id, i as u32);
        }
        id.into()
    }

    /// The node.
    ///
    /// # Panics
    /// If `id` is of another, larger graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.g[id.petgraph()]
    }

    /// The node's name, scope and location, for change.
    pub fn origin_mut(&mut self, id: NodeId) -> &mut Origin {
        &mut self.g[id.petgraph()].origin
    }

    /// The operation of a node.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// The type of a node's result.
    pub fn ty(&self, id: NodeId) -> &TensorType {
        &self.node(id).ty
    }

    /// Operands of a node in order.
    pub fn operands(&self, id: NodeId) -> SmallVec<[NodeId; 3]> {
        // petgraph yields the newest edge first.
        let mut ops: SmallVec<[NodeId; 3]> =
            self.g.neighbors_directed(id.petgraph(), Direction::Incoming).map(NodeId::from).collect();
        ops.reverse();
        ops
    }

    /// Users of a node with the operand position, in no stated but a fixed order; a node that uses
    /// it twice comes twice.
    pub fn users(&self, id: NodeId) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        self.g
            .edges_directed(id.petgraph(), Direction::Outgoing)
            .map(|e| (NodeId::from(e.target()), *e.weight() as usize))
    }

    /// Every node in creation order, which is a topological order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.g.node_count() as u32).map(NodeId)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.g.node_count()
    }

    /// True if there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
