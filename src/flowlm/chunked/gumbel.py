"""Gumbel noise, row by row a function of a seed: fresh, or given the token that it picked.

A token is drawn from log-probabilities z as argmax(z + g) with g ~ Gumbel(0) (Gumbel 1954, the
Gumbel-max trick). With E = exp(-g) ~ Exp(1) that is a race which the first of the times E_k / p_k
wins. Given that y won, its time is Exp(1), like the time of the fastest of all, and every other
runner needs as long again beyond it (an exponential law has no memory), so from fresh E

    posterior E_y = E_y p_y,    posterior E_k = E_k + E_y p_k  for k != y,

which is the posterior drawn from its largest value down (Maddison et al. 2014): nothing is
subtracted, and nothing overflows, whatever z is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.chunked.points import LazyPoint, Term, Weight, draws
from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.types import Patch, Tokens

LEAST = 2.0**-54
"""Half of the least distance of float64 numbers below 1: uniform numbers keep so far from 0."""


def gumbel_noise(rng: Streams, length: int, vocab: int) -> LazyPoint:
    """Rows of independent Gumbel(0) numbers, as a seed a sequence."""
    # A copy, so that the sequences' own streams go on undisturbed.
    term = GumbelNoise(rng.fork_seeds(), rng.generators[0].clone_state())
    return LazyPoint.of(term, len(rng), length, vocab, device=rng.device)


def gumbel_posterior(
    rng: Streams, tokens: Tokens, prediction: TokenDistribution, vocab: int
) -> LazyPoint:
    """Rows of the noise g, given that argmax(log p + g) of a prediction p is the token.

    Tokens drawn from p make them rows of independent Gumbel(0) numbers.
    """
    seeds, generator = rng.fork_seeds(), rng.generators[0].clone_state()
    kind, lowered = rng.device.type, None
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        lowered = torch.get_autocast_dtype(kind)
    term = GumbelPosterior(seeds, generator, tokens, prediction, lowered)
    return LazyPoint.of(term, *tokens.shape, vocab, device=rng.device)


@dataclass(frozen=True, eq=False)
class GumbelNoise(Term):
    """Fresh rows."""

    seeds: tuple[int, ...]
    generator: torch.Generator
    """Of the device, seeded anew for every draw."""

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """-log E."""
        rows = _exponential(total, self.seeds, self.generator, patch).log_().neg_()
        total.addcmul_(rows, weight)


@dataclass(frozen=True, eq=False)
class GumbelPosterior(Term):
    """Rows given what they picked."""

    seeds: tuple[int, ...]
    generator: torch.Generator
    """Of the device, seeded anew for every draw."""
    tokens: Tokens
    prediction: TokenDistribution
    lowered: torch.dtype | None
    """Type of the prediction's matrix products where autocast chose one, as when it was made: the
    backward pass, which autocast does not reach, has to read the same rows."""

    @torch.no_grad()
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """-log of the posterior E."""
        rows = _exponential(total, self.seeds, self.generator, patch)
        picked = self.tokens[patch][..., None]
        with self._as_made(total.device.type):
            logp = self.prediction.log_probs(patch)
        first = rows.gather(-1, picked)
        own = -first.log() - logp.gather(-1, picked)
        rows.addcmul_(first, logp.exp()).log_().neg_()
        total.addcmul_(rows.scatter_(-1, picked, own.to(rows.dtype)), weight)

    def _as_made(self, kind: str) -> AbstractContextManager[object]:
        if not torch.amp.is_autocast_available(kind):
            return nullcontext()
        return torch.autocast(kind, self.lowered, enabled=self.lowered is not None)


def _exponential(
    like: Float[Tensor, "n m v"],
    seeds: tuple[int, ...],
    generator: torch.Generator,
    patch: Patch,
) -> Float[Tensor, "n m v"]:
    """Exp(1) numbers of a patch, float32.

    From uniform numbers in float64: those of float32 are multiples of 2^-24, too coarse for the
    smallest of a large vocabulary, which are the ones that win.
    """
    drawn = torch.empty_like(like)
    for row, part in draws(seeds, generator, patch, like.shape[2]):
        rows = drawn[row, part]
        u = torch.empty(rows.shape, dtype=torch.float64, device=rows.device)
        rows.copy_(u.uniform_(generator=generator).clamp_(LEAST, 1 - 2 * LEAST).log_().neg_())
    return drawn
