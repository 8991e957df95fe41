"""The Eulerian rule (ESD in the paper): a jump ends where it did when its start has moved on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowlm import chunked, core
from flowlm.errors import Refusal
from flowlm.methods.rule import Map, TargetRule, jump_share
from flowlm.sampling.point import Denoiser

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Form = Literal["damped", "simplex", "raw", "logits"]


@dataclass(frozen=True)
class Eulerian(TargetRule):
    """delta_{s,t} = D_s(x) + c D delta, with D delta its derivative along the flow at its start.

    c = (1-s)(t-s) / (1-t), from (d/ds + b_s . grad) X_{s,t} = 0. c grows without bound for t -> 1;
    damped, the target is (1-gamma) D_s + gamma delta + (t-s) D delta, gamma = (t-s) / (1-s), which
    has the same fixed point and no singular end (the mean-flow form, arXiv 2505.13447).
    """

    form: Form = "damped"
    """How the target is used: damped, of both signs; its nearest point on the simplex; raw, by the
    squared error, as released; or solved for logits. The last two need --method.rule.latest < 1."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if self.form in ("raw", "logits") and self.latest > LATEST:
            raise Refusal(
                f"--method.rule.form {self.form} has no value at the end of time: give "
                f"--method.rule.latest {LATEST} or less, or the form damped."
            )

    def error(self, answer: core.TokenDistribution, target: core.Target) -> Float[Tensor, "b l"]:
        """The cross-entropy; of the raw form the squared error."""
        return answer.squared_error(target) if self.form == "raw" else super().error(answer, target)

    def target(
        self, student: Map, flow: Denoiser, x: core.Point, s: core.Time, t: core.Time
    ) -> core.Target:
        """One pass of the flow, and one in forward mode along its velocity."""
        clock, space = student.clock, student.space
        start, end = clock.t(s), clock.t(t)
        here = flow.at(x, s)
        along = core.velocity(space.mean(here), x, start)
        # A token that is text already stays where and when it is.
        moving = student.moving(x, s, t, (clock.slope(start) * (start < 1), 0 * t), along)
        way = end - start
        if self.form == "raw":
            return chunked.Extrapolated(here.probs(), eulerian_factor(start, end), moving)
        if self.form == "logits":
            return chunked.Tilted(here.probs(), 1 - end, -(1 - start) * way, moving)
        gamma = jump_share(start, end)
        mixture = (1 - gamma) * here.probs() + gamma * moving.prediction.probs()
        damped = chunked.Extrapolated(mixture, way, moving)
        return chunked.OntoSimplex(damped) if self.form == "simplex" else damped


LATEST = 0.999
"""With the decoding clock 1 / (1 - t) is then below 10, at any vocabulary."""


def eulerian_factor(s: core.Time, t: core.Time) -> core.Time:
    """c = (1-s)(t-s) / (1-t); 0 of a token that stays at s = t = 1."""
    import torch

    return (1 - s) * (t - s) / torch.where(s < 1, 1 - t, 1.0)
