"""The semigroup rule (PSD in the paper): one jump equals two shorter ones."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm import core
from flowlm.methods.rule import Map, TargetRule
from flowlm.sampling.point import Denoiser


@dataclass(frozen=True)
class Semigroup(TargetRule):
    """delta_{s,t} learns the mixture of the student's own delta_{s,u} and delta_{u,t}.

    u is the midpoint in clock time.
    """

    def target(
        self, student: Map, flow: Denoiser, x: core.Point, s: core.Time, t: core.Time
    ) -> core.Mixture:
        """The two jumps as one."""
        jumps, space, clock = student.two_time, student.space, student.clock
        return core.semigroup_target(jumps, jumps, space, clock, x, core.Triple(s, (s + t) / 2, t))
