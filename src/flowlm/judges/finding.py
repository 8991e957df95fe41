"""Finding a judge before anything is imported that takes seconds. Torch-free."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flowlm.checks import file_name
from flowlm.errors import Refusal
from flowlm.hub.names import JUDGE_FILES, JUDGES, PREFIX, HubId, hub_id, located
from flowlm.hub.transfer import fetch
from flowlm.model.finding import find_model


@dataclass(frozen=True)
class FoundJudge:
    """A judge that is there."""

    name: str
    """In reports: a hub id, or the last part of a path."""
    place: Path
    foreign: bool
    """Whether it is a model of the `transformers` library, and no flowlm model."""


def find_judge(name: str) -> FoundJudge:
    """The judge that `name` means: a flowlm model, or a folder or hub id of a causal model.

    A Refusal if there is none, or if it needs the package transformers and that is missing.
    """
    file_name("The name of a judge", name)
    here = located(name)
    if name and os.path.exists(here):
        foreign = _is_foreign(here)
        if foreign:
            _require_library(name)
        return FoundJudge(here.resolve().name, here if foreign else find_model(name), foreign)
    there = hub_id(JUDGES.get(name, name))
    if there is None:
        return FoundJudge(name, find_model(name), False)  # refused: nothing is called so
    return _fetched(there)


def _fetched(there: HubId) -> FoundJudge:
    """A judge of the hub: the weights come when it is known that they can be read."""
    said = str(there).removeprefix(PREFIX)
    if not _is_foreign(fetch(there, ("experiment.json", "config.json"))):
        return FoundJudge(said, find_model(str(there)), False)
    _require_library(said)
    return FoundJudge(said, fetch(there, JUDGE_FILES), True)


def _is_foreign(place: Path) -> bool:
    """Whether a folder has the configuration of a model of transformers."""
    if (place / "experiment.json").exists():
        return False
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def _require_library(name: str) -> None:
    if find_spec("transformers") is None:
        raise Refusal(
            f"The judge {name} needs the package transformers: `pip install 'flowlm[judge]'`."
        )
