"""Encoders compared: linear, posterior and bayes, at equal compute, flow and map, three seeds.

python -m benchmarks.encoders --text FILE                 the study; hours, on two cores
python -m benchmarks.encoders --text FILE --small         where the vocabulary fits into the width
python -m benchmarks.encoders --text FILE --vocabularies  the text in smaller vocabularies
python -m benchmarks.encoders --text FILE --ablations     one thing taken away at a time
python -m benchmarks.encoders --text FILE --tuning        learning rates and the linear table's gain
python -m benchmarks.encoders --text FILE --ratio         what a step of each costs
python -m benchmarks.encoders --text FILE --step          a step at v = 30,522: time and memory
python -m benchmarks.encoders --text FILE --kept          what a sampler's memory leaves out
python -m benchmarks.encoders --text FILE --argument      what a linear view can tell, in nats
python -m benchmarks.encoders --report                    tables and docs/encoders.svg from results

FILE is WikiText-2 in the study: its training and validation parts, one paragraph a line. Cells run
two at a time, a thread each, and those whose result is there are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.encoders import measures, plan, report
from benchmarks.encoders.cells import Cell, run
from benchmarks.encoders.variants import Variant
from benchmarks.encoders.worlds import prepare_text
from benchmarks.provenance import write_result

AT_ONCE = 2
"""Cells that train at the same time."""


def main() -> None:
    """Run what is asked for and write benchmarks/results/encoders*.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="the text, UTF-8")
    parser.add_argument("--out", type=Path, default=Path("runs/encoders"))
    for choice in (
        "small", "vocabularies", "ablations", "tuning", "ratio", "step", "kept", "argument",
        "report",
    ):  # fmt: skip
        parser.add_argument(f"--{choice}", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.report:
        report.show()
        return
    if given.cell:
        run(_cell(json.loads(given.cell)), given.out)
        return
    if given.text is None:
        parser.error("--text FILE is missing: the text to learn from, such as WikiText-2")
    prepare_text(given.text, given.out / "tokens")
    command = "python -m benchmarks.encoders --text FILE"
    for measure in (measures.ratio, measures.step, measures.kept, measures.argument):
        name = measure.__name__
        if getattr(given, name):
            found = measure(given.out)
            write_result(f"encoders-{name}", {"command": f"{command} --{name}", **found})
            return
    for make in (plan.small, plan.vocabularies, plan.ablations, plan.tuning):
        name = make.__name__
        if getattr(given, name):
            write_result(f"encoders-{name}", _trained(make(), f"{command} --{name}", given.out))
            return
    write_result("encoders", _trained(plan.study(), command, given.out))
    report.show()


def _trained(cells: list[Cell], command: str, out: Path) -> dict[str, Any]:
    """Everything that is known of cells, with what judges among them say of the others."""
    results = collected(cells, out)
    said = {c.world: measures.judged(c.world, cells, out) for c in cells if c.kind == "judge"}
    return {"command": command, "cells": results, "judged": said}


def collected(cells: list[Cell], out: Path) -> list[dict[str, Any]]:
    """The results of cells, run where they are missing, a map after its flow."""
    running: dict[str, Future[None]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for cell in cells:
            before = running.get(cell.teacher or "")
            running[cell.name] = pool.submit(_run_apart, cell, out, before)
        for future in running.values():
            future.result()
    return [json.loads((out / cell.name / "result.json").read_text()) for cell in cells]


def _run_apart(cell: Cell, out: Path, before: Future[None] | None) -> None:
    if before is not None:
        before.result()
    if (out / cell.name / "result.json").exists():
        return
    words = [sys.executable, "-m", "benchmarks.encoders", "--cell", json.dumps(asdict(cell))]
    subprocess.run([*words, "--out", str(out)], check=True)


def _cell(stated: dict[str, Any]) -> Cell:
    writes = tuple((steps, texts) for steps, texts in stated.pop("writes"))
    temperatures = tuple(stated.pop("temperatures"))
    variant = Variant(**stated.pop("variant"))
    return Cell(**stated, variant=variant, writes=writes, temperatures=temperatures)


if __name__ == "__main__":
    main()
