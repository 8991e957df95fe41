"""Encoders compared: linear, posterior and bayes, at equal compute, flow and map, three seeds.

python -m studies.encoders study --text FILE         hours, on two cores
python -m studies.encoders small --text FILE         where the vocabulary fits into the width
python -m studies.encoders vocabularies --text FILE  the text in smaller vocabularies
python -m studies.encoders ablations --text FILE     one thing taken away at a time
python -m studies.encoders tuning --text FILE        learning rates and the linear table's gain
python -m studies.encoders ratio --text FILE         what a step of each costs
python -m studies.encoders step --text FILE          a step at v = 30,522: time and memory
python -m studies.encoders kept --text FILE          what a sampler's memory leaves out
python -m studies.encoders argument --text FILE      what a linear view can tell, in nats
python -m studies.encoders report                    tables and docs/encoders.svg from results

FILE is WikiText-2 in the study: its training and validation parts, one paragraph a line. Cells run
two at a time, a thread each, and those whose result is there are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.provenance import provenance

from studies.encoders import measures, plan, report
from studies.encoders.cells import Cell, run
from studies.encoders.worlds import prepare_text

RESULTS = Path(__file__).parents[1] / "results"
AT_ONCE = 2
"""Cells that train at the same time."""


def main() -> None:
    """Run what is asked for and write studies/results/encoders*.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*plan.PARTS, *measures.MEASURED, "report"])
    parser.add_argument("--text", type=Path, help="the text, UTF-8")
    parser.add_argument("--out", type=Path, default=Path("runs/encoders"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "report":
        return report.show(RESULTS)
    if given.cell:
        (cell,) = (c for c in plan.PARTS[given.what]() if c.name == given.cell)
        return run(cell, given.out)
    if given.text is None:
        parser.error("--text FILE is missing: the text to learn from, such as WikiText-2")
    prepare_text(given.text, given.out)
    if given.what in plan.PARTS:
        cells = plan.PARTS[given.what]()
        found = {"cells": collected(cells, given.what, given.out)}
        found["judged"] = {
            c.world: measures.judged(c, cells, given.out) for c in cells if c.kind == "judge"
        }
    else:
        found = measures.MEASURED[given.what](given.out)
    told = {"provenance": provenance(), "command": f"python -m studies.encoders {given.what}"}
    report.write(told | found, RESULTS / report.file_of(given.what))


def collected(cells: list[Cell], what: str, out: Path) -> list[dict]:
    """The results of cells, run where they are missing, a map after its flow."""
    running: dict[str, Future[None]] = {}

    def apart(cell: Cell, before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        if not (out / cell.name / "result.json").exists():
            words = [sys.executable, "-m", "studies.encoders", what, "--cell", cell.name]
            subprocess.run([*words, "--out", str(out)], check=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for cell in cells:
            running[cell.name] = pool.submit(apart, cell, running.get(cell.teacher or ""))
        for future in running.values():
            future.result()
    return [json.loads((out / cell.name / "result.json").read_text()) for cell in cells]


if __name__ == "__main__":
    main()
