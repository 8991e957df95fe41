"""FMLM: a flow map language model, which travels far in one jump (arXiv 2602.16813)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from flowlm import core, nn
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.continuous import PAPER, Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.method import Method
from flowlm.methods.prompts import Prompts
from flowlm.methods.rule import Map, Rule
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.shares import even, parted
from flowlm.nn.size import Size
from flowlm.sampling.bridge import Bridge
from flowlm.sampling.jump import Jumps
from flowlm.sampling.ode import Euler
from flowlm.sampling.point import COLDEST, Denoiser
from flowlm.sampling.sampler import Sampler


@dataclass(frozen=True)
class FlowMap(Continuous):
    """Learn the two-time denoiser delta_{s,t}.

    A share of a batch learns the diagonal delta_{t,t} = D_t from the teacher (without one: from
    the data), the rest learns to jump, by a rule.
    """

    label: ClassVar[str] = "FMLM"
    about: ClassVar[str] = (
        "A flow map language model (FMLM): it carries noise to text in one evaluation of the "
        f"network, or in a few ([paper]({PAPER}))."
    )

    likelihood_of: ClassVar[str] = (
        "its diagonal, as a flow, by the stochastic sampler (Bridge) in the limit of many steps; a "
        "text written in a few jumps has no likelihood"
    )
    usual_steps: ClassVar[int] = 1
    times: ClassVar[int] = 2
    teachers: ClassVar[tuple[type[Method], ...]] = (Flow,)

    teacher: str | None = None
    """Run directory of a trained flow to distil; without one the map teaches itself."""
    rule: Rule = field(default_factory=Semigroup)
    """How jumps from s to t are learnt."""
    prompts: Prompts = field(default_factory=Prompts)
    """Tokens that are given in training; by default as in the training of the teacher."""
    diagonal: float = 0.5
    """Share of a batch that learns the diagonal; the rest learns to jump."""
    teacher_temperature: float = 1.0
    """The map learns to write in few steps what the teacher writes at this temperature. By default
    that at which the teacher writes."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        if not 0 < self.diagonal < 1:
            raise Refusal(f"--method.diagonal must lie between 0 and 1, not {self.diagonal}.")
        if not COLDEST <= self.teacher_temperature < float("inf"):
            raise Refusal(
                f"--method.teacher-temperature must be at least {COLDEST} and finite, not "
                f"{self.teacher_temperature}."
            )
        if self.teacher is None and self.teacher_temperature != 1:
            raise Refusal(
                f"--method.teacher-temperature {self.teacher_temperature} is that of a teacher: "
                "give --method.teacher, or leave it out."
            )

    def with_teacher(self, name: str | None) -> FlowMap:
        """The map of another teacher."""
        return replace(self, teacher=name)

    def taught_by(self, theirs: Method, sampler: Sampler) -> FlowMap:
        """With the input, clock and prompts of a flow, and the temperature at which it writes."""
        assert isinstance(theirs, Flow)
        warmth = sampler.temperature if isinstance(sampler, Euler | Bridge | Jumps) else 1.0
        return replace(
            self, input=theirs.input, clock=theirs.clock, prompts=theirs.prompts,
            teacher_temperature=warmth,
        )  # fmt: skip

    def like_teacher(self) -> Flow | None:
        """A flow that reads the same points."""
        return None if self.teacher is None else Flow(input=self.input, clock=self.clock)

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A network that reads two times and, at the start, answers like the teacher.

        Like the teacher at the temperature that is distilled, but for the cap of its logits.
        """
        model = self.build(size, vocab, length)
        if teacher is not None:
            model.load_state_dict(model.state_dict() | teacher.state_dict())
            model.head.divide_logits(self.teacher_temperature)
            # The teacher must read the student's points: where they are made of it, one table.
            model.encoder.table.requires_grad_(not self.input.of_table)
        return model

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """A share of the sequences pays on the diagonal, the others off it."""
        still, moving = parted(self.prompts.drawn(batch, rng), rng, self.diagonal)
        guide = None if teacher is None else self._teacher(model, teacher)
        paid = self._diagonal(self.denoiser(model, still[1]), *still, guide)
        student = self._map(model)
        flow = _diagonal_of(student) if guide is None else guide
        learner = partial(self.denoiser, model)
        return paid.concat(self.rule.loss(learner, student, flow, *moving))

    @property
    def evenly(self) -> int:
        """Sequences of which the diagonal and every kind of jump are whole numbers."""
        return even(self.diagonal, outside=self.rule.evenly)

    def _diagonal(
        self, student: Denoiser, batch: core.Batch, rng: core.Streams, teacher: Denoiser | None
    ) -> core.Loss:
        """delta_{t,t} against the teacher's D_t, or against the data."""
        tau = core.with_given(student.clock.draw(rng), batch.given)
        x = student.noisy(batch.tokens, tau, rng)
        prediction = student.at(x, tau)
        if teacher is None:
            value = prediction.nll(batch.tokens)
        else:
            value = prediction.cross_entropy(teacher.at(x, tau).probs())
        return core.Loss(value, batch.weight).named("diagonal")

    def _teacher(self, model: nn.DiT, teacher: nn.DiT) -> Denoiser:
        """The teacher at its temperature, which reads the student's points."""

        def denoise(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
            return teacher(x, s).with_temperature(self.teacher_temperature)

        return Denoiser(denoise, self.space(model), self.time(model.vocab))

    def _map(self, model: nn.DiT) -> Map:
        """The network without dropout, and its derivatives."""
        of = self.denoiser(model)
        return Map(of.two_time, of.space, of.clock, model.moving)

    def two_time(self, model: nn.DiT, rng: core.Streams | None = None) -> core.TwoTimeDenoiser:
        """The network."""
        return partial(model, rng=rng)


def _diagonal_of(student: Map) -> Denoiser:
    """D_s = delta_{s,s}, wherever a step is to lead: the flow of a map that teaches itself."""

    def denoise(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
        return student.two_time(x, s, s)

    return Denoiser(denoise, student.space, student.clock)
