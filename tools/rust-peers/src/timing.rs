//! Time of training steps, with signs of disturbance by other processes, and the memory of the process.

use crate::Error;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use std::time::Instant;

/// Longest warm-up.
const WARM_UP_S: f64 = 0.5;
/// Fewest measurements, unless they take longer than [`MAX_S`].
const MIN_STEPS: usize = 10;
/// Longest time of all measurements together.
const MAX_S: f64 = 8.0;
/// Clock ticks of `/proc` in a second: part of Linux's interface to programs.
const TICKS: f64 = 100.0;

/// How long a step takes and who else took time meanwhile.
pub(crate) struct Timing {
    pub(crate) median_us: f64,
    pub(crate) min_us: f64,
    pub(crate) p10_us: f64,
    pub(crate) mean_us: f64,
    /// Number of steps.
    pub(crate) iters: usize,
    /// CPU time of a step: in one thread the time without that spent descheduled.
    pub(crate) cpu_us: f64,
    /// CPUs that this process kept busy.
    pub(crate) cpus: f64,
    /// CPUs that all others kept busy meanwhile.
    pub(crate) other_cpus: f64,
    pub(crate) preempted_per_s: f64,
}

/// Calls `step` for a warm-up and then for at least `seconds`.
pub(crate) fn measure(seconds: f64, mut step: impl FnMut() -> Result<(), Error>) -> Result<Timing, Error> {
    let warm_up = Instant::now();
    while warm_up.elapsed().as_secs_f64() < WARM_UP_S.min(seconds / 3.0) {
        step()?;
    }
    let mut times = Vec::new();
    let (usage, machine, started) = (getrusage(UsageWho::RUSAGE_SELF)?, machine_busy_s()?, Instant::now());
    let wall = loop {
        let before = Instant::now();
        step()?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
        let elapsed = started.elapsed().as_secs_f64();
        if elapsed > seconds && times.len() >= MIN_STEPS || elapsed > MAX_S {
            break elapsed;
        }
    };
    let after = getrusage(UsageWho::RUSAGE_SELF)?;
    let process = busy_s(&after) - busy_s(&usage);
    let machine = machine_busy_s()? - machine;
    let preempted = after.involuntary_context_switches() - usage.involuntary_context_switches();
    times.sort_by(f64::total_cmp);
    let n = times.len();
    Ok(Timing {
        median_us: round((times[n / 2] + times[(n - 1) / 2]) / 2.0, 2),
        min_us: round(times[0], 2),
        p10_us: round(times[n / 10], 2),
        mean_us: round(times.iter().sum::<f64>() / n as f64, 2),
        iters: n,
        cpu_us: round(process / n as f64 * 1e6, 2),
        cpus: round(process / wall, 2),
        other_cpus: round((machine - process).max(0.0) / wall, 2),
        preempted_per_s: round(preempted as f64 / wall, 1),
    })
}

/// `x` with so many digits after the point.
pub(crate) fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

/// Memory of this process in MiB by its name in `/proc/self/status`: `VmRSS` now, `VmHWM` at most.
pub(crate) fn memory_mb(field: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no such field in /proc/self/status")?;
    Ok((kib.parse::<f64>()? / 1024.0).round() as u64)
}

/// Seconds of CPU time that this process has used.
fn busy_s(usage: &Usage) -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Seconds of CPU time that all processes have used.
fn machine_busy_s() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = stat.split_whitespace().skip(1).take(7).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    Ok((fields.iter().sum::<f64>() - idle) / TICKS)
}
