"""Texts of a method and a network without a `LanguageModel`, and of any language as a task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowlm import experiment
from flowlm.core import Language, Streams
from flowlm.experiment.kinds import spelt
from flowlm.methods.method import Method
from flowlm.nn import DiT
from flowlm.sampling import (
    Draft,
    Euler,
    Frame,
    Jumps,
    LeftToRight,
    NextTokenSampler,
    PointSampler,
    Replace,
    ResidualJumps,
    Sampler,
    Tweedie,
    TweedieUniform,
    Unmask,
)
from flowlm.tasks.sentences import Sentences

INPUTS = {spelt(name): kind() for name, kind in experiment.INPUTS.items()}
"""By the words of the command line: projected, linear, posterior, bayes."""


def usual(method: Method) -> Sampler:
    """The sampler that the method's recipes name."""
    if method.samplers is PointSampler:
        return Euler() if method.times == 1 else Jumps()
    known = (Unmask(), Replace(), Tweedie(), TweedieUniform(), ResidualJumps(), Jumps(), Draft())
    known = {type(sampler): sampler for sampler in known} | {NextTokenSampler: LeftToRight()}
    return known[method.samplers]


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


@dataclass(frozen=True, eq=False)
class Spoken(Sentences):
    """Any language as a task."""

    about = "sentences of a small language"
    itself = "The language itself"
    known: Language

    @property
    def language(self) -> Language:
        """The language."""
        return self.known

    @property
    def words(self) -> tuple[str, ...]:
        """Numbers."""
        return tuple(map(str, range(self.known.vocab)))
