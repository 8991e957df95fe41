"""Shares of a global batch: which sequences learn what, however it is split over processes."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, gcd, lcm

from flowlm import core

FINEST = 64
"""Parts of a whole to which a share is rounded where sequences are counted."""


def even(share: float, inside: int = 1, outside: int = 1) -> int:
    """The fewest sequences of which the share is a multiple of `inside`, the rest of `outside`."""
    exact = Fraction(share).limit_denominator(FINEST)
    chosen, whole = exact.as_integer_ratio()
    times = (inside // gcd(inside, chosen), outside // gcd(outside, whole - chosen))
    return whole * lcm(*times)


def picked(index: int, share: float) -> bool:
    """Whether the sequence of this index is in the share: as evenly spread as can be, from 0 on."""
    return ceil((index + 1) * share) > ceil(index * share)


def parted(
    batch: core.Batch, rng: core.Streams, share: float
) -> list[tuple[core.Batch, core.Streams]]:
    """The sequences in the share and the others, with streams indexed among themselves.

    Where a part has none it is a sequence that counts nothing, with noise of its own: processes
    that share weights must evaluate their networks equally often.
    """
    before = [ceil(i * share) for i in rng.index]
    total = ceil(rng.total * share)
    inside = [k for k, i in enumerate(rng.index) if picked(i, share)]
    outside = [k for k, i in enumerate(rng.index) if not picked(i, share)]
    others = [rng.index[k] - before[k] for k in outside]
    return [
        _part(batch, rng, inside, [before[k] for k in inside], total),
        _part(batch, rng, outside, others, rng.total - total),
    ]


def _part(
    batch: core.Batch, rng: core.Streams, rows: list[int], index: list[int], total: int
) -> tuple[core.Batch, core.Streams]:
    import torch

    if not rows:
        nothing = core.Batch(batch.tokens[:1], 0 * batch.weight[:1])
        return nothing, core.Streams.of(0, count=1, device=rng.device)
    chosen = torch.tensor(rows).to(rng.device, non_blocking=True)
    return batch.chosen(chosen), rng.chosen(rows, index, total)
