"""One-hot space without its rows: noise from a seed, tokens, and what predictions say.

Points are `Rows`. What a sampler carries from step to step of its predictions is the largest
entries of their weighted sum (`settle`), so that a step costs no more after many than after one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.rows import Given, Patch, Rows, Term, Weight, strip
from flowlm.core.space import Space
from flowlm.core.types import Point, Tokens

_GOLDEN = 0x9E3779B1  # 2^32 / golden ratio: multiples of it are spread evenly


@dataclass(frozen=True, eq=False)
class Noise(Term):
    """N(0, I): row by row a function of the text's seed."""

    seeds: tuple[int, ...]
    generator: torch.Generator
    """Of the device, seeded anew for every strip."""

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Draw the rows again, strip by strip."""
        texts, places = patch
        vocab = total.shape[2]
        height = strip(vocab)
        drawn = torch.empty_like(total)
        for row, seed in zip(drawn, self.seeds[texts]):
            for first in range(0, len(row), height):
                # From 1 on, because the seed itself has been the text's other stream.
                number = (places.start + first) // height + 1
                self.generator.manual_seed((seed + number * _GOLDEN) % 2**32)
                row[first : first + height].normal_(generator=self.generator)
        total.addcmul_(drawn, weight)


@dataclass(frozen=True, eq=False)
class Clean(Term):
    """One-hot rows of tokens."""

    tokens: Tokens

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """One number a row."""
        words = self.tokens[patch][..., None]
        total.scatter_add_(2, words, weight.expand(words.shape).to(total.dtype))


@dataclass(frozen=True, eq=False)
class Mean(Term):
    """The probabilities of a prediction."""

    prediction: TokenDistribution

    @torch.no_grad()
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Make the probabilities of these rows again."""
        total.addcmul_(self.prediction.cut(patch).log_probs().exp(), weight)


@dataclass(frozen=True, eq=False)
class Largest(Term):
    """Rows of which only the k largest entries are kept; the rest of a row's sum is even."""

    words: Int[Tensor, "b l k"]
    values: Float[Tensor, "b l k"]
    """What these words have beyond the others."""
    even: Float[Tensor, "b l 1"]
    """What each word has."""

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """k + 1 numbers a row."""
        total.scatter_add_(2, self.words[patch], self.values[patch] * weight)
        total.add_(self.even[patch] * weight)


@dataclass(frozen=True)
class Implicit(Space):
    """The space of one-hot rows over `vocab` words, whose points are sums that are not written."""

    vocab: int

    def noise(self, rng: Streams, length: int) -> Rows:
        """N(0, I), as a seed a text."""
        # A copy, so that the texts' own streams go on undisturbed.
        term = Noise(rng.seeds(), rng.generators[0].clone_state())
        return Rows.of(term, len(rng), length, self.vocab, device=rng.device)

    def clean(self, tokens: Tokens) -> Rows:
        """One-hot rows, as the tokens."""
        return Rows.of(Clean(tokens), *tokens.shape, self.vocab, device=tokens.device)

    def mean(self, prediction: TokenDistribution) -> Rows:
        """The probabilities, as the prediction."""
        return Rows.of(Mean(prediction), *prediction.shape, self.vocab, device=prediction.device)

    def of(self, rows: Float[Tensor, "b l v"]) -> Rows:
        """Rows that are written already."""
        return Rows.of(Given(rows), *rows.shape, device=rows.device)

    def settle(self, x: Point) -> Rows:
        """The point with its predictions summed up, of which the KEPT largest entries stay."""
        assert isinstance(x, Rows)
        sums = tuple((w, term) for w, term in x.terms if isinstance(term, Mean | Largest))
        rest = tuple((w, term) for w, term in x.terms if not isinstance(term, Mean | Largest))
        if not sums:
            return x
        summed = Rows(x.shape, x.device, sums)
        kept = min(KEPT, self.vocab)
        words = torch.empty(*x.shape[:2], kept, dtype=torch.long, device=x.device)
        values = torch.empty(*x.shape[:2], kept, device=x.device)
        even = torch.empty(*x.shape[:2], 1, device=x.device)
        for patch in x.patches():
            rows = summed.write(patch)
            top, words[patch] = rows.topk(kept, sorted=False)
            others = rows.sum(-1, keepdim=True) - top.sum(-1, keepdim=True)
            even[patch] = others / max(1, self.vocab - kept)
            values[patch] = top - even[patch]
        once = torch.ones(1, 1, 1, device=x.device)
        return Rows(x.shape, x.device, (*rest, (once, Largest(words, values, even))))


KEPT = 256
"""Entries of a row of predictions that a sampler carries on: as large as a row of features, and
what they leave out is measured in docs/encoders.md."""
