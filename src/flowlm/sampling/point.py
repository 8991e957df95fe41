"""Samplers that travel through a Euclidean space, from noise to text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowlm import chunked, core
from flowlm.errors import Refusal
from flowlm.sampling.sampler import Frame, Sampler, prompt_or_none, with_prompt

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

COLDEST = 1e-3
"""Lowest temperature: a token that is 1 % likelier than another is certain there."""


Cools = Literal["context", "row"]
"""What a temperature cools where rows are evidence: the context alone, or evidence with it."""


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A flow or a flow map, as its samplers ask it, and the space of its points."""

    two_time: core.TwoTimeDenoiser
    """delta_{s,t}(x), at clock times; of a flow D_s(x), whatever t is."""
    space: core.Space
    clock: core.Clock

    def at(self, x: core.Point, tau: core.Time) -> core.TokenDistribution:
        """D_t(x) = delta_{t,t}(x)."""
        return self.two_time(x, tau, tau)

    def noisy(self, tokens: core.Tokens, tau: core.Time, rng: core.Streams) -> core.Point:
        """x_t of the tokens, with fresh noise."""
        noise = self.space.noise(rng, tokens.shape[1])
        return core.interpolate(noise, self.space.clean(tokens), self.clock.t(tau))

    def start(self, length: int, rng: core.Streams, prompt: core.Tokens | None) -> core.Point:
        """Fresh noise, with the given tokens of a prompt in their place."""
        x = self.space.noise(rng, length)
        if prompt is None:
            return x
        return self.space.clean(prompt.clamp(min=0)).where((prompt != core.FREE)[..., None], x)


class PointSampler(Sampler, ABC):
    """Steps on an even grid of clock time; the last one reads the text off its prediction.

    A given token has time 1 from the start: it does not move.
    """

    @property
    def draws(self) -> bool:
        """Not unless it draws endpoints."""
        return False

    def frames(
        self, denoiser: Denoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """From fresh noise, with the given tokens in their place."""
        known = prompt_or_none(prompt)
        x = denoiser.start(prompt.shape[1], rng, known)
        return self.walk(denoiser, x, denoiser.clock.grid(steps, prompt.device), rng, known)

    def walk(
        self,
        denoiser: Denoiser,
        x: core.Point,
        grid: Float[Tensor, " n"],
        rng: core.Streams,
        prompt: core.Tokens | None = None,
    ) -> Iterator[Frame]:
        """From x at the first of n clock times; n - 1 frames, one an interval."""
        given = None if prompt is None else prompt != core.FREE
        for i in range(len(grid) - 1):
            ends = (tau.expand(len(x), 1) for tau in grid[i : i + 2])
            now, then = (core.with_given(tau, given) for tau in ends)
            prediction = self.predict(denoiser, x, now, then)
            drawn = self.draw(prediction, rng)
            decided = None if drawn is None else with_prompt(drawn, prompt)
            frame = Frame(now, prediction, x, decided, prompt)
            yield frame
            if i < len(grid) - 2:
                x = denoiser.space.compress(self.move(denoiser, frame, x, then, rng))

    @abstractmethod
    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """The clean tokens, seen from x on the way to `then`, the next clock time."""

    def draw(self, prediction: core.TokenDistribution, rng: core.Streams) -> core.Tokens | None:
        """Tokens drawn as the endpoint of this step; None where that is the prediction's mean."""
        return None

    @abstractmethod
    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """The point at `then`, from x at the time of the frame."""


def require_warmth(temperature: float) -> None:
    """Refuse a temperature at which logits are no longer numbers that a network can learn."""
    if not COLDEST <= temperature < float("inf"):
        raise Refusal(
            f"--sampler.temperature must be at least {COLDEST} and finite, not {temperature}."
        )


def cooled(
    prediction: core.TokenDistribution, temperature: float, cools: Cools
) -> core.TokenDistribution:
    """A prediction at a temperature of its context or of its rows."""
    if cools == "row":
        return chunked.cooled_rows(prediction, temperature)
    return prediction.with_temperature(temperature)
