"""The cases of a task, some of them to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.tasks.task import Part


@dataclass(frozen=True)
class Split:
    """`count` cases in a random order that is always the same: the first `share` are to learn."""

    count: int
    share: float

    @cached_property
    def _order(self) -> Int[Tensor, " n"]:
        return torch.randperm(self.count, generator=torch.Generator().manual_seed(0))

    @property
    def _taken(self) -> int:
        return min(max(1, round(self.share * self.count)), self.count - 1)

    @cached_property
    def learnt(self) -> Bool[Tensor, " n"]:
        """Whether each case is to learn from."""
        found = torch.zeros(self.count, dtype=torch.bool)
        found[self._order[: self._taken]] = True
        return found

    def held_out(self, known: Int[Tensor, " n"], wanted: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether each of `wanted` is the number of a held-out case; `known` are all, rising."""
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        return (known[place] == wanted) & ~self.learnt[place]

    def draw(self, rng: Streams, part: Part) -> Int[Tensor, " b"]:
        """A case of a part for each stream, evenly."""
        first = self._taken if part == "held out" else 0
        last = self._taken if part == "learnt" else self.count
        u = rng.uniform(dtype=torch.float64).cpu()
        return self._order[first + (u * (last - first)).long()]


def numbered(digits: Int[Tensor, "b d"], base: int) -> Int[Tensor, " b"]:
    """Rows of digits, the highest first, as numbers."""
    return (digits * base ** torch.arange(digits.shape[1] - 1, -1, -1)).sum(1)
