"""The demo over three seeds: is one step of the flow map better than eight of masked diffusion?

python -m benchmarks.demo [--out runs/demo-seeds]        the demo's time, three times over
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.provenance import write_result
from flowlm.cli import show
from flowlm.run.demo import NUM, demo_report, train_demo

SEEDS = (0, 1, 2)
FIGURES = ("valid", "nll", "sample_entropy", "unique")


def main() -> None:
    """Run the demo for each seed, print mean and spread, write benchmarks/results/demo.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    out = parser.parse_args().out
    console = Console()
    reports = []
    for seed in SEEDS:
        console.rule(f"seed {seed}")
        show.progress(console, train_demo(out / str(seed), seed))
        reports.append(demo_report(out / str(seed), seed))
        show.results(console, reports[-1])
    table = combined(reports)
    file = write_result(
        "demo",
        {
            "command": "python -m benchmarks.demo",
            "seeds": list(SEEDS),
            "texts": NUM,
            "reference": reports[0]["reference"],
            "facts": [report["facts"] for report in reports],
            "rows": table,
        },
    )
    console.rule("mean over seeds [lowest, highest]")
    for row in table:
        cells = "  ".join(f"{name} {spread(row[name])}" for name in FIGURES)
        console.print(f"{row['method']:16} {row['steps']!s:>4}  {cells}", highlight=False)
    console.print(f"Written: {file}")


def combined(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a list of values, one per seed, in place of each figure."""
    rows = []
    for group in zip(*(report["rows"] for report in reports), strict=True):
        first = group[0]
        assert all((r["method"], r["steps"]) == (first["method"], first["steps"]) for r in group)
        values = {name: [row.get(name) for row in group] for name in (*FIGURES, "seconds")}
        rows.append({name: first[name] for name in ("method", "steps", "evaluations")} | values)
    return rows


def spread(values: list[float]) -> str:
    """Mean [lowest, highest]."""
    return f"{statistics.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
