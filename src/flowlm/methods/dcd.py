"""DCD: discrete consistency distillation of uniform-state diffusion (Duo, 2506.10892)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from flowlm import core, nn
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.divergence import Direction, divergence
from flowlm.methods.duo import PAPER, Curriculum, Duo, even_times, require_range
from flowlm.methods.method import Method, require_teacher
from flowlm.methods.uniform_state import UniformDiffusion, UniformState
from flowlm.sampling.sampler import Sampler

LONGEST = 0.5
"""Largest `delta`: half of the range, so that most noisier texts are not at its end."""


@dataclass(frozen=True)
class DCD(UniformDiffusion):
    """Answer to noisy tokens as the teacher does to cleaner ones of the same noise.

    Both are largest entries of one Gaussian row with two times, that differ by `delta` in log-SNR.
    Rounds are runs: the next one's teacher is this one, its `delta` twice as large.

    The pairs are no Markov pair, for which the teacher's answers would be their own mean: what a
    student learns is where noise leads. Reverse divergence finds the geometric mean of the targets,
    which is sharper: read its likelihood under a judge together with the entropy. Targets are
    averaged given all tokens, a token's own too; so after a round the network no longer answers
    with what all others say, and `nll` does not pass its bound off as a likelihood.
    """

    label: ClassVar[str] = "Duo + DCD"
    about: ClassVar[str] = (
        "A uniform-state diffusion language model, distilled to write in fewer steps by discrete "
        f"consistency distillation ([paper]({PAPER}))."
    )

    teacher: str | None = None
    """Run directory of uniform-state diffusion, or of the round before."""
    delta: float = 1 / 128
    """Distance of the two times, as share of the range in log-SNR. By default a step of a sampler
    of 128 of them, and of a later round twice what the round before has learnt."""
    first: float = 0.006
    """Share of kept tokens at the noisier end of the range, in which times are even in log-SNR."""
    last: float = 0.999
    """Share of kept tokens at its cleaner end."""
    divergence: Direction = "reverse"
    """reverse (as published): KL(student || teacher); forward: KL(teacher || student)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)
        require_range(self.first, self.last)
        if not 0 < self.delta <= LONGEST:
            raise Refusal(
                f"--method.delta is a share of the range of times: choose one above 0 and up to "
                f"{LONGEST}, not {self.delta}."
            )

    def time(self, vocab: int) -> core.Clock:
        """Shares of kept tokens by the time of their points."""
        return core.Decoding(vocab)

    def with_teacher(self, name: str | None) -> DCD:
        """The student of another teacher."""
        return replace(self, teacher=name)

    def taught_by(self, theirs: Method, sampler: Sampler) -> DCD:
        """With times twice as far apart, in a later round."""
        return (
            replace(self, delta=min(2 * theirs.delta, LONGEST)) if isinstance(theirs, DCD) else self
        )

    def like_teacher(self) -> UniformState:
        """All of uniform-state diffusion has one network."""
        return UniformState()

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """Divergence of every token's rows, nats: one evaluation of the teacher."""
        import torch

        assert teacher is not None
        clock, vocab = self.time(model.vocab), model.vocab
        share = rng.stratified().clamp(min=self.delta)
        c, a = (
            clock.tau(even_times(at, self.first, self.last, clock)[0])
            for at in (share, share - self.delta)
        )
        noisy, clean = replaced_twice(batch.tokens, a, c, vocab, rng)
        with torch.no_grad():
            target = teacher(clean, c)
        value = divergence(model(noisy, a, rng=rng), target, self.divergence)
        return core.Loss(value, batch.weight)

    def nll(self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1) -> None:
        """None: after a round the bound says little."""


# Rounds: the class itself has no name before it is made.
DCD.teachers = (UniformState, Curriculum, Duo, DCD)


def replaced_twice(
    tokens: core.Tokens, a: core.Time, c: core.Time, vocab: int, rng: core.Streams
) -> tuple[core.Tokens, core.Tokens]:
    """The largest entries of one noise at tau(t) = a and at c >= a: noisier tokens, cleaner ones.

    With z the noise, the largest entry at t is the clean token w once z_w + t / (1 - t) has passed
    the largest of the others, and until then that other one, whatever t is. So one number a token
    tells when it is won back, with the law that the clock gives: the pairs are those of rows of v
    numbers, exactly, and no row is drawn.
    """
    length = tokens.shape[1]
    other = (rng.uniform(length) * vocab).long().clamp(max=vocab - 1)
    won = rng.uniform(length)
    return tokens.where(won < a, other), tokens.where(won < c, other)
