"""The nouns of the library: tokens, points, times, and what a loss returns.

Letters in shapes, here and everywhere: b batch, l length, v vocabulary, d width. `t = 0` is noise
and `t = 1` is text; `tau` is the same time read off a clock (core/clock.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "b l"]
"""Token ids."""

FREE = -1
"""In a prompt, the position of a token that is not given; in a film, one not written yet."""

Patch = tuple[slice, slice]
"""Some sequences, and some of their positions."""


@runtime_checkable
class Vector(Protocol):
    """An element of a vector space: a tensor, or a sum that is not written out (chunked/)."""

    @property
    def shape(self) -> torch.Size: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __add__(self, other: Any, /) -> Vector: ...
    def __sub__(self, other: Any, /) -> Vector: ...
    def __mul__(self, factor: Any, /) -> Vector: ...
    def __rmul__(self, factor: Any, /) -> Vector: ...
    def __truediv__(self, divisor: Any, /) -> Vector: ...
    def where(self, condition: Tensor, other: Any, /) -> Vector: ...  # noqa: D102


Point = Float[Vector, "b l _"]
"""A point of a space (core/space.py): (b, l, v) where text is one-hot, (b, l, d) projected."""

Probs = Float[Tensor, "b l v"]
"""Rows on the simplex, or their logarithms (in nats) where the name says so."""

Time = Float[Tensor, "b #l"]
"""One time per sequence (b, 1) or per token (b, l): it broadcasts over tokens."""


def with_given(tau: Time, given: Bool[Tensor, "b l"] | None) -> Time:
    """The time of every sequence (b, 1), or of every token: a given one is at 1, as text."""
    return tau if given is None else tau.expand(given.shape).masked_fill(given, 1.0)


@dataclass(frozen=True)
class Batch:
    """Sequences to learn from, how much each token counts (0 for padding), and which are given."""

    tokens: Tokens
    weight: Float[Tensor, "b l"]
    given: Bool[Tensor, "b l"] | None = None

    def chosen(self, rows: Int[Tensor, " n"]) -> Batch:
        """Some of its sequences."""
        given = None if self.given is None else self.given[rows]
        return Batch(self.tokens[rows], self.weight[rows], given)


@dataclass(frozen=True)
class Loss:
    """Nats that an answer costs, token by token.

    Nothing is reduced here: the trainer divides the weighted sum by the global weight.
    """

    value: Float[Tensor, "b l"]
    weight: Float[Tensor, "b l"]
    logs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Parts worth a look, by name: weighted sum and weight, detached. The trainer divides them."""

    def named(self, name: str) -> Loss:
        """The same loss, which is also logged as `name`."""
        sums = (self.value.detach() * self.weight).sum(), self.weight.sum()
        return Loss(self.value, self.weight, {**self.logs, name: sums})

    def concat(self, other: Loss) -> Loss:
        """The losses of two sets of sequences as one."""
        value = torch.cat((self.value, other.value))
        return Loss(value, torch.cat((self.weight, other.weight)), {**self.logs, **other.logs})
