"""Travelling by flow map: few long jumps, with fresh noise between them if wanted."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm import core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Frame


@dataclass(frozen=True)
class Jumps(PointSampler):
    """One jump a step. With gamma it goes further and comes back with fresh noise (CTM)."""

    gamma: float = 0.0
    """Fresh noise between jumps, from 0 (none) to 1 (all); nothing at one step."""
    latest: float = 1.0
    """Clock time past which no jump aims: that up to which a map has learnt to jump."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        if not 0 <= self.gamma <= 1:
            raise Refusal(f"--sampler.gamma must lie between 0 and 1, not {self.gamma}.")
        if not 0 < self.latest <= 1:
            raise Refusal(f"--sampler.latest must lie above 0 and up to 1, not {self.latest}.")

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """delta_{s,t'}(x) towards the time t' at which the jump aims."""
        clock, end = denoiser.clock, then
        if self.gamma > 0:
            end = clock.tau(aim(clock.t(then), self.gamma))
        if self.latest < 1:
            end = end.clamp(max=self.latest).maximum(now)  # a given token is at 1 already
        return denoiser.two_time(x, now, end)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """The jump, or the step of which the share sqrt(1 - gamma^2) of the old noise is left."""
        clock, space = denoiser.clock, denoiser.space
        delta, t, t_next = space.mean(frame.prediction), clock.t(frame.tau), clock.t(then)
        if self.gamma == 0:
            return core.jump(x, delta, t, t_next)
        kappa = (1 - self.gamma**2) ** 0.5
        return core.step(x, delta, t, t_next, kappa, space.noise(rng, x.shape[1]))


def aim(t: core.Time, gamma: float) -> core.Time:
    """Where a jump to time t aims that comes back with fresh noise (Kim et al. 2024, CTM, gamma).

    The noise level at t is 1 - t. Of the old noise sqrt(1 - gamma^2) (1 - t) stays, which is the
    level of the time that the jump aims at; `step` adds the rest. gamma = 0 aims at t itself, and
    gamma = 1 at text.
    """
    return 1 - (1 - t) * (1 - gamma**2) ** 0.5
