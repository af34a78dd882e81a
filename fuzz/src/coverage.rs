//! What the modules of a run contained, and which parts of the compiler they reached.

use graphc::compiler::Stages;
use graphc::compiler::kernel::{Kernel, KernelBody};
use graphc::compiler::simplify_rules;
use graphc::{DType, Function, Module, TensorType};
use graphc_ir::Op;
use std::collections::{BTreeMap, BTreeSet};

/// Counters, by name.
#[derive(Default)]
pub(crate) struct Coverage {
    ops: BTreeMap<&'static str, u64>,
    /// Producer and consumer.
    pairs: BTreeMap<(&'static str, &'static str), u64>,
    rules: BTreeMap<&'static str, u64>,
    kernels: BTreeMap<&'static str, u64>,
    /// Types that each operation gave and took.
    gives: BTreeSet<(&'static str, Kind)>,
    takes: BTreeSet<(&'static str, Kind)>,
}

/// A type as far as pairs of operations need it: the element type, and whether it is a scalar.
type Kind = (DType, bool);

/// Kinds of kernels that [`kind`] tells apart.
const KERNELS: [&str; 14] = [
    "map",
    "fused map",
    "reduction",
    "fused reduction",
    "reductions in stages",
    "contraction",
    "contraction with epilogue",
    "arg reduce",
    "scatter",
    "select and gather",
    "select and scatter",
    "arg sort",
    "cumulative",
    "region",
];

/// Of modules with at least this many functions run, coverage is asserted.
const LARGE_RUN: u64 = 10_000;

impl Coverage {
    /// Counts operations and pairs of them.
    pub(crate) fn module(&mut self, m: &Module) {
        m.functions.iter().for_each(|f| self.function(f));
    }

    fn function(&mut self, f: &Function) {
        for id in f.graph.ids() {
            let op = f.graph.op(id);
            let kind = |ty: &TensorType| (ty.dtype, ty.rank() == 0);
            *self.ops.entry(op.name()).or_default() += 1;
            self.gives.insert((op.name(), kind(f.graph.ty(id))));
            for operand in f.graph.operands(id) {
                self.takes.insert((op.name(), kind(f.graph.ty(operand))));
                *self.pairs.entry((f.graph.op(operand).name(), op.name())).or_default() += 1;
            }
            op.regions().into_iter().for_each(|r| self.function(r.function()));
        }
    }

    /// Counts rules and kernels.
    pub(crate) fn stages(&mut self, s: &Stages) {
        for (rule, n) in s.passes.iter().flat_map(|p| &p.fired) {
            *self.rules.entry(rule).or_default() += *n as u64;
        }
        for k in &s.assembled.program.kernels {
            *self.kernels.entry(kind(k)).or_default() += 1;
        }
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            from.iter().for_each(|(k, n)| *to.entry(*k).or_default() += n);
        }
        sum(&mut self.ops, &other.ops);
        sum(&mut self.pairs, &other.pairs);
        sum(&mut self.rules, &other.rules);
        sum(&mut self.kernels, &other.kernels);
        self.gives.extend(&other.gives);
        self.takes.extend(&other.takes);
    }

    /// Ordered pairs of operations of which the first gave a type that the second took, from whatever
    /// operation. Only control flow has further results.
    fn possible_pairs(&self) -> BTreeSet<(&'static str, &'static str)> {
        let control = ["scan", "while", "cond", "call"];
        let takers = |kind: Kind| self.takes.iter().filter(move |t| t.1 == kind).map(|t| t.0);
        let pairs = self.gives.iter().flat_map(|&(from, kind)| takers(kind).map(move |to| (from, to)));
        pairs.filter(|(from, to)| *to != "result" || control.contains(from)).collect()
    }

    /// Prints all counters; false if a large run has not reached what it should: every operation, every rule and
    /// kind of kernel once in 1,000 modules, and 95 % of the pairs that types allow.
    pub(crate) fn report(&self, graphs: u64) -> bool {
        let mut complete = true;
        let mut list =
            |what: &str, all: Vec<&'static str>, least: u64, counts: &BTreeMap<&'static str, u64>| {
                let rare = |n: &&str| counts.get(n).is_none_or(|&count| count < least);
                let missing: Vec<&str> = all.iter().copied().filter(rare).collect();
                let times = if least > 1 { format!(", {least} times or more") } else { String::new() };
                println!("\n{what}: {} of {}{times}", all.len() - missing.len(), all.len());
                for (name, n) in counts {
                    println!("  {name:28} {n:9}");
                }
                if !missing.is_empty() {
                    println!("  missing: {}", missing.join(", "));
                }
                complete &= missing.is_empty();
            };
        let least = (graphs / 1000).max(1);
        list("operations", Op::NAMES.to_vec(), 1, &self.ops);
        list("rules", simplify_rules(), least, &self.rules);
        list("kernels", KERNELS.to_vec(), least, &self.kernels);
        let possible = self.possible_pairs();
        let missing: Vec<String> = possible
            .iter()
            .filter(|p| !self.pairs.contains_key(p))
            .map(|(from, to)| format!("{from}->{to}"))
            .collect();
        let seen = possible.len() - missing.len();
        println!(
            "\npairs: {seen} of {} that element types allow ({:.1} %)",
            possible.len(),
            100.0 * seen as f64 / possible.len() as f64
        );
        if graphs >= LARGE_RUN {
            println!("  missing: {}", missing.join(", "));
        }
        complete &= seen * 100 >= possible.len() * 95;
        if graphs < LARGE_RUN {
            println!("\ncoverage is asserted from {LARGE_RUN} modules on");
        }
        complete || graphs < LARGE_RUN
    }
}

fn kind(k: &Kernel) -> &'static str {
    let fused = k.sources.len() > 1;
    match &k.body {
        KernelBody::Loop { reductions, .. } => match reductions.len() {
            0 if fused => "fused map",
            0 => "map",
            1 if fused => "fused reduction",
            1 => "reduction",
            _ => "reductions in stages",
        },
        KernelBody::Contraction(_) if fused => "contraction with epilogue",
        KernelBody::Contraction(_) => "contraction",
        KernelBody::ArgReduce { .. } => "arg reduce",
        KernelBody::Scatter(_) => "scatter",
        KernelBody::SelectAndGather { .. } => "select and gather",
        KernelBody::SelectAndScatter { .. } => "select and scatter",
        KernelBody::ArgSort { .. } => "arg sort",
        KernelBody::Cumulative { .. } => "cumulative",
        KernelBody::Region { .. } => "region",
    }
}
