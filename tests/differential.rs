//! Comparison of all ways to run a function, and reduction of modules that show a fault.

use graphc::compiler::Rebuilder;
use graphc::differential::{
    Config, Mismatch, Values, compare, compiles, execute, interpret, locate, options, same_results,
};
use graphc::ir::{Op, ops};
use graphc::runtime::Fence;
use graphc::{DType, Function, Isa, Module, ModuleBuilder, OptLevel, gradients, reduce};

/// A loss with a loop and a branch, its gradients, and state: 300 nodes and more.
fn large() -> Module {
    let m = ModuleBuilder::new("large");
    let w = m.param("w", DType::F32, [5, 5], graphc::Initializer::Normal { mean: 0.0, std: 0.5 });
    m.function("step", |f| {
        let x = f.input("x", DType::F32, [7, 5]);
        let w_now = f.read(&w);
        let mut h = x;
        for i in 0..18 {
            h = (h.dot(w_now) + x).tanh() * (0.5 + f64::from(i));
            h = h.max(x * 0.1).min(h.square() + 1.0);
        }
        let s = f.scan(&[x], &[h.reshape([7, 5, 1])], |_, c, e| {
            let next = (c[0] * 0.5 + e[0].reshape([5]).broadcast([7, 5], &[1])).sin();
            (vec![next], vec![next.reduce_sum(&[1])])
        });
        let loss = s.stacked[0].mean_all() + h.mean_all();
        f.output("loss", loss);
        let g = gradients(loss, &[w_now])[0];
        f.update(&w, w_now - g * 0.1);
    });
    m.build().unwrap()
}

/// A function in which each `min` has become a `max`, as if a pass had confused them.
fn with_fault(f: &Function) -> Function {
    let mut rebuilder = Rebuilder::new(f);
    for id in f.graph.ids() {
        let node = f.graph.node(id);
        if matches!(node.op, Op::Min(_)) {
            let operands = rebuilder.operands(id);
            let new = rebuilder.push(ops::Max {}, &operands, &node.origin).unwrap();
            rebuilder.replace(id, new);
        } else {
            rebuilder.keep(id);
        }
    }
    rebuilder.finish()
}

const O3: Config = Config {
    level: OptLevel::O3,
    isa: graphc::Isa::Portable,
    threads: 2,
    poison: false,
    fence: None,
    loops: false,
    tight: false,
};

/// What differs if the compiler is given the faulty function.
fn faulty(m: &Module, f: &Function, values: &Values) -> Result<(), Mismatch> {
    same_results(m, f, &interpret(f, values), &execute(m, &with_fault(f), values, &O3)?, O3.level)
}

#[test]
fn all_ways_to_run_a_training_step_agree() {
    let m = large();
    let f = &m.functions[0];
    for seed in [1, 2] {
        let values = Values::drawn(&m, f, seed);
        assert!(interpret(f, &values).state != values.state, "the step changes nothing");
        let poison = Config { poison: true, fence: Some(Fence::End), loops: true, ..O3 };
        let tight = Config { poison: true, tight: true, ..O3 };
        let others = [Config { level: OptLevel::O0, ..O3 }, Config { isa: Isa::host(), ..poison }, tight];
        for config in [&[O3, poison], &others[..]].concat() {
            assert_eq!(compare(&m, f, &values, &config), Ok(()), "{config}, seed {seed}");
        }
    }
}

#[test]
fn a_planted_fault_is_found_and_reduced_to_less_than_ten_nodes() {
    let m = large();
    let f = &m.functions[0];
    assert!(reduce::nodes(f) >= 300, "{} nodes", reduce::nodes(f));
    let draw = |m: &Module, f: &Function| Values::drawn(m, f, 2);
    let mismatch = faulty(&m, f, &draw(&m, f)).unwrap_err();
    assert!(matches!(mismatch, Mismatch::Element(_)), "{mismatch}");
    let mut fails = |m: &Module| {
        m.functions.iter().any(|f| matches!(faulty(m, f, &draw(m, f)), Err(Mismatch::Element(_))))
    };
    let small = reduce::reduce(&m, &mut fails);
    assert!(fails(&small));
    assert!(small.functions.iter().map(reduce::nodes).sum::<usize>() < 10, "{small}");
    assert!(small.to_string().contains("min"), "{small}");
}

#[test]
fn reduction_is_deterministic() {
    let m = large();
    let mut tried = [Vec::new(), Vec::new()];
    let small = tried.each_mut().map(|tried| {
        let fails = &mut |m: &Module| {
            let text = m.to_string();
            let fails = text.contains("tanh") && text.contains("scan");
            tried.push(text);
            fails
        };
        reduce::reduce(&m, fails)
    });
    assert_eq!(small[0].to_string(), small[1].to_string());
    assert!(tried[0] == tried[1], "other modules are tried");
    assert!(small[0].functions.iter().map(reduce::nodes).sum::<usize>() < 20, "{}", small[0]);
}

#[test]
fn the_first_node_that_differs_is_named() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [9]);
        let y = (x * 2.0).min(x.square()).named("least");
        f.output("y", (y + 1.0).exp());
    });
    let m = m.build().unwrap();
    let f = &m.functions[0];
    let values = Values::drawn(&m, f, 2);
    assert!(locate(&m, f, &values, &|g| execute(&m, g, &values, &O3)).is_none());
    let found = locate(&m, f, &values, &|g| execute(&m, &with_fault(g), &values, &O3)).unwrap();
    assert!(found.node.starts_with("%least = min(") && found.location.is_some(), "{found}");
}

#[test]
fn the_tool_reduces_for_a_program() {
    let graphc = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_graphc"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small.gir");
    let small = small.to_str().unwrap();
    if cfg!(unix) {
        let program = dir.path().join("has-a-product");
        std::fs::write(&program, "#!/bin/sh\ngrep -q dot_general \"$1\"\n").unwrap();
        assert!(std::process::Command::new("chmod").arg("+x").arg(&program).status().unwrap().success());
        let args = ["reduce", "examples/cnn.gir", "--when", program.to_str().unwrap(), "--out", small];
        let out = graphc(&args);
        assert!(out.status.success(), "{out:?}");
        let small = Module::parse("small", &std::fs::read_to_string(small).unwrap()).unwrap();
        assert!(small.functions.iter().map(reduce::nodes).sum::<usize>() <= 4, "{small}");
    }
}

/// What the fuzzer has found: modules that once differed, with the seed of their values in the first line.
#[test]
fn what_once_differed_agrees() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "gir"));
    files.sort();
    for file in files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let seed = text.lines().next().and_then(|l| l.strip_prefix("; values ")?.parse().ok());
        let seed = seed.unwrap_or_else(|| panic!("{name}: the first line is not `; values SEED`"));
        let m = Module::parse(&name, &text).unwrap();
        graphc::ir::verify(&m).unwrap();
        for f in &m.functions {
            let values = Values::drawn(&m, f, seed);
            let tight = Config { tight: true, ..O3 };
            let fenced =
                |config: Config| [Fence::Begin, Fence::End].map(|end| Config { fence: Some(end), ..config });
            let all = Config::all();
            let fenced: Vec<Config> =
                all.iter().filter(|c| c.threads == 1).copied().flat_map(fenced).collect();
            for config in all.into_iter().chain([tight]).chain(fenced) {
                assert_eq!(compare(&m, f, &values, &config), Ok(()), "{name}: {config}");
            }
            // Code for other machines can at least be made.
            for isa in Isa::ALL.into_iter().filter(|i| !i.is_available()) {
                assert_eq!(compiles(&m, f, &options(&Config { isa, ..O3 })), Ok(()), "{name}: {isa}");
            }
        }
    }
}
