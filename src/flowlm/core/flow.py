"""The flow: a straight line from noise to text, and the velocity of a denoiser."""

from __future__ import annotations

import torch

from flowlm.core.types import Point, Time


def interpolate(x0: Point, x1: Point, t: Time) -> Point:
    """x_t = (1 - t) x0 + t x1 (paper, the linear interpolant)."""
    t = t[..., None]
    return (1 - t) * x0 + t * x1


def velocity(denoised: Point, x: Point, t: Time) -> Point:
    """b_t(x) = (D_t(x) - x) / (1 - t) (paper, velocity of a denoiser).

    `denoised` is D_t(x) = E[x1 | x_t = x], in the same space as x. At t = 1, where the formula has
    no value, nothing moves any more.
    """
    left = torch.where(t < 1, 1 - t, torch.inf)
    return (denoised - x) / left[..., None]


def beta(t: Time) -> Time:
    """beta_t = t / (1 - t)^2: a row x = (1 - t) z + t e_w speaks for token w with beta_t x_w nats.

    Its density is proportional to exp(-|x - t e_w|^2 / 2 (1 - t)^2), and |x| is the same for every
    w. Past 1e4 a row is certain; the bound keeps t = 1 finite.
    """
    return (t / (1 - t).square()).nan_to_num(posinf=1e4).clamp(max=1e4)
