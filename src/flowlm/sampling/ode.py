"""Integrating dx/dt = b_t(x) on an even grid of clock time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowlm.core.clock import Clock
from flowlm.core.distribution import TokenDistribution
from flowlm.core.flow import velocity
from flowlm.core.flow_map import jump
from flowlm.core.space import Space
from flowlm.core.types import Point, Time


@dataclass(frozen=True)
class Frame:
    """A point on the way, its clock time, and what the network reads there."""

    x: Point
    tau: Time
    prediction: TokenDistribution


Denoiser = Callable[[Point, Time], TokenDistribution]
"""(x, tau) -> the distribution of the clean tokens."""

Pinned = Bool[Tensor, "b l"] | None
"""Tokens that are given: their time is 1 from the start, and they do not move."""


def euler(
    denoise: Denoiser,
    space: Space,
    clock: Clock,
    x: Point,
    grid: Float[Tensor, " n"],
    pinned: Pinned = None,
) -> Iterator[Frame]:
    """One evaluation per interval of `grid` (clock times), first order.

    The last interval is not integrated: its frame's prediction is the answer (paper, sampling).
    """
    for tau, tau_next in pairwise(grid):
        now, then = token_time(tau, x, pinned), token_time(tau_next, x, pinned)
        prediction = denoise(x, now)
        yield Frame(x, now, prediction)
        # x + (t' - t) b_t(x) is the jump whose two-time denoiser is frozen at D_t.
        x = space.compress(jump(x, space.mean(prediction), clock.t(now), clock.t(then)))


def heun(
    denoise: Denoiser,
    space: Space,
    clock: Clock,
    x: Point,
    grid: Float[Tensor, " n"],
    pinned: Pinned = None,
) -> Iterator[Frame]:
    """Two evaluations per interval but the last, second order: the mean of both ends' slopes."""
    for i, (tau, tau_next) in enumerate(pairwise(grid)):
        now, then = token_time(tau, x, pinned), token_time(tau_next, x, pinned)
        prediction = denoise(x, now)
        yield Frame(x, now, prediction)
        if i == len(grid) - 2:
            return
        t, t_next = clock.t(now), clock.t(then)
        mean = space.mean(prediction)
        ahead = jump(x, mean, t, t_next)
        slope = velocity(mean, x, t) + velocity(space.mean(denoise(ahead, then)), ahead, t_next)
        x = space.compress(x + (t_next - t)[..., None] / 2 * slope)


def token_time(tau: Tensor, x: Point, pinned: Pinned) -> Time:
    """The time of every text (b, 1), or of every token (b, l) where some are given."""
    if pinned is None:
        return tau.expand(len(x), 1)
    return torch.where(pinned, torch.ones_like(tau), tau)
