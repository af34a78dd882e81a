//! Wall time of calls, with a sign of disturbance by other processes, and the memory of the process.

use std::time::{Duration, Instant};

/// Longest time that one measurement takes, if it has enough calls by then or not.
const MAX_TIME: Duration = Duration::from_secs(8);

/// Clock ticks of `/proc` in a second: part of Linux's interface to programs.
const TICKS: f64 = 100.0;

/// Times of single calls.
pub(super) struct Timing {
    pub(super) median_us: f64,
    pub(super) min_us: f64,
    pub(super) p10_us: f64,
    /// Number of calls.
    pub(super) iters: usize,
    /// CPUs that this process kept busy.
    pub(super) cpus: f64,
    /// CPUs that all others kept busy meanwhile.
    pub(super) other_cpus: f64,
}

/// Calls `call` for a warm-up and then for at least `seconds` and `min_iters` measurements, each of
/// `inner` calls one after the other.
pub(super) fn measure<E>(
    seconds: f64,
    min_iters: usize,
    inner: usize,
    mut call: impl FnMut() -> Result<(), E>,
) -> Result<Timing, E> {
    let warm_up = Instant::now();
    while warm_up.elapsed().as_secs_f64() < (seconds / 3.0).min(0.5) {
        call()?;
    }
    let mut times = Vec::new();
    let (machine, process, started) = (machine_busy(), process_busy(), Instant::now());
    let wall = loop {
        let before = Instant::now();
        for _ in 0..inner {
            call()?;
        }
        times.push(before.elapsed().as_secs_f64() * 1e6 / inner as f64);
        let elapsed = started.elapsed();
        if elapsed.as_secs_f64() > seconds && times.len() >= min_iters || elapsed > MAX_TIME {
            break elapsed.as_secs_f64();
        }
    };
    let (machine, process) = (machine_busy() - machine, process_busy() - process);
    times.sort_by(f64::total_cmp);
    let n = times.len();
    Ok(Timing {
        median_us: (times[n / 2] + times[(n - 1) / 2]) / 2.0,
        min_us: times[0],
        p10_us: times[n / 10],
        iters: n * inner,
        cpus: process / wall,
        other_cpus: (machine - process).max(0.0) / wall,
    })
}

/// Seconds of CPU time that all processes have used; 0 where there is no `/proc`.
fn machine_busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.split_whitespace().skip(1).take(7).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().sum::<f64>() - idle) / TICKS
}

/// Seconds of CPU time that this process has used; 0 where there is no `/proc`.
fn process_busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are 11 fields after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).flat_map(str::parse::<f64>).sum::<f64>() / TICKS
}

/// Forgets the peak of resident memory, where the system can.
pub(super) fn reset_peak_memory() {
    // Without it the peak is that since the process started, which is still an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Peak of resident memory in MiB; 0 where there is no `/proc`.
pub(super) fn peak_memory_mb() -> f64 {
    status_mb("VmHWM:")
}

/// Resident memory in MiB; 0 where there is no `/proc`.
pub(super) fn resident_mb() -> f64 {
    status_mb("VmRSS:")
}

fn status_mb(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    let kb = line.and_then(|l| l.split_whitespace().next()).and_then(|kb| kb.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}
