//! Passes over one function: the trait, the runner and the helper that rebuilds functions.
//!
//! Graphs are append-only, so a pass never edits one: it walks the nodes of the old function in
//! order and builds a new one ([`Rebuilder`]). The runner owns what every pass needs: checking the
//! result, timings, dumps and the list of passes to skip. It knows no pass by name; the order of
//! the passes is in `pipeline.rs`.

use crate::error::CompileError;
use graphc_ir::{Function, Graph, Node, NodeId, Op, Origin, Output, TensorType, Update};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

/// How much the compiler optimizes. No level changes a result by a single bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum OptLevel {
    /// No passes: the graph as declared.
    O0,
    /// One round of the cheap passes.
    O1,
    /// All graph passes.
    O2,
    /// Everything.
    #[default]
    O3,
}

/// What a pass may know beside the function.
#[derive(Clone, Debug, Default)]
pub struct PassCx {
    /// The level compiled at.
    pub level: OptLevel,
    /// See [`PassOptions::wide`].
    pub wide: usize,
    fired: RefCell<BTreeMap<&'static str, usize>>,
}

impl PassCx {
    /// Records that a rule has rewritten a node.
    pub(crate) fn fire(&self, rule: &'static str) {
        *self.fired.borrow_mut().entry(rule).or_default() += 1;
    }
}

/// A transformation of one function whose dimensions are all numbers.
///
/// A pass keeps the inputs in order, the outputs with their names and types, and the updates, and
/// it keeps every result bit for bit (the payload and sign of a NaN are not part of a result).
pub trait Pass {
    /// One name for the command line, dumps, timings and tests.
    fn name(&self) -> &'static str;

    /// The transformed function.
    ///
    /// # Errors
    /// Only what the function itself causes; a pass never refuses a verified function.
    fn run(&self, function: &Function, cx: &PassCx) -> Result<Function, CompileError>;
}

/// How to run passes.
#[derive(Clone, Debug)]
pub struct PassOptions {
    /// The level, which selects the list of passes.
    pub level: OptLevel,
    /// Checks the function after each pass. On by default in debug builds.
    pub verify: bool,
    /// Keeps the function after each pass whose name contains this text; `all` keeps every one.
    pub dump_after: Option<String>,
    /// Names of passes that are not run.
    pub skip: Vec<String>,
    /// Names of the passes to run, in this order, instead of those of the level.
    pub only: Option<Vec<String>>,
    /// Batched values of this many elements or more between products, such as the probabilities of attention, are
    /// computed one element of the batch at a time ([`BatchLoop`](crate::passes::BatchLoop)).
    pub wide: usize,
}

/// Default of [`PassOptions::wide`].
const WIDE: usize = 1 << 21;

impl Default for PassOptions {
    fn default() -> Self {
        Self {
            level: OptLevel::default(),
            verify: cfg!(debug_assertions),
            dump_after: None,
            skip: Vec::new(),
            only: None,
            wide: WIDE,
        }
    }
}

impl PassOptions {
    /// The default options at this level.
    pub fn at(level: OptLevel) -> Self {
        Self { level, ..Self::default() }
    }

    pub(crate) fn dumps(&self, pass: &str) -> bool {
        self.dump_after.as_deref().is_some_and(|d| d == "all" || pass.contains(d))
    }
}

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassRecord {
    /// Name of the pass.
    pub name: &'static str,
    /// False if the function stayed as it was.
    pub changed: bool,
    /// Number of nodes before.
    pub nodes_before: usize,
    /// Number of nodes after.
    pub nodes_after: usize,
    /// Rules by name, with how often each rewrote a node; those that never did are not there.
    pub fired: BTreeMap<&'static str, usize>,
    /// Time taken, without checks.
    pub elapsed_ns: u64,
    /// The function after the pass, if [`PassOptions::dump_after`] asks for it.
    pub after: Option<Function>,
}

/// Runs passes in order.
///
/// # Errors
/// Those of the passes, and [`CompileError::BrokenPass`] if a check fails.
pub fn run_passes(
    function: &Function,
    passes: &[&dyn Pass],
    options: &PassOptions,
) -> Result<(Function, Vec<PassRecord>), CompileError> {
    let cx = PassCx { level: options.level, wide: options.wide, ..PassCx::default() };
    let mut current = function.clone();
    let mut records = Vec::new();
    for pass in passes.iter().filter(|p| !options.skip.iter().any(|s| s == p.name())) {
        let start = Instant::now();
        let next = pass.run(&current, &cx)?;
        let elapsed_ns = start.elapsed().as_nanos() as u64;
        if options.verify {
            let broken = |message| CompileError::BrokenPass {
                pass: pass.name(),
                function: current.name.clone(),
                message,
            };
            verify_function(&next).and_then(|()| same_interface(&current, &next)).map_err(broken)?;
        }
        records.push(PassRecord {
            name: pass.name(),
            changed: !same_function(&current, &next),
            nodes_before: current.graph.len(),
            nodes_after: next.graph.len(),
            fired: cx.fired.take(),
            elapsed_ns,
            after: options.dumps(pass.name()).then(|| next.clone()),
        });
        current = next;
    }
    Ok((current, records))
}

/// Checks that every node has the type its operation infers, that the list of inputs holds each
/// input node once, and that results exist.
///
/// # Errors
/// The first rule that is broken.
pub fn verify_function(function: &Function) -> Result<(), String> {
    let graph = &function.graph;
    let mut inputs = function.inputs.clone();
    inputs.sort();
    if inputs.windows(2).any(|w| w[0] == w[1]) {
        return Err("an input is listed twice".to_owned());
    }
    for id in graph.ids() {
        let node = graph.node(id);
        let operands = graph.operands(id);
        if operands.iter().any(|&o| o >= id) {
            return Err(format!("node {} uses a later node", id.index()));
        }
        let types: Vec<TensorType> = operands.iter().map(|&o| graph.ty(o).clone()).collect();
        let inferred = node.op.infer(&types).map_err(|e| format!("node {}: {e}", id.index()))?;
        if inferred != node.ty {
            return Err(format!(
                "node {} ({}) has type {} but infers {inferred}",
                id.index(),
                node.op.name(),
                node.ty
            ));
        }
        if matches!(node.op, Op::Input(_)) != inputs.binary_search(&id).is_ok() {
            return Err(format!("node {} ({}) and the list of inputs disagree", id.index(), node.op.name()));
        }
    }
    let missing = |id: &NodeId| id.index() >= graph.len();
    if function.results().chain(function.inputs.iter().copied()).any(|id| missing(&id)) {
        return Err("an input or a result is not a node of the graph".to_owned());
    }
    Ok(())
}

/// Checks that what callers see of a function is unchanged.
fn same_interface(before: &Function, after: &Function) -> Result<(), String> {
    let inputs = |f: &Function| -> Vec<_> {
        f.inputs.iter().map(|&i| (f.input_name(i).to_owned(), f.graph.ty(i).clone())).collect()
    };
    let outputs = |f: &Function| -> Vec<_> {
        f.outputs.iter().map(|o| (o.name.clone(), f.graph.ty(o.node).clone())).collect()
    };
    let updates = |f: &Function| -> Vec<_> {
        f.updates.iter().map(|u| (u.state, f.graph.ty(u.value).clone())).collect()
    };
    match () {
        () if before.name != after.name => Err("the name changed".to_owned()),
        () if inputs(before) != inputs(after) => Err("the inputs changed".to_owned()),
        () if outputs(before) != outputs(after) => Err("the outputs changed".to_owned()),
        () if updates(before) != updates(after) => Err("the updates changed".to_owned()),
        () => Ok(()),
    }
}

/// True if two functions have the same nodes in the same order and the same results. Names, scopes
/// and locations of nodes do not count.
pub fn same_function(a: &Function, b: &Function) -> bool {
    a.graph.len() == b.graph.len()
        && (&a.inputs, &a.outputs, &a.updates) == (&b.inputs, &b.outputs, &b.updates)
        && a.graph
            .ids()
            .all(|id| a.graph.op(id) == b.graph.op(id) && a.graph.operands(id) == b.graph.operands(id))
}

/// Appends a node without a name, in the scope and at the location of `origin`.
///
/// # Errors
/// If the operation refuses the operands: a defect of the pass.
pub(crate) fn append(
    graph: &mut Graph,
    op: Op,
    operands: &[NodeId],
    origin: &Origin,
) -> Result<NodeId, CompileError> {
    let types: Vec<TensorType> = operands.iter().map(|&o| graph.ty(o).clone()).collect();
    let ty = op.infer(&types).map_err(|e| e.at(origin.loc.clone()))?;
    Ok(graph.push(Node { op, ty, origin: Origin { name: None, ..origin.clone() } }, operands))
}

/// Builds a new function from an old one. Walk the old nodes in order ([`Graph::ids`]); for each,
/// either [`keep`](Self::keep) it or [`replace`](Self::replace) it by a new node, or leave it out
/// if nothing kept uses it. Every input must be kept.
pub struct Rebuilder<'a> {
    old: &'a Function,
    graph: Graph,
    map: Vec<Option<NodeId>>,
}

impl<'a> Rebuilder<'a> {
    /// Starts with no nodes.
    pub fn new(old: &'a Function) -> Self {
        Self { old, graph: Graph::default(), map: vec![None; old.graph.len()] }
    }

    /// The new graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether an old node has been kept or replaced.
    pub fn contains(&self, old: NodeId) -> bool {
        self.map[old.index()].is_some()
    }

    /// The new node that stands for an old one.
    ///
    /// # Panics
    /// If the old node was left out: a defect of the pass.
    pub fn get(&self, old: NodeId) -> NodeId {
        self.map[old.index()].expect("a node is kept or replaced before its users")
    }

    /// The new operands of an old node.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn operands(&self, old: NodeId) -> SmallVec<[NodeId; 3]> {
        self.old.graph.operands(old).iter().map(|&o| self.get(o)).collect()
    }

    /// Copies an old node with its origin onto its new operands.
    pub fn keep(&mut self, old: NodeId) -> NodeId {
        let operands = self.operands(old);
        // Replacements have the type of what they replace, so the type is unchanged.
        let id = self.graph.push(self.old.graph.node(old).clone(), &operands);
        self.map[old.index()] = Some(id);
        id
    }

    /// Appends a node in the scope and at the location of `origin`. Its name stays with the old
    /// node: [`replace`](Self::replace) hands it on.
    ///
    /// # Errors
    /// If the operation refuses the operands: a defect of the pass.
    pub fn push(
        &mut self,
        op: impl Into<Op>,
        operands: &[NodeId],
        origin: &Origin,
    ) -> Result<NodeId, CompileError> {
        append(&mut self.graph, op.into(), operands, origin)
    }

    /// Lets a new node stand for an old one of the same type. The new node gets the old one's name
    /// if it has none.
    ///
    /// # Panics
    /// If the types differ: a defect of the pass.
    pub fn replace(&mut self, old: NodeId, new: NodeId) {
        let before = self.old.graph.node(old);
        assert_eq!(before.ty, self.graph.node(new).ty, "a {} and its replacement", before.op.name());
        let origin = self.graph.origin_mut(new);
        if origin.name.is_none() {
            origin.name.clone_from(&before.origin.name);
        }
        self.map[old.index()] = Some(new);
    }

    /// The new function.
    ///
    /// # Panics
    /// If an input or a result was left out: a defect of the pass.
    pub fn finish(self) -> Function {
        let old = self.old;
        Function {
            name: old.name.clone(),
            inputs: old.inputs.iter().map(|&i| self.get(i)).collect(),
            outputs: old
                .outputs
                .iter()
                .map(|o| Output { name: o.name.clone(), node: self.get(o.node) })
                .collect(),
            updates: old.updates.iter().map(|u| Update { value: self.get(u.value), ..*u }).collect(),
            graph: self.graph,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Dce;
    use graphc_ir::{DType, ModuleBuilder};

    fn function() -> Function {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [3]);
            let _unused = x + 1.0;
            f.output("y", (x * 2.0).named("twice"));
        });
        m.build().unwrap().functions.remove(0)
    }

    /// Drops the outputs.
    struct Forgetful;
    impl Pass for Forgetful {
        fn name(&self) -> &'static str {
            "forgetful"
        }
        fn run(&self, f: &Function, _: &PassCx) -> Result<Function, CompileError> {
            Ok(Function { outputs: Vec::new(), ..f.clone() })
        }
    }

    #[test]
    fn records_tell_what_a_pass_did() {
        let options = PassOptions { dump_after: Some("dc".to_owned()), ..PassOptions::default() };
        let (f, records) = run_passes(&function(), &[&Dce, &Dce], &options).unwrap();
        assert_eq!(f.graph.len(), 4);
        assert_eq!(
            records.iter().map(|r| (r.changed, r.nodes_before, r.nodes_after)).collect::<Vec<_>>(),
            [(true, 7, 4), (false, 4, 4)]
        );
        assert!(same_function(records[0].after.as_ref().unwrap(), &f));
        assert_eq!(f.graph.node(f.outputs[0].node).origin.name.as_deref(), Some("twice"));
    }

    #[test]
    fn a_pass_that_breaks_the_function_is_named() {
        let options = PassOptions { verify: true, ..PassOptions::default() };
        let e = run_passes(&function(), &[&Forgetful], &options).unwrap_err();
        assert_eq!(e.to_string(), "pass `forgetful` broke function `f`: the outputs changed");
        let skip = PassOptions { skip: vec!["forgetful".to_owned()], ..options };
        assert!(run_passes(&function(), &[&Forgetful], &skip).unwrap().1.is_empty());
    }

    #[test]
    fn a_wrong_type_is_found() {
        let mut f = function();
        let x = f.inputs[0];
        let ty = TensorType::new(DType::F32, [4]);
        f.graph.push(Node { op: graphc_ir::ops::Neg {}.into(), ty, origin: Origin::default() }, &[x]);
        let e = verify_function(&f).unwrap_err();
        assert!(e.contains("has type f32[4] but infers f32[3]"), "{e}");
    }
}
