"""How many CPU threads a training step wants, and whether they should spin while they wait.

python -m benchmarks.threads        about a minute; every cell is a process of its own
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks.provenance import write_result

WIDTHS = (64, 128, 256)
POLICIES = ("ACTIVE", "PASSIVE")
STEPS = 7


def main() -> None:
    """Measure every cell, print the table, write benchmarks/results/threads.json."""
    if len(sys.argv) == 3:
        print(json.dumps(cell(int(sys.argv[1]), int(sys.argv[2]))))
        return
    cores = os.cpu_count() or 1
    rows = []
    for width in WIDTHS:
        for threads in sorted({1, cores}):
            for policy in POLICIES if threads > 1 else ("PASSIVE",):
                rows.append(measured(width, threads, policy))
                row = rows[-1]
                print(
                    f"width {width:4}  {threads} threads  {policy:8}  "
                    f"{1000 * row['median']:7.1f} ms a step  "
                    f"({1000 * row['lowest']:.1f} to {1000 * row['highest']:.1f})",
                    flush=True,
                )
    write_result("threads", {"command": "python -m benchmarks.threads", "rows": rows})


def measured(width: int, threads: int, policy: str) -> dict[str, float | int | str]:
    """Seconds a step of one cell, in a fresh process: the policy is read when torch loads."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.threads", str(width), str(threads)],
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = json.loads(answer.stdout)
    return {
        "width": width,
        "threads": threads,
        "policy": policy,
        "median": statistics.median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
    }


def cell(width: int, threads: int) -> list[float]:
    """Seconds of each of a few training steps of a 6-block flow on 32 texts of 16 words."""
    import torch

    from flowlm.methods.flow import Flow
    from flowlm.methods.input import PosteriorInput
    from flowlm.nn import Size
    from flowlm.tasks.drawn import Drawn
    from flowlm.tasks.generated import Generated
    from flowlm.train import Plan, State, train

    torch.set_num_threads(threads)
    task = Generated()
    size = Size(6, width, 4, 32, dropout=0.0, attention_cap=None, output_cap=None)
    method = Flow(input=PosteriorInput())
    plan = Plan(steps=STEPS + 3, batch=32, warmup=1)
    network = method.network(size, task.vocab, task.length)
    steps = train(State(network, plan), method.loss, Drawn(task, 32, 0), plan)
    seconds = []
    began = time.perf_counter()
    for _ in steps:
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds[3:]


if __name__ == "__main__":
    main()
