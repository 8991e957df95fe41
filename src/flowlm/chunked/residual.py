"""Predictions that a residual corrects: rows of a softmax and of a linear head, as a sum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.chunked.in_strips import InStrips
from flowlm.chunked.logits import CentredLogits, centred
from flowlm.chunked.points import LazyPoint
from flowlm.chunked.space import LazyOneHot
from flowlm.core.distribution import TokenDistribution
from flowlm.core.space import Projected, Space
from flowlm.core.types import Patch, Point, Probs, Time

LEAST = 1e-30
"""Probability of a token that a residual takes below it."""


@dataclass(frozen=True, eq=False)
class ResidualPrediction(InStrips):
    """delta = p + k g, where g is the centred logits of another prediction.

    Rows sum to 1 and may leave the simplex. `rows` and `point` are delta itself. As a distribution
    it is the positive part, normalised: its likeliest token is the largest entry of delta.
    """

    base: TokenDistribution
    """p."""
    residual: TokenDistribution
    """Its centred logits are g."""
    k: Time
    vocab: int
    temperature: float = 1.0

    @property
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""
        return self.base.shape

    @property
    def device(self) -> torch.device:
        """Device of its parts."""
        return self.base.device

    @torch.no_grad()
    def rows(self, patch: Patch | None = None) -> Float[Tensor, "n m v"]:
        """delta, all of it (b, l, v) or a patch. No gradient flows into a target."""
        patch = patch or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        change = self.k.expand(self.shape)[patch][..., None] * self.change(patch)
        return self.base.log_probs(patch).exp() + change

    @torch.no_grad()
    def change(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """g, of a patch."""
        return centred(self.residual.log_probs(patch))

    @torch.no_grad()
    def point(self, space: Space) -> Point:
        """delta in a space."""
        return space.mean(self.base) + self.k[..., None] * self._change_in(space)

    def _change_in(self, space: Space) -> Point:
        """g in a space; where its points have no rows, g @ E from strips of them."""
        match space:
            case LazyOneHot():
                term = CentredLogits.of(self.residual)
                return LazyPoint.of(term, *self.shape, self.vocab, device=self.device)
            case Projected():
                table = space.table
                return self.residual.reduce(
                    lambda logp, patch: (centred(logp) @ table.to(logp.dtype)).to(logp.dtype)
                )
            case _:
                return space.from_one_hot(centred(self.residual.log_probs()))

    def log_probs(self, patch: Patch | None = None) -> Probs:
        """Of the positive part, normalised, nats."""
        return (self.rows(patch).clamp(min=LEAST).log() / self.temperature).log_softmax(-1)

    def with_temperature(self, temperature: float) -> ResidualPrediction:
        """Of the positive part."""
        return replace(self, temperature=self.temperature * temperature)
