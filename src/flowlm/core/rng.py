"""Randomness as an argument: one stream of random numbers per sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """One generator per sequence, so that a sequence never depends on the batch it was drawn in.

    `index` is the position of each in the global batch of `total`, for stratified draws.
    """

    generators: Sequence[torch.Generator]
    index: tuple[int, ...]
    total: int

    @staticmethod
    def of(
        *seed: int, count: int, first: int = 0, total: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Streams:  # fmt: skip
        """Streams `first ... first + count` of the family that the non-negative integers name.

        `total` is the size of the global batch (default: `first + count`). Two families may in rare
        cases share a stream, as their bases are hashed to 32 bits; one family never repeats one.
        """
        # Numpy pads with zeros: without their number (s,) and (s, 0) would be one family.
        family = np.random.SeedSequence((len(seed), *seed))
        base = int(family.generate_state(1, np.uint32)[0])
        # Counted up, not hashed one by one: of 32 bits, as torch reads, none then comes twice.
        index = tuple(range(first, first + count))
        generators = [torch.Generator(device).manual_seed((base + i) % 2**32) for i in index]
        return Streams(generators, index, first + count if total is None else total)

    def __len__(self) -> int:
        return len(self.generators)

    @property
    def device(self) -> torch.device:
        """Where the draws live."""
        return self.generators[0].device

    def chosen(self, rows: Sequence[int], index: Sequence[int], total: int) -> Streams:
        """Some of them, whose index and total are those among what is chosen everywhere."""
        return Streams([self.generators[row] for row in rows], tuple(index), total)

    def fork_seeds(self) -> tuple[int, ...]:
        """One seed a sequence, for numbers drawn later, or again; the streams start afresh.

        The generator of a seed is the stream that the sequence had: draw from other seeds made of
        it. Sequences that had different seeds have different ones again.
        """
        found = tuple(generator.initial_seed() % 2**32 for generator in self.generators)
        for generator, seed in zip(self.generators, found):
            # An odd multiplier makes this a permutation (L'Ecuyer 1999: of good spectral quality).
            generator.manual_seed((seed * 1664525 + 1013904223) % 2**32)
        return found

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers, (b, *shape)."""
        return self._filled(Tensor.normal_, shape, dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform numbers in [0, 1), (b, *shape)."""
        return self._filled(Tensor.uniform_, shape, dtype)

    def integers(self) -> Int[Tensor, " b"]:
        """One number a sequence, evenly from 0 to 2^31 - 1, int32."""
        return self._filled(Tensor.random_, (), torch.int32)

    def _filled(self, fill: Callable[..., Any], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        out = torch.empty(len(self), *shape, dtype=dtype, device=self.device)
        for row, generator in zip(out, self.generators):
            fill(row, generator=generator)
        return out

    def stratified(self) -> Float[Tensor, "b 1"]:
        """One uniform number a sequence, each from its own 1/total of [0, 1) (global batch)."""
        index = torch.tensor(self.index, dtype=torch.float32).to(self.device, non_blocking=True)
        return ((index[:, None] + self.uniform(1)) / self.total).clamp(max=1 - 2**-24)
