//! What the tool says of a compiler with a fault in one pass: `cargo test --features mutants --test mutants`.

#![cfg(feature = "mutants")]

use graphc::{DType, Function, ModuleBuilder, reduce};
use std::process::{Command, Output};

/// The tool with a fault of [`graphc::compiler::mutants::FAULTS`]; none for 0.
fn graphc(fault: usize, arguments: &[&str]) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_graphc"));
    tool.env("GRAPHC_FAULT", fault.to_string()).args(arguments).output().unwrap()
}

#[test]
fn a_fault_in_a_pass_is_named_and_reduced() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [40, 8]);
        let mut h = x;
        for _ in 0..100 {
            h = (h + x).tanh() * 0.5;
        }
        // Always negative zeros among the elements: `x + 0.0` must not become `x`.
        let zeros = (x.abs() * -0.0).named("zeros") + 0.0;
        f.output("y", h + zeros.recip().named("inverse"));
    });
    let module = m.build().unwrap();
    let nodes = |f: &Function| reduce::nodes(f);
    assert!(nodes(&module.functions[0]) >= 300, "{}", nodes(&module.functions[0]));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (large, small) = (path("large.gir"), path("small.gir"));
    module.save(&large).unwrap();

    assert!(graphc(0, &["diff-exec", &large]).status.success());
    let found = graphc(1, &["diff-exec", &large]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(1), "{text}");
    // The node of which the faulty pass made another.
    assert!(text.contains("add"), "{text}");
    println!("{text}");

    let reduced = graphc(1, &["reduce", &large, "--out", &small]);
    assert!(reduced.status.success(), "{}", String::from_utf8_lossy(&reduced.stderr));
    let small = graphc::Module::load(&small).unwrap();
    println!("{small}");
    assert!(nodes(&small.functions[0]) < 10, "{small}");
}
