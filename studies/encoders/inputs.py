"""The inputs that are compared: those of the package, and one thing changed at a time.

`linear` is in projected space, with the table's learning rate tuned; `wide` gives it more numbers;
`posterior` and `bayes` may have another floor, or some of their views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from flowlm import core
from flowlm.chunked import Evidence, LazyOneHot, LazyPoint, posterior
from flowlm.methods.flow import Flow
from flowlm.methods.input import Input
from flowlm.nn import Bayes, DiT, Encoder, Posterior, Projected
from flowlm.nn.encoder import MIN_BETA


@dataclass(frozen=True)
class Variant(Input):
    """An encoder, and how its table learns."""

    name: str
    """linear, wide, posterior or bayes."""
    gain: float = 1.0
    """The table is `gain` times a parameter: Adam moves it so many times as fast."""
    scale: float = 1.0
    """Of the table at the start."""
    prior: bool = True
    floor: float = MIN_BETA
    views: str = "both"
    """Of the posterior: its mean, its deviation from the prior, or both."""

    @property
    def in_strips(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.name in ("posterior", "bayes")

    @property
    def of_table(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.in_strips

    def space(self, network: DiT) -> core.Space:
        return (
            LazyOneHot(network.vocab) if self.in_strips else network.encoder.derived(core.Projected)
        )

    def encoder(self, vocab: int, width: int, clock: core.Clock) -> Encoder:
        match self.name:
            case "bayes" if self.views != "both" or self.floor != MIN_BETA:
                made = Ablated(vocab, width, clock.t, self)
            case "bayes" | "posterior":
                made = {"bayes": Bayes, "posterior": Posterior}[self.name](vocab, width, clock.t)
            case "wide":
                made = Wide(vocab, 4 * width, width)
            case _:
                made = Projected(vocab, width)
        with torch.no_grad():
            made.table.mul_(self.scale)
        if self.gain != 1:
            parametrize.register_parametrization(made, "table", Scaled(self.gain))
        return made

    def prepare(self, network: DiT, counts: Callable[[], Tensor]) -> None:
        if self.in_strips and self.prior:
            network.set_prior(counts())


@dataclass(frozen=True)
class Clocked(Flow):
    """A flow with the clock of another vocabulary."""

    words: int = 0

    def time(self, vocab: int) -> core.Clock:
        return core.Decoding(self.words)


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

    def __init__(
        self, vocab: int, width: int, t_of_tau: Callable[[Tensor], Tensor], variant: Variant
    ) -> None:
        super().__init__(vocab, width, t_of_tau)
        self.variant = variant

    def forward(self, x: LazyPoint, tau: Tensor | None) -> Tensor:
        assert tau is not None
        width = self.table.shape[1]
        at_least = core.beta(self.t_of_tau(tau)).clamp(min=max(self.variant.floor, 1e-3))
        mean = posterior(Evidence(x, at_least), self.log_prior).expect(self.table)
        deviation = F.rms_norm(mean - self.log_prior.exp() @ self.table, (width,))
        mean = width**0.5 * mean
        return {"mean": mean, "deviation": deviation, "both": mean + deviation}[self.variant.views]
