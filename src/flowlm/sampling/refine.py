"""Posterior refinement: a map answers all at once, the surest tokens stay, the rest is redone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowlm import core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Frame

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Refine(PointSampler):
    """Commit the surest tokens of delta_{s,1} in every round, and noise all others anew (FMLM+).

    s is 1 at tokens that are given or committed, which are clean, and 0 at all others, which are
    fresh noise (arXiv 2606.24773). A round commits every token whose largest probability reaches
    `certainty`, and at least rest / (rounds left) of the surest. For maps that have been trained
    with prompts: others have never seen a clean token beside noise.
    """

    certainty: float = 0.999
    """Probability from which on a token stays."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        if not 0 < self.certainty <= 1:
            raise Refusal(
                f"--sampler.certainty must lie above 0 and up to 1, not {self.certainty}."
            )

    def walk(
        self,
        denoiser: Denoiser,
        x: core.Point,
        grid: Float[Tensor, " n"],
        rng: core.Streams,
        prompt: core.Tokens | None = None,
    ) -> Iterator[Frame]:
        """A round for each of n - 1 intervals; of the grid their number counts alone."""
        import torch

        rounds = len(grid) - 1
        count, length = len(x), x.shape[1]
        tokens = torch.full((count, length), core.FREE, device=x.device)
        if prompt is not None:
            tokens = prompt
        for k in range(rounds):
            now = (tokens != core.FREE).to(grid.dtype)
            then = torch.ones_like(now)
            prediction = self.predict(denoiser, x, now, then)
            certain = prediction.reduce(_surest)
            commit = self.committed(certain, tokens == core.FREE, rounds - k)
            tokens = prediction.argmax().where(commit, tokens)
            frame = Frame(now, prediction, x, tokens, prompt)
            yield frame
            if k < rounds - 1:
                x = self.move(denoiser, frame, x, then, rng)

    def committed(
        self, certain: Float[Tensor, "b l"], free: Bool[Tensor, "b l"], rounds: int
    ) -> Bool[Tensor, "b l"]:
        """Which free tokens stay with `rounds` to go, this one too; of equals the first ones."""
        certain = certain.masked_fill(~free, -1.0)
        rank = certain.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        rest: Int[Tensor, "b 1"] = free.sum(-1, keepdim=True)
        least = (rest + rounds - 1) // rounds
        return free & ((certain >= self.certainty) | (rank < least))

    def predict(
        self, denoiser: Denoiser, x: core.Point, now: core.Time, then: core.Time
    ) -> core.TokenDistribution:
        """delta_{s,1}(x)."""
        return denoiser.two_time(x, now, then)

    def move(
        self, denoiser: Denoiser, frame: Frame, x: core.Point, then: core.Time, rng: core.Streams
    ) -> core.Point:
        """Committed tokens, and fresh noise elsewhere."""
        assert frame.decided is not None
        return denoiser.start(x.shape[1], rng, frame.decided)


def _surest(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
    """max p."""
    return logp.amax(-1).exp()
