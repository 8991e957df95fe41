"""A distribution over tokens at every position: what a network answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Patch, Probs, Time, Tokens


class TokenDistribution(ABC):
    """Rows of probabilities over the vocabulary, which only `log_probs` ever writes out.

    Two implementations: `Dense` holds the rows and is the plain softmax algebra that everything
    else is tested against; `chunked.HeadPrediction` holds features and a head and makes logits
    a tile at a time.
    """

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Texts and places, (b, l)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its rows would be."""

    @abstractmethod
    def log_probs(self) -> Probs:
        """Log-probabilities in nats, (b, l, v): the one call that takes vocabulary-sized memory."""

    @abstractmethod
    def __getitem__(self, patch: Patch) -> TokenDistribution:
        """Some of its texts, and some of their places."""

    @abstractmethod
    def with_temperature(self, temperature: float) -> TokenDistribution:
        """p^(1/temperature), normalised again; of the context alone, where p is evidence times it.

        What a row says of its token is known and stays as it is (chunked/evidence.py).
        """

    @abstractmethod
    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """The mean of a table's rows, p @ table."""

    @abstractmethod
    def nll(self, tokens: Tokens) -> Float[Tensor, "b l"]:
        """-log p(token), nats."""

    @abstractmethod
    def cross_entropy(self, target: Mixture) -> Float[Tensor, "b l"]:
        """-sum_v target(v) log p(v), nats. No gradient flows into the target."""

    @abstractmethod
    def argmax(self) -> Tokens:
        """The likeliest token of every row."""

    @abstractmethod
    def sample(self, rng: Streams, temperature: float = 1.0, top_p: float = 1.0) -> Tokens:
        """One token a row from p^(1/temperature), cut to its nucleus of mass top_p (float64)."""


@dataclass(frozen=True)
class Mixture:
    """sum_k weight_k p_k, a soft target that is never written out. Weights broadcast to (b, l)."""

    parts: tuple[tuple[Float[Tensor, "#b #l"], TokenDistribution], ...]

    @staticmethod
    def only(part: TokenDistribution, at: Time) -> Mixture:
        """One distribution as a target; `at` is its time, and says on which device weights live."""
        return Mixture(((torch.ones_like(at), part),))


@dataclass(frozen=True)
class Dense(TokenDistribution):
    """The rows themselves, as log-probabilities in nats."""

    logp: Probs

    @property
    def shape(self) -> torch.Size:
        """Texts and places, (b, l)."""
        return self.logp.shape[:2]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.logp.device

    def log_probs(self) -> Probs:
        """The rows."""
        return self.logp

    def __getitem__(self, patch: Patch) -> Dense:
        """Some of its texts, and some of their places."""
        return Dense(self.logp[patch])

    def with_temperature(self, temperature: float) -> Dense:
        """Rows that hold no evidence apart."""
        return Dense(_cooled(self.logp, temperature).log_softmax(-1).to(self.logp.dtype))

    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """p @ table."""
        mean = self.logp.exp() @ table.to(self.logp.dtype)
        return mean.to(self.logp.dtype)  # autocast lowers the product; what is made of it is not

    def nll(self, tokens: Tokens) -> Float[Tensor, "b l"]:
        """-log p(token), nats."""
        return -self.logp.gather(-1, tokens[..., None]).squeeze(-1)

    def cross_entropy(self, target: Mixture) -> Float[Tensor, "b l"]:
        """-sum_v target(v) log p(v), nats."""
        with torch.no_grad():
            soft = torch.zeros_like(self.logp)
            for weight, part in target.parts:
                soft = soft + weight[..., None] * part.log_probs().exp()
        # A token that the target never takes costs nothing, even where log p is minus infinity.
        return -torch.where(soft > 0, soft * self.logp, 0.0).sum(-1)

    def argmax(self) -> Tokens:
        """The likeliest token of every row."""
        return self.logp.argmax(-1)

    def sample(self, rng: Streams, temperature: float = 1.0, top_p: float = 1.0) -> Tokens:
        """One token a row, by the inverse of the cumulative distribution."""
        u = rng.uniform(self.logp.shape[1], dtype=torch.float64)
        return draw_tokens(self.logp, u, temperature, top_p)


def draw_tokens(
    logits: Float[Tensor, "*rows v"],
    u: Float[Tensor, "*rows"],
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Int[Tensor, "*rows"]:
    """The token at which the cumulative distribution of each row passes u in [0, 1).

    Everything is float64: float32 cuts the tail of a large vocabulary and so cools the samples
    (method notes: perplexity 126 -> 31 for a discrete baseline). `top_p` keeps the smallest set
    of likeliest tokens whose mass reaches top_p. Temperature 0, like the smallest above it, takes
    the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    p = torch.softmax(_cooled(logits, temperature), -1)
    if top_p < 1:
        ordered, order = p.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        p = torch.zeros_like(p).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
    cumulative = p.cumsum(-1)
    # Dividing u's scale in, not the rows, keeps the last token with mass reachable exactly.
    wanted = u.double()[..., None] * cumulative[..., -1:]
    return (
        torch.searchsorted(cumulative, wanted, right=True)
        .squeeze(-1)
        .clamp(max=logits.shape[-1] - 1)
    )


def _cooled(logits: Float[Tensor, "*rows v"], temperature: float) -> Float[Tensor, "*rows v"]:
    """Logits over a positive temperature, float64, less what is common to a row.

    The likeliest token has 0: whatever the temperature, it neither overflows nor becomes 0 / 0.
    """
    exact = logits.double()
    return (exact - exact.amax(-1, keepdim=True)) / temperature
