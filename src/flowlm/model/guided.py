"""Samplers led away from a weaker network: autoguidance, and guidance by the prompt."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import isfinite

import torch

from flowlm.errors import Refusal
from flowlm.methods.continuous import Continuous
from flowlm.model.language_model import LanguageModel
from flowlm.nn.dit import Block, DiT
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
    if (by is not None) + (dropout is not None) + bool(prompt) != 1:
        raise Refusal(
            "Guidance leads away from one weaker network: give by=, dropout= or prompt=True."
        )
    method = model.experiment.method
    if not isinstance(method, Continuous) or method.samplers is not PointSampler:
        raise Refusal(f"{method.label} cannot be guided: a flow or a flow map can.")
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


def with_dropout(network: DiT, share: float) -> DiT:
    """The same weights, not copied, in a network that drops a share of what its blocks add."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise Refusal("The dropout of the weak network must lie above 0 and below 1, such as 0.1.")
    tensors = (*network.parameters(), *network.buffers())
    weak = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    weak.size = replace(network.size, dropout=float(share))
    for block in weak.blocks:
        assert isinstance(block, Block)
        block.dropout = float(share)
    return weak.train()


def _require_alike(model: LanguageModel, by: LanguageModel) -> None:
    """Refuse a guide that cannot read the points of the model."""
    if not isinstance(by, LanguageModel):
        raise Refusal(f"by= must be a model, and it is of the type {type(by).__name__}.")
    own, theirs = model.experiment.method, by.experiment.method
    assert isinstance(own, Continuous)
    if not isinstance(theirs, Continuous) or theirs.samplers is not PointSampler:
        raise Refusal(f"{theirs.label} cannot guide: a flow or a flow map can.")
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
