"""Runs in a directory: what each is, how far it is, how it validated last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, read_experiment
from flowlm.experiment.chain import read_chain
from flowlm.hub.names import CHAIN
from flowlm.run.metrics import records


def listed(directory: Path) -> list[dict[str, Any]]:
    """A row a run, by name. A Refusal if the directory has none."""
    rows = [_row(place, directory, experiment) for place, experiment in _runs(directory)]
    if not rows:
        raise Refusal(f"There is no run in {directory}: name a directory that holds some.")
    return rows


def _runs(directory: Path) -> Iterator[tuple[Path, Experiment]]:
    """Runs of this version; of a chain all stages in their order, those to come too."""
    for above in ("", "*/", "*/*/"):
        for file in sorted(directory.glob(f"{above}experiment.json")):
            if file.parent == directory or not (file.parent.parent / CHAIN).exists():
                with suppress(Refusal):
                    yield file.parent, read_experiment(file.parent)
        for file in sorted(directory.glob(f"{above}{CHAIN}")):
            with suppress(Refusal):
                for name, planned in read_chain(file.parent).stages.items():
                    place = file.parent / name
                    begun = (place / "experiment.json").exists()
                    yield place, read_experiment(place) if begun else planned


def _row(place: Path, directory: Path, experiment: Experiment) -> dict[str, Any]:
    """The figures of a run."""
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
