"""A distribution over tokens at every position, what a network answers, and what is asked of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Patch, Probs, Tokens

Reduction = Callable[..., Tensor]
"""(log-probabilities (n, m, v) of a patch, the patch, operands) -> (n, m, ...), row by row."""


class TokenDistribution(ABC):
    """Rows of probabilities over the vocabulary, which only `log_probs` ever writes out.

    `Dense` holds the rows and is the plain softmax algebra that everything else is tested against;
    `chunked.HeadPrediction` holds features and a head and makes some rows at a time.
    """

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of its rows."""

    @abstractmethod
    def log_probs(self, patch: Patch | None = None) -> Probs:
        """Log-probabilities in nats, of all rows (b, l, v) or of a patch of them (n, m, v)."""

    @abstractmethod
    def with_temperature(self, temperature: float) -> TokenDistribution:
        """p^(1/temperature), normalised; of the context alone, where p is evidence times it."""

    @abstractmethod
    def reduce(self, f: Reduction, *operands: Any) -> Tensor:
        """f of all rows, (b, l, ...). No gradient flows into operands, but for `row_mean`."""

    def nll(self, tokens: Tokens) -> Float[Tensor, "b l"]:
        """-log p(token), nats."""
        return self.reduce(row_nll, tokens)

    def cross_entropy(self, target: Target) -> Float[Tensor, "b l"]:
        """-sum_v q(v) log p(v), nats: least at p = q, also where q is of both signs."""
        return self.reduce(row_cross_entropy, target)

    def squared_error(self, target: Tokens | Target) -> Float[Tensor, "b l"]:
        """sum_v (p(v) - q(v))^2, where q is one-hot for tokens."""

        def error(logp: Probs, patch: Patch) -> Tensor:
            p = logp.exp()
            if isinstance(target, Target):
                return (p - target.probs(patch)).square().sum(-1)
            return 1 - 2 * p.gather(-1, target[patch][..., None]).squeeze(-1) + p.square().sum(-1)

        return self.reduce(error)

    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """Mean of a table's rows, p @ table."""
        return self.reduce(row_mean, table)

    @torch.no_grad()
    def argmax(self) -> Tokens:
        """The likeliest token of every row."""
        return self.reduce(row_argmax)

    @torch.no_grad()
    def sample(self, rng: Streams, temperature: float = 1.0, top_p: float = 1.0) -> Tokens:
        """One token a row from p^(1/temperature), cut to its nucleus of mass top_p (float64)."""
        u = rng.uniform(self.shape[1], dtype=torch.float64)
        return self.reduce(lambda logp, patch: draw_tokens(logp, u[patch], temperature, top_p))

    def probs(self) -> Mixture:
        """The probabilities as a soft target."""
        return Mixture(((torch.ones(1, 1, device=self.device), self),))


class Target(ABC):
    """Rows that an answer is to have, made some at a time: a row sums to 1."""

    @abstractmethod
    def probs(self, patch: Patch) -> Probs:
        """The rows of a patch, (n, m, v). No gradient flows into a target."""


@dataclass(frozen=True, eq=False)
class Mixture(Target):
    """sum_k weight_k p_k, a soft target: g * near.probs() + (1 - g) * far.probs(), g (#b, #l)."""

    parts: tuple[tuple[Float[Tensor, "#b #l"], TokenDistribution], ...]

    def __rmul__(self, factor: Float[Tensor, "#b #l"]) -> Mixture:
        return Mixture(tuple((factor * weight, part) for weight, part in self.parts))

    def __add__(self, other: Mixture) -> Mixture:
        return Mixture(self.parts + other.parts)

    @torch.no_grad()
    def probs(self, patch: Patch) -> Probs:
        """The sum."""
        rows = (
            w.expand(p.shape)[patch][..., None] * p.log_probs(patch).exp() for w, p in self.parts
        )
        return reduce(torch.add, rows)


@dataclass(frozen=True)
class Dense(TokenDistribution):
    """The rows themselves, as log-probabilities in nats."""

    logp: Probs

    @property
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""
        return self.logp.shape[:2]

    @property
    def device(self) -> torch.device:
        """Device of the rows."""
        return self.logp.device

    def log_probs(self, patch: Patch | None = None) -> Probs:
        """The rows."""
        return self.logp if patch is None else self.logp[patch]

    def with_temperature(self, temperature: float) -> Dense:
        """Rows that hold no evidence apart."""
        return Dense(_cooled(self.logp, temperature).log_softmax(-1).to(self.logp.dtype))

    def reduce(self, f: Reduction, *operands: Any) -> Tensor:
        """All rows at once."""
        return f(self.logp, (slice(0, self.shape[0]), slice(0, self.shape[1])), *operands)


def row_nll(logp: Float[Tensor, "n m v"], patch: Patch, tokens: Tokens) -> Float[Tensor, "n m"]:
    """-log p(token), nats."""
    return -logp.gather(-1, tokens[patch][..., None]).squeeze(-1)


def row_cross_entropy(logp: Probs, patch: Patch, target: Target) -> Float[Tensor, "n m"]:
    """-sum_v q(v) log p(v), nats, where 0 log 0 = 0."""
    q = target.probs(patch)
    return -torch.where(q != 0, q * logp, 0.0).sum(-1)


def row_mean(logp: Probs, patch: Patch, table: Float[Tensor, "v d"]) -> Float[Tensor, "n m d"]:
    """p @ table. Autocast lowers the product; what is made of it is not."""
    return (logp.exp() @ table.to(logp.dtype)).to(logp.dtype)


def row_argmax(logp: Probs, patch: Patch) -> Int[Tensor, "n m"]:
    """The likeliest token; the first of several."""
    return logp.argmax(-1)


def draw_tokens(
    logits: Float[Tensor, "*rows v"], u: Float[Tensor, "*rows"], temperature: float = 1.0,
    top_p: float = 1.0,
) -> Int[Tensor, "*rows"]:  # fmt: skip
    """The token where each row's cumulative distribution, cut to its `nucleus`, passes u in [0, 1).

    In float64: float32 cuts the tail of a large vocabulary and so cools the samples (perplexity
    126 -> 31 for a discrete baseline). At temperature 0, or just above it, it is the likeliest.
    """
    if temperature == 0:
        return logits.argmax(-1)
    p = torch.softmax(_cooled(logits, temperature), -1)
    return passed(nucleus(p, top_p), u.double()[..., None]).squeeze(-1)


def passed(p: Float[Tensor, "*rows v"], u: Float[Tensor, "*rows N"]) -> Int[Tensor, "*rows N"]:
    """N tokens of each row, where its cumulative sum passes shares u in [0, 1) of the whole."""
    sums = p.cumsum(-1)
    # Dividing u's scale in, not the rows, keeps the last token with mass reachable exactly.
    return torch.searchsorted(sums, u * sums[..., -1:], right=True).clamp(max=p.shape[-1] - 1)


def nucleus(p: Float[Tensor, "*rows v"], top_p: float) -> Float[Tensor, "*rows v"]:
    """The fewest likeliest tokens whose mass reaches `top_p`; their mass is not made 1."""
    if top_p == 1:
        return p
    ordered, order = p.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(p).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))


def _cooled(logits: Float[Tensor, "*rows v"], temperature: float) -> Float[Tensor, "*rows v"]:
    """Logits over a positive temperature, float64, less what is common to a row.

    The likeliest token has 0: whatever the temperature, it neither overflows nor becomes 0 / 0.
    """
    exact = logits.double()
    return (exact - exact.amax(-1, keepdim=True)) / temperature
