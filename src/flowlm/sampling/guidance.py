"""Guidance: a sampler whose network is led away from a weaker answer to the same question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowlm import chunked, core
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Frame

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class GuidedSampler(PointSampler):
    """Another sampler, of the rows log D + (weight - 1) (log D - log D_weak), normalised.

    Two evaluations for each of the other's. Weight 1 is the other sampler bit for bit, and weight 0
    writes with the weak network (`chunked.Guided`). Made by `LanguageModel.guided`.
    """

    way: PointSampler
    weak: Callable = field(repr=False)
    """Of the denoiser and of streams beside the sampler's: the weak two-time denoiser."""
    weight: float = 2.0

    @property
    def draws(self) -> bool:
        """Whole rows are made where they are combined."""
        return True

    def evaluations(self, steps: int, length: int) -> int:
        """Twice those of the other sampler; at weight 1 and 0 one network is not asked."""
        return self.way.evaluations(steps, length) * (1 if self.weight in (0, 1) else 2)

    def frames(
        self, denoiser: Denoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """Those of the other sampler."""
        return self.way.frames(self.led(denoiser, rng), prompt, steps, rng)

    def walk(
        self,
        denoiser: Denoiser,
        x: core.Point,
        grid: Float[Tensor, " n"],
        rng: core.Streams,
        prompt: core.Tokens | None = None,
    ) -> Iterator[Frame]:
        """That of the other sampler."""
        return self.way.walk(self.led(denoiser, rng), x, grid, rng, prompt)

    def nll(
        self, denoiser: Denoiser, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """That of the other sampler with the combined rows."""
        return self.way.nll(self.led(denoiser, rng), tokens, steps, rng)

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """As the other sampler."""
        return self.way.predict(denoiser, x, now, then)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """As the other sampler."""
        return self.way.move(denoiser, frame, x, then, rng)

    def led(self, denoiser: Denoiser, rng: core.Streams) -> Denoiser:
        """The denoiser whose answers are combined; the sampler's own streams stay as they are."""
        strong = denoiser.two_time
        if self.weight == 1:
            return denoiser
        weak: core.TwoTimeDenoiser = self.weak(denoiser, aside(rng))
        if self.weight == 0:
            return replace(denoiser, two_time=weak)

        def two_time(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
            return chunked.guided(strong(x, s, t), weak(x, s, t), self.weight)

        return replace(denoiser, two_time=two_time)


def without_prompt(denoiser: Denoiser, rng: core.Streams) -> core.TwoTimeDenoiser:
    """The network to which given tokens are as noisy as the rest of their text.

    A token of time 1 beside others of time tau becomes x_tau of itself, with the same noise at
    every step: what a network knows that has had its prompt noised in training (arXiv 2610.09145).
    Without a given token it is the network itself.
    """
    kept: list[core.Point] = []

    def two_time(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
        if s.shape[1] == 1:
            return denoiser.two_time(x, s, t)
        if not kept:
            kept.append(denoiser.space.noise(rng, x.shape[1]))
        now, then = s.amin(1, keepdim=True), t.amin(1, keepdim=True)
        noisy = core.interpolate(kept[0], x, denoiser.clock.t(now))
        given = ((s == 1) & (now < 1))[..., None]
        return denoiser.two_time(noisy.where(given, x), now.expand(s.shape), then.expand(t.shape))

    return two_time


def aside(rng: core.Streams) -> core.Streams:
    """One more stream for each sequence, a function of its own one, which goes on undisturbed."""
    import torch

    seeds = [(generator.initial_seed() ^ 0x5BD1E995) % 2**32 for generator in rng.generators]
    generators = [torch.Generator(rng.device).manual_seed(seed) for seed in seeds]
    return core.Streams(generators, rng.index, rng.total)
