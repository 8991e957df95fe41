"""A model written down: as an export, and as what is uploaded to the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, to_json
from flowlm.files import write_text
from flowlm.hub.names import PREFIX
from flowlm.model.card import model_card
from flowlm.model.fingerprints import Fingerprints
from flowlm.model.front_matter import require_license
from flowlm.model.weights import Weights, write_weights
from flowlm.nn.dit import DiT

FLOWS = ("Flow", "FlowMap")
"""Methods that a page or a graph can hold, by name."""


def write_model(
    directory: Path,
    experiment: Experiment,
    weights: Weights,
    tokenizer: Tokenizer | None,
    fingerprints: Fingerprints | None,
) -> None:
    """Write the files of an export into a directory that is there."""
    write_weights(weights, directory / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save(directory / "tokenizer.json")
    if fingerprints is not None:
        fingerprints.write(directory)
    write_text(to_json(experiment), directory / "experiment.json")


def shared_card(
    experiment: Experiment,
    network: DiT,
    length: int,
    hub_id: str,
    report: Mapping[str, Any] | None,
    license: str | None,
) -> str:
    """The card of a model that is uploaded; a Refusal of a report that is none."""
    license = require_license(license)
    count, name = sum(p.numel() for p in network.parameters()), PREFIX + hub_id.removeprefix(PREFIX)
    try:
        return model_card(experiment, count, network.vocab, length, name, report, license)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Refusal(
            "The report is not the content of a report.json: `flowlm evaluate` writes one."
        ) from error


def without_places(experiment: Experiment) -> Experiment:
    """The experiment without the folders of the machine that it ran on; hub ids stay."""
    method, data = experiment.method, experiment.data
    if method.teacher is not None:
        method = method.with_teacher(_placeless(method.teacher))
    if isinstance(data, Text):
        data = replace(data, path=_placeless(data.path), tokenizer=_placeless(data.tokenizer))
    return replace(experiment, method=method, data=data, init=_placeless(experiment.init))


def require_flow(method: Mapping[str, Any], what: str, inputs: Mapping[str, str], of: str) -> None:
    """Refuse a method, as an experiment.json holds it, that is no flow or has none of the inputs.

    `what` begins the sentence, such as `A page runs`; `of` names the inputs in it.
    """
    if method["kind"] not in FLOWS:
        raise Refusal(
            f"{what} flows and flow maps, and this model is a {method['kind']}: serve it with "
            "flowlm serve."
        )
    if method["input"]["kind"] not in inputs:
        raise Refusal(
            f"{what} models whose input is {of}, and this one has {method['input']['kind']}: serve "
            "it with flowlm serve."
        )


def _placeless(name: str | None) -> str | None:
    return name if name is None or name.startswith(PREFIX) else Path(name).name
