//! The guard against values that are not finite ([`CompileOptions::nan_guard`](crate::CompileOptions::nan_guard)):
//! which memory the runtime looks at after each step, and the search for the node that made such a value.
//!
//! The search evaluates the nodes of the kernel with the interpreter, on the values that the kernel read: while
//! a guard watches, no result takes over the memory of an operand, but that of state, and operands live as long
//! as a kernel is made of them.

use crate::assemble::Assembled;
use crate::kernel::BufferId;
use crate::program::{Buffer, Place, Step};
use crate::vector::interp::read;
use graphc_ir::{Function, Literal, NodeId, Op, Scalar, StaticType};
use graphc_runtime::{Guard, GuardedStep, MemoryBase, MemoryRange, NonFinite};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// A step that the guard watches, as the search needs it.
struct Watched {
    kernel: String,
    function: usize,
    /// The nodes that it computes, in order.
    nodes: Vec<NodeId>,
    /// What the memory of the step holds: a buffer and the node whose value it is.
    values: Vec<(NodeId, Buffer)>,
}

/// The guard of these programs.
pub(crate) fn guard(programs: &[(&Function, &Assembled)]) -> Guard {
    let functions: Vec<Function> = programs.iter().map(|(f, _)| (*f).clone()).collect();
    let (mut steps, mut watched) = (Vec::new(), Vec::new());
    for (number, (f, a)) in programs.iter().enumerate() {
        let p = &a.program;
        for step in &p.steps {
            let kernel = if let Step::Run(k) = *step { Some(k) } else { None };
            // What runs regions writes nothing itself.
            let kernel = kernel.filter(|&k| p.scheduled[k].units > 0);
            let parts = kernel.and_then(|k| {
                let written = p.kernels[k].writes().into_iter().map(|b| &p.buffers[b as usize]);
                let floats = written.filter(|b| b.dtype.is_float());
                let results: Vec<_> = floats.map(|b| (range(b), b.dtype)).collect();
                let w = Watched::new(f, a, k, number);
                let memory: Vec<MemoryRange> = w.values.iter().map(|(_, b)| range(b)).collect();
                (!results.is_empty()).then_some((GuardedStep { results, memory }, w))
            });
            let (step, search) = parts.unzip();
            steps.push(step);
            watched.push(search);
        }
    }
    let explain = move |step: usize, memory: &[Vec<u8>]| {
        let watched: &Watched = watched[step].as_ref().expect("the runtime stops at steps with a guard only");
        watched.explain(&functions[watched.function], memory)
    };
    Guard { steps, explain: Box::new(explain) }
}

fn range(buffer: &Buffer) -> MemoryRange {
    let base = match buffer.place {
        Place::Arena(at) => MemoryBase::Arena(at),
        Place::State(at) => MemoryBase::State(at),
        Place::Constant(at) => MemoryBase::Constants(at),
        Place::Input(i) => MemoryBase::Input(i),
        Place::Output(i) => MemoryBase::Output(i),
    };
    (base, buffer.bytes())
}

impl Watched {
    fn new(f: &Function, a: &Assembled, k: usize, function: usize) -> Self {
        let p = &a.program;
        let (nodes, leaves) = a.nodes_of(f, k);
        let written: FxHashSet<BufferId> = p.kernels[k].writes().into_iter().collect();
        let places: FxHashSet<MemoryBase> =
            written.iter().map(|&b| range(&p.buffers[b as usize]).0).collect();
        let value = |node: NodeId| {
            let buffer = p.buffers[*a.buffer_of.get(&node)? as usize].clone();
            // Of another type where several results are joined in one buffer.
            let same = StaticType::of(f.graph.ty(node)).is_some_and(|ty| ty.dims == buffer.dims);
            same.then_some((node, buffer))
        };
        // What is updated in place is gone, and state may have been since others read it.
        let reads = p.kernels[k].reads();
        let there = |(node, b): &(NodeId, Buffer)| {
            let own = !matches!(b.place, Place::State(_)) || reads.contains(&a.buffer_of[node]);
            own && !places.contains(&range(b).0)
        };
        let read = leaves.into_iter().filter_map(value).filter(there);
        let results = nodes.iter().copied().filter_map(value);
        let values = read.chain(results).collect();
        Self { kernel: p.kernels[k].name.clone(), function, nodes, values }
    }

    fn explain(&self, f: &Function, memory: &[Vec<u8>]) -> NonFinite {
        let found = |node: NodeId, message: String, from_outside: bool| NonFinite {
            kernel: self.kernel.clone(),
            message,
            node: Some(f.label_at(node)),
            from_outside,
        };
        let computed: FxHashSet<NodeId> = self.nodes.iter().copied().collect();
        let mut known: BTreeMap<NodeId, Literal> = BTreeMap::new();
        let mut results: FxHashMap<NodeId, Literal> = FxHashMap::default();
        for ((node, buffer), bytes) in self.values.iter().zip(memory) {
            let value = literal(buffer, bytes);
            if computed.contains(node) {
                results.insert(*node, value);
                continue;
            }
            if let Some(at) = first_non_finite(&value) {
                let message = format!("its operand holds {} already: {}", at.text(), f.label_at(*node));
                return found(*node, message, true);
            }
            known.insert(*node, value);
        }
        for &node in &self.nodes {
            let value = evaluate(f, node, &known).or_else(|| results.get(&node).cloned());
            let Some(value) = value else { continue };
            if let Some(at) = first_non_finite(&value) {
                let operands = operands_at(f, node, &known, &at);
                let message = format!("the first {} is of {}{operands}", at.text(), f.label_at(node));
                return found(node, message, false);
            }
            known.insert(node, value);
        }
        let computes: Vec<String> = self.nodes.iter().map(|&n| f.label_at(n)).collect();
        let message = format!("it stored a NaN or an infinity; it computes {}", computes.join(", "));
        NonFinite { kernel: self.kernel.clone(), message, node: None, from_outside: false }
    }
}

/// The value of a node whose operands are known, unless it cannot be computed.
fn evaluate(f: &Function, node: NodeId, known: &BTreeMap<NodeId, Literal>) -> Option<Literal> {
    let out = StaticType::of(f.graph.ty(node))?;
    let op = f.graph.op(node);
    if matches!(op, Op::Input(_) | Op::ReadState(_) | Op::ResultOf(_)) || !op.regions().is_empty() {
        return None;
    }
    let operands: Option<Vec<&Literal>> = f.graph.operands(node).iter().map(|o| known.get(o)).collect();
    Some(op.eval_results(&operands?, &out).ok()?.swap_remove(0))
}

/// An element that is not finite.
struct Found {
    position: usize,
    elements: usize,
    value: Scalar,
}

impl Found {
    fn text(&self) -> String {
        let what = if self.value.to_f64().is_nan() { "NaN" } else { "infinity" };
        if self.elements == 1 { what.to_owned() } else { format!("{what} (element {})", self.position) }
    }
}

fn first_non_finite(value: &Literal) -> Option<Found> {
    if !value.dtype().is_float() {
        return None;
    }
    let at = (0..value.len()).find(|&i| !value.get(i).to_f64().is_finite())?;
    Some(Found { position: at, elements: value.len(), value: value.get(at) })
}

/// The elements of a node's operands that an element of its value is made of, where they are at its position.
fn operands_at(f: &Function, node: NodeId, known: &BTreeMap<NodeId, Literal>, at: &Found) -> String {
    let operands = f.graph.operands(node);
    let elements: Vec<String> = operands
        .iter()
        .filter_map(|o| known.get(o).map(|v| (*o, v)))
        .filter(|(o, v)| v.len() == at.elements && f.graph.ty(*o).shape == f.graph.ty(node).shape)
        .map(|(o, v)| format!("{} where {}", v.get(at.position), f.label(o)))
        .collect();
    if elements.len() < operands.len() || elements.is_empty() {
        return String::new();
    }
    format!(", from {}", elements.join(" and "))
}

/// The value that a buffer holds.
fn literal(buffer: &Buffer, bytes: &[u8]) -> Literal {
    let size = buffer.dtype.size_bytes();
    let positions: Vec<usize> = graphc_ir::indices(&buffer.dims)
        .map(|index| index.iter().zip(&buffer.strides).map(|(i, s)| i * s).sum())
        .collect();
    Literal::from_fn(buffer.dtype, &buffer.dims, |i| read(bytes, positions[i] * size, buffer.dtype))
}
