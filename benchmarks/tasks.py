"""Tasks with a checker: valid, new and covered texts of four methods by number of steps.

python -m benchmarks.tasks queens [--out runs] [--num 1000] [--set=--train.steps=20000]

Trains what is not there yet by the task's recipes (flow, then its map, masked, autoregressive), one
after the other; what is there goes on or is kept. `--set` passes an option on to every training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.provenance import write_result
from flowlm.experiment import read_experiment

PARTS = ("flow", "flow-map", "masked", "autoregressive")
FIGURES = ("valid", "novel", "coverage", "nll", "sample_entropy")


def main() -> None:
    """Print a line for every row, write benchmarks/results/TASK.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("queens", "sudoku", "addition"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    for part in PARTS:
        run = chosen.out / f"{chosen.task}-{part}"
        train(run, chosen.task, part, chosen.out, chosen.set)
        flowlm("evaluate", run, "--num", chosen.num, "--steps", 1, 2, 4, 8, 32)
        report = json.loads((run / "report.json").read_text())
        rows += report["rows"]
        held_out += report["held_out"]
    experiments = {
        part: read_experiment(chosen.out / f"{chosen.task}-{part}").train.steps for part in PARTS
    }
    figures = [{k: row.get(k) for k in ("method", "steps", "kinds", *FIGURES)} for row in rows]
    command = f"python -m benchmarks.tasks {' '.join(sys.argv[1:])}"
    file = write_result(
        chosen.task,
        {"command": command, "texts": chosen.num, "training steps": experiments}
        | {"rows": figures, "held_out": held_out}
        | {name: report[name] for name in ("reference", "controls")},
    )  # fmt: skip
    for row in (*figures, report["reference"], report["controls"][0]):
        cells = (f"{key} {row[key]:.4f}" for key in FIGURES if row.get(key) is not None)
        print(row["method"], row.get("steps", ""), *cells)
    print(f"Written: {file}")


def train(run: Path, task: str, part: str, out: Path, options: list[str]) -> None:
    """Train a recipe, go on with it, or leave it where it is finished."""
    if (run / "checkpoints").exists():
        flowlm("train", "--resume", run)
        return
    if part == "flow-map":
        options = ["--method.teacher", str(out / f"{task}-flow"), *options]
    flowlm("train", f"{task}-{part}", "--out", run, *options)


def flowlm(*words: object) -> None:
    """Run a command; its failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "flowlm", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
