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


def step(x: Point, end: Point, t: Time, s: Time, kappa: Time | float, noise: Point) -> Point:
    """x_s = s e + (1 - s) (kappa z + sqrt(1 - kappa^2) eps), where z = (x_t - t e) / (1 - t).

    From time t on to s, if `end` e is where the line ends, and z is therefore its noise: kappa is
    how much of it stays, and `noise` eps takes the place of the rest. kappa = 1 is the flow
    (`jump`, an Euler step), `bridge_kappa` its exact reverse transition, 0 noises anew. A token of
    time t = 1 stays where it is.
    """
    there = t < 1
    stays = torch.where(there, (1 - s) * kappa, 1.0) / torch.where(there, 1 - t, 1.0)
    fresh = (1 - s) * (1 - kappa**2) ** 0.5
    return stays[..., None] * x + (s - stays * t)[..., None] * end + fresh[..., None] * noise


def bridge_kappa(t: Time, s: Time) -> Time:
    """kappa = t (1 - s) / (s (1 - t)), so that x_t is to x_s as if both were noised from one text.

    kappa^2 is the ratio of their signals to noise: the law of x_s given x_t and the text (the
    Brownian bridge, or the reverse transition of a variance-exploding diffusion). 0 from t = 0 on.
    """
    kappa = torch.where(t < 1, t * (1 - s), 0.0) / torch.where(t < 1, s * (1 - t), 1.0)
    return kappa.clamp(max=1)  # past it by rounding, where s = t


def beta(t: Time) -> Time:
    """beta_t = t / (1 - t)^2: a row x = (1 - t) z + t e_w speaks for token w with beta_t x_w nats.

    Its density is proportional to exp(-|x - t e_w|^2 / 2 (1 - t)^2), and |x| is the same for every
    w. Past 1e4 a row is certain; the bound keeps t = 1 finite.
    """
    return (t / (1 - t).square()).nan_to_num(posinf=1e4).clamp(max=1e4)


def beta_slope(t: Time) -> Time:
    """beta'(t) = (1 + t) / (1 - t)^3; 0 where the bound of `beta` is reached."""
    return torch.where(beta(t) < 1e4, (1 + t) / (1 - t) ** 3, 0.0)
