//! What the page shows, as JSON.

use crate::profile::Measured;
use graphc::compiler::kernel::print::print_kernel;
use graphc::compiler::program::Step;
use graphc::compiler::vector::print::print_function as print_vector;
use graphc::compiler::{Assembled, disassemble};
use graphc::ir::attr::AttrValue;
use graphc::ir::{NodeId, Op};
use graphc::{Bindings, Function, Module};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Elements of a constant that are shown.
const SHOWN: usize = 8;

/// Everything about one compiled and measured function.
pub(super) fn report(
    module: &Module,
    f: &Function,
    bindings: &Bindings,
    m: &Measured,
    source: (&Path, &str),
) -> Value {
    let programs = m.stages.programs();
    let mut kernels = Vec::new();
    let mut shown = Vec::new();
    for (f, a) in &programs {
        let first = kernels.len();
        let name = &a.program.name;
        for (i, step) in a.program.steps.iter().enumerate() {
            kernels.push(kernel(m, a, f, shown.len(), *step, first + i));
        }
        let of_node = kernel_of_node(f, a, first);
        shown.push(json!({
            "name": name,
            "graph": graph(module, f, &Marks { changed: &[], kernels: &of_node }),
            "memory": memory(a, first),
            "steps": [first, kernels.len()],
        }));
    }
    json!({
        "module": &*module.name,
        "function": &*f.name,
        "bindings": bindings.to_string(),
        "file": source.0.display().to_string(),
        "source": source.1,
        "isa": m.isa.to_string(),
        "threads": m.threads,
        "cpu": m.machine.cpu,
        "compileMs": m.stages.total_time().as_secs_f64() * 1e3,
        "runs": m.times.runs,
        "runUs": m.run_us(),
        "accounted": m.times.accounted(),
        "stages": stages(module, m),
        "programs": shown,
        "kernels": kernels,
        "roof": roof(m),
    })
}

/// Peaks of the machine for the measured number of threads.
fn roof(m: &Measured) -> Value {
    let levels: Vec<Value> = m
        .machine
        .memory
        .iter()
        .filter(|level| level.threads == m.machine.memory[0].threads)
        .map(|level| {
            let bytes = level.bytes.unwrap_or(usize::MAX / 2);
            json!({ "level": level.level, "gbs": m.machine.gb_s(bytes, m.threads) })
        })
        .collect();
    json!({ "gflops": m.machine.gflops(m.isa, m.threads), "levels": levels })
}

/// The function as declared, after each pass that changed it, with what is new marked.
fn stages(module: &Module, m: &Measured) -> Vec<Value> {
    let mut before = &m.stages.bound;
    let none = Marks { changed: &[], kernels: &[] };
    let mut stages = vec![json!({
        "name": "declared",
        "note": format!("{} nodes", before.graph.len()),
        "graph": graph(module, before, &none),
    })];
    for pass in m.stages.passes.iter().filter(|p| p.changed) {
        let Some(after) = &pass.after else { continue };
        let marks = changed(before, after);
        let count = marks.iter().filter(|&&m| m).count();
        let note =
            format!("{} → {} nodes, {count} new or with other operands", pass.nodes_before, pass.nodes_after);
        let marks = Marks { changed: &marks, kernels: &[] };
        let (name, us) = (pass.name, pass.elapsed_ns as f64 / 1e3);
        stages.push(json!({ "name": name, "note": note, "us": us, "graph": graph(module, after, &marks) }));
        before = after;
    }
    stages
}

/// Which nodes of `after` are not in `before` with the same operands: as far as they themselves look the same.
fn changed(before: &Function, after: &Function) -> Vec<bool> {
    let keys = |f: &Function| -> Vec<(String, Vec<String>)> {
        let own = |id: NodeId| {
            let node = f.graph.node(id);
            format!("{} {} {:?}", operation(&node.op), node.ty, node.origin.loc)
        };
        let of = |id: NodeId| (own(id), f.graph.operands(id).iter().map(|&o| own(o)).collect());
        f.graph.ids().map(of).collect()
    };
    let mut known: HashMap<(String, Vec<String>), usize> = HashMap::new();
    keys(before).into_iter().for_each(|key| *known.entry(key).or_default() += 1);
    let is_new = |key| match known.get_mut(&key) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    keys(after).into_iter().map(is_new).collect()
}

/// What is known of nodes besides the graph, by position; empty if nothing is.
struct Marks<'a> {
    changed: &'a [bool],
    kernels: &'a [Option<usize>],
}

/// Nodes as `[operation, name, attributes, type, scope, line, operands, phase, changed, kernel]`.
fn graph(module: &Module, f: &Function, marks: &Marks<'_>) -> Value {
    let g = &f.graph;
    let phases = phases(f);
    let nodes: Vec<Value> = g
        .ids()
        .map(|id| {
            let (i, node) = (id.index(), g.node(id));
            let name = match &node.op {
                Op::ReadState(r) => Some(module.state[r.state.index()].name.clone()),
                _ => node.origin.name.clone(),
            };
            let operands: Vec<usize> = g.operands(id).iter().map(|o| o.index()).collect();
            json!([
                node.op.name(),
                name.as_deref(),
                attributes(&node.op),
                node.ty.to_string(),
                node.origin.scope.as_deref(),
                node.origin.loc.as_ref().map(ToString::to_string),
                operands,
                phases[i],
                marks.changed.get(i).copied().unwrap_or(false),
                marks.kernels.get(i).copied().flatten(),
            ])
        })
        .collect();
    let outputs: Vec<Value> = f.outputs.iter().map(|o| json!([&*o.name, o.node.index()])).collect();
    let updates: Vec<Value> =
        f.updates.iter().map(|u| json!([&*module.state[u.state.index()].name, u.value.index()])).collect();
    json!({ "nodes": nodes, "outputs": outputs, "updates": updates })
}

/// 0 for what the outputs need: the forward part; 1 for the rest, which only updates of state need. Of a
/// gradient, the first output is what is differentiated.
fn phases(f: &Function) -> Vec<u8> {
    let mut phases = vec![1; f.graph.len()];
    let gradient = f.name.ends_with(".grad");
    let outputs = if gradient { 1 } else { f.outputs.len() };
    let mut work: Vec<NodeId> = f.outputs.iter().take(outputs).map(|o| o.node).collect();
    while let Some(id) = work.pop() {
        if std::mem::replace(&mut phases[id.index()], 0) == 1 {
            work.extend(f.graph.operands(id));
        }
    }
    phases
}

fn operation(op: &Op) -> String {
    format!("{} {}", op.name(), attributes(op))
}

fn attributes(op: &Op) -> String {
    match op {
        Op::Input(_) | Op::ReadState(_) => String::new(),
        op => {
            let attrs = op.attrs();
            let each = attrs.iter().map(|(name, value)| format!("{name} = {}", attribute(value)));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

fn attribute(value: &AttrValue) -> String {
    match value {
        AttrValue::Int(i) => i.to_string(),
        AttrValue::Expr(d) => d.to_string(),
        AttrValue::Region(r) => format!("@{}", r.function().name),
        AttrValue::Word(w) => w.clone(),
        AttrValue::List(items) => format!("[{}]", items.iter().map(attribute).collect::<Vec<_>>().join(", ")),
        AttrValue::Literal(l) => {
            let shown: Vec<String> = (0..l.len().min(SHOWN)).map(|i| l.get(i).to_string()).collect();
            shown.join(", ") + if l.len() > SHOWN { ", .." } else { "" }
        }
    }
}

/// The step that computes each node: the one whose own it is, else the first that it is fused into.
fn kernel_of_node(f: &Function, a: &Assembled, first: usize) -> Vec<Option<usize>> {
    let mut of_node = vec![None; f.graph.len()];
    let runs = || {
        let steps = a.program.steps.iter().enumerate();
        steps.filter_map(|(i, s)| if let Step::Run(k) = *s { Some((first + i, k)) } else { None })
    };
    for (step, k) in runs() {
        for node in &a.program.kernels[k].sources {
            // What packs an operand names the node that it is for; the kernel of that comes later.
            of_node[node.index()] = Some(step);
        }
    }
    for (step, k) in runs() {
        a.nodes_of(f, k).0.iter().for_each(|n| _ = of_node[n.index()].get_or_insert(step));
    }
    of_node
}

fn kernel(m: &Measured, a: &Assembled, f: &Function, program: usize, step: Step, at: usize) -> Value {
    let info = &m.times.steps[at];
    let code = m.stages.code.iter().find(|c| c.name == info.name);
    let row = m.rows().iter().find(|r| r.step == at);
    let mut value = json!({
        "name": info.name,
        "program": program,
        "flops": info.flops,
        "bytes": info.bytes,
        "parallel": info.parallel,
        "clif": code.map(|c| c.clif.as_str()).unwrap_or_default(),
        "asm": code.map(|c| disassemble(&c.code, &c.notes)).unwrap_or_default(),
        "codeBytes": code.map_or(0, |c| c.code.len()),
    });
    if let Some(r) = row {
        value["count"] = r.count.into();
        value["us"] = r.us.into();
        value["share"] = r.share.into();
        value["gflops"] = r.gflops.into();
        value["gbs"] = r.gb_s.into();
        value["bound"] = r.bound_us.into();
        value["limit"] = r.limit.into();
    }
    match step {
        Step::Run(k) => {
            let (p, kernel) = (&a.program, &a.program.kernels[k]);
            let scheduled = &p.scheduled[k];
            let nodes: Vec<usize> = a.nodes_of(f, k).0.iter().map(|n| n.index()).collect();
            value["nodes"] = nodes.into();
            value["ir"] = print_kernel(kernel, &p.buffers).into();
            value["units"] = scheduled.units.into();
            value["scratch"] = scheduled.scratch.into();
            if scheduled.units > 0 {
                value["vector"] = print_vector(&scheduled.function).into();
            }
            let bodies = p.controls.get(&k).into_iter().flat_map(|c| &c.bodies);
            let bodies: Vec<&str> = bodies.map(|b| b.assembled.program.name.as_str()).collect();
            value["bodies"] = bodies.into();
        }
        Step::Check { buffer, bound, site } => {
            value["nodes"] = json!([]);
            value["ir"] = format!("check b{buffer} in 0..{bound}, site {site}\n").into();
        }
    }
    value
}

/// The plan of a program's arena: buffers with their lifetimes in steps.
fn memory(a: &Assembled, first: usize) -> Value {
    let buffers: Vec<Value> = a
        .requests
        .iter()
        .zip(&a.plan.offsets)
        .zip(&a.plan.shared_with)
        .map(|((r, &offset), shared)| {
            json!({ "at": offset, "bytes": r.bytes, "first": first + r.first, "last": first + r.end(),
                    "label": r.label, "inPlace": shared.is_some() })
        })
        .collect();
    json!({ "bytes": a.plan.bytes, "lower": a.plan.lower_bound, "peak": first + a.plan.peak_step, "buffers": buffers })
}
