//! Applies rewrite rules to a function until none matches.
//!
//! A rule looks at one node ([`View`]) that is about to be appended to the new graph, so its
//! operands are already in their final form, and gives a replacement ([`Expr`]) or nothing. The
//! parts of a replacement go through the rules in turn, so chains collapse in one sweep. Rules
//! never edit anything; each points one way and its right side is never worse.

use crate::error::CompileError;
use crate::pass::{PassCx, Rebuilder};
use crate::passes::remove_dead;
use graphc_ir::ops::{Broadcast, Constant};
use graphc_ir::{DType, Function, Graph, Literal, NodeId, Op, Origin, Scalar, StaticType, TensorType};

/// Sweeps over a function before rewriting gives up. One finds nearly everything; a second is
/// needed where a rule asks for the number of users.
pub(super) const MAX_SWEEPS: usize = 16;

/// Rules applied one inside the other before a replacement is taken as it is. Real chains are a few
/// long; the bound turns a pair of rules that undo each other into a missed rewrite.
const MAX_DEPTH: usize = 64;

/// Constants of more elements are not searched for a repeated value by rules that only look at
/// operands; `canonicalize` has already made broadcasts of them.
const MAX_SPLAT: usize = 64;

/// A rule with its name.
pub(super) type Rule = (&'static str, fn(&View<'_>) -> Option<Expr>);

/// A replacement: a node of the new graph, or an operation on replacements.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    /// A node that exists.
    Node(NodeId),
    /// A node to make.
    Apply(Op, Vec<Expr>),
}

impl Expr {
    /// An operation on nodes or replacements.
    pub(super) fn apply<E: Into<Expr>>(op: impl Into<Op>, operands: impl IntoIterator<Item = E>) -> Self {
        Self::Apply(op.into(), operands.into_iter().map(Into::into).collect())
    }

    /// A constant.
    pub(super) fn constant(value: Literal) -> Self {
        Self::Apply(Constant { value }.into(), Vec::new())
    }

    /// `value` repeated over the shape of `ty`.
    pub(super) fn splat(value: Scalar, ty: &TensorType) -> Self {
        let scalar = Self::constant(Literal::scalar(value));
        if ty.rank() == 0 {
            return scalar;
        }
        Self::apply(Broadcast { shape: ty.shape.clone(), axes: Vec::new() }, [scalar])
    }
}

impl From<NodeId> for Expr {
    fn from(id: NodeId) -> Self {
        Self::Node(id)
    }
}

/// A node about to be appended.
pub(super) struct View<'a> {
    graph: &'a Graph,
    uses: &'a [u32],
    /// Its operation.
    pub(super) op: &'a Op,
    /// Its operands.
    pub(super) operands: &'a [NodeId],
    /// Type of its result.
    pub(super) ty: &'a TensorType,
}

impl<'a> View<'a> {
    /// Operation of a node.
    pub(super) fn op_of(&self, id: NodeId) -> &'a Op {
        self.graph.op(id)
    }

    /// Operation of operand `i`, if there is such an operand.
    pub(super) fn operand_op(&self, i: usize) -> Option<&'a Op> {
        self.operands.get(i).map(|&o| self.op_of(o))
    }

    /// Type of a node.
    pub(super) fn ty_of(&self, id: NodeId) -> &'a TensorType {
        self.graph.ty(id)
    }

    /// First operand of a node; it has one.
    pub(super) fn operand_of(&self, id: NodeId) -> NodeId {
        self.graph.operands(id)[0]
    }

    /// Operands of a node.
    pub(super) fn operands_of(&self, id: NodeId) -> Vec<NodeId> {
        self.graph.operands(id).to_vec()
    }

    /// True if the node has one use, as far as is known while the graph is being rebuilt: an
    /// argument about cost, never about meaning.
    pub(super) fn single_use(&self, id: NodeId) -> bool {
        self.uses[id.index()] <= 1
    }

    /// The value that every element of the node has, if it is a repeated constant.
    pub(super) fn splat(&self, id: NodeId) -> Option<Scalar> {
        match self.graph.op(id) {
            Op::Constant(c) if c.value.len() <= MAX_SPLAT => c.value.splat_value(),
            Op::Broadcast(_) | Op::Reshape(_) => self.splat(self.operand_of(id)),
            _ => None,
        }
    }

    /// True if the node is a repeated constant of exactly this value (`-0` is not `0`).
    pub(super) fn is(&self, id: NodeId, value: f64) -> bool {
        self.splat(id).is_some_and(|s| s == Scalar::from_f64(s.dtype(), value) && s.to_f64() == value)
    }

    /// True if the node is a constant or a broadcast of one.
    pub(super) fn is_constant(&self, id: NodeId) -> bool {
        match self.graph.op(id) {
            Op::Constant(_) => true,
            Op::Broadcast(_) => self.is_constant(self.operand_of(id)),
            _ => false,
        }
    }

    /// Element type of the result.
    pub(super) fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// True if the operation applies one function to the elements of equally shaped operands.
    pub(super) fn is_elementwise(&self) -> bool {
        let types: Option<Vec<StaticType>> =
            self.operands.iter().map(|&o| StaticType::of(self.ty_of(o))).collect();
        let (Some(types), Some(out)) = (types, StaticType::of(self.ty)) else { return false };
        matches!(self.op.pattern(&types, &out), graphc_ir::Pattern::Elementwise(_))
    }
}

struct Emitter<'a> {
    rebuilder: Rebuilder<'a>,
    uses: Vec<u32>,
    rules: &'a [Rule],
    cx: &'a PassCx,
    fired: usize,
}

impl Emitter<'_> {
    /// The first replacement that a rule gives for an operation.
    fn matched(&mut self, op: &Op, operands: &[NodeId], ty: &TensorType) -> Option<Expr> {
        let view = View { graph: self.rebuilder.graph(), uses: &self.uses, op, operands, ty };
        let (name, expr) = self.rules.iter().find_map(|(name, rule)| Some((*name, rule(&view)?)))?;
        self.fired += 1;
        self.cx.fire(name);
        Some(expr)
    }

    /// Appends a replacement, its parts first.
    fn emit(&mut self, expr: Expr, origin: &Origin, depth: usize) -> Result<NodeId, CompileError> {
        let (op, parts) = match expr {
            Expr::Node(id) => return Ok(id),
            Expr::Apply(op, parts) => (op, parts),
        };
        let operands = parts
            .into_iter()
            .map(|part| self.emit(part, origin, depth + 1))
            .collect::<Result<Vec<NodeId>, _>>()?;
        if depth < MAX_DEPTH {
            let types: Vec<TensorType> =
                operands.iter().map(|&o| self.rebuilder.graph().ty(o).clone()).collect();
            let ty = op.infer(&types).map_err(|e| e.at(origin.loc.clone()))?;
            if let Some(expr) = self.matched(&op, &operands, &ty) {
                return self.emit(expr, origin, depth + 1);
            }
        }
        let id = self.rebuilder.push(op, &operands, origin)?;
        self.uses.push(0);
        operands.iter().for_each(|o| self.uses[o.index()] += 1);
        Ok(id)
    }
}

/// One walk over the function; the number of rules that fired.
fn sweep(function: &Function, rules: &[Rule], cx: &PassCx) -> Result<(Function, usize), CompileError> {
    let graph = &function.graph;
    let mut old_uses = vec![0u32; graph.len()];
    graph.ids().flat_map(|id| graph.operands(id)).for_each(|o| old_uses[o.index()] += 1);
    function.results().for_each(|id| old_uses[id.index()] += 1);
    let mut emitter = Emitter { rebuilder: Rebuilder::new(function), uses: Vec::new(), rules, cx, fired: 0 };
    for id in graph.ids() {
        let node = graph.node(id);
        let operands = emitter.rebuilder.operands(id);
        let new = match emitter.matched(&node.op, &operands, &node.ty) {
            Some(expr) => {
                let new = emitter.emit(expr, &node.origin, 1)?;
                emitter.rebuilder.replace(id, new);
                new
            }
            None => {
                emitter.uses.push(0);
                emitter.rebuilder.keep(id)
            }
        };
        // All uses the old node had, known before the walk reaches the users.
        emitter.uses[new.index()] += old_uses[id.index()];
    }
    Ok((emitter.rebuilder.finish(), emitter.fired))
}

/// Applies `rules` until none matches; the number of sweeps that took, at most [`MAX_SWEEPS`].
/// Nodes that lost their users on the way are gone if anything was rewritten.
pub(super) fn rewrite(
    function: &Function,
    rules: &[Rule],
    cx: &PassCx,
) -> Result<(Function, usize), CompileError> {
    let mut current = function.clone();
    for n in 1..=MAX_SWEEPS {
        let (next, fired) = sweep(&current, rules, cx)?;
        if fired == 0 {
            return Ok((current, n));
        }
        current = remove_dead(&next);
    }
    Ok((current, MAX_SWEEPS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::function;
    use graphc_ir::ops::{Add, Sub};

    #[test]
    fn rules_that_undo_each_other_end() {
        let swap: Rule = ("swap", |v| match v.op {
            Op::Add(_) => Some(Expr::apply(Sub {}, v.operands.iter().copied())),
            Op::Sub(_) => Some(Expr::apply(Add {}, v.operands.iter().copied())),
            _ => None,
        });
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            f.output("out", x + x);
        });
        assert_eq!(rewrite(&f, &[swap], &PassCx::default()).unwrap().1, MAX_SWEEPS);
    }
}
