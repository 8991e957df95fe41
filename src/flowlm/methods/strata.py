"""Integrals over time of what a likelihood bound pays, by one draw in each of equal parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowlm import core

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def integral(
    rate: Callable[[core.Time], Float[Tensor, "b l"]], rng: core.Streams, draws: int
) -> Float[Tensor, "b l"]:
    """An unbiased draw of the integral of `rate` over t in [0, 1), from `draws` evaluations.

    A sequence has one time in each of `draws` equal parts, all at the same distance from its ends:
    even over a sequence, and over the global batch.
    """
    first = rng.stratified()
    total = rate(first / draws)
    for k in range(1, draws):
        total = total + rate((k + first) / draws)
    return total / draws
