//! The tool on the hand-written modules: every stage prints, mistakes are one clear message.

use graphc::Isa;
use std::process::{Command, Output};

fn graphc(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let out = graphc(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Standard error and exit code of a command that fails.
fn failure(args: &[&str]) -> (String, i32) {
    let out = graphc(args);
    assert!(!out.status.success(), "{args:?} succeeds");
    (String::from_utf8(out.stderr).unwrap(), out.status.code().unwrap())
}

/// Modules written by hand.
const MODULES: [&str; 3] = ["examples/mlp.gir", "examples/cnn.gir", "examples/autoencoder.gir"];
/// Modules written by the tool, and the workloads that they are.
const WORKLOADS: [(&str, &str); 2] = [("examples/gpt.gir", "gpt_nano"), ("examples/lstm.gir", "lstm_char")];

#[test]
fn modules_are_checked() {
    for module in MODULES {
        assert!(stdout(&["check", module]).starts_with("module @"), "{module}");
    }
    assert!(stdout(&["check", "examples/cnn.gir"]).contains("1898 parameters"));
}

#[test]
fn every_stage_prints_for_functions_and_gradients() {
    for module in MODULES {
        for function in ["loss", "loss.grad"] {
            for stage in
                ["graph", "grad", "passes", "kernels", "vector", "clif", "asm", "plan", "times", "dot"]
            {
                let text = stdout(&["dump", module, "--emit", stage, "--fn", function, "--bind", "B=7"]);
                assert!(text.lines().count() > 5, "{module} {function} {stage}: {text}");
            }
        }
    }
}

#[test]
fn the_backward_graph_is_text_like_any_other() {
    let text = stdout(&["dump", "examples/cnn.gir", "--emit", "grad"]);
    assert!(text.starts_with("fn @loss.grad("), "{text}");
    for part in ["select_and_scatter", "grad/conv1/weight", "grad/fc/bias", "f32[B, 16, 4, 4]"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn the_plan_shows_peak_bound_and_buffers() {
    let text = stdout(&["dump", "examples/cnn.gir", "--emit", "plan"]);
    for part in [
        "arena",
        "lower bound",
        "alive at step",
        "largest first",
        "%a0 = convolution : f32[32, 8, 8, 8] @conv1",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn modules_of_workloads_are_as_the_tool_writes_them() {
    for (file, workload) in WORKLOADS {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(stdout(&["bench", workload, "--module"]) == text, "{file} is not what {workload} is now");
    }
}

#[test]
fn loops_and_attention_print_at_every_stage() {
    for (file, _) in WORKLOADS {
        for stage in ["graph", "passes", "kernels", "vector", "plan"] {
            let text = stdout(&["dump", file, "--emit", stage]);
            assert!(text.lines().count() > 50, "{file} {stage}: {text}");
        }
    }
}

#[test]
fn a_budget_changes_memory_and_no_bit() {
    let gpt = ["plan", "examples/gpt.gir", "--threads", "2"];
    let text = stdout(&[gpt.as_slice(), &["--budget", "24MiB", "--budget", "12MiB"]].concat());
    let column = |line: &str, n: usize| line.split_whitespace().nth(n).unwrap().to_owned();
    let rows: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(rows.len(), 3, "{text}");
    let mebibytes = |line: &str| -> f64 {
        let (number, unit) = if column(line, 0) == "none" { (1, 2) } else { (2, 3) };
        assert_eq!(column(line, unit), "MiB", "{text}");
        column(line, number).parse().unwrap()
    };
    let arenas: Vec<f64> = rows.iter().map(|r| mebibytes(r)).collect();
    assert!(arenas[0] > 24.0 && arenas[1] <= 24.0 && arenas[2] <= 12.0, "{text}");
    assert!(rows[1..].iter().all(|r| r.ends_with("the same bits")), "{text}");
    let (message, _) = failure(&[gpt.as_slice(), &["--budget", "1MiB"]].concat());
    assert!(message.contains("the least that was found is"), "{message}");
    // Without a budget it is the plan that `dump` shows.
    let plan = stdout(&["plan", "examples/cnn.gir", "--fn", "loss.grad"]);
    assert!(plan.contains("lower bound") && plan.contains("alive at step"), "{plan}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn contractions_use_packed_fused_multiply_add() {
    let text = stdout(&["dump", "examples/cnn.gir", "--emit", "asm"]);
    let registers = match Isa::host() {
        Isa::Portable => "xmm",
        Isa::Avx2 => "ymm",
        Isa::Avx512 => "zmm",
    };
    let fused = |kernel: &&str| {
        let packed = |l: &&str| l.contains("vfmadd") && l.contains("ps ") && l.contains(registers);
        kernel.lines().filter(packed).count() >= 8
    };
    // A convolution may also have kernels that only pack an operand.
    let mut convolutions = text.split("\n\n").filter(|f| f.contains("= convolution :"));
    let kernel = convolutions.find(fused).expect("a convolution by packed fused multiply-add");
    // Loops are labelled where the emitter is graphc's own.
    assert_eq!(kernel.contains("; loop i"), Isa::host() != Isa::Portable, "{kernel}");
}

/// Whatever this machine has: the one that runs the tests may not be the one that has the widest vectors.
#[test]
#[cfg(target_arch = "x86_64")]
fn code_is_made_for_every_set_of_vector_instructions() {
    let dir = tempfile::tempdir().unwrap();
    // Single operations, among them products of which one tile takes most registers; the message names them all.
    let (message, _) = failure(&["bench", "--micro", "--module", "none"]);
    let operations: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    assert!(operations.contains(&"gemm_1_1024_1024") && operations.contains(&"softmax"), "{message}");
    let written = operations.into_iter().map(|operation| {
        let path = dir.path().join(format!("{operation}.gir"));
        std::fs::write(&path, stdout(&["bench", "--micro", "--module", operation])).unwrap();
        path.to_str().unwrap().to_owned()
    });
    for module in MODULES.map(str::to_owned).into_iter().chain(written) {
        for (isa, registers) in [("sse", "xmm"), ("avx2", "ymm"), ("avx512", "zmm")] {
            let text = stdout(&["dump", &module, "--emit", "asm", "--isa", isa]);
            assert!(text.contains(registers), "{module} for {isa}: {text}");
        }
    }
}

#[test]
fn an_object_file_is_written_for_another_machine() {
    let file = std::env::temp_dir().join(format!("graphc-tool-{}.o", std::process::id()));
    let path = file.to_str().expect("the name is UTF-8");
    let args = ["dump", "examples/mlp.gir", "--fn", "loss", "--emit", "object", "-o", path];
    let text = stdout(&[args.as_slice(), &["--target", "aarch64-unknown-linux-gnu"]].concat());
    assert!(text.contains("for aarch64-unknown-linux-gnu, entry `entry.loss`"), "{text}");
    let bytes = std::fs::read(&file).expect("it has been written");
    std::fs::remove_file(&file).expect("it is there");
    // The ELF header, with the machine in bytes 18 and 19.
    assert_eq!((&bytes[..4], bytes[18]), (&b"\x7fELF"[..], 183));
    let (message, _) = failure(&[args.as_slice(), &["--target", "nowhere"]].concat());
    assert!(message.contains("target nowhere"), "{message}");
}

#[test]
fn functions_run_and_levels_agree() {
    let run = |level: &str, threads: &str| {
        stdout(&[
            "run",
            "examples/cnn.gir",
            "--fn",
            "loss.grad",
            "--input",
            "y=1,2,3",
            "-O",
            level,
            "--threads",
            threads,
        ])
    };
    let most = run("3", "2");
    assert!(most.starts_with("loss : f32[] = [2."), "{most}");
    assert_eq!(most, run("0", "1"));
}

#[test]
fn mistakes_are_named() {
    let (message, code) = failure(&["check", "no/such/file.gir"]);
    assert!(message.starts_with("error: cannot read no/such/file.gir"), "{message}");
    assert_eq!(code, 2);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gir");
    let text = "graphc 1\nmodule @m\nfn @f(%x: f32[32, 784], %w: f32[786, 10]) {\n  \
                %y = dot_general(%x, %w) {lhs_contract = [1], rhs_contract = [0]} : f32[32, 10]\n  return %y\n}\n";
    std::fs::write(&path, text).unwrap();
    let (message, code) = failure(&["check", path.to_str().unwrap()]);
    for part in ["lhs axis 1 is 784 but rhs axis 0 is 786", "f32[32, 784]", "f32[786, 10]", "bad.gir:4:", "^"]
    {
        assert!(message.contains(part), "no {part} in {message}");
    }
    assert_eq!(code, 2);
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(failure(&["check", path.to_str().unwrap()]).0.contains("not UTF-8"));

    let (message, code) = failure(&["dump", "examples/mlp.gir", "--fn", "lost"]);
    assert!(message.contains("no function `lost`") && message.contains("`predict`, `loss`"), "{message}");
    assert_eq!(code, 2);
    assert!(
        failure(&["dump", "examples/mlp.gir", "--emit", "passes", "--bind", "C=4"])
            .0
            .contains("dimension `C`")
    );
    let (message, _) = failure(&["run", "examples/mlp.gir", "--fn", "loss", "--input", "y=10"]);
    assert!(message.contains("index 10 at position 0 is out of range 0..10"), "{message}");
    assert!(message.contains("examples/mlp.gir:"), "{message}");
    assert!(failure(&["run", "examples/mlp.gir", "--input", "z=1"]).0.contains("no input `z`"));
}

#[test]
fn a_workload_reports_its_losses_and_times() {
    let text =
        stdout(&["bench", "mlp_small", "--json", "--threads", "2", "--seconds", "0.01", "--isa", "sse"]);
    let row: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(row["workload"], "mlp_small");
    assert_eq!((&row["engine"], &row["threads"]), (&"graphc-sse".into(), &2.into()));
    assert_eq!((&row["params"], &row["losses_ok"]), (&4810.into(), &true.into()));
    for (after, expected) in [("0", 2.301695277), ("1", 2.291636766), ("10", 1.920064025), ("50", 0.02156774)]
    {
        let loss = row["losses"][after].as_f64().unwrap();
        assert!((loss / expected - 1.0f64).abs() < 1e-5, "{after}: {loss}");
    }
    assert!((row["param_norm_after_50"].as_f64().unwrap() - 9.090390).abs() < 1e-4, "{row}");
    for key in ["median_us", "min_us", "p10_us", "first_step_s", "compile_s", "gflops"] {
        assert!(row[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {row}");
    }
    assert!(row["iters"].as_u64().is_some_and(|n| n >= 10), "{row}");
}

#[test]
fn single_operations_are_compared_with_the_peak() {
    let text = stdout(&["bench", "--micro", "gemm_32_32", "sum_1m", "--threads", "1", "--seconds", "0.01"]);
    let names: Vec<&str> = text.lines().map(|l| l.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["operation", "peak", "gemm_32_32_32", "sum_1m"]);
}

#[test]
fn unknown_workloads_and_operations_are_named() {
    let (message, code) = failure(&["bench", "mlp_tiny"]);
    assert!(
        message.starts_with("error: there is no workload `mlp_tiny`; there are `mlp_small`, "),
        "{message}"
    );
    assert_eq!(code, 2);
    let (message, _) = failure(&["bench", "--micro", "fft"]);
    assert!(message.starts_with("error: no operation begins with `fft`; there are `gemm_32_"), "{message}");
}

#[test]
fn a_profile_accounts_for_the_time_and_names_lines() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.json");
    let profile = |args: &[&str]| -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", dir.path());
        let out = command.args(["--json", "profile", "--seconds", "0.2"]).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let p = profile(&["--workload", "mlp", "--threads", "2", "--trace", trace.to_str().unwrap()]);
    // On a quiet machine more than 0.99.
    let accounted = p["accounted"].as_f64().unwrap();
    assert!((0.9..=1.0).contains(&accounted), "{accounted}");
    let steps = p["steps"].as_array().unwrap();
    let sum: f64 = steps.iter().map(|s| s["share"].as_f64().unwrap()).sum();
    assert!((sum - accounted).abs() < 1e-6, "{sum} and {accounted}");
    assert_eq!(p["farthest_from_bound"].as_array().unwrap().len(), 3);
    let products = steps.iter().filter(|s| s["gflops"].as_f64().unwrap() > 0.1 && s["limit"] != "");
    assert!(products.count() >= 5, "{p}");
    // What a build for debugging measures is no record for others.
    let kept = |name: &str| dir.path().join("graphc").join(name).exists();
    let names = ["machine-debug.json", "machine.json"];
    assert_eq!(names.map(kept), [cfg!(debug_assertions), !cfg!(debug_assertions)]);

    // The trace has both threads, each with events one after the other.
    let events: serde_json::Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    for worker in [0, 1] {
        let of: Vec<_> = events.iter().filter(|e| e["ph"] == "X" && e["tid"] == worker).collect();
        assert!(of.len() > 10, "worker {worker}: {} events", of.len());
        let time = |e: &serde_json::Value, key: &str| e[key].as_f64().unwrap();
        // To the nanosecond, which is what is written.
        assert!(of.windows(2).all(|w| time(w[0], "ts") + time(w[0], "dur") <= time(w[1], "ts") + 1e-3));
    }

    // Kernels of the body of a loop are there too, as often as it runs them.
    let p = profile(&["examples/lstm.gir", "--fn", "train_step"]);
    let inner = p["steps"].as_array().unwrap().iter().find(|s| s["name"].as_str().unwrap().contains('.'));
    let inner = inner.expect("a step in a loop");
    assert!(inner["count"].as_f64().unwrap() >= 63.0, "{inner}");
    let sources = inner["sources"].as_array().unwrap();
    assert!(sources.iter().all(|s| s.as_str().unwrap().contains(" at examples/lstm.gir:")), "{sources:?}");
}

#[test]
fn the_guard_names_the_node_and_line_that_made_a_nan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.gir");
    let text = "graphc 1\nmodule @m\nfn @f(%x: f32[4]) {\n  %y = log(%x) : f32[4]\n  %z = add(%y, %y) : f32[4]\n  return %z\n}\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    assert!(stdout(&["run", file, "--input", "x=1,-1"]).contains("NaN"));
    let (error, code) = failure(&["run", file, "--nan-guard", "--input", "x=1,-1"]);
    assert_eq!(code, 1);
    assert!(error.contains("the first NaN (element 1) is of %y = log : f32[4] at "), "{error}");
    assert!(error.contains("log.gir:4:3, from -1.0 where %x = input : f32[4]"), "{error}");
    let (error, _) = failure(&["run", file, "--nan-guard", "--input", "x=1,inf"]);
    assert!(error.contains("its operand holds infinity (element 1) already: %x"), "{error}");
    stdout(&["run", file, "--nan-guard", "--input", "x=1,2"]);
}

#[test]
#[cfg(target_os = "linux")]
fn perf_learns_of_kernels_their_code_and_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["run", "examples/mlp.gir", "--fn", "loss"]);
    command.env("TMPDIR", dir.path()).env("GRAPHC_PERF_MAP", "1").env("GRAPHC_JITDUMP", "1");
    let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let id = child.id();
    assert!(child.wait_with_output().unwrap().status.success());
    let map = std::fs::read_to_string(dir.path().join(format!("perf-{id}.map"))).unwrap();
    let dump = std::fs::read(dir.path().join(format!("jit-{id}.dump"))).unwrap();

    // As tools/perf/Documentation/jitdump-specification.txt of Linux says.
    let u32_at = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(dump[at..at + 8].try_into().unwrap());
    let text_at = |at: usize| {
        let end = dump[at..].iter().position(|&b| b == 0).unwrap();
        std::str::from_utf8(&dump[at..at + end]).unwrap()
    };
    assert_eq!([u32_at(0), u32_at(4), u32_at(8), u32_at(20)], [0x4A69_5444, 1, 40, id]);
    let (mut at, mut functions, mut lines) = (40, Vec::new(), 0);
    let mut before = u64_at(24);
    while at < dump.len() {
        let (kind, size, time) = (u32_at(at), u32_at(at + 4) as usize, u64_at(at + 8));
        assert!(time >= before && at + size <= dump.len());
        before = time;
        match kind {
            0 => {
                let (address, bytes, index) = (u64_at(at + 32), u64_at(at + 40), u64_at(at + 48));
                let name = text_at(at + 56);
                assert_eq!((u32_at(at + 16), index), (id, functions.len() as u64));
                assert_eq!(size as u64, 56 + name.len() as u64 + 1 + bytes, "{name}");
                functions.push(format!("{address:x} {bytes:x} {name}"));
            }
            2 => {
                assert_eq!((u64_at(at + 16), u64_at(at + 24)), (u64_at(at + 32), 1));
                assert_eq!(text_at(at + 48), "examples/mlp.gir");
                assert!((24..54).contains(&u32_at(at + 40)), "line {}", u32_at(at + 40));
                lines += 1;
            }
            other => panic!("record {other}"),
        }
        at += size;
    }
    assert_eq!(functions, map.lines().collect::<Vec<_>>(), "the map and the dump have the same functions");
    assert!(
        lines >= 5 && functions.iter().any(|f| f.contains("dot_general")),
        "{lines} lines, {functions:?}"
    );
}
