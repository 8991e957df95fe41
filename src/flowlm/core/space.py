"""Where text lives: one-hot rows, or their image under the token table.

Every formula of the flow is linear in the state, and a network that reads the state only through
x @ E cannot tell x from x @ E. So one set of formulas serves both spaces, and a space only says
what noise, text and the mean of a prediction are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.types import Point, Tokens


class Space(ABC):
    """Noise, clean text and the mean of a prediction, as points of one vector space."""

    vocab: int
    """v, the axes of one-hot space."""

    @abstractmethod
    def noise(self, rng: Streams, length: int) -> Point:
        """x0: what standard normal noise over one-hot rows looks like here."""

    @abstractmethod
    def clean(self, tokens: Tokens) -> Point:
        """x1: the tokens."""

    @abstractmethod
    def mean(self, prediction: TokenDistribution) -> Point:
        """E[x1] under a prediction."""

    def compress(self, x: Point) -> Point:
        """Compress what many steps have added up to; a tensor stays as it is."""
        return x

    @abstractmethod
    def from_one_hot(self, rows: Float[Tensor, "b l v"]) -> Point:
        """The point here of a point in one-hot space."""


@dataclass(frozen=True)
class OneHot(Space):
    """Rows of R^v. Memory grows with b l v: for small vocabularies and for reference."""

    vocab: int

    def noise(self, rng: Streams, length: int) -> Point:
        """N(0, I), (b, l, v)."""
        return rng.normal(length, self.vocab)

    def clean(self, tokens: Tokens) -> Point:
        """One-hot rows, (b, l, v)."""
        # Not F.one_hot: it reads the largest token back to the host.
        rows = torch.zeros(*tokens.shape, self.vocab, device=tokens.device)
        return rows.scatter_(-1, tokens[..., None], 1.0)

    def mean(self, prediction: TokenDistribution) -> Point:
        """The probabilities, (b, l, v)."""
        return prediction.log_probs().exp()

    def from_one_hot(self, rows: Float[Tensor, "b l v"]) -> Point:
        """The point itself."""
        return rows


@dataclass(frozen=True, eq=False)
class Projected(Space):
    """Rows of R^d: the image of one-hot space under a table E (v, d). Exactly the same flow.

    Gradients pass through E, the factor of its Gram matrix included, so training is unbiased: the
    noise has exactly the distribution of x0 @ E as a function of E.
    """

    table: Float[Tensor, "v d"]

    @property
    def vocab(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Rows of the table."""
        return len(self.table)

    @cached_property
    def factor(self) -> Float[Tensor, "d d"]:
        """R with R^T R = E^T E, upper triangular (Cholesky, in float64 where the device has it).

        A table of lower rank than its width has no such factor and makes the loss non-finite.
        """
        # A Cholesky factor's gradient in the Gram matrix is symmetric, so the gradient through one
        # of the two tables is half of the whole: doubling it saves a product as large as this one.
        half = _product(self.table.detach().mT, self.table)
        gram = 2 * half - half.detach()
        exact = gram if gram.device.type == "mps" else gram.double()
        return torch.linalg.cholesky_ex(exact).L.mT.to(gram.dtype)

    def noise(self, rng: Streams, length: int) -> Point:
        """x0 @ E ~ N(0, E^T E), (b, l, d), from d numbers a token (v of them if v <= d)."""
        vocab, width = self.table.shape
        if vocab <= width:
            return _product(rng.normal(length, vocab, dtype=self.table.dtype), self.table)
        return _product(rng.normal(length, width, dtype=self.table.dtype), self.factor)

    def clean(self, tokens: Tokens) -> Point:
        """E[token], (b, l, d)."""
        return F.embedding(tokens, self.table)

    def mean(self, prediction: TokenDistribution) -> Point:
        """p @ E, (b, l, d)."""
        return prediction.expect(self.table)

    def from_one_hot(self, rows: Float[Tensor, "b l v"]) -> Point:
        """x @ E."""
        return _product(rows, self.table)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in its own precision: states are never lowered, whatever autocast does to networks."""
    kind = a.device.type
    lowered = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if lowered else nullcontext():
        return a @ b
