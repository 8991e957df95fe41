"""Targets made with a derivative: rows whose sum is 1, but which may leave the simplex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from flowlm.core.distribution import Mixture, Target, TokenDistribution
from flowlm.core.types import Patch, Probs, Time


@runtime_checkable
class Moving(Protocol):
    """A prediction, and how its rows change as time goes by."""

    @property
    def prediction(self) -> TokenDistribution:
        """The rows."""
        ...

    def rows(self, patch: Patch) -> tuple[Probs, Probs]:
        """log p and d log p / dt of a patch, (n, m, v)."""
        ...


@dataclass(frozen=True, eq=False)
class Extrapolated(Target):
    """A mixture and a multiple of a derivative, whose rows sum to 0.

    Where the sum leaves the simplex it still is the right target of a cross-entropy or a squared
    error: both are least, on the simplex, where the target says if it can be reached. Both are
    linear in the target, so that noise in it does not move the optimum.
    """

    mixture: Mixture
    factor: Time
    moving: Moving

    def probs(self, patch: Patch) -> Probs:
        """mixture + factor dp/dt."""
        logp, slope = self.moving.rows(patch)
        factor = self.factor.expand(self.moving.prediction.shape)[patch][..., None]
        return self.mixture.probs(patch) + factor * (logp.exp() * slope)


@dataclass(frozen=True, eq=False)
class OntoSimplex(Target):
    """The nearest point of the simplex, row by row (sparsemax, Martins & Astudillo 2016).

    The target itself where it lies on the simplex. Elsewhere it is biased, and a steadier guide.
    """

    target: Target

    def probs(self, patch: Patch) -> Probs:
        """max(q - h, 0), with h such that a row sums to 1."""
        q = self.target.probs(patch)
        ordered = q.sort(-1, descending=True).values
        count = torch.arange(1, q.shape[-1] + 1, device=q.device, dtype=q.dtype)
        level = (ordered.cumsum(-1) - 1) / count
        # The largest k for which the k largest entries stay above their common level.
        support = (ordered > level).sum(-1, keepdim=True)
        return (q - level.gather(-1, support - 1)).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Tilted(Target):
    """softmax(log p - log(level + factor d log delta / dt)): a rule solved for logits.

    At the exact map the bracket is positive, and small where the row says no; before, it may be
    anything: it is kept above `FLOOR` (Discrete Flow Maps, arXiv 2604.09784).
    """

    mixture: Mixture
    level: Time
    factor: Time
    moving: Moving

    def probs(self, patch: Patch) -> Probs:
        """On the simplex."""
        shape = self.moving.prediction.shape
        _, slope = self.moving.rows(patch)
        level, factor = (w.expand(shape)[patch][..., None] for w in (self.level, self.factor))
        rows = self.mixture.probs(patch) / (level + factor * slope).clamp(min=FLOOR)
        return rows / rows.sum(-1, keepdim=True)


FLOOR = 1e-6
"""Least bracket of `Tilted`."""
