"""Teacher legs: a jump equals a short step of the flow and a jump, without any derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowlm import core
from flowlm.errors import Refusal
from flowlm.methods.rule import Map, TargetRule
from flowlm.sampling.point import Denoiser


@dataclass(frozen=True)
class TeacherLeg(TargetRule):
    """The semigroup rule with one of its two jumps made by the flow.

    At the start it is consistency distillation, a finite difference of the Eulerian rule; at the
    end, of the Lagrangian one. The target lies on the simplex; its error is of second order in the
    length of the leg.
    """

    end: Literal["start", "end"] = "start"
    """Which end of the jump is the flow's."""
    leg: float = 1 / 8
    """Share of the jump, in clock time, that is the flow's."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if not 0 < self.leg < 1:
            raise Refusal(f"--method.rule.leg must lie between 0 and 1, not {self.leg}.")

    def target(
        self, student: Map, flow: Denoiser, x: core.Point, s: core.Time, t: core.Time
    ) -> core.Mixture:
        """g D_s + (1-g) delta_{u,t}(X^flow_{s,u}), or g delta_{s,u} + (1-g) D_u(X_{s,u})."""
        near, far, share = flow.two_time, student.two_time, self.leg
        if self.end == "end":
            near, far, share = far, near, 1 - self.leg
        times = core.Triple(s, s + share * (t - s), t)
        return core.semigroup_target(near, far, student.space, student.clock, x, times)
