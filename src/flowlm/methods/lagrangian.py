"""The Lagrangian rule (LSD in the paper): at its end a jump moves with the flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowlm import chunked, core
from flowlm.methods.rule import Map, TargetRule
from flowlm.sampling.point import Denoiser


@dataclass(frozen=True)
class Lagrangian(TargetRule):
    """delta_{s,t} = D_t(X_{s,t}) - c d/dt delta_{s,t}, c = (1-t)(t-s) / (1-s).

    From d/dt X_{s,t} = b_t(X_{s,t}).
    """

    latest: float = 0.999
    """Clock time up to which jumps go. At 1 the flow says no more than the jump itself."""
    form: Literal["simplex", "signed", "logits"] = "simplex"
    """How the target is used: its nearest point on the simplex (as released); itself, of both
    signs; or solved for logits."""

    def target(
        self, student: Map, flow: Denoiser, x: core.Point, s: core.Time, t: core.Time
    ) -> core.Target:
        """One pass in forward mode over the later time, and one of the flow at its end."""
        clock, space = student.clock, student.space
        start, end = clock.t(s), clock.t(t)
        # A token that is text already stays where and when it is.
        moving = student.moving(x, s, t, (0 * s, clock.slope(end) * (start < 1)))
        there = core.jump(x, space.mean(moving.prediction), start, end)
        at_end = flow.at(there, t).probs()
        c = lagrangian_factor(start, end)
        if self.form == "logits":
            return chunked.Tilted(at_end, 0 * c + 1, c, moving)
        signed = chunked.Extrapolated(at_end, -c, moving)
        return chunked.OntoSimplex(signed) if self.form == "simplex" else signed


def lagrangian_factor(s: core.Time, t: core.Time) -> core.Time:
    """c = (1-t)(t-s) / (1-s); 0 of a token that stays at s = t = 1."""
    import torch

    return (1 - t) * (t - s) / torch.where(s < 1, 1 - s, 1.0)
