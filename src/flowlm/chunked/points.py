"""Points of one-hot space as sums of terms, each of which can write any of its rows again.

Every formula of the flow is a sum of noise, tokens and predictions whose weights are times. Such a
sum is kept as its terms, each of which needs less than a vocabulary-sized row a token (a seed, an
id, features). Whoever reads it makes some of its rows, reads them and lets them go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.distribution import TokenDistribution
from flowlm.core.types import Patch, Tokens

Weight = Float[Tensor, "#b #l 1"]
"""Factor of a term, per sequence or per token."""

DRAW_NUMEL = 2**20
"""Random numbers per draw and sequence: as many whole rows as have so many numbers."""

TOP_K = 256
"""Entries of a row of summed predictions that a sampler keeps: as large as a row of features; what
they leave out is measured in docs/encoders.md."""

_GOLDEN = 0x9E3779B1  # 2^32 / golden ratio: multiples of it are spread evenly


def chunk_numel(kind: str) -> int:
    """Numbers of a point that are written at once on a kind of device.

    A chunk of rows reads the whole table, so it holds more than a tile of the head's logits does.
    """
    return 2**22 if kind == "cpu" else 2**24


def rows_per_draw(vocab: int) -> int:
    """Rows of a sequence whose random numbers are drawn at once, at least one."""
    return max(1, DRAW_NUMEL // vocab)


def draws(
    seeds: tuple[int, ...], generator: torch.Generator, patch: Patch, vocab: int
) -> Iterator[tuple[int, slice]]:
    """Sequence and positions, within a patch, of each draw; `generator` is seeded for it."""
    sequences, positions = patch
    height = rows_per_draw(vocab)
    for row, seed in enumerate(seeds[sequences]):
        for first in range(0, positions.stop - positions.start, height):
            # From 1 on: the generator of the seed itself served the sequence until `fork_seeds`
            # took its seed, and its numbers may have been used.
            number = (positions.start + first) // height + 1
            generator.manual_seed((seed + number * _GOLDEN) % 2**32)
            yield row, slice(first, first + height)


def patches(shape: torch.Size, kind: str) -> Iterator[Patch]:
    """Rectangles of rows that cover (b, l, v), of at most `chunk_numel(kind)` numbers or one draw.

    Whole sequences, or positions of one sequence whose bounds are multiples of `rows_per_draw`.
    """
    (count, length, vocab), most = shape, chunk_numel(kind)
    several = most // (length * vocab)
    if several:
        for first in range(0, count, several):
            yield slice(first, min(first + several, count)), slice(0, length)
        return
    draw = rows_per_draw(vocab)
    height = draw * max(1, most // (draw * vocab))
    for sequence in range(count):
        for first in range(0, length, height):
            yield slice(sequence, sequence + 1), slice(first, min(first + height, length))


# --- sums -----------------------------------------------------------------------------------------


class Term(ABC):
    """A point of one-hot space that can write any of its rows, and writes the same ones again."""

    @abstractmethod
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """total += weight * rows, in place, for a patch that `patches` gave."""


@dataclass(frozen=True, eq=False)
class LazyPoint:
    """sum_k weight_k term_k, a point (b, l, v). No gradient passes through it."""

    shape: torch.Size
    device: torch.device
    terms: tuple[tuple[Weight, Term], ...] = field(repr=False)
    _whole: list[Float[Tensor, "b l v"]] = field(default_factory=list, repr=False, init=False)
    """All rows, once written, where they are a single patch."""

    @staticmethod
    def of(term: Term, *shape: int, device: torch.device) -> LazyPoint:
        """One term, with weight 1."""
        return LazyPoint(torch.Size(shape), device, ((torch.ones(1, 1, 1, device=device), term),))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows."""
        return torch.float32

    def __len__(self) -> int:
        return self.shape[0]

    def __add__(self, other: LazyPoint) -> LazyPoint:
        terms = dict[Term, Tensor]()
        for weight, term in (*self.terms, *other.terms):
            terms[term] = terms[term] + weight if term in terms else weight
        return LazyPoint(self.shape, self.device, tuple((w, term) for term, w in terms.items()))

    def __mul__(self, factor: Weight) -> LazyPoint:
        terms = tuple((weight * factor, term) for weight, term in self.terms)
        return LazyPoint(self.shape, self.device, terms)

    __rmul__ = __mul__

    def __neg__(self) -> LazyPoint:
        negated = tuple((-weight, term) for weight, term in self.terms)
        return LazyPoint(self.shape, self.device, negated)

    def __sub__(self, other: LazyPoint) -> LazyPoint:
        return self + -other

    def __truediv__(self, divisor: Weight) -> LazyPoint:
        return self * (1 / divisor)

    def where(self, condition: Tensor, other: LazyPoint) -> LazyPoint:
        """This point in the tokens of the mask (b, l, 1), the other one elsewhere."""
        return self._masked(condition) + other._masked(~condition)

    def _masked(self, mask: Tensor) -> LazyPoint:
        # Not a product: a weight may be infinite where it does not count.
        terms = tuple((torch.where(mask, weight, 0.0), term) for weight, term in self.terms)
        return LazyPoint(self.shape, self.device, terms)

    # --- rows, a chunk at a time ------------------------------------------------------------------

    def patches(self) -> Iterator[Patch]:
        """Patches that cover the point."""
        return patches(self.shape, self.device.type)

    def write(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """The rows of a patch, to be read only.

        Encoder and head read a point forwards and backwards: one that is no larger than a patch is
        kept as long as it is in use.
        """
        if self._whole:
            return self._whole[0][patch]
        sequences, positions = patch
        shape = (
            sequences.stop - sequences.start, positions.stop - positions.start, self.shape[2],
        )  # fmt: skip
        total = torch.zeros(shape, device=self.device)
        for weight, term in self.terms:
            term.add(total, _weights_of(weight, patch), patch)
        if total.shape == self.shape and total.numel() <= chunk_numel(self.device.type):
            self._whole.append(total)
        return total

    def strips(self) -> Iterator[slice]:
        """The patches, as ranges of the b l tokens in a row."""
        length = self.shape[1]
        for sequences, positions in self.patches():
            first = sequences.start * length + positions.start
            yield slice(first, (sequences.stop - 1) * length + positions.stop)

    def write_strip(self, tokens: slice) -> Float[Tensor, "n v"]:
        """The rows of a strip that `strips` gave."""
        length = self.shape[1]
        first, last = tokens.start // length, (tokens.stop - 1) // length
        positions = slice(tokens.start - first * length, tokens.stop - last * length)
        return self.write((slice(first, last + 1), positions)).flatten(0, 1)

    def dense(self) -> Float[Tensor, "b l v"]:
        """All rows at once: the one call that takes vocabulary-sized memory."""
        return self.write((slice(0, self.shape[0]), slice(0, self.shape[1])))


def _weights_of(weight: Weight, patch: Patch) -> Float[Tensor, "#n #m 1"]:
    """The weights of a patch; an axis of size 1 is shared and stays as it is."""
    for axis, part in enumerate(patch):
        if weight.shape[axis] > 1:
            weight = weight.narrow(axis, part.start, part.stop - part.start)
    return weight


# --- terms ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stored(Term):
    """Rows in memory, (b, l, v)."""

    rows: Float[Tensor, "b l v"]

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Read them."""
        total.addcmul_(self.rows[patch], weight)


@dataclass(frozen=True, eq=False)
class Noise(Term):
    """N(0, I): row by row a function of the sequence's seed."""

    seeds: tuple[int, ...]
    generator: torch.Generator
    """Of the device, seeded anew for every draw."""

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Draw the rows again, `rows_per_draw` at a time."""
        drawn = torch.empty_like(total)
        for row, part in draws(self.seeds, self.generator, patch, total.shape[2]):
            drawn[row, part].normal_(generator=self.generator)
        total.addcmul_(drawn, weight)


@dataclass(frozen=True, eq=False)
class Clean(Term):
    """One-hot rows of tokens."""

    tokens: Tokens

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """One number a row."""
        ids = self.tokens[patch][..., None]
        total.scatter_add_(2, ids, weight.expand(ids.shape).to(total.dtype))


@dataclass(frozen=True, eq=False)
class Probabilities(Term):
    """The probabilities of a prediction."""

    prediction: TokenDistribution

    @torch.no_grad()
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Make the probabilities of these rows again."""
        total.addcmul_(self.prediction.log_probs(patch).exp(), weight)


@dataclass(frozen=True, eq=False)
class TopK(Term):
    """Rows with k entries of their own; all others are equal."""

    ids: Int[Tensor, "b l k"]
    values: Float[Tensor, "b l k"]
    """Of these entries, beyond the value of the others."""
    even: Float[Tensor, "b l 1"]
    """Value of every other entry."""

    @staticmethod
    def of(x: LazyPoint) -> TopK:
        """The `TOP_K` largest entries of each row of x; the rest of its sum is spread evenly."""
        (*shape, vocab), device = x.shape, x.device
        k = min(TOP_K, vocab)
        ids = torch.empty(*shape, k, dtype=torch.long, device=device)
        values, even = torch.empty(*shape, k, device=device), torch.empty(*shape, 1, device=device)
        for patch in x.patches():
            rows = x.write(patch)
            top, ids[patch] = rows.topk(k, sorted=False)
            others = rows.sum(-1, keepdim=True) - top.sum(-1, keepdim=True)
            even[patch] = others / max(1, vocab - k)
            values[patch] = top - even[patch]
        return TopK(ids, values, even)

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """k + 1 numbers a row."""
        total.scatter_add_(2, self.ids[patch], self.values[patch] * weight)
        total.add_(self.even[patch] * weight)
