//! Object files for other machines.

use graphc_compiler::{CompileOptions, Isa, compile_function, object, state_layout};
use graphc_ir::{Bindings, Module, gradient_function};
use object::{Architecture, BinaryFormat, Object, ObjectSymbol};
use std::collections::HashMap;
use std::sync::Arc;

/// Symbols of the object file of a function's gradient, with their sizes.
fn symbols(file: &str, target: &str) -> (HashMap<String, u64>, Vec<String>) {
    let path = format!("{}/../examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let module = Module::parse(file, &text).unwrap();
    let function = gradient_function(&module, "loss").unwrap();
    let layout = Arc::new(state_layout(&module).unwrap());
    let options = CompileOptions { isa: Isa::Portable, ..CompileOptions::default() };
    let bindings = Bindings::new().with("B", 8);
    let (_, stages) = compile_function(&function, &layout, &bindings, &options).unwrap();
    let program = &stages.assembled.program;
    let bytes = object(program, target).unwrap();
    let parsed = object::File::parse(&*bytes).unwrap();
    assert_eq!(parsed.format(), BinaryFormat::Elf);
    let expected = if target.starts_with("aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };
    assert_eq!(parsed.architecture(), expected);
    let undefined: Vec<&str> = parsed
        .symbols()
        .filter(|s| s.is_undefined() && s.name() != Ok(""))
        .filter_map(|s| s.name().ok())
        .collect();
    assert!(undefined.is_empty(), "{undefined:?}");
    let sizes =
        parsed.symbols().filter(|s| s.is_definition()).map(|s| (s.name().unwrap().to_owned(), s.size()));
    (sizes.collect(), program.kernels.iter().map(|k| k.name.clone()).collect())
}

#[test]
fn kernels_generate_for_other_machines() {
    for file in ["cnn.gir", "mlp.gir"] {
        for target in ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"] {
            let (sizes, kernels) = symbols(file, target);
            assert!(kernels.len() > 5);
            for kernel in &kernels {
                assert!(
                    sizes.get(kernel).is_some_and(|&size| size > 0),
                    "{file}, {target}: no code of {kernel}"
                );
            }
            assert!(sizes.contains_key("entry.loss.grad"), "{sizes:?}");
        }
    }
}

#[test]
fn unknown_targets_are_named() {
    let module = Module::parse("m", "graphc 1\nmodule @m\nfn @f(%x: f32[2]) {\n  return %x\n}\n").unwrap();
    let layout = Arc::new(state_layout(&module).unwrap());
    let options = CompileOptions { isa: Isa::Portable, ..CompileOptions::default() };
    let f = &module.functions[0];
    let (_, stages) = compile_function(f, &layout, &Bindings::new(), &options).unwrap();
    for target in ["z80-zilog-cpm", "not a triple", "riscv64gc-unknown-linux-gnu"] {
        let error = object(&stages.assembled.program, target).unwrap_err().to_string();
        assert!(error.contains(target), "{error}");
    }
}
