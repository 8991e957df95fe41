"""The encoders that are compared, and the flows that read them.

Those of the package are `linear` (in projected space, with the table's learning rate tuned),
`posterior` and `bayes`; the others take one thing away from it, or give the linear one more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from flowlm.chunked import Evidence, LazyPoint, posterior
from flowlm.core import beta
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.nn import Bayes, DiT, Posterior, Projected, Size
from flowlm.nn.encoder import MIN_BETA, Encoder

Clock = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """An encoder, and how its table learns."""

    encoder: str
    gain: float = 1.0
    """The table is `gain` times a parameter: Adam moves it so many times as fast."""
    scale: float = 1.0
    """Of the table at the start."""
    prior: bool = True
    floor: float = MIN_BETA
    views: str = "both"
    """Of the posterior: its mean, its deviation from the prior, or both."""
    reach: int = 0
    """How many neighbours on each side the trunk mixes in."""
    clock_words: int | None = None
    """Words of the clock, in place of the vocabulary's."""


class Scaled(nn.Module):
    """A table that moves `gain` times as fast as its parameter."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, parameter: Tensor) -> Tensor:
        return self.gain * parameter

    def right_inverse(self, table: Tensor) -> Tensor:
        return table / self.gain


class Wide(Encoder):
    """The linear encoder through more than d numbers: (x @ E) @ A, E (v, w) and w > d."""

    def __init__(self, vocab: int, inner: int, width: int) -> None:
        super().__init__(vocab, inner)
        self.mix = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, tau: Tensor | None) -> Tensor:
        return self.mix(x)


class Ablated(Bayes):
    """The bayes encoder with another floor, or with some of its views."""

    def __init__(self, vocab: int, width: int, t_of_tau: Clock, variant: Variant) -> None:
        super().__init__(vocab, width, t_of_tau)
        self.variant = variant

    def forward(self, x: LazyPoint, tau: Tensor | None) -> Tensor:
        assert tau is not None
        width = self.table.shape[1]
        at_least = beta(self.t_of_tau(tau)).clamp(min=max(self.variant.floor, 1e-3))
        mean = posterior(Evidence(x, at_least), self.log_prior).expect(self.table)
        deviation = F.rms_norm(mean - self.log_prior.exp() @ self.table, (width,))
        mean = width**0.5 * mean
        return {"mean": mean, "deviation": deviation, "both": mean + deviation}[self.variant.views]


def built(
    variant: Variant, method: Continuous, size: Size, vocab: int, length: int, times: int
) -> DiT:
    """The network of a variant, before it has seen the text."""
    size, clock = replace(size, reach=variant.reach), method.time(vocab).t
    match variant.encoder:
        case "bayes" if variant.views == "both" and variant.floor == MIN_BETA:
            encoder = Bayes(vocab, size.width, clock)
        case "bayes":
            encoder = Ablated(vocab, size.width, clock, variant)
        case "posterior":
            encoder = Posterior(vocab, size.width, clock)
        case "wide":
            encoder = Wide(vocab, 4 * size.width, size.width)
        case _:
            encoder = Projected(vocab, size.width)
    with torch.no_grad():
        encoder.table.mul_(variant.scale)
    if variant.gain != 1:
        parametrize.register_parametrization(encoder, "table", Scaled(variant.gain))
    return DiT(size, encoder, vocab, length, times)


@dataclass(frozen=True)
class VariedFlow(Flow):
    """A flow whose encoder is a variant."""

    variant: Variant = Variant("linear")

    def time(self, vocab: int) -> core.Clock:
        return core.Decoding(self.variant.clock_words or vocab)

    def build(self, size: Size, vocab: int, length: int, times: int) -> DiT:
        return built(self.variant, self, size, vocab, length, times)


@dataclass(frozen=True)
class VariedMap(FlowMap):
    """A flow map whose encoder is a variant."""

    variant: Variant = Variant("linear")

    def build(self, size: Size, vocab: int, length: int, times: int) -> DiT:
        return built(self.variant, self, size, vocab, length, times)


def methods(variant: Variant, temperature: float = 1.0) -> tuple[VariedFlow, VariedMap]:
    """The flow of a variant, written at a temperature, and its map at that temperature."""
    name = variant.encoder if variant.encoder in ("posterior", "bayes") else "projected"
    make = partial(dict, encoder=name, variant=variant, temperature=temperature)
    return VariedFlow(**make()), VariedMap(**make(teacher="the flow"))
