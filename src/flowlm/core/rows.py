"""A point of one-hot space that is not written out: a sum of things that can write their rows.

Every formula of the flow is a sum of noise, tokens and predictions with weights that are times. So
such a point is kept as its terms, each of which needs less than a vocabulary-sized row a token (a
seed, an id, features), and whoever reads it writes some of its rows, reads them and lets them go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

Weight = Float[Tensor, "#b #l 1"]
"""What a term counts, per text or per token."""

Patch = tuple[slice, slice]
"""Some texts, and some of their places."""

STRIP = 2**20
"""Numbers of one text that are drawn at once: a strip of as many places as have so many words."""


class Term(ABC):
    """A point of one-hot space that can write any of its rows, and writes the same ones again."""

    @abstractmethod
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """total += weight * rows, in place, for a patch that `patches` gave."""


@dataclass(frozen=True, eq=False)
class Rows:
    """sum_k weight_k term_k, a point (b, l, v).

    It adds, and takes factors, like a tensor. No gradient passes through it.
    """

    shape: torch.Size
    device: torch.device
    terms: tuple[tuple[Weight, Term], ...] = field(repr=False)
    _whole: list[Float[Tensor, "b l v"]] = field(default_factory=list, repr=False, init=False)
    """All rows, once written, where they are a single patch."""

    @staticmethod
    def of(term: Term, *shape: int, device: torch.device) -> Rows:
        """One term, with weight 1."""
        return Rows(torch.Size(shape), device, ((torch.ones(1, 1, 1, device=device), term),))

    def __len__(self) -> int:
        return self.shape[0]

    def __add__(self, other: Rows) -> Rows:
        terms = dict[Term, Tensor]()
        for weight, term in (*self.terms, *other.terms):
            terms[term] = terms[term] + weight if term in terms else weight
        return Rows(self.shape, self.device, tuple((w, term) for term, w in terms.items()))

    def __mul__(self, factor: Weight) -> Rows:
        terms = tuple((weight * factor, term) for weight, term in self.terms)
        return Rows(self.shape, self.device, terms)

    __rmul__ = __mul__

    def __neg__(self) -> Rows:
        return Rows(self.shape, self.device, tuple((-weight, term) for weight, term in self.terms))

    def __sub__(self, other: Rows) -> Rows:
        return self + -other

    def __truediv__(self, divisor: Weight) -> Rows:
        return self * (1 / divisor)

    def where(self, mask: Tensor, other: Rows) -> Rows:
        """This point in the tokens of the mask (b, l, 1), the other one elsewhere."""
        return self._cut(mask) + other._cut(~mask)

    def _cut(self, mask: Tensor) -> Rows:
        # Not a product: a weight may be infinite where it does not count.
        terms = tuple((torch.where(mask, weight, 0.0), term) for weight, term in self.terms)
        return Rows(self.shape, self.device, terms)

    def patches(self) -> Iterator[Patch]:
        """Rectangles of rows that cover the point, of `most_written` numbers or fewer, or of a row.

        Whole texts, or strips of one text whose bounds are multiples of `strip`.
        """
        texts, length, vocab = self.shape
        most = most_written(self.device.type)
        several = most // (length * vocab)
        if several:
            for first in range(0, texts, several):
                yield slice(first, min(first + several, texts)), slice(0, length)
            return
        height = strip(vocab) * max(1, most // (strip(vocab) * vocab))
        for text in range(texts):
            for first in range(0, length, height):
                yield slice(text, text + 1), slice(first, min(first + height, length))

    def write(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """The rows of a patch, which nobody changes.

        Encoder and head read a point forwards and backwards: one that is no larger than a patch is
        kept as long as it is in use.
        """
        if self._whole:
            return self._whole[0][patch]
        texts, places = patch
        shape = texts.stop - texts.start, places.stop - places.start, self.shape[2]
        total = torch.zeros(shape, device=self.device)
        for weight, term in self.terms:
            term.add(total, _cut(weight, patch), patch)
        if total.shape == self.shape and total.numel() <= most_written(self.device.type):
            self._whole.append(total)
        return total

    def strips(self) -> Iterator[slice]:
        """The patches, as numbers of tokens counted through all texts."""
        length = self.shape[1]
        for texts, places in self.patches():
            yield slice(
                texts.start * length + places.start, (texts.stop - 1) * length + places.stop
            )

    def write_strip(self, tokens: slice) -> Float[Tensor, "n v"]:
        """The rows of a strip of tokens."""
        length = self.shape[1]
        first, last = tokens.start // length, (tokens.stop - 1) // length
        places = slice(tokens.start - first * length, tokens.stop - last * length)
        return self.write((slice(first, last + 1), places)).flatten(0, 1)

    def cut(self, patch: Patch) -> Rows:
        """A patch as a point of its own, whose rows are written now."""
        rows = self.write(patch)
        return Rows.of(Given(rows), *rows.shape, device=self.device)

    def written(self) -> Float[Tensor, "b l v"]:
        """All rows at once: the one call that takes vocabulary-sized memory."""
        return self.write((slice(0, self.shape[0]), slice(0, self.shape[1])))


@dataclass(frozen=True, eq=False)
class Given(Term):
    """Rows that somebody has written, (b, l, v)."""

    rows: Float[Tensor, "b l v"]

    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Read them."""
        total.addcmul_(self.rows[patch], weight)


def most_written(kind: str) -> int:
    """Numbers of rows that are written at once on a kind of device.

    A patch reads the whole table, so it holds more than a tile of the head's logits does.
    """
    return 2**22 if kind == "cpu" else 2**24


def strip(vocab: int) -> int:
    """Places of a text whose numbers are drawn at once, at least one."""
    return max(1, STRIP // vocab)


def _cut(weight: Weight, patch: Patch) -> Float[Tensor, "#n #m 1"]:
    """The weights of a patch; one that is shared by texts or by places stays as it is."""
    for axis, piece in enumerate(patch):
        if weight.shape[axis] > 1:
            weight = weight.narrow(axis, piece.start, piece.stop - piece.start)
    return weight
