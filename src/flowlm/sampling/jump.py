"""Travelling by jumps of a flow map, or of a flow, with fresh noise between them."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm import core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.sampling.point import Cools, Denoiser, PointSampler, cooled, require_warmth
from flowlm.sampling.sampler import Frame

RATE = 8.0
"""How many times as fast as on a bridge noise is renewed where gamma is left open: in few steps
almost as good as renewing all of it, while in many the law of an exact flow stays, which renewing
all of it loses (docs/sampling.md)."""


@dataclass(frozen=True)
class Jumps(PointSampler):
    """One jump a step. With gamma it goes further and comes back with fresh noise (CTM).

    Of a flow, whose answer does not depend on the aim, a jump is a step of Euler's: then gamma = 0
    is `Euler`, and otherwise a step towards the mean is noised anew.
    """

    gamma: float | None = None
    """Fresh noise between jumps, from 0 (none) to 1 (all); nothing at one step. By default as much
    as the length of a step asks for: all after the first, and the less the shorter they are."""
    latest: float = 1.0
    """Clock time past which no jump aims: that up to which a map has learnt to jump."""
    temperature: float = 1.0
    """Below 1 texts are likelier and less diverse. It reshapes an answer between two steps: the
    likeliest tokens of the last one stay the same."""
    cools: Cools = "context"
    """Where rows are evidence: the temperature is that of the context alone, and what a row says of
    its own token is not touched; or that of the whole row."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise Refusal(f"--sampler.gamma must lie between 0 and 1, not {self.gamma}.")
        if not 0 < self.latest <= 1:
            raise Refusal(f"--sampler.latest must lie above 0 and up to 1, not {self.latest}.")
        require_warmth(self.temperature)

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """delta_{s,t'}(x) towards the time t' at which the jump aims."""
        clock, end = denoiser.clock, then
        if self.gamma != 0:
            t = clock.t(then)
            end = clock.tau(aim(t, self.kept(clock.t(now), t)))
        if self.latest < 1:
            end = end.clamp(max=self.latest).maximum(now)  # a given token is at 1 already
        return cooled(denoiser.two_time(x, now, end), self.temperature, self.cools)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """The jump, or the step that keeps the share `kept` of the old noise."""
        clock, space = denoiser.clock, denoiser.space
        delta, t, t_next = space.mean(frame.prediction), clock.t(frame.tau), clock.t(then)
        if self.gamma == 0:
            return core.jump(x, delta, t, t_next)
        return core.step(x, delta, t, t_next, self.kept(t, t_next), space.noise(rng, x.shape[1]))

    def kept(self, t: core.Time, t_next: core.Time) -> core.Time | float:
        """kappa of `core.step`: sqrt(1 - gamma^2), or by default that of the bridge to the RATE."""
        if self.gamma is None:
            return core.bridge_kappa(t, t_next) ** RATE
        return (1 - self.gamma**2) ** 0.5


def aim(t: core.Time, kappa: core.Time | float) -> core.Time:
    """Where a jump to time t aims that comes back with fresh noise (Kim et al. 2024, CTM, gamma).

    The noise level at t is 1 - t. Of the old noise kappa (1 - t) stays, which is the level of the
    time that the jump aims at; `step` adds the rest. kappa = 1 aims at t itself, and 0 at text.
    """
    return 1 - (1 - t) * kappa
