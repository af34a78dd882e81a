//! `unsafe` is in the files that are named here, and nowhere else.

use std::path::{Path, PathBuf};

/// Calls into generated code, memory that it works on, and what is shared with it between threads.
const MAY_BE_UNSAFE: [&str; 16] = [
    "compiler/src/codegen/jit.rs",
    "compiler/src/codegen/perf.rs",
    "compiler/src/compile.rs",
    "runtime/src/abi.rs",
    "runtime/src/executable.rs",
    "runtime/src/fence.rs",
    "runtime/src/fpenv.rs",
    "runtime/src/guard.rs",
    "runtime/src/memory.rs",
    "runtime/src/pool.rs",
    "runtime/src/process.rs",
    "runtime/src/state.rs",
    "runtime/src/value.rs",
    "runtime/tests/allocations.rs",
    // Calls functions for instructions that it has looked for.
    "src/machine/vectors.rs",
    // Runs a test between fork and exec.
    "train/tests/trust/fork.rs",
];

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// True if a line of code, without its comment, has the keyword.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '`' && c != '"');
    words.any(|w| w == "unsafe")
}

#[test]
fn unsafe_is_where_it_may_be() {
    let root = root();
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let mut with = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        if text.lines().any(has_unsafe) {
            with.push(file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"));
        }
    }
    with.sort();
    assert_eq!(with, MAY_BE_UNSAFE);
}

#[test]
fn crates_forbid_or_deny_it() {
    let says = |file: &str, what: &str| {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains(&format!("#![{what}(unsafe_code)]")), "{file}");
    };
    says("ir/src/lib.rs", "forbid");
    says("train/src/lib.rs", "forbid");
    says("fuzz-files/src/lib.rs", "forbid");
    says("src/lib.rs", "deny");
    says("src/bin/graphc/main.rs", "deny");
    assert!(has_unsafe(&["let x = un", "safe { f() };"].concat()));
    assert!(!has_unsafe("// unsafe") && !has_unsafe("forbid(unsafe_code)"));
}
