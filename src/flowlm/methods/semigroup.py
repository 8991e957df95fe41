"""The semigroup rule (PSD in the paper): one jump equals two shorter ones."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm import core
from flowlm.methods.rule import Rule
from flowlm.sampling.point import Denoiser


@dataclass(frozen=True)
class Semigroup(Rule):
    """delta_{s,t} learns the mixture of the student's own delta_{s,u} and delta_{u,t}."""

    def loss(
        self,
        student: Denoiser,
        batch: core.Batch,
        rng: core.Streams,
        teacher: Denoiser | None = None,
    ) -> core.Loss:
        """Cross-entropy between the two jumps, which take no gradient, and the one."""
        times = core.draw_triples(rng)
        x = student.noisy(batch.tokens, times.s, rng)
        target = core.semigroup_target(student.two_time, student.space, student.clock, x, times)
        value = student.two_time(x, times.s, times.t).cross_entropy(target)
        return core.Loss(value, batch.weight).named("jump")
