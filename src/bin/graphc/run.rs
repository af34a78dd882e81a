//! `graphc run`: compiles a function and runs it on given or made-up inputs.

use super::{Failure, Out, dump, load};
use graphc::ir::{Native, Scalar, ScalarBuilder, math};
use graphc::runtime::Elements;
use graphc::{CompileOptions, Function, Module, Session, Value};
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc run model.gir --fn predict --bind B=1
  graphc run model.gir --fn train_step --steps 20 --input y=0,1,2")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    #[command(flatten)]
    inputs: Inputs,
    /// How many times to run it: state carries over
    #[arg(long, default_value_t = 1)]
    steps: usize,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
    /// Level of optimization, 0 to 3
    #[arg(short = 'O', default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    opt: u8,
    /// Stops at the first kernel that stores a NaN or an infinity, and names the node that made it
    #[arg(long)]
    nan_guard: bool,
}

/// Arguments that give inputs.
#[derive(clap::Args)]
pub(super) struct Inputs {
    /// Values of an input, repeated to fill it. Without them floats are uniform on [0, 1),
    /// integers 0 and truth values false
    #[arg(long, value_name = "NAME=V,V,..", value_parser = values)]
    input: Vec<(String, Vec<f64>)>,
    /// Seed of the initial state and of inputs that are not given
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

impl Inputs {
    /// Values of every input of `f`, whose dimensions are numbers, by name.
    pub(super) fn of(&self, f: &Function) -> Result<Vec<(String, Elements)>, Failure> {
        let known = |name: &str| f.inputs.iter().any(|&i| f.input_name(i) == name);
        if let Some((unknown, _)) = self.input.iter().find(|(n, _)| !known(n)) {
            let known = load::list(f.inputs.iter().map(|&i| f.input_name(i)));
            let message = format!("function `{}` has no input `{unknown}`; its inputs: {known}", f.name);
            return Err(Failure::Usage(message));
        }
        Ok(inputs(&self.input, self.seed, f))
    }
}

fn values(text: &str) -> Result<(String, Vec<f64>), String> {
    let (name, list) = text.split_once('=').ok_or("expected NAME=V,V,.., such as x=1,2.5")?;
    let numbers = list.split(',').map(|v| v.trim().parse().map_err(|_| format!("`{v}` is not a number")));
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    if numbers.is_empty() { Err("no values".to_owned()) } else { Ok((name.to_owned(), numbers)) }
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut module = load::module(&args.selection.file)?;
    let f = args.selection.first(&module)?;
    let bindings = args.selection.bindings(&module, &f)?;
    let bound = f.bind(&bindings).map_err(Failure::other)?;
    if module.function(&f.name).is_none() {
        module.functions.push(f.clone());
    }
    let inputs = args.inputs.of(&bound)?;
    let mut session = session(args, module)?;
    let named: Vec<(&str, Value<'_>)> = inputs.iter().map(|(n, h)| (n.as_str(), h.value())).collect();
    let dims: Vec<(&str, usize)> = bindings.iter().collect();
    for step in 0..args.steps {
        let outputs = session.run_with(&f.name, &dims, &named).map_err(Failure::other)?;
        for (name, ty, value) in outputs.iter() {
            let ty = graphc::TensorType::new(ty.dtype, ty.dims.as_slice());
            if out.json() {
                let ty = ty.to_string();
                out.value(&json!({ "step": step, "name": name, "type": ty, "values": numbers(value) }))?;
                continue;
            }
            if args.steps > 1 {
                write!(out, "step {step}: ")?;
            }
            writeln!(out, "{name} : {ty} = {}", summary(value))?;
        }
    }
    Ok(())
}

fn session(args: &Args, module: Module) -> Result<Session, Failure> {
    let pool = load::pool(args.threads)?;
    let options = CompileOptions { nan_guard: args.nan_guard, ..CompileOptions::at(dump::level(args.opt)) };
    Session::with(module, args.inputs.seed, pool, options).map_err(Failure::other)
}

/// Given or made-up values of every input of `f`, whose dimensions are numbers, by name.
pub(super) fn inputs(given: &[(String, Vec<f64>)], seed: u64, f: &Function) -> Vec<(String, Elements)> {
    f.inputs
        .iter()
        .enumerate()
        .map(|(stream, &id)| {
            let ty = f.graph.ty(id);
            let n = ty.shape.num_elements().unwrap_or(0);
            let name = f.input_name(id).to_owned();
            let given = given.iter().rev().find(|(other, _)| *other == name).map(|i| &i.1);
            let host = Elements::from_fn(ty.dtype, n, |i| match given {
                Some(values) => values[i % values.len()],
                None if ty.dtype.is_float() => uniform(seed, stream, i),
                None => 0.0,
            });
            (name, host)
        })
        .collect()
}

/// Uniform on [0, 1), from Philox keyed by the seed.
fn uniform(seed: u64, stream: usize, i: usize) -> f64 {
    let word = |v: u64| Scalar::I32(v as u32 as i32);
    let counter = [word(i as u64), word(i as u64 >> 32), word(stream as u64), word(0)];
    let bits = math::philox4x32_10(&mut Native, counter, [word(seed), word(seed >> 32)])[0];
    let low = Native.i32(0x00ff_ffff);
    Native.and(bits, low).to_f64() / f64::from(1 << 24)
}

/// The first elements of a value.
fn summary(value: Value<'_>) -> String {
    fn list<T: std::fmt::Debug>(v: &[T]) -> String {
        let shown: Vec<String> = v.iter().take(8).map(|x| format!("{x:?}")).collect();
        let more = if v.len() > 8 { ", .." } else { "" };
        format!("[{}{more}]", shown.join(", "))
    }
    match value {
        Value::F32(v) => list(v),
        Value::F64(v) => list(v),
        Value::I32(v) => list(v),
        Value::I64(v) => list(v),
        Value::Bool(v) => list(v),
        Value::U8(v) => list(v),
        Value::BF16(v) => list(v),
        Value::F16(v) => list(v),
    }
}

/// All elements of a value; what is not finite becomes null.
fn numbers(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::F32(v) => v.into(),
        Value::F64(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::I64(v) => v.into(),
        Value::Bool(v) => v.into(),
        Value::U8(v) => v.into(),
        Value::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
        Value::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
    }
}
