"""Samplers led away from a weaker network: autoguidance, and guidance by the prompt."""

from __future__ import annotations

from math import isfinite

import torch

from flowlm.errors import Refusal
from flowlm.methods.guides import guidable, with_dropout
from flowlm.model.language_model import LanguageModel
from flowlm.sampling.guidance import GuidedSampler, without_prompt
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Sampler

MOST = 1000.0
"""Largest weight, of either sign: rows are powers of ratios, in float32."""


def guided(
    model: LanguageModel,
    by: LanguageModel | None = None,
    dropout: float | None = None,
    prompt: bool = False,
    weight: float = 2.0,
    sampler: Sampler | None = None,
) -> GuidedSampler:
    """A sampler of the model, led away from a weaker network; see `LanguageModel.guided`."""
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not isfinite(weight):
        raise Refusal("The weight of guidance must be a number, such as 2.0.")
    if abs(weight) > MOST:
        raise Refusal(f"The weight of guidance must lie within {MOST:,.0f} of 0, not {weight}.")
    if not isinstance(prompt, bool):
        raise Refusal(
            "prompt= of guidance is True or False: the given tokens themselves are the prompt= of "
            "generate."
        )
    if (by is not None) + (dropout is not None) + prompt != 1:
        raise Refusal(
            "Guidance leads away from one weaker network: give by=, dropout= or prompt=True."
        )
    method = guidable(model.experiment.method)
    way = model.experiment.sampler if sampler is None else sampler
    method.require_sampler(way)
    assert isinstance(way, PointSampler)
    if by is not None:
        _require_alike(model, by)
        theirs: Denoiser = by.experiment.method.denoiser(by.network)
        return GuidedSampler(way, lambda denoiser, rng: theirs.two_time, float(weight))
    if dropout is not None:
        weak = with_dropout(model.network, dropout)
        return GuidedSampler(way, lambda denoiser, rng: method.two_time(weak, rng), float(weight))
    return GuidedSampler(way, without_prompt, float(weight))


def _require_alike(model: LanguageModel, by: LanguageModel) -> None:
    """Refuse a guide that cannot read the points of the model."""
    if not isinstance(by, LanguageModel):
        raise Refusal(f"by= must be a model, and it is of the type {type(by).__name__}.")
    own, theirs = (guidable(of.experiment.method) for of in (model, by))
    facts = {
        "kind": (own.label, theirs.label),
        "vocabulary": (model.network.vocab, by.network.vocab),
        "length": (model.length, by.length),
        "input": (own.input, theirs.input),
        "clock": (own.clock, theirs.clock),
        "device": (str(model.device), str(by.device)),
    }
    for name, (ours, other) in facts.items():
        if ours != other:
            raise Refusal(
                f"The {name} of the guide ({other}) is not that of the model ({ours}): guide it by "
                "another run of the same kind."
            )
    tables = (model.network.encoder.table, by.network.encoder.table)
    if own.input.of_table and not torch.equal(*tables):
        raise Refusal(
            "Points of the projected input are made of the model's token table, and that of the "
            "guide is another: guide it with dropout=, or with a run that shares its table."
        )
