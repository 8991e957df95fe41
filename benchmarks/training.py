"""A training step: ours against the dense one, masked diffusion, and the floor.

python -m benchmarks.training            about 20 minutes on two cores, 13 GiB
python -m benchmarks.training --quick    a smaller trunk: two minutes

Every cell is a process of its own.
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

REPEATS = 5


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
        rivals = ("flow", "dense", "masked")
        cells = {name: replace(case, rival=name, precision=precision) for name in rivals}
        if precision == "float32" and DEVICE == "cpu":
            # What one gets from the C library by default, each large tensor mapped anew.
            for name in ("flow", "dense"):
                cells[f"{name}, memory not kept"] = replace(cells[name], keep=False)
        found = {name: measured(cell, threads) for name, cell in cells.items()}
        torch.set_num_threads(threads)
        rate = floor.rates(precision)
        work = floor.useful(cells["flow"])
        least = floor.seconds(work, rate)
        results.append(
            {
                "precision": precision,
                "rivals": found,
                "floor": {"seconds": least, **asdict(work), "rates": asdict(rate)},
            }
        )
        show(precision, found, least)
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


def measured(cell: Case, threads: int) -> Numbers:
    """Median, lowest and highest of the steps, and the peak of memory."""
    settings = {"repeats": REPEATS, "threads": threads}
    ran = in_a_process("benchmarks.training", asdict(cell) | settings)
    print(cell.rival, cell.precision, ran, flush=True)
    if "failed" in ran:
        return ran
    seconds = sorted(ran["seconds"])
    return {
        "median": statistics.median(seconds),
        "lowest": seconds[0],
        "highest": seconds[-1],
        "steps": len(seconds),
        "bytes": ran["bytes"],
    }


def show(precision: str, found: dict[str, Numbers], least: float) -> None:
    """Times and memory, and both as multiples of ours."""
    ours = found["flow"]
    rows = [
        [
            name,
            f"{m['median']:.2f} ({m['lowest']:.2f} to {m['highest']:.2f})",
            f"{m['median'] / ours['median']:.2f}",
            f"{m['bytes'] / 2**30:.2f}",
            f"{m['bytes'] / ours['bytes']:.2f}",
        ]
        for name, m in found.items()
        if "failed" not in m
    ]
    rows.append(["floor", f"{least:.2f}", f"{least / ours['median']:.2f}", "", ""])
    print(table([precision, "seconds a step", "of ours", "GiB", "of ours"], rows), flush=True)


if __name__ == "__main__":
    main()
