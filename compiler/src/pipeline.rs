//! The order of the passes over graphs, readable from top to bottom. Nothing else is here: how
//! passes are run is in `pass.rs`, what they do in `passes/`.

use crate::error::CompileError;
use crate::pass::{OptLevel, Pass, PassOptions, PassRecord, Rebuilder, run_passes, same_function};
use crate::passes::{BatchLoop, Canonicalize, ConstFold, Cse, Dce, Inline, MergeScans, MoveOut, Simplify};
use graphc_ir::{Function, Region};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// The passes of a level, in order.
pub fn passes_of(level: OptLevel) -> Vec<&'static dyn Pass> {
    let mut passes: Vec<&'static dyn Pass> = Vec::new();
    if level == OptLevel::O0 {
        return passes;
    }
    // First, so that all other passes see what calls compute.
    passes.push(&Inline);
    // Before the others, so that none spends time on what nothing needs: differentiation leaves many
    // such nodes.
    passes.push(&Dce);
    // Constants go to the right and repeated ones become broadcasts: the other passes look for
    // them only there.
    passes.push(&Canonicalize);
    passes.push(&ConstFold);
    passes.push(&Simplify);
    // After the rewrites, which bring different spellings of one value to the same form.
    passes.push(&Cse);
    if level >= OptLevel::O2 {
        // After sharing, which brings loops to the same operands. Merged loops compute what neither
        // alone needs; what moves out of them is then simplified with the rest.
        passes.push(&MergeScans);
        passes.push(&MoveOut);
        // Sharing gives nodes equal operands and rewrites give constant ones: a second round finds
        // what the first one made possible. A third has never been seen to find anything.
        passes.push(&ConstFold);
        passes.push(&Canonicalize);
        passes.push(&Simplify);
        passes.push(&Cse);
        // When nothing else looks for products any more, of which the bodies of its loops have their own; and
        // after work has moved out of loops, as it would move out of these.
        passes.push(&BatchLoop);
    }
    // Last: rewriting and sharing leave nodes without users.
    passes.push(&Dce);
    passes
}

/// Runs the passes of the level that the options name over a function whose dimensions are all
/// numbers, after they have run over the regions of its operations; if it has some, that is the first record.
///
/// # Errors
/// See [`run_passes`]; also [`CompileError::UnknownPass`].
pub fn optimize(
    function: &Function,
    options: &PassOptions,
) -> Result<(Function, Vec<PassRecord>), CompileError> {
    let passes = selected(options)?;
    let started = Instant::now();
    let mut records = Vec::new();
    let function = if passes.is_empty() || !has_regions(function) {
        Cow::Borrowed(function)
    } else {
        let (with_regions, fired) = optimize_regions(function, options)?;
        records.push(PassRecord {
            name: "regions",
            changed: !same_function(function, &with_regions),
            nodes_before: function.graph.len(),
            nodes_after: with_regions.graph.len(),
            fired,
            elapsed_ns: started.elapsed().as_nanos() as u64,
            after: options.dumps("regions").then(|| with_regions.clone()),
        });
        Cow::Owned(with_regions)
    };
    let (optimized, further) = run_passes(&function, &passes, options)?;
    records.extend(further);
    Ok((optimized, records))
}

/// The passes that the options name, or else those of the level.
fn selected(options: &PassOptions) -> Result<Vec<&'static dyn Pass>, CompileError> {
    let Some(names) = &options.only else { return Ok(passes_of(options.level)) };
    let mut all = passes_of(OptLevel::O3);
    let mut seen = HashSet::new();
    all.retain(|p| seen.insert(p.name()));
    let pass = |name: &String| {
        all.iter().copied().find(|p| p.name() == name).ok_or_else(|| CompileError::UnknownPass {
            name: name.clone(),
            known: all.iter().map(|p| p.name().into()).collect(),
        })
    };
    names.iter().map(pass).collect()
}

fn has_regions(function: &Function) -> bool {
    function.graph.ids().any(|id| !function.graph.op(id).regions().is_empty())
}

/// The function with optimized regions, and how often each rule rewrote a node of them.
fn optimize_regions(
    function: &Function,
    options: &PassOptions,
) -> Result<(Function, BTreeMap<&'static str, usize>), CompileError> {
    let graph = &function.graph;
    let mut known: Vec<(Region, Region)> = Vec::new();
    let mut fired = BTreeMap::new();
    let mut rebuilder = Rebuilder::new(function);
    for id in graph.ids() {
        let node = graph.node(id);
        if node.op.regions().is_empty() {
            rebuilder.keep(id);
            continue;
        }
        let mut op = node.op.clone();
        for region in op.regions_mut() {
            let done = known.iter().find(|(before, _)| before.is(region)).map(|(_, after)| after.clone());
            *region = match done {
                Some(after) => after,
                None => {
                    let (after, records) = optimize(region.function(), options)?;
                    for (rule, n) in records.into_iter().flat_map(|r| r.fired) {
                        *fired.entry(rule).or_default() += n;
                    }
                    let after = Region::new(after);
                    known.push((region.clone(), after.clone()));
                    after
                }
            };
        }
        let operands = rebuilder.operands(id);
        let new = rebuilder.push(op, &operands, &node.origin)?;
        rebuilder.replace(id, new);
    }
    Ok((rebuilder.finish(), fired))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{assert_same_results, function, print};
    use expect_test::expect;
    use graphc_ir::{DType, gradients};

    /// Two layers with a square between them, a squared error, and a step of gradient descent.
    fn training_step() -> Function {
        function(|f| {
            let x = f.input("x", DType::F32, [4, 3]);
            let target = f.input("target", DType::F32, [4, 2]);
            let w = f.input("w", DType::F32, [3, 5]);
            let b = f.input("b", DType::F32, [5]);
            let v = f.input("v", DType::F32, [5, 2]);
            let hidden = x.dot(w) + b;
            let error = (hidden * hidden).dot(v) - target;
            let loss = (error * error).reduce_sum(&[0, 1]) / 8.0;
            f.output("loss", loss);
            let params = [("w", w), ("b", b), ("v", v)];
            for ((name, p), g) in params.into_iter().zip(gradients(loss, &[w, b, v])) {
                f.output(name, p - g * 0.5);
            }
        })
    }

    #[test]
    fn a_training_step_has_no_transposes_left() {
        let f = training_step();
        let options = PassOptions { verify: true, ..PassOptions::default() };
        let (after, records) = optimize(&f, &options).unwrap();
        assert_eq!(records.len(), passes_of(OptLevel::O3).len());
        assert_same_results(&f, &after, 64);
        expect![[r#"
            %0 = input : f32[4, 3]
            %1 = input : f32[4, 2]
            %2 = input : f32[3, 5]
            %3 = input : f32[5]
            %4 = input : f32[5, 2]
            %5 = dot_general %0 %2 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [0]} : f32[4, 5]
            %6 = broadcast %3 {shape = [4, 5], axes = [1]} : f32[4, 5]
            %7 = add %5 %6 : f32[4, 5]
            %8 = mul %7 %7 : f32[4, 5]
            %9 = dot_general %8 %4 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [0]} : f32[4, 2]
            %10 = sub %9 %1 : f32[4, 2]
            %11 = mul %10 %10 : f32[4, 2]
            %12 = reduce_sum %11 {axes = [0, 1]} : f32[]
            %13 = constant {0.125} : f32[]
            %14 = mul %12 %13 : f32[]
            %15 = broadcast %13 {shape = [4, 2], axes = []} : f32[4, 2]
            %16 = mul %10 %15 : f32[4, 2]
            %17 = add %16 %16 : f32[4, 2]
            %18 = dot_general %17 %4 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[4, 5]
            %19 = dot_general %8 %17 {lhs_batch = [], rhs_batch = [], lhs_contract = [0], rhs_contract = [0]} : f32[5, 2]
            %20 = mul %7 %18 : f32[4, 5]
            %21 = add %20 %20 : f32[4, 5]
            %22 = reduce_sum %21 {axes = [0]} : f32[5]
            %23 = dot_general %0 %21 {lhs_batch = [], rhs_batch = [], lhs_contract = [0], rhs_contract = [0]} : f32[3, 5]
            %24 = constant {0.5} : f32[]
            %25 = broadcast %24 {shape = [3, 5], axes = []} : f32[3, 5]
            %26 = mul %23 %25 : f32[3, 5]
            %27 = sub %2 %26 : f32[3, 5]
            %28 = broadcast %24 {shape = [5], axes = []} : f32[5]
            %29 = mul %22 %28 : f32[5]
            %30 = sub %3 %29 : f32[5]
            %31 = broadcast %24 {shape = [5, 2], axes = []} : f32[5, 2]
            %32 = mul %19 %31 : f32[5, 2]
            %33 = sub %4 %32 : f32[5, 2]
            return loss %14, w %27, b %30, v %33
        "#]].assert_eq(&print(&after));
    }

    #[test]
    fn the_level_o0_leaves_the_graph_as_declared() {
        let f = training_step();
        let (after, records) = optimize(&f, &PassOptions::at(OptLevel::O0)).unwrap();
        assert!(records.is_empty() && crate::same_function(&f, &after));
    }

    #[test]
    fn passes_are_run_by_name() {
        let f = training_step();
        let only = |names: &[&str]| PassOptions {
            only: Some(names.iter().map(|&n| n.to_owned()).collect()),
            ..PassOptions::default()
        };
        let (_, records) = optimize(&f, &only(&["cse", "dce", "cse"])).unwrap();
        assert_eq!(records.iter().map(|r| r.name).collect::<Vec<_>>(), ["cse", "dce", "cse"]);
        let error = optimize(&f, &only(&["fusion"])).unwrap_err().to_string();
        assert!(error.starts_with("there is no pass `fusion`; there are `inline`, `dce`, "), "{error}");
    }

    #[test]
    fn the_same_graph_gives_the_same_result() {
        let run = || print(&optimize(&training_step(), &PassOptions::default()).unwrap().0);
        assert_eq!(run(), run());
    }

    /// Time grows with the number of nodes, not with its square.
    #[test]
    fn long_graphs_are_optimized_quickly() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [4, 4]);
            let mut y = x;
            for _ in 0..2_000 {
                y = (-(y.transpose(&[1, 0])) + x * 2.0).transpose(&[1, 0]).dot(y * 1.0) - 0.0;
            }
            f.output("y", y);
        });
        let start = std::time::Instant::now();
        let (after, records) = optimize(&f, &PassOptions::default()).unwrap();
        let elapsed = start.elapsed();
        println!("{} nodes to {}: {elapsed:?}", f.graph.len(), after.graph.len());
        records.iter().for_each(|r| println!("{:14} {:>12} ns", r.name, r.elapsed_ns));
        assert!(elapsed.as_secs() < 10, "{elapsed:?}");
    }
}
