"""Runs in a directory: what each is, how far it is, how it validated last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.experiment import Text, read_experiment
from flowlm.run.metrics import records


def listed(directory: Path) -> list[dict[str, Any]]:
    """A row a run, by name. A Refusal if the directory has none."""
    rows = [row for place in _places(directory) if (row := _row(place, directory)) is not None]
    if not rows:
        raise Refusal(f"There is no run in {directory}: name a directory that holds some.")
    return rows


def _places(directory: Path) -> Iterator[Path]:
    for pattern in ("experiment.json", "*/experiment.json", "*/*/experiment.json"):
        yield from sorted(file.parent for file in directory.glob(pattern))


def _row(place: Path, directory: Path) -> dict[str, Any] | None:
    """The figures of a directory; None of one that is no run of this version."""
    try:
        experiment = read_experiment(place)
    except Refusal:
        return None
    step, valid = 0, None
    for record in records(place):
        step, valid = record.get("step", step), record.get("valid", valid)
    data, size = experiment.data, experiment.size
    return {
        "run": "." if place == directory else str(place.relative_to(directory)),
        "method": experiment.method.label,
        "data": Path(data.path or "text").name if isinstance(data, Text) else data.about,
        "size": f"{size.blocks} x {size.width}",
        "step": step,
        "steps": experiment.train.steps,
        "valid": valid,
    }
