//! `graphc dump`: the stages of the compiler as text.

use super::{Failure, Out, load, output};
use clap::ValueEnum;
use graphc::compiler::kernel::print::{print_kernel, print_program};
use graphc::compiler::vector::print::print_function as print_vector;
use graphc::compiler::{
    Assembled, PassOptions, PassRecord, Stages, compile_function, disassemble, object, report, state_layout,
};
use graphc::ir::print_function;
use graphc::{CompileOptions, Function, Isa, Module, OptLevel};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stage of the compiler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Emit {
    /// The functions as declared
    Graph,
    /// The backward graph of each function whose first output is a float scalar
    Grad,
    /// What each pass did, and the function after the last
    Passes,
    /// Which operations became one kernel, and what it reads of others
    Clusters,
    /// Kernel IR: buffers, steps, index spaces and expressions
    Kernels,
    /// Vector IR: loops around lane-wise code
    Vector,
    /// Cranelift IR, of what Cranelift compiles
    Clif,
    /// Machine code
    Asm,
    /// Memory: peak, lower bound, buffers alive at the peak, map of the arena
    Plan,
    /// How long each stage of the compiler took
    Times,
    /// The graph for Graphviz
    Dot,
    /// An object file with 128-bit code for `--target`, written to `--output`
    Object,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc dump model.gir
  graphc dump model.gir --fn loss.grad --emit kernels --bind B=64
  graphc dump model.gir --fn loss --emit asm --isa avx2")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// The stage
    #[arg(long, value_enum, default_value = "graph")]
    emit: Emit,
    /// Level of optimization, 0 to 3
    #[arg(short = 'O', default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    opt: u8,
    /// With `--emit passes`: also print the function after each pass whose name contains this
    /// (`all` for every one)
    #[arg(long, value_name = "PASS")]
    dump_after: Option<String>,
    /// Vector instructions: sse (128-bit, by Cranelift), avx2 or avx512; this machine's by default
    #[arg(long, value_parser = Isa::by_name)]
    isa: Option<Isa>,
    /// With `--emit object`: the machine, such as aarch64-unknown-linux-gnu
    #[arg(long, value_name = "TRIPLE", default_value = "x86_64-unknown-linux-gnu")]
    target: String,
    /// With `--emit object`: the file
    #[arg(short, long, value_name = "FILE", required_if_eq("emit", "object"))]
    output: Option<PathBuf>,
}

pub(super) fn level(opt: u8) -> OptLevel {
    [OptLevel::O0, OptLevel::O1, OptLevel::O2, OptLevel::O3][usize::from(opt.min(3))]
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.selection.file)?;
    let functions = args.selection.functions(&module)?;
    if args.emit == Emit::Object {
        return match functions.as_slice() {
            [f] => object_file(&module, f, args, out),
            _ => Err(Failure::Usage("an object file has one function: name it with `--fn`".to_owned())),
        };
    }
    if args.emit == Emit::Graph && args.selection.function.is_none() && !out.json() {
        return Ok(write!(out, "{module}")?);
    }
    let functions = if args.emit == Emit::Grad { gradients(&module, args, functions)? } else { functions };
    for f in &functions {
        if out.json() {
            let mut text = Vec::new();
            stage(&module, f, args, &mut text)?;
            let text = String::from_utf8_lossy(&text);
            let emit = args.emit.to_possible_value().map(|v| v.get_name().to_owned());
            out.value(&json!({ "function": *f.name, "emit": emit, "text": text }))?;
        } else {
            stage(&module, f, args, out)?;
        }
    }
    Ok(())
}

/// Shows one stage of a function.
fn stage(module: &Module, f: &Function, args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    match args.emit {
        Emit::Graph | Emit::Grad => Ok(write!(out, "{}", print_function(module, f))?),
        Emit::Dot => dot(module, f, out),
        _ => compiled(module, f, args, out),
    }
}

/// Writes the object file of a function.
fn object_file(module: &Module, f: &Function, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let bindings = args.selection.bindings(module, f)?;
    let options = CompileOptions {
        passes: PassOptions::at(level(args.opt)),
        isa: Isa::Portable,
        ..CompileOptions::default()
    };
    let layout = Arc::new(state_layout(module).map_err(Failure::other)?);
    let (_, stages) = compile_function(f, &layout, &bindings, &options).map_err(Failure::other)?;
    let bytes = object(&stages.assembled.program, &args.target).map_err(Failure::other)?;
    let path = args.output.as_deref().unwrap_or(Path::new("graphc.o"));
    output::file(path, &bytes)?;
    if out.json() {
        let entry = format!("entry.{}", f.name);
        return out
            .value(&json!({ "file": path.display().to_string(), "bytes": bytes.len(), "entry": entry }));
    }
    writeln!(out, "{}: {} bytes for {}, entry `entry.{}`", path.display(), bytes.len(), args.target, f.name)?;
    Ok(())
}

/// The gradient of each function that has one; a function asked for by name must have one.
fn gradients(module: &Module, args: &Args, functions: Vec<Function>) -> Result<Vec<Function>, Failure> {
    let has_loss = |f: &Function| f.outputs.first().is_some_and(|o| load::is_measure(f, o));
    let named = args.selection.function.is_some();
    let gradient = |f: Function| match f.name.strip_suffix(".grad") {
        Some(_) if named => Ok(f),
        _ => load::gradient(module, &f.name, &[]),
    };
    let gradients: Vec<Function> =
        functions.into_iter().filter(|f| named || has_loss(f)).map(gradient).collect::<Result<_, _>>()?;
    if gradients.is_empty() {
        return Err(Failure::Other("no function has a float scalar as its first output".to_owned()));
    }
    Ok(gradients)
}

/// Compiles a function and shows one stage.
fn compiled(module: &Module, f: &Function, args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let bindings = args.selection.bindings(module, f)?;
    let passes = PassOptions { dump_after: args.dump_after.clone(), ..PassOptions::at(level(args.opt)) };
    let options = CompileOptions {
        passes,
        keep_code: true,
        isa: args.isa.unwrap_or_default(),
        ..CompileOptions::default()
    };
    let layout = Arc::new(state_layout(module).map_err(Failure::other)?);
    let (executable, s) = compile_function(f, &layout, &bindings, &options).map_err(Failure::other)?;
    let bound = if bindings.iter().next().is_none() { String::new() } else { format!(" with {bindings}") };
    writeln!(out, "; fn @{}{bound}, compiled in {:.2} ms", f.name, s.total_time().as_secs_f64() * 1e3)?;
    // The regions of loops and branches are programs of their own, shown before those that run them.
    let programs = s.programs();
    let p = &s.assembled.program;
    match args.emit {
        Emit::Times => {
            for (stage, time) in &s.times {
                writeln!(out, "{stage:>10} {:>9.3} ms", time.as_secs_f64() * 1e3)?;
            }
            let kernels: usize = programs.iter().map(|(_, a)| a.program.kernels.len()).sum();
            writeln!(out, "{kernels} kernels, {} bytes of code", s.code_bytes)?;
        }
        Emit::Passes => passes_table(module, &s, out)?,
        Emit::Clusters => clusters(&programs, out)?,
        Emit::Kernels => {
            for (i, (f, a)) in programs.iter().enumerate() {
                let p = &a.program;
                write!(out, "{}{}", if i > 0 { "\n" } else { "" }, print_program(p))?;
                for (k, kernel) in p.kernels.iter().enumerate() {
                    writeln!(out)?;
                    for node in a.nodes_of(f, k).0 {
                        writeln!(out, "; n{} {}", node.index(), f.label_at(node))?;
                    }
                    write!(out, "{}", print_kernel(kernel, &p.buffers))?;
                }
            }
        }
        Emit::Vector => {
            for s in programs.iter().flat_map(|(_, a)| &a.program.scheduled).filter(|s| s.units > 0) {
                writeln!(out, "{}", print_vector(&s.function))?;
            }
        }
        Emit::Clif => {
            for c in s.code.iter().filter(|c| !c.clif.is_empty()) {
                writeln!(out, "; {}\n{}", c.name, c.clif)?;
            }
        }
        Emit::Asm => {
            for c in &s.code {
                writeln!(out, "{}: ; {} bytes", c.name, c.code.len())?;
                let kernel = programs
                    .iter()
                    .find_map(|(f, a)| a.program.kernels.iter().find(|k| k.name == c.name).map(|k| (f, k)));
                for (f, node) in kernel.iter().flat_map(|(f, k)| k.sources.iter().map(move |&n| (f, n))) {
                    writeln!(out, "  ; {}", f.label_at(node))?;
                }
                writeln!(out, "{}", disassemble(&c.code, &c.notes))?;
            }
        }
        Emit::Plan => {
            writeln!(
                out,
                "total        {:>14} bytes: buffers, and {} bytes of scratch for each of {} workers",
                executable.arena_bytes(),
                p.scratch_stride,
                executable.max_threads()
            )?;
            writeln!(
                out,
                "state        {:>14} bytes, constants {} bytes",
                layout.bytes(),
                p.constants.len()
            )?;
            write!(out, "{}", report(&s.assembled.plan, &s.assembled.requests))?;
            for (_, a) in programs.iter().filter(|(_, a)| a.program.name != p.name) {
                writeln!(out, "\nregion {}, in the workspace of its kernel:", a.program.name)?;
                write!(out, "{}", report(&a.plan, &a.requests))?;
            }
        }
        Emit::Graph | Emit::Grad | Emit::Dot | Emit::Object => unreachable!("made without this"),
    }
    writeln!(out)?;
    Ok(())
}

/// Each kernel with the nodes that it computes and those of other kernels that it reads.
fn clusters(programs: &[(&Function, &Assembled)], out: &mut impl Write) -> Result<(), Failure> {
    for (f, a) in programs {
        for (k, kernel) in a.program.kernels.iter().enumerate() {
            let (computed, read) = a.nodes_of(f, k);
            writeln!(out, "cluster {}: {} nodes", kernel.name, computed.len())?;
            for node in read {
                writeln!(out, "  reads    {}", f.label(node))?;
            }
            for node in computed {
                writeln!(out, "  computes {}", f.label_at(node))?;
            }
        }
    }
    Ok(())
}

/// What a pass did to the number of nodes.
pub(super) fn effect(p: &PassRecord) -> String {
    if p.changed { format!("{} -> {} nodes", p.nodes_before, p.nodes_after) } else { "no change".to_owned() }
}

fn passes_table(module: &Module, s: &Stages, out: &mut impl Write) -> Result<(), Failure> {
    for p in &s.passes {
        let effect = effect(p);
        writeln!(out, "; {:<14} {effect:<22} {:>8.1} us", p.name, p.elapsed_ns as f64 / 1e3)?;
        if let Some(after) = &p.after {
            write!(out, "{}", print_function(module, after))?;
        }
    }
    for (stage, time) in &s.times {
        writeln!(out, "; stage {stage:<10} {:>8.1} us", time.as_secs_f64() * 1e6)?;
    }
    write!(out, "{}", print_function(module, &s.optimized))?;
    Ok(())
}

fn dot(module: &Module, f: &Function, out: &mut impl Write) -> Result<(), Failure> {
    let escape = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"");
    writeln!(out, "digraph \"{}\" {{\n  node [shape=box, fontname=\"monospace\"];", escape(&f.name))?;
    for id in f.graph.ids() {
        let node = f.graph.node(id);
        let label = match &node.op {
            graphc::ir::Op::ReadState(r) => module.state[r.state.index()].name.to_string(),
            op => node.origin.name.as_ref().map_or(op.name().to_owned(), |n| format!("{n} = {}", op.name())),
        };
        writeln!(out, "  n{} [label=\"{}\\n{}\"];", id.index(), escape(&label), node.ty)?;
        for o in f.graph.operands(id) {
            writeln!(out, "  n{} -> n{};", o.index(), id.index())?;
        }
    }
    for o in &f.outputs {
        writeln!(
            out,
            "  \"out {}\" [shape=plain];\n  n{} -> \"out {}\";",
            escape(&o.name),
            o.node.index(),
            escape(&o.name)
        )?;
    }
    for u in &f.updates {
        let name = escape(&module.state[u.state.index()].name);
        writeln!(out, "  \"update {name}\" [shape=plain];\n  n{} -> \"update {name}\";", u.value.index())?;
    }
    writeln!(out, "}}")?;
    Ok(())
}
