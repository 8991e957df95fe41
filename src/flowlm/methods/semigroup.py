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
        times = draw_triples(rng)
        x = student.noisy(batch.tokens, times.s, rng)
        target = core.semigroup_target(student.two_time, student.space, student.clock, x, times)
        value = student.two_time(x, times.s, times.t).cross_entropy(target)
        return core.Loss(value, batch.weight).named("jump")


def draw_triples(rng: core.Streams, boundary: int = 32) -> core.Triple:
    """Times for the semigroup rule, in tau: the schedule of the released recipe.

    Every `boundary`-th sequence of the global batch has (s, t) = (0, 1), the jump that one-step
    generation makes. For the rest the length d = t - s is uniform in [0, 1), stratified over the
    global batch, and s uniform in [0, 1 - d). u is the midpoint.
    """
    import torch  # not with the file: a recipe's options are shown without it

    length = rng.stratified()
    s = rng.uniform(1) * (1 - length)
    whole = torch.tensor([i % boundary == 0 for i in rng.index])[:, None]
    whole = whole.to(rng.device, non_blocking=True)
    s = s.masked_fill(whole, 0.0)
    length = length.masked_fill(whole, 1.0)
    return core.Triple(s, s + length / 2, s + length)
