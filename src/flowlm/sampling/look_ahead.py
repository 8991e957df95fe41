"""Writing towards a reward: the best of several noises, judged by where a jump from each ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowlm import chunked, core
from flowlm.checks import whole
from flowlm.errors import Refusal
from flowlm.sampling.jump import Jumps
from flowlm.sampling.point import Denoiser
from flowlm.sampling.sampler import Frame, prompt_or_none, with_prompt

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LookAhead(Jumps):
    """Jumps with all noise renewed, of `candidates` noises a step; the best text leads on.

    A jump to text, delta_{t,1}, tells what a noisy point will become, so a reward of texts can
    choose among points long before the end (after FMRG, arXiv 2604.27147, without its gradients).
    Each of `candidates` points costs one evaluation a step, and the chosen one's is the jump
    itself: nothing is evaluated twice. In one step it is the best of as many texts, and one
    candidate is `Jumps(gamma=1)`. The reward is a Python function, and so no part of an experiment.
    """

    gamma: float | None = 1.0
    reward: Callable = field(repr=False)
    """Of tokens (b, l), a number for each text; the largest is best, of equals the first."""
    candidates: int = 8
    """Points that a step chooses from, for every text."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not callable(self.reward):
            raise Refusal("The reward must be a function from texts to a score for each.")
        super().__post_init__()
        whole("The number of candidates", self.candidates, 1, 2**16)
        if self.gamma != 1:
            raise Refusal("Looking ahead needs --sampler.gamma 1: every jump goes to text.")

    def evaluations(self, steps: int, length: int) -> int:
        """One for every candidate of every step."""
        return self.candidates * steps

    def frames(
        self, denoiser: Denoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """From the best of several noises, with the given tokens in their place."""
        known, length = prompt_or_none(prompt), prompt.shape[1]
        starts = (denoiser.start(length, rng, known) for _ in range(self.candidates))
        grid = denoiser.clock.grid(steps, prompt.device)
        return self._search(denoiser, starts, grid, rng, known)

    def walk(
        self,
        denoiser: Denoiser,
        x: core.Point,
        grid: Float[Tensor, " n"],
        rng: core.Streams,
        prompt: core.Tokens | None = None,
    ) -> Iterator[Frame]:
        """From x itself, one candidate; of several from the second step on."""
        return self._search(denoiser, iter((x,)), grid, rng, prompt)

    def _search(
        self,
        denoiser: Denoiser,
        points: Iterator[core.Point],
        grid: Float[Tensor, " n"],
        rng: core.Streams,
        prompt: core.Tokens | None,
    ) -> Iterator[Frame]:
        given = None if prompt is None else prompt != core.FREE
        for i in range(len(grid) - 1):
            ends = (tau.expand(len(rng), 1) for tau in grid[i : i + 2])
            now, then = (core.with_given(tau, given) for tau in ends)
            frame = self._best(denoiser, points, now, then, prompt)
            yield frame
            if i < len(grid) - 2:
                points = self._renewed(denoiser, frame, then, rng)

    def _renewed(
        self, denoiser: Denoiser, frame: Frame, then: core.Time, rng: core.Streams
    ) -> Iterator[core.Point]:
        assert frame.x is not None
        for _ in range(self.candidates):
            yield denoiser.space.compress(self.move(denoiser, frame, frame.x, then, rng))

    def _best(
        self,
        denoiser: Denoiser,
        points: Iterator[core.Point],
        now: core.Time,
        then: core.Time,
        prompt: core.Tokens | None,
    ) -> Frame:
        """Of each text, the point whose look-ahead scores highest, one point after the other."""
        first = next(points)
        predictions = [self.predict(denoiser, first, now, then)]
        best, tokens = first, with_prompt(predictions[0].argmax(), prompt)
        top = self._scores(tokens)
        choice = [0] * len(top)
        for number, x in enumerate(points, 1):
            predictions.append(self.predict(denoiser, x, now, then))
            found = with_prompt(predictions[-1].argmax(), prompt)
            scores = self._scores(found)
            better = scores > top
            choice = [number if b else c for b, c in zip(better.tolist(), choice)]
            top, mask = scores.where(better, top), better.to(tokens.device)[:, None]
            best, tokens = x.where(mask[..., None], best), found.where(mask, tokens)
        several = chunked.Chosen(tuple(predictions), tuple(choice))
        prediction = predictions[0] if len(predictions) == 1 else several
        return Frame(now, prediction, best, tokens, prompt)

    def _scores(self, tokens: core.Tokens) -> Float[Tensor, " b"]:
        """The reward of each text, float64."""
        import torch

        told = self.reward(tokens)
        try:
            scores = torch.as_tensor(told, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise Refusal("The reward must give a number for each text.") from error
        if scores.shape != (len(tokens),) or bool(scores.isnan().any()):
            raise Refusal(
                f"The reward must give a number for each of {len(tokens)} texts, and it gave "
                f"values of the shape {tuple(scores.shape)}"
                f"{', some of which are no number' if scores.isnan().any() else ''}."
            )
        return scores
