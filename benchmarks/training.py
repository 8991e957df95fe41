"""A training step: ours against the dense one, masked diffusion, and the floor.

python -m benchmarks.training            about 20 minutes on two cores, 13 GiB
python -m benchmarks.training --quick    a smaller trunk: two minutes

Rounds alternate between the rivals; every cell is a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import asdict, replace

import torch

from benchmarks import floor
from benchmarks.cells import Numbers, in_a_process, step_cell, table
from benchmarks.provenance import write_result
from benchmarks.rivals import DEVICE, PAPER, Case, Precision
from flowlm.nn import Size

ROUNDS, REPEATS = 2, 3


def main() -> None:
    """Measure, print the table, write benchmarks/results/training.json."""
    if sys.argv[1:] and sys.argv[1] != "--quick":
        print(json.dumps(step_cell(json.loads(sys.argv[1]))))
        return
    quick = "--quick" in sys.argv
    size = Size(4, 256, 4, 64, 0.0, None, None) if quick else PAPER
    case = Case("flow", 30_522, 32, 128, size)
    threads = os.cpu_count() or 1
    results = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        rivals = ("flow", "dense", "masked", "map")[: 3 if precision == "float32" else 4]
        cells = {name: replace(case, rival=name, precision=precision) for name in rivals}
        if precision == "float32" and DEVICE == "cpu":
            # What one gets from the C library by default, each large tensor mapped anew.
            for name in ("flow", "dense"):
                cells[f"{name}, memory not kept"] = replace(cells[name], keep=False)
        measured = rounds(cells, threads)
        torch.set_num_threads(threads)
        rate = floor.rates(precision)
        work = floor.useful(cells["flow"])
        least = floor.seconds(work, rate)
        results.append(
            {
                "precision": precision,
                "rivals": measured,
                "floor": {"seconds": least, **asdict(work), "rates": asdict(rate)},
            }
        )
        show(precision, measured, least)
    name = "training-quick" if quick else "training"
    write_result(
        f"{name}-{DEVICE}" if DEVICE != "cpu" else name,
        {
            "command": " ".join(["python -m benchmarks.training", *sys.argv[1:]]),
            "case": asdict(case),
            "threads": threads,
            "results": results,
        },
    )


def rounds(cells: dict[str, Case], threads: int) -> dict[str, Numbers]:
    """Every rival in every round, in turn."""
    runs: dict[str, list[Numbers]] = {name: [] for name in cells}
    for _ in range(ROUNDS):
        for name, case in cells.items():
            cell = asdict(case) | {"repeats": REPEATS, "threads": threads}
            runs[name].append(in_a_process("benchmarks.training", cell))
            print(name, case.precision, runs[name][-1], flush=True)
    return {name: summary(found) for name, found in runs.items()}


def summary(runs: list[Numbers]) -> Numbers:
    """Medians over all steps of all rounds; the largest peak."""
    if any("failed" in run for run in runs):
        return {"failed": runs[0].get("failed")}
    seconds = sorted(s for run in runs for s in run["seconds"])
    return {
        "median": statistics.median(seconds),
        "lowest": seconds[0],
        "highest": seconds[-1],
        "steps": len(seconds),
        "bytes": max(run["bytes"] for run in runs),
    }


def show(precision: str, measured: dict[str, Numbers], least: float) -> None:
    """Times and memory, and both as multiples of ours."""
    ours = measured["flow"]
    rows = [
        [
            name,
            f"{m['median']:.2f} ({m['lowest']:.2f} to {m['highest']:.2f})",
            f"{m['median'] / ours['median']:.2f}",
            f"{m['bytes'] / 2**30:.2f}",
            f"{m['bytes'] / ours['bytes']:.2f}",
        ]
        for name, m in measured.items()
        if "failed" not in m
    ]
    rows.append(["floor", f"{least:.2f}", f"{least / ours['median']:.2f}", "", ""])
    print(table([precision, "seconds a step", "of ours", "GiB", "of ours"], rows), flush=True)


if __name__ == "__main__":
    main()
