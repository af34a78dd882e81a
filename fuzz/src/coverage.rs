//! What the modules of a run contained, and which parts of the compiler they reached.

use graphc::compiler::Stages;
use graphc::compiler::kernel::{Kernel, KernelBody};
use graphc::compiler::simplify_rules;
use graphc::{DType, Function, Module, TensorType};
use graphc_ir::Op;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

/// Counters, by name.
#[derive(Default)]
pub(crate) struct Coverage {
    ops: BTreeMap<&'static str, u64>,
    /// Producer and consumer.
    pairs: BTreeMap<(&'static str, &'static str), u64>,
    rules: BTreeMap<&'static str, u64>,
    kernels: BTreeMap<&'static str, u64>,
}

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
            *self.ops.entry(op.name()).or_default() += 1;
            for operand in f.graph.operands(id) {
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
    }

    /// Prints all counters; false if a large run has not reached what it should: every operation, rule and
    /// kind of kernel, and 95 % of the pairs that types allow.
    pub(crate) fn report(&self, graphs: u64) -> bool {
        let mut complete = true;
        let mut list = |what: &str, all: Vec<&'static str>, counts: &BTreeMap<&'static str, u64>| {
            let missing: Vec<&str> = all.iter().copied().filter(|n| !counts.contains_key(n)).collect();
            println!("\n{what}: {} of {}", all.len() - missing.len(), all.len());
            for (name, n) in counts {
                println!("  {name:28} {n:9}");
            }
            if !missing.is_empty() {
                println!("  missing: {}", missing.join(", "));
            }
            complete &= missing.is_empty();
        };
        list("operations", Op::NAMES.to_vec(), &self.ops);
        list("rules", simplify_rules(), &self.rules);
        list("kernels", KERNELS.to_vec(), &self.kernels);
        let possible = possible_pairs();
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

/// Types that an operation gives and takes, as far as pairs need them: element type, and whether it is a
/// scalar.
#[derive(Default)]
struct Interface {
    gives: BTreeSet<(DType, bool)>,
    takes: BTreeSet<(DType, bool)>,
}

/// Ordered pairs of operations of which the first gives a type that the second takes, as their own
/// samples have them. Operations without samples (inputs, state, further results, control flow) give and
/// take all types, save that only control flow gives further results.
fn possible_pairs() -> BTreeSet<(&'static str, &'static str)> {
    let every: BTreeSet<(DType, bool)> =
        DType::ALL.into_iter().flat_map(|d| [(d, false), (d, true)]).collect();
    let mut runner = TestRunner::deterministic();
    let key = |ty: &TensorType| (ty.dtype, ty.rank() == 0);
    let mut interfaces = BTreeMap::new();
    for (name, samples) in Op::all_samples() {
        let mut interface = Interface::default();
        match samples {
            None => {
                interface.gives.clone_from(&every);
                if !["input", "read_state", "result"].contains(&name) {
                    interface.takes.clone_from(&every);
                }
            }
            Some(samples) => {
                for _ in 0..200 {
                    let Ok(sample) = samples.new_tree(&mut runner) else { continue };
                    let sample = sample.current();
                    let types = sample.types();
                    interface.takes.extend(types.iter().map(key));
                    interface.gives.extend(sample.op.results(&types).iter().flatten().map(key));
                }
            }
        }
        interfaces.insert(name, interface);
    }
    let mut pairs = BTreeSet::new();
    for (from, producer) in &interfaces {
        for (to, consumer) in &interfaces {
            if !producer.gives.is_disjoint(&consumer.takes) {
                pairs.insert((*from, *to));
            }
        }
    }
    pairs.extend(["scan", "while", "cond", "call"].map(|from| (from, "result")));
    pairs
}
