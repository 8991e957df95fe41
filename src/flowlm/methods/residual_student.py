"""One network that learns the jumps of a residual flow map (arXiv 2602.16813, version 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.checks import require_fields
from flowlm.methods.continuous import Continuous
from flowlm.methods.method import Likelihood, Method
from flowlm.methods.residual_map import PAPER, ResidualMap, draw_jumps, require_teacher
from flowlm.nn.size import Size
from flowlm.sampling.jump import Jumps
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class ResidualStudent(Continuous):
    """Learn the two-time denoiser delta_{s,t} of a residual map, as a softmax, by squared error.

    The published second stage. A jump counts by the square of the share of its way to text, so
    nothing trains the diagonal delta_{t,t}: it has no likelihood, and only jumps write with it.
    """

    label: ClassVar[str] = "FMLM v1"
    about: ClassVar[str] = (
        "A flow map language model learnt in two stages: it carries noise to text in one "
        f"evaluation of the network, or in a few ([paper]({PAPER}))."
    )

    likelihood: ClassVar[Likelihood] = None
    samplers: ClassVar[type[Sampler]] = Jumps
    usual_steps: ClassVar[int] = 1
    times: ClassVar[int] = 2
    teachers: ClassVar[tuple[type[Method], ...]] = (ResidualMap,)

    teacher: str | None = None
    """Run directory of a trained residual map."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)

    def with_teacher(self, name: str | None) -> ResidualStudent:
        """The student of another map."""
        return replace(self, teacher=name)

    def taught_by(self, theirs: Method, sampler: Sampler) -> ResidualStudent:
        """With the input and the clock of the map."""
        assert isinstance(theirs, ResidualMap)
        return replace(self, input=theirs.input, clock=theirs.clock)

    def like_teacher(self) -> ResidualMap:
        """A map that reads the same points."""
        return ResidualMap(input=self.input, clock=self.clock, teacher=self.teacher)

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A network of two times that answers, at the start, like the flow of the map.

        But for the cap of its logits where that flow answers at a temperature.
        """
        model = self.build(size, vocab, length)
        if teacher is not None:
            assert isinstance(teacher, nn.ResidualDiT)
            model.load_state_dict(model.state_dict() | teacher.flow.state_dict())
            model.encoder.table.requires_grad_(not self.input.of_table)
        return model

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """|X^map - X^student|^2 of each token: ((t-s)/(1-s))^2 |delta^map - delta^student|^2."""
        assert teacher is not None
        student = self.denoiser(model, rng)
        times = draw_jumps(rng, 1 / 128)
        x = student.noisy(batch.tokens, times.s, rng)
        delta = self.like_teacher().denoiser(teacher).two_time(x, times.s, times.t)
        assert isinstance(delta, chunked.ResidualPrediction)
        s, t = student.clock.t(times.s), student.clock.t(times.t)
        return core.Loss(
            landing_error(student.two_time(x, times.s, times.t), delta, s, t), batch.weight
        )

    def two_time(self, model: nn.DiT, rng: core.Streams | None = None) -> core.TwoTimeDenoiser:
        """The network."""
        return partial(model, rng=rng)

    def nll(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"] | None:
        """None: a bound needs the diagonal, which nothing here trains."""
        return None


def landing_error(
    student: core.TokenDistribution,
    delta: chunked.ResidualPrediction,
    s: core.Time,
    t: core.Time,
) -> Float[Tensor, "b l"]:
    """Squared distance of where two jumps from s to t end, of each token, by strips of rows."""
    import torch  # not with the file: a recipe's options are shown without it

    share = torch.where(t > s, t - s, 0.0) / torch.where(t > s, 1 - s, 1.0)
    error = student.reduce(lambda logp, patch: (logp.exp() - delta.rows(patch)).square().sum(-1))
    return share.square() * error
