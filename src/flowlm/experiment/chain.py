"""Chains: experiments that are trained one after the other, each taught by the one before it.

A chain lives in one directory, a run a stage, in 1-NAME, 2-NAME, ...; its file `chain.json` holds
the experiments of all stages and how many of them are finished, so that it can go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flowlm.errors import Refusal
from flowlm.experiment.experiment import Experiment
from flowlm.experiment.places import inherit_from_teacher, rooted
from flowlm.experiment.stored import from_json, to_json
from flowlm.hub.names import CHAIN, stored_chain

Stages = tuple[Experiment, ...]


@dataclass(frozen=True)
class StoredChain:
    """A chain as its directory holds it."""

    stages: dict[str, Experiment]
    """By the names of their run directories, in order."""
    finished: int
    """How many of them, from the first on, have been trained to their end."""


def run_names(stages: Sequence[Experiment]) -> tuple[str, ...]:
    """Names of the run directories of a chain: 1-text-flow, 2-text-flow-map."""
    width = len(str(len(stages)))
    return tuple(f"{i:0{width}}-{stage.name}" for i, stage in enumerate(stages, 1))


def is_taught(stage: Experiment, before: Experiment | None) -> bool:
    """Whether the run before a stage is its teacher; a Refusal if the method cannot learn of it."""
    if before is None or not stage.method.teachers:
        return False
    if not isinstance(before.method, stage.method.teachers):
        fitting = " or ".join(kind.__name__ for kind in stage.method.teachers)
        raise Refusal(
            f"The stage {stage.name} of a chain learns from a {fitting}, and the stage before it "
            f"is a {type(before.method).__name__}: put another one there."
        )
    return True


def linked(stages: Iterable[Experiment], places: Iterable[Path | str]) -> Stages:
    """Every stage with the run of the stage before it as its teacher, where its method takes one.

    Runs lie in `places`. A student takes over what `--method.teacher` has it take over.
    """
    found: list[Experiment] = []
    before: tuple[str, Experiment] | None = None
    for stage, place in zip(stages, places, strict=True):
        if before is not None and is_taught(stage, before[1]):
            stage = inherit_from_teacher(stage, *before)
        found.append(stage)
        before = str(place), stage
    return tuple(found)


def of_one_text(stages: Sequence[Experiment]) -> Stages:
    """The stages with the data of the first: a student has no tokenizer until its teacher has."""
    return tuple(replace(stage, data=stages[0].data) for stage in stages)


def chain_json(chain: StoredChain) -> str:
    """The content of chain.json; `read_chain` gives an equal value back."""
    stages = {name: json.loads(to_json(rooted(stage))) for name, stage in chain.stages.items()}
    return json.dumps({"finished": chain.finished, "stages": stages}, indent=2) + "\n"


def read_chain(directory: Path) -> StoredChain:
    """The chain of a directory; teachers are the runs in it, wherever it lies today."""
    file, stored = directory / CHAIN, stored_chain(directory)
    stages = {name: from_json(json.dumps(of), file) for name, of in stored["stages"].items()}
    names = list(stages)
    for before, name in pairwise(names):
        if is_taught(stages[name], stages[before]):
            method = stages[name].method.with_teacher(str((directory / before).absolute()))
            stages[name] = replace(stages[name], method=method)
    return StoredChain(stages, stored["finished"])
