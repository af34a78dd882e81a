//! Every example at a small size: it runs, and its last line reaches what it should.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The built example. `cargo test` builds them all.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --examples` with this profile", path.display());
    path
}

/// The numbers in the last line that an example prints.
fn last_numbers(name: &str, args: &[&str]) -> Vec<f64> {
    let pictures = tempfile::tempdir().unwrap();
    let mut command = Command::new(example(name));
    command.args(args);
    if name != "quickstart" {
        command.arg("--out").arg(pictures.path());
    }
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {args:?}\n{out}{err}");
    let last = out.lines().last().unwrap_or_else(|| panic!("{name} prints nothing"));
    let numbers = last.split([' ', ',', ';']).filter_map(|word| word.parse().ok());
    let numbers: Vec<f64> = numbers.collect();
    assert!(!numbers.is_empty(), "{name}: {last}");
    for entry in std::fs::read_dir(pictures.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(std::fs::metadata(&path).unwrap().len() > 500, "{} is empty", path.display());
    }
    numbers
}

#[test]
fn digits() {
    assert!(last_numbers("quickstart", &[])[0] >= 0.965);
    assert!(last_numbers("digits_mlp", &["--seeds", "2"])[0] >= 0.965);
    assert!(last_numbers("digits_cnn", &["--epochs", "10"])[0] >= 0.95);
    assert!(last_numbers("resnet_digits", &["--epochs", "3"])[0] >= 0.9);
    assert!(last_numbers("bidirectional_gru", &["--epochs", "10", "--seeds", "1"])[0] >= 0.93);
    assert!(last_numbers("fine_tune", &["--epochs", "10"])[0] >= 0.75);
}

#[test]
fn every_optimizer() {
    let accuracies = last_numbers("digits_optimizers", &["--seeds", "1"]);
    assert_eq!(accuracies.len(), 12);
    assert!(accuracies.iter().all(|&a| a >= 0.94), "{accuracies:?}");
}

#[test]
fn tables_and_series() {
    // What least squares reaches is 3182.
    assert!(last_numbers("linear_regression", &[])[0] <= 3300.0);
    for (accuracy, least) in last_numbers("logistic_regression", &[]).iter().zip([0.93, 0.95, 0.97]) {
        assert!(*accuracy >= least, "{accuracy}");
    }
    assert!(
        last_numbers("logistic_regression", &["--model", "linear", "--seeds", "1"]).iter().all(|&a| a >= 0.9)
    );
    // The last year alone has an error of 0.92.
    for error in last_numbers("forecast", &["--seeds", "1"]) {
        assert!(error <= 0.45, "{error}");
    }
}

#[test]
fn autoencoders() {
    let errors = last_numbers("autoencoder", &["--seeds", "1", "--epochs", "30"]);
    // Eight principal components leave 0.0249.
    assert!(errors[0] <= 0.027 && errors[1] <= 0.022 && errors[2] <= 0.032, "{errors:?}");
    assert!(last_numbers("vae", &["--seeds", "1"])[0] <= 23.4);
}

#[test]
fn gradients_vanish_and_are_cured() {
    let [sigmoid, relu, skip, large, clipped] = last_numbers("vanishing_gradients", &[])[..] else {
        panic!()
    };
    assert!(
        sigmoid < 0.2 && relu > 0.75 && skip > 0.85 && clipped > large,
        "{sigmoid} {relu} {skip} {large} {clipped}"
    );
}

#[test]
fn text() {
    for model in ["rnn", "gru", "lstm"] {
        // A model of single characters has 3.07.
        let loss = last_numbers("char_rnn", &["--epochs", "1", "--model", model])[0];
        assert!(loss <= 2.35, "{model}: {loss}");
    }
    assert!(last_numbers("gpt", &["--epochs", "1"])[0] <= 2.5);
}

#[test]
fn streaming() {
    assert!(last_numbers("streaming", &["--epochs", "1"])[0] >= 0.85);
}

/// Files that are there only while a checkpoint is written, or since that was cut short; the next run removes those.
fn unfinished(checkpoints: &Path) -> Vec<OsString> {
    let names = std::fs::read_dir(checkpoints).into_iter().flatten().map(|e| e.unwrap().file_name());
    names.filter(|n| n.to_string_lossy().starts_with(".checkpoint")).collect()
}

/// Killed at random moments, a run that is started again and again ends with the weights of one that was not. Every other kill
/// waits for a checkpoint to be written. GRAPHC_CASES sets the number of kills, 6.
#[test]
fn a_killed_run_goes_on() {
    let run = |dir: &Path| {
        let mut command = Command::new(example("resume"));
        command.args(["--epochs", "60", "--out"]).arg(dir).stdout(Stdio::null());
        command
    };
    let whole = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert!(run(whole.path()).status().unwrap().success());
    let time = started.elapsed();
    let expected = std::fs::read(whole.path().join("weights.safetensors")).unwrap();
    let cases: u32 = std::env::var("GRAPHC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 40) as f64 / f64::from(1 << 24)
    };
    let (mut killed, mut after, mut saving) = (0, 0, 0);
    while killed < cases {
        let cut = tempfile::tempdir().unwrap();
        let checkpoints = cut.path().join("checkpoints");
        // Again and again until it is done, killed after up to half of what it takes.
        loop {
            let earlier = unfinished(&checkpoints);
            let mut child = run(cut.path()).spawn().unwrap();
            let until = Instant::now() + time.mul_f64(draw() * 0.5 + 0.02);
            while Instant::now() < until && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let writes = || unfinished(&checkpoints).iter().any(|n| !earlier.contains(n));
            if killed % 2 == 1 {
                while !writes() && child.try_wait().unwrap().is_none() {}
                std::thread::sleep(Duration::from_secs_f64(draw() * 0.002));
            }
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                after += u32::from(checkpoints.exists());
                saving += u32::from(writes());
            }
            if child.wait().unwrap().success() {
                break;
            }
            if killed >= cases {
                assert!(run(cut.path()).status().unwrap().success());
                break;
            }
        }
        assert!(
            std::fs::read(cut.path().join("weights.safetensors")).unwrap() == expected,
            "after {killed} kills"
        );
    }
    println!("{killed} kills, {after} of them after a checkpoint, {saving} while one was written");
    assert!(after * 2 >= killed, "{after} of {killed} kills came after a checkpoint");
}
