//! Measures the error of the elementary functions on all 2^32 `f32` arguments.
//!
//! `cargo run --release -p graphc-ir --example ulp [-- NAME.. [--stride N]]` prints a line per
//! function and fails if a documented bound is broken. With `RUSTFLAGS="-C target-cpu=native"` a
//! function takes about a minute and a half on two cores; a stride takes every N-th bit pattern.

#[path = "../src/math/reference.rs"]
mod reference;

use graphc_ir::{Native, Scalar, math};
use reference::{FUNCTIONS, Function, ulp_f32};
use std::process::ExitCode;

/// The largest error within the limit, with its argument.
#[derive(Clone, Copy, Default)]
struct Worst {
    ulp: f64,
    at: f32,
}

/// Measures `bits` from `first` in steps.
fn measure(f: &Function, first: u64, step: u64) -> Worst {
    let mut worst = Worst::default();
    let mut bits = first;
    while bits < 1 << 32 {
        let x = f32::from_bits(bits as u32);
        let y = (f.f32)(x);
        let within = !(x.abs() > f.limit && x.is_finite());
        let ulp = if within { ulp_f32(y, (f.reference)(x as f64)) } else { 0.0 };
        let in_range = y >= f.range.0 && y <= f.range.1;
        // NaN where it should be is no error; within the limit the reference says where.
        let ulp = if in_range || (y.is_nan() && within) { ulp } else { f64::INFINITY };
        if ulp > worst.ulp {
            worst = Worst { ulp, at: x };
        }
        bits += step;
    }
    worst
}

fn main() -> ExitCode {
    let mut names = Vec::new();
    let mut stride = 1;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--stride" {
            let n = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            let Some(n) = n else {
                eprintln!("--stride takes a positive number");
                return ExitCode::from(2);
            };
            stride = n;
        } else if FUNCTIONS.iter().any(|f| f.name == arg) {
            names.push(arg);
        } else {
            eprintln!("no function is called {arg}");
            return ExitCode::from(2);
        }
    }
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    let mut ok = true;
    for f in FUNCTIONS.iter().filter(|f| names.is_empty() || names.iter().any(|n| n == f.name)) {
        // Interleaved, because the cost of the references depends on the magnitude.
        let worst = std::thread::scope(|s| {
            let threads: Vec<_> =
                (0..n_threads).map(|i| s.spawn(move || measure(f, i * stride, n_threads * stride))).collect();
            threads.into_iter().fold(Worst::default(), |a, t| {
                // A panic of the thread is one of the function: a broken promise like any other.
                let b = t.join().unwrap_or(Worst { ulp: f64::INFINITY, at: f32::NAN });
                if b.ulp > a.ulp { b } else { a }
            })
        });
        let verdict = if worst.ulp <= f.bound { "ok" } else { "BROKEN" };
        println!(
            "{:8} max {:.4} ulp at {:e} ({:#010x}), bound {} {verdict}",
            f.name,
            worst.ulp,
            worst.at,
            worst.at.to_bits(),
            f.bound
        );
        ok &= worst.ulp <= f.bound;
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
