"""Two predictions combined: away from a weaker one, in the logarithm, a strip at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flowlm.chunked.in_strips import InStrips
from flowlm.core.distribution import TokenDistribution
from flowlm.core.types import Patch, Probs

LEAST = -1e20
"""Log-probability that stands for that of a token that the weak prediction rules out."""


@dataclass(frozen=True, eq=False)
class Guided(InStrips):
    """log p = w log p_strong + (1 - w) log p_weak + const, row by row. No gradient flows.

    w = 1 is the strong prediction and w = 0 the weak one; above 1 leads away from the weak one
    (autoguidance, Karras et al. 2024, arXiv 2406.02507; classifier-free guidance, Ho and Salimans
    2022). In the logarithm, not in the mean, so that rows stay on the simplex. Where rows are
    evidence it counts once, as the weights sum to 1, and only the contexts are led apart. A token
    that the strong prediction rules out stays so.
    """

    strong: TokenDistribution
    weak: TokenDistribution
    weight: float

    @property
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""
        return self.strong.shape

    @property
    def device(self) -> torch.device:
        """Device of its parts."""
        return self.strong.device

    @torch.no_grad()
    def log_probs(self, patch: Patch | None = None) -> Probs:
        """Log-probabilities in nats, of all rows (b, l, v) or of a patch of them (n, m, v)."""
        strong, weak = self.strong.log_probs(patch), self.weak.log_probs(patch).clamp(min=LEAST)
        strong = strong.to(torch.promote_types(strong.dtype, weak.dtype))
        mixed = self.weight * strong.clamp(min=LEAST) + (1 - self.weight) * weak
        return mixed.masked_fill(strong == -torch.inf, -torch.inf).log_softmax(-1)

    def with_temperature(self, temperature: float) -> Guided:
        """Both parts at it: logarithms are combined, so that is the temperature of the whole."""
        strong, weak = (part.with_temperature(temperature) for part in (self.strong, self.weak))
        return Guided(strong, weak, self.weight)


def guided(strong: TokenDistribution, weak: TokenDistribution, weight: float) -> TokenDistribution:
    """`Guided`, and at the weights 1 and 0 the strong and the weak prediction themselves."""
    if weight in (0, 1):
        return strong if weight == 1 else weak
    return Guided(strong, weak, weight)
