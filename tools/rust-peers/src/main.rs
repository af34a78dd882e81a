//! Measures one of graphc's training workloads on another Rust framework and prints one line of JSON.
//!
//! ```text
//! cd tools/rust-peers && cargo build --release
//! RAYON_NUM_THREADS=1 taskset -c 0 target/release/rust-peers mlp candle 1 --seconds 1.5
//! ```
//!
//! Cargo reads `.cargo/config.toml`, which asks for the instructions of this machine, only when it runs in this folder;
//! from elsewhere set `RUSTFLAGS=-Ctarget-cpu=native`.  Each framework is a feature of the same name, all on unless
//! `--no-default-features --features NAME`.  `tools/compare.py --rust-peers PATH` runs the program next to graphc.
//!
//! Every engine trains on the same data from the same parameters (see `spec`) with the layers, losses and optimizers
//! of its framework.  A step is forward, backward and update; its loss is that before the update.  The losses after 0,
//! 1, 10 and 50 updates are printed for comparison with the reference; after these steps and a warm-up, steps are timed
//! for the given seconds, but at least ten of them.
//!
//! - `candle`: the CPU backend without BLAS.  Its SGD has no momentum, so that is written here with tensor operations.
//! - `burn`: the backend burn-flex, which replaces burn-ndarray; burn-cpu needs LLVM.
//! - `dfdx`: only workloads without convolutions, which it has for nightly compilers only.

#[cfg(feature = "burn")]
mod burn;
#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "dfdx")]
mod dfdx;
mod spec;
mod timing;

use serde_json::{Map, Value, json};
use spec::{WORKLOADS, Workload};
use std::process::ExitCode;
use std::time::Instant;
use timing::{measure, memory_mb, round};

type Error = Box<dyn std::error::Error>;

/// A workload on a framework: data and parameters in place, nothing run yet.
trait Training {
    /// One step; returns the loss before it.
    fn step(&mut self) -> Result<f32, Error>;

    /// Sum of the squares of all parameters.
    fn sum_of_squares(&self) -> Result<f64, Error>;
}

/// A framework by its name.
struct Engine {
    name: &'static str,
    training: fn(&Workload) -> Result<Box<dyn Training>, Error>,
}

const ENGINES: &[Engine] = &[
    #[cfg(feature = "candle")]
    Engine { name: "candle", training: candle::training },
    #[cfg(feature = "burn")]
    Engine { name: "burn", training: burn::training },
    #[cfg(feature = "dfdx")]
    Engine { name: "dfdx", training: dfdx::training },
];

const USAGE: &str = "usage: rust-peers WORKLOAD ENGINE THREADS [--seconds S]";

/// Shortest time of the measurement unless given.
const SECONDS: f64 = 1.5;

/// Updates after which the loss is printed, besides 0 and [`LAST_CHECKED`].
const CHECKED: [usize; 2] = [1, 10];
/// Updates after which the loss and the size of the parameters are printed.
const LAST_CHECKED: usize = 50;

struct Arguments {
    workload: &'static Workload,
    engine: &'static Engine,
    threads: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    let result = arguments(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    match result {
        Ok(row) => {
            println!("{row}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rust-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(given: impl Iterator<Item = String>) -> Result<Arguments, Error> {
    let given: Vec<String> = given.collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let (workload, engine, threads, seconds) = match given[..] {
        [workload, engine, threads] => (workload, engine, threads, None),
        [workload, engine, threads, "--seconds", seconds] => (workload, engine, threads, Some(seconds)),
        _ => return Err(USAGE.into()),
    };
    Ok(Arguments {
        workload: named("workload", workload, &WORKLOADS, |w| w.name)?,
        engine: named("engine", engine, ENGINES, |e| e.name)?,
        threads: threads.parse().map_err(|e| format!("threads `{threads}`: {e}"))?,
        seconds: match seconds {
            Some(seconds) => seconds.parse().map_err(|e| format!("seconds `{seconds}`: {e}"))?,
            None => SECONDS,
        },
    })
}

fn named<'a, T>(
    what: &str,
    name: &str,
    all: &'a [T],
    name_of: fn(&T) -> &'static str,
) -> Result<&'a T, Error> {
    let known = || all.iter().map(name_of).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|item| name_of(item) == name);
    found.ok_or_else(|| format!("there is no {what} `{name}`; there are {}", known()).into())
}

/// Everything that is known of one run.
fn run(arguments: &Arguments) -> Result<Value, Error> {
    let &Arguments { workload, engine, threads, seconds } = arguments;
    // candle asks this variable, not the pool, how many parts to split a matrix product into.
    if std::env::var("RAYON_NUM_THREADS").as_deref() != Ok(threads.to_string().as_str()) {
        return Err(format!("the environment has to set RAYON_NUM_THREADS={threads}").into());
    }
    // As one of the pool's threads, this one works on what it hands to the pool instead of sleeping until it is done.
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    let rss_import_mb = memory_mb("VmRSS")?;

    let started = Instant::now();
    let elapsed_s = || round(started.elapsed().as_secs_f64(), 3);
    let mut training = (engine.training)(workload)?;
    let mut losses = Map::from_iter([("0".to_owned(), training.step()?.into())]);
    let first_step_s = elapsed_s();
    for updates in 1..LAST_CHECKED {
        let loss = training.step()?;
        if CHECKED.contains(&updates) {
            losses.insert(updates.to_string(), loss.into());
        }
    }
    let param_norm = training.sum_of_squares()?.sqrt();
    losses.insert(LAST_CHECKED.to_string(), training.step()?.into());
    let first_51_steps_s = elapsed_s();

    let times = measure(seconds, || training.step().map(drop))?;
    Ok(json!({
        "workload": workload.name,
        "engine": engine.name,
        "threads": threads,
        "params": workload.parameters().iter().map(|p| p.values.len()).sum::<usize>(),
        "flops": workload.flops,
        "import_s": 0.0,
        "rss_import_mb": rss_import_mb,
        "first_step_s": first_step_s,
        "first_51_steps_s": first_51_steps_s,
        "param_norm_after_50": param_norm,
        "losses": losses,
        "median_us": times.median_us,
        "min_us": times.min_us,
        "p10_us": times.p10_us,
        "mean_us": times.mean_us,
        "iters": times.iters,
        "cpu_us": times.cpu_us,
        "cpus": times.cpus,
        "other_cpus": times.other_cpus,
        "preempted_per_s": times.preempted_per_s,
        "gflops": round(workload.flops as f64 / times.median_us / 1e3, 2),
        "rss_peak_mb": memory_mb("VmHWM")?,
    }))
}
