//! The text form of kernel IR and of programs, for dumps. It is not read back.
//!
//! ```text
//! kernel k2_reduce_sum [i0: 32 | i1: 10] computes n3 n4
//!   %0 = load b0[i0, i1] : f32
//!   %1 = mul %0, 2.0 : f32
//!   r0 = sum %1
//!   store b1[i0] = r0 : f32 n4
//! ```
//!
//! Outer variables come before the bar, inner ones after it. Reductions and inner stores of later
//! stages say so. Expressions are numbered as in
//! [`Exprs`]; those that nothing needs are left out. Nodes are `n` and their number.

use super::{BufferId, ContractionPart, ExprId, ExprOp, Exprs, Factor, Kernel, KernelBody, Updates};
use crate::program::{Buffer, Control, ControlKind, Place, Program, Step};
use crate::vector::print::{guards_text, index_text, reduce_name, scalar_text};
use graphc_ir::{IndexExpr, ScalarOp, Window, row_major_strides};
use std::cmp::Reverse;
use std::fmt::{self, Write};

/// The text of a kernel; `buffers` are the program's.
pub fn print_kernel(kernel: &Kernel, buffers: &[Buffer]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_kernel(&mut out, kernel, buffers);
    out
}

/// The buffers of a program and the order in which its kernels run.
pub fn print_program(p: &Program) -> String {
    let mut out = String::new();
    let _ = write_program(&mut out, p);
    out
}

fn write_program(out: &mut String, p: &Program) -> fmt::Result {
    let constants = p.constants.len();
    writeln!(out, "program {}: arena {} bytes, constants {constants} bytes", p.name, p.planned_bytes)?;
    // A buffer that fusion made superfluous has a number but no place.
    let used = used_buffers(p);
    for (i, b) in p.buffers.iter().enumerate().filter(|(i, _)| used[*i]) {
        writeln!(out, "  b{i}: {} {} n{}", buffer_type(b), b.place, b.node.index())?;
    }
    for step in &p.steps {
        match step {
            Step::Run(k) => {
                let name = p.kernels.get(*k).map_or("?", |k| k.name.as_str());
                write!(out, "  run {name}")?;
                if let Some(c) = p.controls.get(k) {
                    write!(out, ": {}", control_text(c))?;
                } else if let Some(s) = p.scheduled.get(*k) {
                    write!(out, ": {} units{}", s.units, if s.parallel { ", parallel" } else { "" })?;
                    if s.scratch > 0 {
                        write!(out, ", scratch {} bytes", s.scratch)?;
                    }
                }
                writeln!(out)?;
            }
            Step::Check { buffer, bound, site } => {
                writeln!(out, "  check b{buffer} in 0..{bound}, site {site}")?;
            }
        }
    }
    Ok(())
}

fn used_buffers(p: &Program) -> Vec<bool> {
    let mut used: Vec<bool> = p.buffers.iter().map(|b| !matches!(b.place, Place::Arena(_))).collect();
    let checked = p.steps.iter().filter_map(|s| match s {
        Step::Check { buffer, .. } => Some(*buffer),
        Step::Run(_) => None,
    });
    for b in p.kernels.iter().flat_map(|k| [k.reads(), k.writes()].concat()).chain(checked) {
        if let Some(u) = used.get_mut(b as usize) {
            *u = true;
        }
    }
    used
}

/// How regions run, with the names of their programs.
fn control_text(c: &Control) -> String {
    let names: Vec<&str> = c.bodies.iter().map(|b| b.assembled.program.name.as_str()).collect();
    match (&c.kind, names.as_slice()) {
        (ControlKind::Scan { length, reverse, .. }, [body]) => {
            format!("{length} steps{} of {body}", if *reverse { ", last first," } else { "" })
        }
        (ControlKind::While { .. }, [condition, body]) => format!("while {condition}: {body}"),
        (ControlKind::Cond, [then, otherwise]) => format!("{then} or {otherwise}"),
        (_, names) => names.join(", "),
    }
}

fn buffer_type(b: &Buffer) -> String {
    let dims: Vec<String> = b.dims.iter().map(ToString::to_string).collect();
    let mut text = format!("{}[{}]", b.dtype, dims.join(", "));
    if b.strides != row_major_strides(&b.dims) {
        let mut order: Vec<usize> = (0..b.dims.len()).collect();
        order.sort_by_key(|&d| Reverse(b.strides[d]));
        let order: Vec<String> = order.iter().map(ToString::to_string).collect();
        let _ = write!(text, " order {}", order.join(" "));
    }
    text
}

fn write_kernel(out: &mut String, k: &Kernel, buffers: &[Buffer]) -> fmt::Result {
    let extents = &k.space.extents;
    let outer = match &k.body {
        KernelBody::Loop { outer, .. } => *outer,
        KernelBody::ArgReduce { .. } | KernelBody::ArgSort { .. } | KernelBody::Cumulative { .. } => {
            extents.len().saturating_sub(1)
        }
        _ => extents.len(),
    };
    let mut space = variables(extents, 0..outer);
    if outer < extents.len() {
        space = format!("{space} | {}", variables(extents, outer..extents.len()));
    }
    let sources: String = k.sources.iter().map(|n| format!(" n{}", n.index())).collect();
    writeln!(out, "kernel {} [{}] computes{sources}", k.name, space.trim_start())?;
    if let KernelBody::Contraction(parts) = &k.body {
        for (i, part) in parts.iter().enumerate() {
            write_part(out, i, part)?;
        }
    }
    write_exprs(out, &k.exprs, &k.roots(), "  ")?;
    let name = |e: ExprId| operand(&k.exprs, e);
    let stages = k.stages();
    let stage = |e: ExprId| match k.stage(e, &stages) {
        0 => String::new(),
        s => format!(" in stage {s}"),
    };
    match &k.body {
        KernelBody::Loop { reductions, .. } => {
            for (i, (kind, value)) in reductions.iter().enumerate() {
                writeln!(out, "  r{i} = {} {}{}", reduce_name(*kind), name(*value), stage(*value))?;
            }
        }
        KernelBody::Contraction(_) => {}
        KernelBody::Cumulative { value, kind, axis, reverse, exclusive, out: to } => {
            let (order, others) =
                (if *reverse { " from the end" } else { "" }, if *exclusive { " before each" } else { "" });
            let (kind, value) = (reduce_name(*kind), name(*value));
            let described = described(buffers, *to);
            writeln!(out, "  cumulative {kind} of {value} along {axis}{order}{others} to b{to}{described}")?;
        }
        KernelBody::ArgSort { value, axis, descending, out: to } => {
            let order = if *descending { "descending" } else { "ascending" };
            let described = described(buffers, *to);
            writeln!(out, "  argsort {} along {axis} {order} to b{to}{described}", name(*value))?;
        }
        KernelBody::ArgReduce { value, largest, out: to } => {
            let op = if *largest { "argmax" } else { "argmin" };
            writeln!(out, "  {op} {} to b{to}{}", name(*value), described(buffers, *to))?;
        }
        KernelBody::Scatter(_) => {}
        KernelBody::SelectAndGather { window, x, values, out: to } => {
            let (shape, to_text) = (window_text(window), described(buffers, *to));
            writeln!(out, "  select_and_gather {shape}: b{x}, b{values} to b{to}{to_text}")?;
        }
        KernelBody::SelectAndScatter { window, x, ct, out: to } => {
            let (shape, to_text) = (window_text(window), described(buffers, *to));
            writeln!(out, "  select_and_scatter {shape}: b{x}, b{ct} to b{to}{to_text}")?;
        }
        KernelBody::Region { operands, results, workspace } => {
            let names = |all: &[BufferId]| all.iter().map(|b| format!("b{b}")).collect::<Vec<_>>().join(", ");
            let workspace = workspace.map_or(String::new(), |b| format!(" in b{b}"));
            writeln!(out, "  regions of {} to {}{workspace}", names(operands), names(results))?;
        }
    }
    for s in &k.stores {
        let (at, stage) = if s.inner { ("inner store", stage(s.value)) } else { ("store", String::new()) };
        let (index, value) = (list(&k.exprs, &s.index), name(s.value));
        writeln!(out, "  {at} b{}[{index}] = {value}{stage}{}", s.buffer, described(buffers, s.buffer))?;
    }
    match &k.body {
        KernelBody::Scatter(updates) => write_updates(out, updates),
        _ => Ok(()),
    }
}

fn window_text(w: &Window) -> String {
    format!("size {:?} strides {:?} padding {:?} dilation {:?}", w.size, w.strides, w.padding, w.dilation)
}

fn write_updates(out: &mut String, u: &Updates) -> fmt::Result {
    let rank = u.space.extents.len();
    writeln!(out, "  updates [{}]:", variables(&u.space.extents, 0..rank))?;
    write_exprs(out, &u.exprs, &u.roots(), "    ")?;
    writeln!(out, "    {} [{}] {}", u.combine.name(), list(&u.exprs, &u.index), operand(&u.exprs, u.value))
}

/// ` : f32[4, 8] n7`
fn described(buffers: &[Buffer], b: BufferId) -> String {
    buffers.get(b as usize).map_or_else(String::new, |b| format!(" : {} n{}", buffer_type(b), b.node.index()))
}

fn write_part(out: &mut String, i: usize, p: &ContractionPart) -> fmt::Result {
    write!(out, "  part {i}:")?;
    let mut first = 0;
    for (name, rank) in ["batch", "m", "n", "k"].into_iter().zip(p.ranks) {
        write!(out, " {name} [{}]", variables(&p.space.extents, first..first + rank))?;
        first += rank;
    }
    writeln!(out)?;
    write_factor(out, "lhs", &p.lhs)?;
    write_factor(out, "rhs", &p.rhs)?;
    writeln!(out, "    out [{}]", list(&p.lhs.exprs, &p.out))
}

fn write_factor(out: &mut String, name: &str, f: &Factor) -> fmt::Result {
    writeln!(out, "    {name} {}:", operand(&f.exprs, f.value))?;
    write_exprs(out, &f.exprs, &[f.value], "      ")
}

/// One line for each expression that `roots` need and that is not spelled out where it is used.
fn write_exprs(out: &mut String, exprs: &Exprs, roots: &[ExprId], indent: &str) -> fmt::Result {
    let needed = exprs.needed(roots);
    let dynamic = |d: u32| dynamic_name(exprs, d);
    for (id, e) in exprs.iter().filter(|(id, _)| needed[*id as usize]) {
        let text = match &e.op {
            ExprOp::Scalar(ScalarOp::Const(_)) | ExprOp::Reduced(_) => continue,
            ExprOp::Load { buffer, index, guards } => {
                format!("load b{buffer}[{}]{}", list(exprs, index), guards_text(guards, &dynamic))
            }
            ExprOp::Index(x) => format!("index {}", index_text(x, &dynamic)),
            ExprOp::Guard(guards) => format!("guard{}", guards_text(guards, &dynamic)),
            ExprOp::Scalar(op) => {
                let args: Vec<String> = e.args.iter().map(|&a| operand(exprs, a)).collect();
                scalar_text(*op, &args)
            }
        };
        writeln!(out, "{indent}%{id} = {text} : {}", e.dtype)?;
    }
    Ok(())
}

/// An expression where it is used: constants and results of reductions are spelled out.
fn operand(exprs: &Exprs, id: ExprId) -> String {
    match &exprs.get(id).op {
        ExprOp::Scalar(ScalarOp::Const(c)) => c.to_string(),
        ExprOp::Reduced(i) => format!("r{i}"),
        _ => format!("%{id}"),
    }
}

fn dynamic_name(exprs: &Exprs, d: u32) -> String {
    exprs.dynamics.get(d as usize).map_or_else(|| format!("d{d}"), |(value, _)| operand(exprs, *value))
}

fn list(exprs: &Exprs, index: &[IndexExpr]) -> String {
    let each: Vec<String> = index.iter().map(|e| index_text(e, &|d| dynamic_name(exprs, d))).collect();
    each.join(", ")
}

fn variables(extents: &[i64], range: std::ops::Range<usize>) -> String {
    let each: Vec<String> =
        range.map(|v| format!("i{v}: {}", extents.get(v).copied().unwrap_or(-1))).collect();
    each.join(", ")
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arena(at) => write!(f, "arena@{at}"),
            Self::State(at) => write!(f, "state@{at}"),
            Self::Constant(at) => write!(f, "constant@{at}"),
            Self::Input(i) => write!(f, "input {i}"),
            Self::Output(i) => write!(f, "output {i}"),
        }
    }
}
