"""The nouns of the library: tokens, points, times, and what a loss returns.

Letters in shapes, here and everywhere: b batch, l length, v vocabulary, d width. `t = 0` is noise
and `t = 1` is text; `tau` is the same time read off a clock (core/clock.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.rows import Rows

Tokens = Int[Tensor, "b l"]
"""Token ids."""

FREE = -1
"""In a prompt, the place of a token that is not given; in a film, one not written yet."""

if TYPE_CHECKING:
    Point = Any  # Tensors and Rows add and scale alike, which no type here can say of both.
else:
    Point = Float[Tensor, "b l _"] | Rows
"""A place in a space (core/space.py): (b, l, v) where text is one-hot, (b, l, d) projected; or
Rows, a (b, l, v) that is not written out."""

Probs = Float[Tensor, "b l v"]
"""Rows on the simplex, or their logarithms (in nats) where the name says so."""

Time = Float[Tensor, "b #l"]
"""One time per text (b, 1) or per token (b, l): it broadcasts over tokens."""


@dataclass(frozen=True)
class Batch:
    """Texts to learn from, and how much each token counts (0 for padding)."""

    tokens: Tokens
    weight: Float[Tensor, "b l"]

    def every(self, start: int, step: int) -> Batch:
        """Texts `start, start + step, ...`."""
        return Batch(self.tokens[start::step], self.weight[start::step])


@dataclass(frozen=True)
class Loss:
    """What an answer pays, token by token, in nats.

    Nothing is reduced here: the trainer divides the weighted sum by the global weight, the one
    place where that is done.
    """

    value: Float[Tensor, "b l"]
    weight: Float[Tensor, "b l"]
    logs: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Parts worth a look, by name: weighted sum and weight, detached. The trainer divides them."""

    def named(self, name: str) -> Loss:
        """The same loss, which is also logged as `name`."""
        sums = (self.value.detach() * self.weight).sum(), self.weight.sum()
        return Loss(self.value, self.weight, {**self.logs, name: sums})

    def beside(self, other: Loss) -> Loss:
        """The losses of two sets of texts as one."""
        value = torch.cat((self.value, other.value))
        return Loss(value, torch.cat((self.weight, other.weight)), {**self.logs, **other.logs})
