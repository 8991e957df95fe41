"""Travelling by residual map: jumps that a second network corrects (arXiv 2602.16813v1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from flowlm import chunked, core
from flowlm.checks import require_fields
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Frame


@dataclass(frozen=True, eq=False)
class ResidualDenoiser(Denoiser):
    """delta_{s,t} = D_s + (t-s)(1-s)/2 g, of a flow D and its residual g; D alone where s = t."""

    flow: Callable[[core.Point, core.Time], core.TokenDistribution]
    """D_t(x), at clock time."""

    def at(self, x: core.Point, tau: core.Time) -> core.TokenDistribution:
        """D_t(x): g counts nothing there."""
        return self.flow(x, tau)


@dataclass(frozen=True)
class ResidualJumps(PointSampler):
    """x + (t'-t) v_t(x) + (t'-t)^2/2 g; the last step takes the largest entries of where it leads.

    For a residual map: each step evaluates its flow and its residual.
    """

    general: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")

    def evaluations(self, steps: int, length: int) -> int:
        """Two a step, of two networks."""
        return 2 * steps

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """delta towards the next time; towards text it is the point where the jump ends."""
        return denoiser.two_time(x, now, then)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """The jump, with the rows of delta as they are."""
        assert isinstance(frame.prediction, chunked.ResidualPrediction)
        clock, delta = denoiser.clock, frame.prediction.point(denoiser.space)
        return core.jump(x, delta, clock.t(frame.tau), clock.t(then))
