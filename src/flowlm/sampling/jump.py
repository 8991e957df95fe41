"""Travelling by flow map: few long jumps, with fresh noise between them if wanted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from flowlm.core.clock import Clock
from flowlm.core.flow_map import TwoTimeDenoiser, jump, renoise
from flowlm.core.rng import Streams
from flowlm.core.space import Space
from flowlm.core.types import Point
from flowlm.sampling.ode import Frame, Pinned, token_time


def jumps(
    denoise: TwoTimeDenoiser,
    space: Space,
    clock: Clock,
    x: Point,
    grid: Float[Tensor, " n"],
    gamma: float,
    rng: Streams,
    pinned: Pinned = None,
) -> Iterator[Frame]:
    """One evaluation per interval of `grid` (clock times).

    gamma = 0 composes plain jumps. gamma > 0 jumps further and comes back with fresh noise
    (core.flow_map.renoise). The last jump aims at t = 1 and its prediction is the answer, so gamma
    changes nothing at one step.
    """
    for i, (tau, tau_next) in enumerate(pairwise(grid)):
        now, then = token_time(tau, x, pinned), token_time(tau_next, x, pinned)
        if i == len(grid) - 2:
            yield Frame(x, now, denoise(x, now, then))
            return
        if gamma == 0:
            prediction = denoise(x, now, then)
            yield Frame(x, now, prediction)
            x = space.compress(jump(x, space.mean(prediction), clock.t(now), clock.t(then)))
            continue
        aim, shrink, noise = renoise(clock.t(then), gamma)
        prediction = denoise(x, now, clock.tau(aim))
        yield Frame(x, now, prediction)
        delta = space.mean(prediction)
        moved = jump(x, delta, clock.t(now), aim) + shrink[..., None] * delta
        moved = moved + noise[..., None] * space.noise(rng, x.shape[1])
        x = space.compress(moved if pinned is None else x.where(pinned[..., None], moved))
