"""Passing models on: between the two formats, and to the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowlm.errors import Refusal
from flowlm.evaluate import reports
from flowlm.evaluate.report import checked
from flowlm.files import new_directory
from flowlm.hub.transfer import locate
from flowlm.model.language_model import LanguageModel
from flowlm.model.loading import load
from flowlm.model.released import is_released, write_folder


def convert(source: str | Path, target: Path, tokenizer: str | None = None) -> str:
    """Write a released model as a flowlm export, or a flowlm model in the released format.

    Safetensors both ways, into a new directory that appears when it is complete. Returns which of
    the two it was, in words.
    """
    place = locate(source)
    model = load(place if place.exists() else source, "cpu", tokenizer=tokenizer)
    if is_released(place):
        model.save(target)
        return "a flowlm export"
    with new_directory(target) as built:
        write_folder(model.experiment, model.weights, model.network.vocab, built)
        if model.tokenizer is not None:
            model.tokenizer.save(built / "tokenizer.json")
    return "a model in the released format"


def publish(
    run: str, hub_id: str, report: Path | None = None, private: bool = False,
    license: str | None = None,
) -> str:  # fmt: skip
    """Publish the model that `run` names as `owner/name`; returns its URL.

    Its card holds the figures of `report`, a report.json, by default the one that `flowlm evaluate`
    wrote of `run`, if there is one, and the id of the `license`. A Refusal if that report is of
    other weights.
    """
    model = load(run, "cpu")
    own = reports.place_of(run) / reports.REPORT
    file = report if report is not None else own if own.exists() else None
    return model.push(hub_id, None if file is None else _figures(file, model), private, license)


def _figures(file: Path, model: LanguageModel) -> Mapping[str, Any]:
    try:
        report = checked(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, Refusal) as error:
        raise Refusal(
            f"{file} is not a report of flowlm: write it with `flowlm evaluate`."
        ) from error
    if (report.get("facts") or {}).get("weights") != model.fingerprint:
        raise Refusal(
            f"{file} holds the figures of other weights than the model has: run `flowlm evaluate` "
            "again, or remove the report."
        )
    return report
