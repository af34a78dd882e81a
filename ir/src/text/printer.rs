//! Writes the text form.

use super::plain_nan;
use super::{FORMAT_VERSION, is_ident, is_number, is_plain_name};
use crate::attr::AttrValue;
use crate::graph::NodeId;
use crate::init::Initializer;
use crate::literal::Literal;
use crate::module::{Function, Module};
use crate::ops::Op;
use crate::region::{MAX_REGION_DEPTH, Region};
use crate::scalar::Scalar;
use crate::types::{Dim, TensorType};
use std::collections::HashSet;
use std::fmt::{self, Write};

fn quoted(name: &str) -> String {
    let mut out = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out.push('"');
    out
}

/// A name after `@`.
fn plain(name: &str) -> String {
    if is_plain_name(name) { name.to_owned() } else { quoted(name) }
}

/// A name after `%`: digits alone are quoted, they number nodes without a name.
fn value_name(name: &str) -> String {
    if is_number(name) { quoted(name) } else { plain(name) }
}

fn word(word: &str) -> String {
    if is_ident(word) { word.to_owned() } else { quoted(word) }
}

fn write_type(out: &mut impl Write, ty: &TensorType) -> fmt::Result {
    write!(out, "{}[", ty.dtype)?;
    for (i, d) in ty.shape.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        match d {
            Dim::Const(n) => write!(out, "{n}")?,
            Dim::Named(n) => out.write_str(&word(n))?,
            Dim::Expr(_) => write!(out, "{d}")?,
        }
    }
    out.write_str("]")
}

fn write_scalar(out: &mut impl Write, v: Scalar) -> fmt::Result {
    match v {
        v if !v.to_f64().is_nan() => write!(out, "{v}"),
        v if v == plain_nan(v.dtype()) => out.write_str("nan"),
        v => write!(out, "nan({:#x})", v.bits()),
    }
}

fn write_literal(out: &mut impl Write, l: &Literal) -> fmt::Result {
    if let Some(v) = l.splat_value() {
        out.write_str("splat(")?;
        write_scalar(out, v)?;
        return out.write_str(")");
    }
    out.write_str("[")?;
    for i in 0..l.len() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_scalar(out, l.get(i))?;
    }
    out.write_str("]")
}

fn write_attr(out: &mut impl Write, value: &AttrValue, regions: &Regions) -> fmt::Result {
    match value {
        AttrValue::Region(r) => write!(out, "@{}", plain(regions.name(r))),
        AttrValue::Int(i) => write!(out, "{i}"),
        AttrValue::Expr(d) => write!(out, "{d}"),
        AttrValue::Word(w) => out.write_str(&word(w)),
        AttrValue::Literal(l) => write_literal(out, l),
        AttrValue::List(items) => {
            out.write_str("[")?;
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                write_attr(out, item, regions)?;
            }
            out.write_str("]")
        }
    }
}

fn write_init(out: &mut impl Write, init: &Initializer) -> fmt::Result {
    let (name, numbers) = init.parts();
    write!(out, "{name}(")?;
    for (i, v) in numbers.into_iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_scalar(out, Scalar::F64(v))?;
    }
    out.write_str(")")
}

/// Text of every node's name after `%`, and the name it stands for if it is not a number.
fn names(module: &Module, function: &Function) -> Vec<(String, Option<String>)> {
    let mut taken: HashSet<String> = module.state.iter().map(|s| s.name.to_string()).collect();
    let graph = &function.graph;
    let mut names = vec![(String::from("?"), None); graph.len()];
    let mut name = |id: NodeId, base: &str| {
        let mut unique = base.to_owned();
        let mut n = 1;
        while !taken.insert(unique.clone()) {
            unique = format!("{base}.{n}");
            n += 1;
        }
        if let Some(slot) = names.get_mut(id.index()) {
            *slot = (value_name(&unique), Some(unique));
        }
    };
    let inputs: HashSet<NodeId> = function.inputs.iter().copied().collect();
    for &id in function.inputs.iter().filter(|id| id.index() < graph.len()) {
        name(id, function.input_name(id));
    }
    for id in graph.ids().filter(|id| !inputs.contains(id)) {
        match (graph.op(id), &graph.node(id).origin.name) {
            (Op::ReadState(_), _) | (_, None) => {}
            (_, Some(n)) => name(id, n),
        }
    }
    let mut number = 0;
    for id in graph.ids().filter(|id| !inputs.contains(id)) {
        let slot = &mut names[id.index()];
        if let Op::ReadState(r) = graph.op(id) {
            if let Some(s) = module.state.get(r.state.index()) {
                *slot = (value_name(&s.name), Some(s.name.to_string()));
            }
        } else if slot.1.is_none() {
            *slot = (number.to_string(), None);
            number += 1;
        }
    }
    names
}

/// The regions of functions, inner ones first, each with the name it is written with.
#[derive(Default)]
struct Regions {
    named: Vec<(Region, String)>,
    taken: HashSet<String>,
}

impl Regions {
    fn of<'a>(functions: impl IntoIterator<Item = &'a Function>) -> Self {
        let mut regions = Self::default();
        functions.into_iter().for_each(|f| regions.collect(f, 0));
        regions
    }

    fn collect(&mut self, f: &Function, depth: usize) {
        for region in f.graph.ids().flat_map(|id| f.graph.op(id).regions()) {
            if depth > MAX_REGION_DEPTH || self.named.iter().any(|(r, _)| r == region) {
                continue;
            }
            self.collect(region.function(), depth + 1);
            let base = &region.function().name;
            let mut unique = base.to_string();
            let mut n = 1;
            while !self.taken.insert(unique.clone()) {
                unique = format!("{base}.{n}");
                n += 1;
            }
            self.named.push((region.clone(), unique));
        }
    }

    fn name(&self, region: &Region) -> &str {
        self.named.iter().find(|(r, _)| r == region).map_or("?", |(_, name)| name)
    }

    fn write(&self, out: &mut impl Write, module: &Module) -> fmt::Result {
        for (region, name) in &self.named {
            write_function(out, module, region.function(), ("region", name), self)?;
            out.write_str("\n")?;
        }
        Ok(())
    }
}

fn write_function(
    out: &mut impl Write,
    module: &Module,
    function: &Function,
    (keyword, title): (&str, &str),
    regions: &Regions,
) -> fmt::Result {
    let names = names(module, function);
    let unknown = (String::from("?"), None);
    let name = |id: NodeId| names.get(id.index()).unwrap_or(&unknown);
    let graph = &function.graph;
    write!(out, "{keyword} @{}(", plain(title))?;
    for (i, &id) in function.inputs.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write!(out, "%{}: ", name(id).0)?;
        if id.index() < graph.len() {
            write_type(out, graph.ty(id))?;
        }
    }
    out.write_str(") {\n")?;
    let inputs: HashSet<NodeId> = function.inputs.iter().copied().collect();
    for id in graph.ids() {
        let node = graph.node(id);
        if inputs.contains(&id) || matches!(node.op, Op::ReadState(_)) {
            continue;
        }
        write!(out, "  %{} = {}", name(id).0, node.op.name())?;
        let operands = graph.operands(id);
        if !operands.is_empty() {
            out.write_str("(")?;
            for (i, &o) in operands.iter().enumerate() {
                write!(out, "{}%{}", if i > 0 { ", " } else { "" }, name(o).0)?;
            }
            out.write_str(")")?;
        }
        let attrs = node.op.attrs();
        if !attrs.is_empty() {
            out.write_str(" {")?;
            for (i, (key, value)) in attrs.iter().enumerate() {
                write!(out, "{}{key} = ", if i > 0 { ", " } else { "" })?;
                write_attr(out, value, regions)?;
            }
            out.write_str("}")?;
        }
        out.write_str(" : ")?;
        write_type(out, &node.ty)?;
        if let Some(scope) = &node.origin.scope {
            write!(out, " @{}", plain(scope))?;
        }
        out.write_str("\n")?;
    }
    for u in &function.updates {
        let state = module.state.get(u.state.index()).map_or("?".to_owned(), |s| value_name(&s.name));
        writeln!(out, "  update %{state} = %{}", name(u.value).0)?;
    }
    out.write_str("  return")?;
    for (i, o) in function.outputs.iter().enumerate() {
        out.write_str(if i > 0 { ", " } else { " " })?;
        let (text, own) = name(o.node);
        if own.as_deref() != Some(&*o.name) {
            write!(out, "{} = ", plain(&o.name))?;
        }
        write!(out, "%{text}")?;
    }
    out.write_str("\n}\n")
}

/// The text of one function of `module`, as it is in the text of the module, after that of its regions.
pub fn print_function(module: &Module, function: &Function) -> String {
    let mut out = String::new();
    let regions = Regions::of([function]);
    // Writing to a string does not fail.
    let _ = regions.write(&mut out, module);
    let _ = write_function(&mut out, module, function, ("fn", &function.name), &regions);
    out
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graphc {FORMAT_VERSION}")?;
        writeln!(f, "module @{}", plain(&self.name))?;
        for s in &self.state {
            write!(f, "{} %{}: ", if s.trainable { "param" } else { "state" }, value_name(&s.name))?;
            write_type(f, &s.ty)?;
            f.write_str(" = ")?;
            write_init(f, &s.init)?;
            f.write_str("\n")?;
        }
        let regions = Regions::of(&self.functions);
        if !regions.named.is_empty() {
            f.write_str("\n")?;
            regions.write(f, self)?;
        }
        for (i, function) in self.functions.iter().enumerate() {
            if i > 0 || regions.named.is_empty() {
                f.write_str("\n")?;
            }
            write_function(f, self, function, ("fn", &function.name), &regions)?;
        }
        Ok(())
    }
}
