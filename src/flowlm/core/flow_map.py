"""The flow map: one jump along the flow from s to t, and how jumps compose.

The two-time denoiser delta_{s,t} is the weighted average of the denoisers met on the way from s to
t, so every row of it lies on the simplex (paper, the two-time denoiser of a flow map).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from flowlm.core.clock import Clock
from flowlm.core.distribution import Mixture, TokenDistribution
from flowlm.core.space import Space
from flowlm.core.types import Point, Time

TwoTimeDenoiser = Callable[[Point, Time, Time], TokenDistribution]
"""(x, tau of s, tau of t) -> delta_{s,t}(x)."""


def jump(x: Point, delta: Point, s: Time, t: Time) -> Point:
    """X_{s,t}(x) = [(1 - t) x + (t - s) delta_{s,t}(x)] / (1 - s).

    A jump of no length stays where it is, at s = t = 1 too, where the formula has no value.
    """
    # Both sides of the division are chosen first: in torch.where the side that is not taken still
    # has a gradient, and that of 0 / 0 is no number.
    way = torch.where(t > s, t - s, 0.0)
    share = (way / torch.where(t > s, 1 - s, 1.0))[..., None]
    return x + share * (delta - x)


def semigroup_weight(s: Time, u: Time, t: Time) -> Time:
    """g in delta_{s,t} = g delta_{s,u} + (1 - g) delta_{u,t} o X_{s,u}, for s <= u <= t.

    g = (1 - t)(u - s) / ((1 - u)(t - s)), in [0, 1] (paper, the semigroup property). Where that has
    no value, one of the jumps has no length: g = 0 if both have none (s = t), and g = 1 if the
    second one begins where time ends (s < u = t = 1).
    """
    near, whole = (1 - t) * (u - s), (1 - u) * (t - s)
    sound = whole > 0
    g = torch.where(sound, near, 1.0) / torch.where(sound, whole, 1.0)
    return g.clamp(0, 1) * (t > s)


class Triple(NamedTuple):
    """Clock times s <= u <= t, each (b, 1)."""

    s: Time
    u: Time
    t: Time


@torch.no_grad()
def semigroup_target(
    near: TwoTimeDenoiser, far: TwoTimeDenoiser, space: Space, clock: Clock, x: Point, times: Triple
) -> Mixture:
    """Target of delta_{s,t}(x) by the jumps of `near` from s to u and of `far` from u to t.

    `times` are clock times; x is a point at s. Forward passes only (paper, PSD).
    """
    s, u, t = (clock.t(tau) for tau in times)
    first = near(x, times.s, times.u)
    second = far(jump(x, space.mean(first), s, u), times.u, times.t)
    g = semigroup_weight(s, u, t)
    return g * first.probs() + (1 - g) * second.probs()
