"""Why each intermediate tensor of the workloads is written to memory and read again.

    python tools/passes.py [WORKLOAD..]

Reads what `graphc dump --emit kernels` shows of the training step, and prints a table of the tensors of at least 4 KiB that one
kernel writes and another reads: how many there are, and their size. Kernels of a loop's body count once.
"""

import math
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

WORKLOADS = ["mlp_small", "mlp", "autoencoder", "lenet5", "resnet20", "lstm_char", "gru_bidir", "gpt_nano"]
GRAPHC = Path(__file__).parent.parent / "target/release/graphc"
SIZES = {"bool": 1, "u8": 1, "f16": 2, "bf16": 2, "f32": 4, "i32": 4, "f64": 8, "i64": 8}
LEAST = 4096

# Each tensor counts for the first reason that holds.
REASONS = [
    ("copies of factors", "a factor in the order in which a product reads it"),
    ("factors", "read by a product or convolution, each element many times"),
    ("through loops", "given to or given by a loop"),
    ("of reductions", "the result of a reduction, read along what was reduced"),
    ("reduced", "reduced before its reader can begin: statistics of norms, softmax, losses"),
    ("several readers", "read by several kernels, most of them in the backward pass"),
    ("one reader", "read once more: saved for the backward pass, gradients before the optimizer, parts of a concatenation"),
]


def programs(workload):
    """The text of the programs of a training step, with their buffers and kernels."""
    with tempfile.NamedTemporaryFile("w", suffix=".gir") as module:
        module.write(run("bench", "--module", workload))
        module.flush()
        return run("dump", module.name, "--fn", "train_step", "--emit", "kernels")


def run(*args):
    return subprocess.run([GRAPHC, *args], capture_output=True, text=True, check=True).stdout


class Kernel:
    def __init__(self, name, lines):
        self.name = name
        text = "\n".join(lines)
        loads = lambda text: {int(b) for b in re.findall(r"load b(\d+)\[", text)}
        names = lambda text: {int(b) for b in re.findall(r"\bb(\d+)", text)}
        factors = re.findall(r"(?:lhs|rhs) %\d+:\n((?:      .*\n)*)", text)
        self.factors = set().union(*map(loads, factors))
        regions = re.search(r"regions of (.*) to (.*?)(?: in .*)?$", text, re.M)
        self.region_reads, self.region_writes = map(names, regions.groups()) if regions else (set(), set())
        # Operations with a loop of their own: `.. : b1, b2 to b3 : ..`.
        special = re.search(r": (b\d+(?:, b\d+)*) to (b\d+)", text)
        reads, writes = map(names, special.groups()) if special else (set(), set())
        self.reads = loads(text) | self.region_reads | reads
        self.writes = {int(b) for b in re.findall(r"store b(\d+)\[", text)} | self.region_writes | writes
        self.reduces = bool(re.search(r"^  r\d+ = ", text, re.M))


def parse(text):
    """Yields buffers (number: bytes, for those in the arena) and kernels of each program."""
    buffers, found, name, lines = {}, [], None, []

    def close():
        if name:
            found.append(Kernel(name, lines))

    for line in [*text.splitlines(), "program end:"]:
        if line.startswith("program "):
            close()
            if found:
                yield buffers, found
            buffers, found, name = {}, [], None
        elif line.startswith("kernel "):
            close()
            name, lines = line.split(" ", 2)[1], []
        elif name:
            lines.append(line)
        elif match := re.match(r"  b(\d+): (\w+)\[([\d, ]*)\].*? arena@", line):
            buffers[int(match[1])] = math.prod(map(int, re.findall(r"\d+", match[3]))) * SIZES[match[2]]


def reason(number, writer, readers):
    if re.search(r"_[lr]hs\d+$", writer.name):
        return 0
    if any(number in r.factors for r in readers):
        return 1
    if number in writer.region_writes or any(number in r.region_reads for r in readers):
        return 2
    if writer.reduces:
        return 3
    if any(r.reduces for r in readers):
        return 4
    return 5 if len(readers) > 1 else 6


def main():
    rows = []
    for workload in sys.argv[1:] or WORKLOADS:
        counts, count = defaultdict(lambda: [0, 0]), 0
        for buffers, found in parse(programs(workload)):
            count += len(found)
            for number, size in buffers.items():
                writers = [k for k in found if number in k.writes]
                readers = [k for k in found if number in k.reads and k not in writers]
                if writers and readers and size >= LEAST:
                    each = counts[reason(number, writers[0], readers)]
                    each[0] += 1
                    each[1] += size
        cells = [f"{counts[i][0]}, {counts[i][1] / 2**20:.1f}" if counts[i][0] else "" for i in range(len(REASONS))]
        rows.append([workload, str(count), *cells])
    heads = ["workload", "kernels", *(name for name, _ in REASONS)]
    print("| " + " | ".join(heads) + " |")
    print("| --- |" + " --: |" * (len(heads) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()
    for name, why in REASONS:
        print(f"- *{name}*: {why}")


if __name__ == "__main__":
    main()
