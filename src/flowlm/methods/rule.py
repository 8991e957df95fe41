"""Distillation rules: how a flow map learns the jumps that no data shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from flowlm import chunked, core
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.sampling.point import Denoiser

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@runtime_checkable
class Moves(Protocol):
    """delta_{s,t}(x) and its derivative, by forward mode."""

    def __call__(
        self, x: core.Point, s: core.Time, t: core.Time, rates: tuple[core.Time, core.Time],
        dx: core.Point | None = None,
    ) -> chunked.Moving:  # fmt: skip
        """The answer while clock times go by at `rates`, and the point with its time at dx."""
        ...


@runtime_checkable
class Learner(Protocol):
    """The map as it trains: what is dropped is drawn from the streams of the sequences at hand."""

    def __call__(self, rng: core.Streams) -> Denoiser:
        """The map for sequences with these streams."""
        ...


@dataclass(frozen=True, eq=False)
class Map(Denoiser):
    """The map as its rules ask it: without dropout, and also for derivatives."""

    moving: Moves


Weight = Literal["even", "length", "adaptive"]
"""How much a jump counts: all alike; ((t-s)/(1-s))^2, the share of the way that it goes (version 1
of the paper); or (1 + |q - delta|^2)^(-1/2), less where it is far off."""


class Rule(ABC):
    """A way to learn delta_{s,t}, s < t. A frozen dataclass: its fields are its settings."""

    @abstractmethod
    def loss(
        self, learner: Learner, student: Map, flow: Denoiser, batch: core.Batch,
        rng: core.Streams, lengths: tuple[float, float] = (0.0, 1.0),
    ) -> core.Loss:  # fmt: skip
        """Nats that the student pays, token by token, for jumps of these lengths (clock time).

        `learner` is the student as it trains, with a gradient and dropout. `flow` answers D_t: a
        teacher at the temperature that is distilled, in the student's space and clock, or the
        student's own diagonal.
        """

    @property
    def evenly(self) -> int:
        """Sequences of which every share that learns something else is a whole number."""
        return 1


@dataclass(frozen=True)
class TargetRule(Rule, ABC):
    """A rule that says which rows delta_{s,t}(x) is to have."""

    boundary: float = 1 / 32
    """Chance that a jump goes all the way, from 0 to `latest`, as one-step generation does."""
    latest: float = 1.0
    """Clock time up to which jumps go."""
    weight: Weight = "even"
    """How much a jump counts: even, length or adaptive."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.rule.")
        if not 0 <= self.boundary <= 1:
            raise Refusal(f"--method.rule.boundary must lie between 0 and 1, not {self.boundary}.")
        if not 0 < self.latest <= 1:
            raise Refusal(f"--method.rule.latest must lie above 0 and up to 1, not {self.latest}.")

    @abstractmethod
    def target(
        self, student: Map, flow: Denoiser, x: core.Point, s: core.Time, t: core.Time
    ) -> core.Target:
        """Rows of delta_{s,t}(x), at clock times, as `student` and `flow` say without gradient."""

    def error(self, answer: core.TokenDistribution, target: core.Target) -> Float[Tensor, "b l"]:
        """The cross-entropy, nats, which is least at the target."""
        return answer.cross_entropy(target)

    def loss(
        self, learner: Learner, student: Map, flow: Denoiser, batch: core.Batch,
        rng: core.Streams, lengths: tuple[float, float] = (0.0, 1.0),
    ) -> core.Loss:  # fmt: skip
        """How far answers are from their targets, as much as jumps count."""
        import torch  # not with the file: a recipe's options are shown without it

        s, t = (core.with_given(tau, batch.given) for tau in self.times(rng, lengths))
        x = student.noisy(batch.tokens, s, rng)
        with torch.no_grad():
            target = self.target(student, flow, x, s, t)
        answer = learner(rng).two_time(x, s, t)
        value = self.error(answer, target)
        if self.weight == "length":
            value = value * jump_share(student.clock.t(s), student.clock.t(t)).square()
        elif self.weight == "adaptive":
            with torch.no_grad():
                off = answer.squared_error(target)
            value = value * (1 + off).rsqrt()
        return core.Loss(value, batch.weight).named("jump")

    def times(
        self, rng: core.Streams, lengths: tuple[float, float] = (0.0, 1.0)
    ) -> tuple[core.Time, core.Time]:
        """Clock times s < t of a jump for every sequence: the schedule of the released recipe.

        With probability `boundary` it goes from 0 to `latest`. Otherwise the length d = t - s is
        uniform in `lengths`, stratified over the global batch, and s uniform in [0, 1 - d); both
        are scaled by `latest`.
        """
        least, most = lengths
        length = least + (most - least) * rng.stratified()
        start, chance = rng.uniform(2).split(1, 1)
        s = start * (1 - length)
        # Jumps all the way are those of the longest kind.
        whole = chance < (self.boundary if most == 1 else 0.0)
        s, length = s.masked_fill(whole, 0.0), length.masked_fill(whole, 1.0)
        return self.latest * s, self.latest * (s + length)


def jump_share(s: core.Time, t: core.Time) -> core.Time:
    """gamma = (t - s) / (1 - s), the share of the way to text that a jump goes; 0 from s = 1 on."""
    import torch

    return torch.where(s < 1, t - s, 0.0) / torch.where(s < 1, 1 - s, 1.0)
