"""Answers to several copies of every text, whose rows of one token are reduced together.

A mixture over a latent is known by N components: the same text, read N times with N latents. What
is learnt of them (their mean, and what they say of a token together) needs the N rows of a token at
once. They are made strip by strip, as single rows are, with N rows a token in a strip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.chunked.prediction import HeadPrediction
from flowlm.core.distribution import Reduction, Target, TokenDistribution, passed
from flowlm.core.types import Patch


@dataclass(frozen=True, eq=False)
class Copies:
    """A prediction for N copies of b texts, one after the other, (N b, l), read as (b, l, N).

    Features of all copies are in memory, N b l d numbers, and their gradients; rows are not.
    """

    prediction: TokenDistribution
    count: int
    """N."""

    @property
    def shape(self) -> torch.Size:
        """Texts and positions, (b, l)."""
        rows, length = self.prediction.shape
        return torch.Size((rows // self.count, length))

    def log_probs(self, patch: Patch | None = None) -> Float[Tensor, "n m N v"]:
        """Log-probabilities of all copies, nats."""
        if (head := self._of_head()) is not None:
            return head.log_probs(patch)
        patch = patch or self._whole
        return self._aside(self.prediction.log_probs())[patch]

    def reduce(self, f: Reduction, *operands: Any) -> Tensor:
        """f of the rows (n, m, N, v) of every patch, (b, l, ...): strip by strip, with gradients.

        No gradient flows into operands.
        """
        if (head := self._of_head()) is not None:
            return head.reduce(f, *operands)
        return f(self.log_probs(), self._whole, *operands)

    def _of_head(self) -> HeadPrediction | None:
        """The same with N rows a token, where they are a head's."""
        if not isinstance(self.prediction, HeadPrediction):
            return None
        assert self.prediction.evidence is None, "a head without evidence"
        return replace(self.prediction, features=self._aside(self.prediction.features))

    def _aside(self, x: Float[Tensor, "Nb l k"]) -> Float[Tensor, "b l N k"]:
        return x.unflatten(0, (self.count, -1)).movedim(0, 2)

    @property
    def _whole(self) -> Patch:
        count, length = self.shape
        return slice(0, count), slice(0, length)


@dataclass(frozen=True, eq=False)
class MeanOfCopies(Target):
    """Mean of the rows of N copies, where a token that a copy shows is certain."""

    copies: Copies
    tokens: Int[Tensor, "b l N"]
    """What the copies have read."""
    mask_id: int

    @torch.no_grad()
    def probs(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """On the simplex."""
        logp, tokens = self.copies.log_probs(patch), self.tokens[patch]
        hidden = tokens == self.mask_id
        rows = (logp.exp() * hidden[..., None]).sum(-2)
        rows.scatter_add_(-1, tokens.clamp(max=logp.shape[-1] - 1), (~hidden).to(rows.dtype))
        return rows / self.copies.count


def mixture(logp: Float[Tensor, "*rows N v"]) -> Float[Tensor, "*rows v"]:
    """log of the mean of N rows, nats.

    Of N draws of a latent: below the log of the whole mixture in the mean, the less so the larger
    N is (Jensen).
    """
    return logp.logsumexp(-2) - math.log(logp.shape[-2])


@torch.no_grad()
def draw_copies(prediction: TokenDistribution, u: Float[Tensor, "b l N"]) -> Int[Tensor, "b l N"]:
    """N tokens of every row, where its cumulative distribution passes u in [0, 1), float64."""

    def drawn(logp: Float[Tensor, "n m v"], patch: Patch) -> Int[Tensor, "n m N"]:
        return passed(logp.double().softmax(-1), u[patch])

    return prediction.reduce(drawn)
