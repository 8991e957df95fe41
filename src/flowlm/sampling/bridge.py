"""The exact reverse step from x_t, given where it ends: a Brownian bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.point import Denoiser, PointSampler, require_warmth
from flowlm.sampling.sampler import Frame, require_top_p


@dataclass(frozen=True)
class Bridge(PointSampler):
    """One evaluation a step, then the bridge to its endpoint: the mean, or a token that is drawn.

    With tokens (arXiv 2605.13681, MCB) a step keeps the law of every single token exact, and loses
    only how tokens depend on each other within it: for many steps. With the mean it is the sampler
    of the flow's stochastic differential equation.
    """

    endpoint: Literal["token", "mean"] = "token"
    """Where a step's bridge ends; the last step ends there too, with the mean at the likeliest
    tokens."""
    temperature: float = 1.0
    """Below 1 texts are likelier and less diverse; as of Euler."""
    top_p: float = 1.0
    """Share of the mass from which tokens are drawn (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_warmth(self.temperature)
        require_top_p(self.top_p)

    @property
    def draws(self) -> bool:
        """Tokens, unless it takes the mean."""
        return self.endpoint == "token"

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """D_t(x)."""
        return denoiser.at(x, now).with_temperature(self.temperature)

    def draw(self, prediction: core.TokenDistribution, rng: core.Streams) -> core.Tokens | None:
        """A token for every position, by its own distribution."""
        return prediction.sample(rng, top_p=self.top_p) if self.draws else None

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """The step that keeps as much of the old noise as the bridge does."""
        clock, space = denoiser.clock, denoiser.space
        t, t_next = clock.t(frame.tau), clock.t(then)
        end = space.mean(frame.prediction) if frame.decided is None else space.clean(frame.decided)
        kappa = core.bridge_kappa(t, t_next)
        return core.step(x, end, t, t_next, kappa, space.noise(rng, x.shape[1]))
