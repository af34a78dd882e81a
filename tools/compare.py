"""Measure graphc and other frameworks in turns on the same workloads, and print a Markdown table.

    python tools/compare.py --peers DIR [--graphc PATH] [--workloads a,b] [--engines graphc,jax] [--threads 1,2]
                            [--rust-peers PATH] [--micro] [--rounds 2] [--seconds 1.5] [--lock /tmp/bench.lock]
                            [--json FILE]

DIR has `run_one.py WORKLOAD ENGINE THREADS --seconds S`, `micro.py ENGINE THREADS --seconds S`, which print a line of
JSON for each measurement, and `bench.py`, with `environment(threads, cache)` of such a run and `disturbed(row, noise)`.
An engine `graphc-sse` is graphc with `--isa sse`.  PATH is the program built in tools/rust-peers, which runs the
workloads on the engines `candle`, `burn` and `dfdx`.

Every run is a process of its own, pinned to the first CPUs and under the lock.  The engines take turns and the best
median of all rounds counts, so that a disturbance does not hit one of them alone; a star marks a median with which
other processes interfered nevertheless.  Ratios are the best other engine's time divided by the first graphc's:
above 1 graphc is faster.
"""
import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOISE = 0.15        # CPUs that other processes may take from a run
RUST_PEERS = ("candle", "burn", "dfdx")


def parse_arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peers", required=True)
    ap.add_argument("--graphc", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")),
                                                     "release", "graphc"))
    ap.add_argument("--rust-peers", help="the program of tools/rust-peers")
    ap.add_argument("--workloads", default="mlp_small,mlp,autoencoder,lenet5,resnet20")
    ap.add_argument("--engines", default="graphc,torch_eager,torch_compile,jax")
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--micro", action="store_true", help="single operations instead of workloads")
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--seconds", default=None)
    ap.add_argument("--timeout", default="300", help="seconds that one process may take")
    ap.add_argument("--lock", default="/tmp/bench.lock")
    ap.add_argument("--json", help="append every measurement to this file")
    a = ap.parse_args()
    rust_peers = [e for e in a.engines.split(",") if e in RUST_PEERS]
    if rust_peers and not a.rust_peers:
        ap.error(f"{', '.join(rust_peers)}: needs --rust-peers")
    if rust_peers and a.micro:
        ap.error(f"{', '.join(rust_peers)}: has no --micro")
    return a


def load_peers(peers):
    """The peers' bench.py."""
    sys.path.insert(0, peers)
    spec = importlib.util.spec_from_file_location("peers_bench", os.path.join(peers, "bench.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(a, engine, workload, threads):
    seconds = ["--seconds", a.seconds] if a.seconds else []
    if engine.split("-")[0] == "graphc":
        isa = ["--isa", engine.split("-")[1]] if "-" in engine else []
        what = ["--micro"] if a.micro else [workload]
        return [a.graphc, "bench", *what, "--json", "--threads", str(threads), *isa, *seconds]
    if engine in RUST_PEERS:
        return [a.rust_peers, workload, engine, str(threads), *seconds]
    what = ["micro.py"] if a.micro else ["run_one.py", workload]
    return [sys.executable, os.path.join(a.peers, what[0]), *what[1:], engine, str(threads), *seconds]


def measure(a, environment, engine, workload, threads):
    """The measurements that one process printed."""
    cache = tempfile.mkdtemp(prefix="compare-")
    cpus = ",".join(map(str, range(threads)))
    full = ["flock", a.lock, "timeout", a.timeout, "taskset", "-c", cpus] + command(a, engine, workload, threads)
    try:
        env = dict(environment(threads, cache), RAYON_NUM_THREADS=str(threads))
        run = subprocess.run(full, env=env, capture_output=True, text=True)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if run.returncode:
        print(f"{engine} on {workload}, {threads} threads: {run.stderr.strip()[-300:]}", file=sys.stderr)
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def keep_best(best, rows, threads):
    """Of each combination the row with the lowest median, with the shortest first step of all."""
    for r in rows:
        if "median_us" not in r:
            continue
        key = (r.get("workload") or r["micro"], threads, r["engine"])
        old = best.get(key, r)
        low = dict(min(old, r, key=lambda r: r["median_us"]))
        if "first_step_s" in r:
            low["first_step_s"] = min(old["first_step_s"], r["first_step_s"])
        best[key] = low


def memory_mb(r):
    return r["peak_rss_mb"] if "peak_rss_mb" in r else r["rss_peak_mb"]


def table(best, engines, micro, disturbed):
    def median(r):
        return f"{r['median_us']:.1f}" + ("*" if disturbed(r) else "")

    ours = next((e for e in engines if e.split("-")[0] == "graphc"), None)
    cases = list(dict.fromkeys(key[:2] for key in best))
    more = [] if micro else ["first step s", "peak MB"]
    head = ["operation" if micro else "workload", "threads"] + [e + " us" for e in engines] + ["best peer", "ratio"]
    lines = [head + [f"{title} ({e})" for title in more for e in engines]]
    for case in cases:
        rows = {e: best[(*case, e)] for e in engines if (*case, e) in best}
        peers = [(r["median_us"], e) for e, r in rows.items() if e.split("-")[0] != "graphc"]
        time, name = min(peers, default=(None, ""))
        ratio = f"{time / rows[ours]['median_us']:.2f}" if time and ours in rows else ""
        cells = [case[0], str(case[1])] + [median(rows[e]) if e in rows else "" for e in engines]
        cells += [name, ratio]
        if not micro:
            cells += [f"{rows[e]['first_step_s']:.3f}" if e in rows else "" for e in engines]
            cells += [f"{memory_mb(rows[e]):.0f}" if e in rows else "" for e in engines]
        lines.append(cells)
    lines.insert(1, ["---"] + ["--:"] * (len(lines[0]) - 1))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main():
    a = parse_arguments()
    peers = load_peers(os.path.abspath(a.peers))
    engines = a.engines.split(",")
    best = {}
    for workload in [None] if a.micro else a.workloads.split(","):
        for threads in map(int, a.threads.split(",")):
            for _ in range(a.rounds):
                for engine in engines:
                    rows = measure(a, peers.environment, engine, workload, threads)
                    keep_best(best, rows, threads)
                    if a.json:
                        with open(a.json, "a") as f:
                            f.writelines(json.dumps(r) + "\n" for r in rows)
    print(table(best, engines, a.micro, lambda r: peers.disturbed(r, NOISE)))


if __name__ == "__main__":
    main()
