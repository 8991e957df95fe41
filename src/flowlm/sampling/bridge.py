"""The exact reverse step from x_t, given where it ends: a Brownian bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowlm import chunked, core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.sampling.point import Cools, Denoiser, PointSampler, cooled, require_warmth
from flowlm.sampling.sampler import Frame, require_top_p

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


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
    churn: float = 1.0
    """How fast noise is renewed, as a multiple of the bridge's own rate: of the old noise stays
    kappa^churn. 0 is the flow, 1 the bridge, and towards infinity all of it is new. With the mean
    every churn writes the same law in the limit of many steps (Karras et al. 2022)."""
    cools: Cools = "context"
    """Where rows are evidence: the temperature is that of the context alone, and what a row says of
    its own token is not touched; or that of the whole row."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_warmth(self.temperature)
        require_top_p(self.top_p)
        if not 0 <= self.churn < float("inf"):
            raise Refusal(f"--sampler.churn must be 0 or more, not {self.churn}.")

    @property
    def draws(self) -> bool:
        """Tokens, unless it takes the mean."""
        return self.endpoint == "token"

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """D_t(x)."""
        return cooled(denoiser.at(x, now), self.temperature, self.cools)

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
        kappa = core.bridge_kappa(t, t_next) ** self.churn
        return core.step(x, end, t, t_next, kappa, space.noise(rng, x.shape[1]))

    def nll(
        self, denoiser: Denoiser, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """The divergence of every step from the bridge to the tokens themselves, and the last draw.

        In terms of the signal-to-noise ratio S = (t / (1-t))^2 a step adds Delta e + sqrt(Delta) z,
        so it mixes v normal laws with the weights D. Its divergence from that of the token w is
        E_z[-log sum_u D_u exp(sqrt(Delta) (z_u - z_w) - Delta [u != w])]. None of the mean, whose
        last step takes the likeliest tokens, of a nucleus, outside of which p is 0, and of another
        churn than the bridge's.
        """
        if self.endpoint == "mean" or self.top_p < 1 or self.churn != 1:
            return None
        grid, (count, length) = denoiser.clock.grid(steps, tokens.device), tokens.shape
        total = 0.0

        def prediction(k: int) -> core.TokenDistribution:
            now, then = (tau.expand(count, 1) for tau in grid[k : k + 2])
            return self.predict(denoiser, denoiser.noisy(tokens, now, rng), now, then)

        t = denoiser.clock.t(grid[:steps].expand(count, -1))
        delta = ((t / (1 - t)) ** 2).diff(dim=1)
        for k in range(steps - 1):
            answer = prediction(k)
            noise = chunked.LazyOneHot(denoiser.space.vocab).noise(rng, length)
            total = total + answer.reduce(_divergence, tokens, noise, delta[:, k : k + 1])
        return total + prediction(steps - 1).nll(tokens)


def _divergence(
    logp: Float[Tensor, "n m v"],
    patch: core.Patch,
    tokens: core.Tokens,
    noise: chunked.LazyPoint,
    delta: Float[Tensor, "b 1"],
) -> Float[Tensor, "n m"]:
    """-log sum_u p_u exp(sqrt(delta) (z_u - z_w) - delta [u != w]), nats, of a patch of rows."""
    w = tokens[patch][..., None]
    z = delta[patch[0]][..., None].sqrt() * noise.write(patch)
    scores = logp + z - delta[patch[0]][..., None]
    own = logp.gather(-1, w) + z.gather(-1, w)
    return (z.gather(-1, w) - scores.scatter(-1, w, own).logsumexp(-1, keepdim=True)).squeeze(-1)
