"""SDTT: self-distillation of masked diffusion through time (Deschenaux & Gulcehre, 2410.21035)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn
from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal
from flowlm.methods.divergence import Direction, divergence
from flowlm.methods.masked import Masked, MaskedDiffusion
from flowlm.methods.method import Method, require_teacher
from flowlm.sampling.masking import mask, reveal_probability
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

PAPER = "https://arxiv.org/abs/2410.21035"


@dataclass(frozen=True)
class SDTT(MaskedDiffusion):
    """Answer at once as the teacher does in several short steps of unmasking.

    A text is masked at t, and the teacher takes `substeps` steps of length `dt` from it, on the
    grid t, t + dt, ... (the released code misplaces its later times: docs/sdtt.md). The target of a
    masked token is the teacher's row in the step that revealed it, or in the last step where none
    did. Rounds are runs: the next one's teacher is this one, its steps as long as all of these.

    The mean of the targets of a token is, for two steps that reveal everything, its distribution in
    what the teacher writes in them. For an exact teacher and dt -> 0 it is the teacher's row itself
    (its rows are a martingale while tokens are revealed): forward divergence has nothing to learn
    then, and reverse divergence finds the geometric mean, which is sharper. So read a likelihood
    under a judge together with the entropy.
    """

    label: ClassVar[str] = "MDLM + SDTT"
    about: ClassVar[str] = (
        "A masked diffusion language model, distilled to write in fewer steps by self-distillation "
        f"through time ([paper]({PAPER}))."
    )

    teacher: str | None = None
    """Run directory of masked diffusion, or of the round before."""
    dt: float = 1 / 128
    """Length of a step of the teacher. By default one of a sampler of 128 of them, and of a later
    round all the time that the round before has learnt to pass at once."""
    substeps: int = 2
    """Steps that the teacher takes, each one evaluation of it (k)."""
    divergence: Direction = "reverse"
    """reverse (as published): KL(student || teacher); forward: KL(teacher || student)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)
        whole("--method.substeps", self.substeps, 2)
        if not 0 < self.substeps * self.dt <= 1:
            raise Refusal(
                f"--method.dt is the length of each of {self.substeps} steps between the times 0 "
                f"and 1: choose one above 0 and up to {1 / self.substeps:.3g}, not {self.dt}."
            )

    def with_teacher(self, name: str | None) -> SDTT:
        """The student of another teacher."""
        return replace(self, teacher=name)

    def taught_by(self, theirs: Method, sampler: Sampler) -> SDTT:
        """With steps as long as all of its teacher's, in a later round; at most all of time."""
        if not isinstance(theirs, SDTT):
            return self
        return replace(self, dt=min(theirs.substeps * theirs.dt, 1 / self.substeps))

    def like_teacher(self) -> Masked:
        """All of masked diffusion has one network."""
        return Masked()

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """Divergence of every masked token's rows, nats: `substeps` evaluations of the teacher.

        A token that is not masked weighs nothing, so that a batch pays, as published, the mean over
        those that are. Times are stratified; those too late for all steps start them at the last
        time that is not.
        """
        assert teacher is not None
        t = rng.stratified().clamp(max=1 - self.substeps * self.dt)
        noisy = mask(batch.tokens, t, model.vocab, rng)
        target = self.target(teacher, noisy, t, rng)
        value = divergence(model(noisy, rng=rng), target, self.divergence)
        masked = noisy == model.vocab
        return core.Loss(value.where(masked, 0.0), batch.weight * masked)

    def target(
        self, teacher: nn.DiT, noisy: core.Tokens, t: core.Time, rng: core.Streams
    ) -> Patchwork:
        """Rows of the teacher as it unmasks a text from t on, each of the step of its token.

        The last step draws nothing: whether it reveals a token or not, the row is of that step.
        """
        import torch

        mask_id, last = teacher.vocab, self.substeps - 1
        step_of, predictions = torch.full_like(noisy, last), []
        with torch.no_grad():
            for step in range(last):
                at = t + step * self.dt
                predictions.append(teacher(noisy))
                drawn = predictions[-1].sample(rng)
                reveal = rng.uniform(noisy.shape[1]) < reveal_probability(at, at + self.dt)
                reveal = reveal & (noisy == mask_id)
                step_of, noisy = step_of.masked_fill(reveal, step), drawn.where(reveal, noisy)
            predictions.append(teacher(noisy))
        return Patchwork(tuple(predictions), step_of)


# Rounds: the class itself has no name before it is made.
SDTT.teachers = (Masked, SDTT)


@dataclass(frozen=True, eq=False)
class Patchwork:
    """Rows of several predictions of the same tokens, of which each token has one."""

    predictions: tuple[core.TokenDistribution, ...]
    chosen: Int[Tensor, "b l"]
    """The number of the prediction whose row a token has."""

    def log_probs(self, patch: core.Patch) -> core.Probs:
        """The chosen rows of a patch, nats; those of two predictions exist at once."""
        *others, last = self.predictions
        rows, chosen = last.log_probs(patch), self.chosen[patch][..., None]
        for number, prediction in enumerate(others):
            rows = prediction.log_probs(patch).where(chosen == number, rows)
        return rows
