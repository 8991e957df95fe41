"""A mixture of rules: one for short jumps, another one for long ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowlm import core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.rule import Learner, Map, Rule
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.shares import even, parted
from flowlm.sampling.point import Denoiser


@dataclass(frozen=True)
class ByLength(Rule):
    """Short jumps learn by one rule, long ones by another.

    With the defaults what the flow says enters short jumps off the diagonal too.
    """

    short: Rule = field(default_factory=Eulerian)
    """The rule of jumps up to `length`."""
    long: Rule = field(default_factory=Semigroup)
    """The rule of all others."""
    length: float = 0.25
    """Clock time; as large is the share of jumps that are short."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.rule.")
        if not 0 < self.length < 1:
            raise Refusal(f"--method.rule.length must lie between 0 and 1, not {self.length}.")

    def loss(
        self, learner: Learner, student: Map, flow: Denoiser, batch: core.Batch,
        rng: core.Streams, lengths: tuple[float, float] = (0.0, 1.0),
    ) -> core.Loss:  # fmt: skip
        """Both losses, of different sequences; over all of them lengths are still uniform."""
        least, most = lengths
        edge = least + self.length * (most - least)
        short, long = parted(batch, rng, self.length)
        near = self.short.loss(learner, student, flow, *short, (least, edge))
        far = self.long.loss(learner, student, flow, *long, (edge, most))
        return near.named("short jump").concat(far.named("long jump")).named("jump")

    @property
    def evenly(self) -> int:
        """Sequences of which the short jumps and the long ones are whole numbers."""
        return even(self.length, self.short.evenly, self.long.evenly)
