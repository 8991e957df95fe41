"""Divergences between the rows of two predictions, in both directions, nats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from flowlm import core

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Direction = Literal["reverse", "forward"]


@runtime_checkable
class LogProbs(Protocol):
    """Rows that a student is compared with: a prediction, or a choice among several."""

    def log_probs(self, patch: core.Patch) -> core.Probs:
        """Log-probabilities of a patch, nats, (n, m, v)."""
        ...


def divergence(
    student: core.TokenDistribution, teacher: LogProbs, direction: Direction
) -> Float[Tensor, "b l"]:
    """KL(student || teacher), reverse, or KL(teacher || student), forward, nats per token.

    Over several targets of one row the first is least at their geometric mean, normalised, and the
    second at their mean. No gradient flows into the teacher.
    """
    import torch

    def of_rows(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
        with torch.no_grad():
            logq = teacher.log_probs(patch)
        near, far = (logp, logq) if direction == "reverse" else (logq, logp)
        return torch.where(near.exp() > 0, near.exp() * (near - far), 0.0).sum(-1)

    # Rounding may leave a divergence of nothing below it.
    return student.reduce(of_rows).clamp(min=0)
