"""Of several predictions, the rows of one for each text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flowlm.chunked.in_strips import InStrips
from flowlm.core.distribution import TokenDistribution
from flowlm.core.types import Patch, Probs


@dataclass(frozen=True, eq=False)
class Chosen(InStrips):
    """Of several predictions of the same shape, for each text the rows of one. No gradient flows.

    Rows are made of those predictions alone that some text of a patch has chosen.
    """

    parts: tuple[TokenDistribution, ...]
    choice: tuple[int, ...]
    """The part of each text, (b,)."""

    @property
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""
        return self.parts[0].shape

    @property
    def device(self) -> torch.device:
        """Device of its parts."""
        return self.parts[0].device

    @torch.no_grad()
    def log_probs(self, patch: Patch | None = None) -> Probs:
        """Log-probabilities in nats, of all rows (b, l, v) or of a patch of them (n, m, v)."""
        choice = self.choice if patch is None else self.choice[patch[0]]
        rows = {part: self.parts[part].log_probs(patch) for part in set(choice)}
        return torch.stack([rows[part][text] for text, part in enumerate(choice)])

    def with_temperature(self, temperature: float) -> Chosen:
        """Every part at it."""
        parts = tuple(part.with_temperature(temperature) for part in self.parts)
        return Chosen(parts, self.choice)
