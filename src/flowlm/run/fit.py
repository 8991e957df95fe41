"""Training from Python: an experiment into a directory, and its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowlm.checks import file_name
from flowlm.data.tokens import PACKING, is_prepared
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, read_experiment, rooted, to_json
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.run.room import require_batch
from flowlm.run.training import train_run
from flowlm.train.checkpoint import found
from flowlm.train.log import screen


def fit(experiment: Experiment, directory: str | Path, quiet: bool) -> LanguageModel:
    """Train an experiment, or go on with it where it was stopped; see `flowlm.fit`."""
    directory = Path(file_name("The directory", directory))
    require_batch(experiment)
    again = bool(found(directory / "checkpoints"))
    if again:
        experiment = _same(experiment, directory)
    train_run(experiment, directory, screen(quiet), again)
    return load(directory, experiment.train.device)


def _same(experiment: Experiment, directory: Path) -> Experiment:
    """The experiment of the run in a directory, refused if it is another one."""
    stored, wanted = read_experiment(directory), rooted(experiment)
    if isinstance(wanted.data, Text) and isinstance(stored.data, Text):
        # A run has learnt these from its text.
        names = PACKING if is_prepared(wanted.data.path or "") else ("begin", "end")
        learnt = {name: vars(stored.data)[name] for name in names}
        wanted = replace(wanted, data=replace(wanted.data, **learnt))
    theirs, ours = (dict(_leaves(json.loads(to_json(of)))) for of in (stored, wanted))
    for name in (*ours, *theirs):
        if theirs.get(name) != ours.get(name):
            raise Refusal(
                f"{directory} holds a run with another {name} ({theirs.get(name)} instead of "
                f"{ours.get(name)}): choose another out, or leave that option as it was."
            )
    return stored


def _leaves(stated: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in stated.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{within}{name}.")
        else:
            yield within + name, value
