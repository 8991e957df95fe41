"""How time is spent: tau, the time by decoding error, against t, the time of the interpolant.

Paper: arXiv 2602.16813, the time reparameterisation by decoding error.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Time
from flowlm.errors import Refusal


class Clock(ABC):
    """An increasing map between t and tau with both ends fixed: 0 is noise and 1 is text."""

    @abstractmethod
    def tau(self, t: Time) -> Time:
        """Clock time at interpolation time t."""

    @abstractmethod
    def t(self, tau: Time) -> Time:
        """The interpolation time at which the clock shows tau."""

    @abstractmethod
    def slope(self, t: Time) -> Time:
        """tau'(t), clock time per unit of t."""

    def draw(self, rng: Streams) -> Float[Tensor, "b 1"]:
        """Training times in tau: uniform, stratified over the global batch."""
        return rng.stratified()

    def grid(self, steps: int, device: str | torch.device = "cpu") -> Float[Tensor, " n"]:
        """Sampling times in tau: `steps + 1` of them, evenly spaced from 0 to 1."""
        return torch.linspace(0, 1, steps + 1, device=device)


@dataclass(frozen=True)
class Uniform(Clock):
    """tau = t."""

    def tau(self, t: Time) -> Time:
        """The identity."""
        return t

    def t(self, tau: Time) -> Time:
        """The identity."""
        return tau

    def slope(self, t: Time) -> Time:
        """1 everywhere."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class Decoding(Clock):
    """tau(t) = 1 - K/(K-1) P_e(t), P_e the chance that a noisy row's largest entry is wrong.

    With K = `vocab` and q(t) = E_z[Phi(z + t/(1-t))^(K-1)], z standard normal, the chance that it
    is right, tau = K/(K-1) (q - 1/K). Both directions read one piecewise linear table, within
    1e-5 of the integral, so they are exact inverses. A Refusal for a vocabulary of one token.
    """

    vocab: int

    def __post_init__(self) -> None:
        if self.vocab < 2:
            raise Refusal(
                f"A decoding clock needs a vocabulary of at least 2 tokens, not {self.vocab}: take "
                "--method.clock uniform, or other text."
            )

    def tau(self, t: Time) -> Time:
        """Chance of decoding a noisy row, rescaled from [1/K, 1] to [0, 1]."""
        return _interpolate(t, *_table(self.vocab, t.device, t.dtype))

    def t(self, tau: Time) -> Time:
        """The inverse of `tau`."""
        ts, taus = _table(self.vocab, tau.device, tau.dtype)
        return _interpolate(tau, taus, ts)

    def slope(self, t: Time) -> Time:
        """tau'(t) = K / (1-t)^2 E_z[Phi(z + a)^(K-2) phi(z + a)], a = t / (1-t); not the table's.

        It is 0 at both ends.
        """
        z, mass = (x.to(t.device, t.dtype, non_blocking=True) for x in _normal())
        a = _lift(t)
        at = z + a[..., None]
        log_density = (self.vocab - 2) * torch.special.log_ndtr(at) - at.square() / 2
        mean = log_density.exp() @ mass / (2 * math.pi) ** 0.5
        return self.vocab * (1 + a).square() * mean


INTERVALS = 8192


@cache
def _table(vocab: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    ts, taus = _decoding_table(vocab)
    return ts.to(device, dtype), taus.to(device, dtype)


@cache
def _decoding_table(vocab: int) -> tuple[Tensor, Tensor]:
    """(t, tau), both increasing from 0 to 1, in float64."""
    ts = torch.linspace(0, 1, INTERVALS + 1, dtype=torch.float64)
    z, mass = _normal()
    log_phi = torch.special.log_ndtr
    lifts = _lift(ts).split(512)
    q = torch.cat([((vocab - 1) * log_phi(z + a[:, None])).exp() @ mass for a in lifts])
    taus = ((q - 1 / vocab) * vocab / (vocab - 1)).clamp(0, 1)
    taus[0], taus[-1] = 0.0, 1.0
    return ts, torch.cummax(taus, 0).values


def _lift(t: Tensor) -> Tensor:
    """t / (1 - t): from 40 on a noisy row is decoded with certainty, at any vocabulary size."""
    return (t / (1 - t)).nan_to_num(posinf=40.0).clamp(max=40.0)


@cache
def _normal() -> tuple[Tensor, Tensor]:
    """Nodes and weights of a mean over z, standard normal, in float64.

    The trapezoid rule converges exponentially: a step of 1/32 leaves less than 1e-12 at every size.
    """
    z = torch.linspace(-9, 9, 577, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)
    return z, mass / mass.sum()


def _interpolate(x: Time, xs: Tensor, ys: Tensor) -> Time:
    right = torch.searchsorted(xs, x.contiguous(), right=True).clamp(1, len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    # Where rounding has made the curve flat, take the right end: tau = 1 comes back as t = 1.
    rising = x1 > x0
    share = torch.where(rising, x - x0, 1.0) / torch.where(rising, x1 - x0, 1.0)
    return y0 + share.clamp(0, 1) * (y1 - y0)
