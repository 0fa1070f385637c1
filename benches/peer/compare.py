#!/usr/bin/env python3
"""Measures dynosim against the reference simulator, the two in turn: CPU seconds and peak memory of whole processes.

    cargo build --release && (cd benches/peer && cargo build --release)
    benches/peer/compare.py mooncake_conversation_trace.jsonl [RUNS]

The reference's report and ours are compared too. Paths of other binaries go into $DYNOSIM and $PEER.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DYNOSIM = os.environ.get("DYNOSIM", ROOT / "target/release/dynosim")
PEER = os.environ.get("PEER", ROOT / "benches/peer/target/release/peer")

# name, workers, router, block size, blocks per worker, arrivals so many times faster
CASES = [
    ("8 workers, block 512", 8, "round-robin", 512, 2048, 1),
    ("8 workers, block 64", 8, "round-robin", 64, 16384, 1),
    ("8 workers, block 16", 8, "round-robin", 16, 65536, 1),
    ("2 workers, block 512", 2, "round-robin", 512, 2048, 1),
    ("arrivals 8 times faster", 8, "round-robin", 512, 2048, 8),
    ("the same, pools of 256 blocks", 8, "round-robin", 512, 256, 8),
    ("KV router, block 512", 8, "kv", 512, 2048, 1),
    ("KV router, block 16", 8, "kv", 16, 65536, 1),
]


def measure(command):
    """Runs a command; its output, CPU seconds and peak memory in MiB, as the operating system accounts for them."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            sys.exit(f"{' '.join(command)}: failed")
        output.seek(0)
        return output.read(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(case, trace, runs):
    name, workers, router, block_size, blocks, speedup = case
    options = f"--workers {workers} --router {router} --block-size {block_size} --num-gpu-blocks {blocks}"
    options = f"--trace {trace} {options} --arrival-speedup-ratio {speedup}".split()
    ours = [str(DYNOSIM), "replay", str(ROOT / "examples/peer.yaml"), *options, "--json"]
    peer = [str(PEER), *options]
    pairs = [(measure(ours), measure(peer)) for _ in range(runs)]
    (a, b) = ([run[side] for run in pairs] for side in (0, 1))
    cpu_a, cpu_b = (statistics.median(run[1] for run in side) for side in (a, b))
    ratio = statistics.median(y[1] / x[1] for x, y in pairs)
    mib_a, mib_b = (max(run[2] for run in side) for side in (a, b))
    print(f"| {name} | {cpu_a:.3f} | {cpu_b:.2f} | {ratio:.0f} | {mib_a:.0f} | {mib_b:.0f} |", flush=True)
    return name, json.loads(a[0][0]), json.loads(b[0][0])


def main():
    trace = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print("| case | CPU s | reference, CPU s | ratio | MiB | reference, MiB |\n|---|---|---|---|---|---|")
    reports = [compare(case, trace, runs) for case in CASES]
    print("\n| case | | completed | TTFT mean ms | TTFT p99 | ITL mean ms | reuse | duration s |\n" + "|---" * 8 + "|")
    for name, ours, peer in reports:
        latency = ours["latency"]
        rows = {
            "dynosim": (
                ours["requests"]["completed"],
                latency["ttft_ms"]["mean"],
                latency["ttft_ms"]["p99"],
                latency["itl_ms"]["mean"],
                ours["prefix"]["first_admission_share"],
                ours["throughput"]["duration_s"],
            ),
            "reference": (
                peer["completed_requests"],
                peer["mean_ttft_ms"],
                peer["p99_ttft_ms"],
                peer["mean_itl_ms"],
                peer["first_admission_prefix_cache_reused_ratio"],
                peer["duration_ms"] / 1000,
            ),
        }
        for who, (completed, mean, p99, itl, reuse, duration) in rows.items():
            print(f"| {name} | {who} | {completed} | {mean:.2f} | {p99:.1f} | {itl:.4f} | {reuse:.5f} | {duration:.2f} |")


main()
