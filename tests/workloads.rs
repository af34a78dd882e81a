//! The losses of every workload of `graphc bench` after 0, 1, 10 and 50 updates are those that were
//! computed in f64, and the same bits for any number of threads and any vector instructions.

use graphc::Isa;
use std::process::Command;

fn losses(workload: &str, options: &[&str]) -> serde_json::Value {
    let args = ["bench", workload, "--json", "--seconds", "0.01"];
    let output = Command::new(env!("CARGO_BIN_EXE_graphc")).args(args).args(options).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{workload} {options:?}\n{out}{err}");
    let line = out.lines().find(|l| l.contains(workload)).unwrap_or_else(|| panic!("{out}"));
    let row: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(row["losses_ok"], true, "{row}");
    row["losses"].clone()
}

/// For any number of threads and any vector instructions.
fn losses_are_those_of_the_definition(names: &[&str]) {
    for name in names {
        let one = losses(name, &["--threads", "1"]);
        assert_eq!(one.as_object().unwrap().len(), 4);
        let wide = if Isa::Avx2.is_available() { "avx2" } else { "sse" };
        for (threads, isa) in [("2", "sse"), ("3", wide)] {
            let other = losses(name, &["--threads", threads, "--isa", isa]);
            assert_eq!(one, other, "{name} on {threads} threads with {isa}");
        }
    }
}

// Two tests that take about as long: they run at the same time.

#[test]
fn losses_of_layers_in_a_row() {
    losses_are_those_of_the_definition(&["mlp_small", "mlp", "autoencoder", "lenet5", "resnet20"]);
}

#[test]
fn losses_of_sequence_models() {
    losses_are_those_of_the_definition(&["lstm_char", "gru_bidir", "gpt_nano"]);
}
