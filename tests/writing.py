"""Texts of a method and a network, without a `LanguageModel` around them."""

from __future__ import annotations

import torch
from torch import Tensor

from flowlm import experiment
from flowlm.core import Streams
from flowlm.experiment.kinds import spelt
from flowlm.methods.method import Method
from flowlm.nn import DiT
from flowlm.sampling import Euler, Frame, Jumps, LeftToRight, PointSampler, Sampler, Unmask

INPUTS = {spelt(name): kind() for name, kind in experiment.INPUTS.items()}
"""By the words of the command line: projected, linear, posterior, bayes."""


def usual(method: Method) -> Sampler:
    """The sampler that the method's recipes name."""
    if method.samplers is PointSampler:
        return Euler() if method.times == 1 else Jumps()
    return {Unmask: Unmask(), LeftToRight: LeftToRight()}[method.samplers]


@torch.no_grad()
def frames(
    method: Method,
    network: DiT,
    prompt: Tensor,
    steps: int,
    rng: Streams,
    sampler: Sampler | None = None,
) -> list[Frame]:
    way = usual(method) if sampler is None else sampler
    return list(way.frames(method.denoiser(network), prompt, steps, rng))


def film(*arguments: object, **options: object) -> list[Tensor]:
    return [frame.tokens() for frame in frames(*arguments, **options)]
