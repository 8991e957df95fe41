"""Integrating dx/dt = b_t(x), the flow of the denoiser D_t."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.point import Cools, Denoiser, PointSampler, cooled, require_warmth
from flowlm.sampling.sampler import Frame


@dataclass(frozen=True)
class Euler(PointSampler):
    """First order, one evaluation a step. The last step takes the likeliest tokens (the paper)."""

    temperature: float = 1.0
    """Below 1 texts are likelier and less diverse."""
    cools: Cools = "context"
    """Where rows are evidence: the temperature is that of the context alone, and what a row says of
    its own token is not touched; or that of the whole row."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_warmth(self.temperature)

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """D_t(x)."""
        return cooled(denoiser.at(x, now), self.temperature, self.cools)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """x + (t' - t) b_t(x): the jump whose two-time denoiser is frozen at D_t."""
        clock, mean = denoiser.clock, denoiser.space.mean(frame.prediction)
        return core.jump(x, mean, clock.t(frame.tau), clock.t(then))


@dataclass(frozen=True)
class Heun(Euler):
    """Second order: the mean of the velocities at both ends; one evaluation in the last step."""

    def evaluations(self, steps: int, length: int) -> int:
        """Two a step, but for the last."""
        return 2 * steps - 1

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """x + (t' - t) (b_t(x) + b_{t'}(x')) / 2, where x' is where Euler's step leads."""
        clock, space = denoiser.clock, denoiser.space
        t, t_next = clock.t(frame.tau), clock.t(then)
        mean = space.mean(frame.prediction)
        ahead = core.jump(x, mean, t, t_next)
        mean_ahead = space.mean(self.predict(denoiser, ahead, then, then))
        slope = core.velocity(mean, x, t) + core.velocity(mean_ahead, ahead, t_next)
        return x + (t_next - t)[..., None] / 2 * slope
