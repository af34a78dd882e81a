//! Checks every invariant of a module that its types do not enforce.

use crate::graph::{Graph, NodeId};
use crate::module::{Function, Module};
use crate::ops::{Op, ResultOf, StaticType};
use crate::region::{MAX_REGION_DEPTH, Region};
use crate::text::MAX_NAME_BYTES;
use crate::types::TensorType;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The function, unless it is about the module.
    pub function: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(function) = &self.function {
            write!(f, "function `{function}`: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for VerifyError {}

/// Every broken invariant of a module; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyErrors(pub Vec<VerifyError>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            e.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for VerifyErrors {}

/// Checks a module: names are unique, state has static types, inputs, reads, outputs and updates
/// refer to what exists and fits, and every node has the type that its operation infers.
///
/// # Errors
/// Every broken invariant.
pub fn verify(module: &Module) -> Result<(), VerifyErrors> {
    let mut v = Verifier { errors: Vec::new(), function: None, checked: Vec::new() };
    v.unique("state", module.state.iter().map(|s| &*s.name));
    for s in &module.state {
        if StaticType::of(&s.ty).is_none() || s.ty.size_bytes().is_none() {
            v.report(format!("state `{}` has type {}: its extents must be numbers", s.name, s.ty));
        }
    }
    v.unique("function", module.functions.iter().map(|f| &*f.name));
    for f in &module.functions {
        v.function = Some(f.name.to_string());
        v.check(module, f);
        v.check_regions(module, f, 0);
    }
    if v.errors.is_empty() { Ok(()) } else { Err(VerifyErrors(v.errors)) }
}

struct Verifier {
    errors: Vec<VerifyError>,
    function: Option<String>,
    /// Regions that were checked: one is often used several times.
    checked: Vec<Region>,
}

impl Verifier {
    fn report(&mut self, message: String) {
        self.errors.push(VerifyError { function: self.function.clone(), message });
    }

    fn unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.report(format!("{what} `{name}` is declared twice"));
            }
            if name.len() > MAX_NAME_BYTES {
                self.report(format!("the name of {what} `{name}` is longer than {MAX_NAME_BYTES} bytes"));
            }
        }
    }

    /// Checks that a `result` node refers to a result of its type.
    fn check_result(&mut self, graph: &Graph, id: NodeId, result: &ResultOf) {
        // Another number of operands is reported by the operation's rule.
        let Some(&of) = graph.operands(id).first() else { return };
        let types: Vec<TensorType> = graph.operands(of).iter().map(|&o| graph.ty(o).clone()).collect();
        let results = graph.op(of).results(&types).unwrap_or_default();
        match results.get(result.index) {
            Some(ty) if *ty == result.ty && result.index > 0 => {}
            Some(ty) if result.index > 0 => self.report(format!(
                "node {} is {}, result {} of node {} is {ty}",
                id.index(),
                result.ty,
                result.index,
                of.index()
            )),
            _ => self.report(format!(
                "node {} is result {} of node {} (`{}`), which has {} results, the first of which is the node \
                 itself",
                id.index(),
                result.index,
                of.index(),
                graph.op(of).name(),
                results.len()
            )),
        }
    }

    /// Checks the regions of a function, `depth` levels below a function of the module.
    fn check_regions(&mut self, module: &Module, f: &Function, depth: usize) {
        let regions: Vec<Region> = f.graph.ids().flat_map(|id| f.graph.op(id).regions()).cloned().collect();
        for region in regions {
            if depth == MAX_REGION_DEPTH || self.checked.iter().any(|r| r.is(&region)) {
                // Too deep a nesting has been reported by the operation's rule.
                continue;
            }
            self.checked.push(region.clone());
            let outer = self.function.replace(region.function().name.to_string());
            self.check(module, region.function());
            self.check_regions(module, region.function(), depth + 1);
            self.function = outer;
        }
    }

    fn check(&mut self, module: &Module, f: &Function) {
        let graph = &f.graph;
        let exists = |id: NodeId| id.index() < graph.len();
        let mut listed: HashMap<NodeId, usize> = HashMap::new();
        for (i, &id) in f.inputs.iter().enumerate() {
            if !exists(id) {
                self.report(format!("input {i} is node {}, which does not exist", id.index()));
                continue;
            }
            *listed.entry(id).or_default() += 1;
            if !matches!(graph.op(id), Op::Input(_)) {
                self.report(format!("input {i} is node {}, an `{}`", id.index(), graph.op(id).name()));
            }
            match &graph.node(id).origin.name {
                None => self.report(format!("input {i} has no name")),
                Some(name) if module.state_id(name).is_some() => {
                    self.report(format!("input `{name}` has the name of a state variable"));
                }
                Some(_) => {}
            }
        }
        self.unique("input", f.inputs.iter().filter(|&&id| exists(id)).map(|&id| f.input_name(id)));
        for id in graph.ids() {
            let node = graph.node(id);
            match &node.op {
                Op::Input(_) => {
                    let times = listed.get(&id).copied().unwrap_or(0);
                    if times != 1 {
                        self.report(format!("input node {} is listed {times} times", id.index()));
                    }
                }
                Op::ResultOf(r) => self.check_result(graph, id, r),
                Op::ReadState(r) => match module.state.get(r.state.index()) {
                    None => self.report(format!(
                        "node {} reads state #{}, which does not exist",
                        id.index(),
                        r.state.0
                    )),
                    Some(s) if s.ty != r.ty => {
                        self.report(format!(
                            "node {} reads state `{}` as {}, it is {}",
                            id.index(),
                            s.name,
                            r.ty,
                            s.ty
                        ));
                    }
                    Some(_) => {}
                },
                _ => {}
            }
            let types: Vec<TensorType> = graph.operands(id).iter().map(|&o| graph.ty(o).clone()).collect();
            match node.op.infer(&types) {
                Ok(ty) if ty == node.ty => {}
                Ok(ty) => self.report(format!(
                    "node {} (`{}`) has type {}, its operation gives {ty}",
                    id.index(),
                    node.op.name(),
                    node.ty
                )),
                Err(e) => self.report(format!("node {}: {}", id.index(), e.at(node.origin.loc.clone()))),
            }
        }
        self.unique("output", f.outputs.iter().map(|o| &*o.name));
        for o in f.outputs.iter().filter(|o| !exists(o.node)) {
            self.report(format!("output `{}` is node {}, which does not exist", o.name, o.node.index()));
        }
        let mut updated = HashSet::new();
        for u in &f.updates {
            let Some(s) = module.state.get(u.state.index()) else {
                self.report(format!("an update of state #{}, which does not exist", u.state.0));
                continue;
            };
            if !updated.insert(u.state) {
                self.report(format!("state `{}` is updated twice", s.name));
            }
            if !exists(u.value) {
                self.report(format!(
                    "the update of `{}` is node {}, which does not exist",
                    s.name,
                    u.value.index()
                ));
            } else if *graph.ty(u.value) != s.ty {
                let ty = graph.ty(u.value);
                self.report(format!("state `{}` is {}, its new value is {ty}", s.name, s.ty));
            }
        }
    }
}
