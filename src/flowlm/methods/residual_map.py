"""The residual flow map: a flow and a correction of its jumps (arXiv 2602.16813, version 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.input import BayesInput, Input, PosteriorInput
from flowlm.methods.method import Method
from flowlm.nn.size import Size
from flowlm.sampling.bridge import Bridge
from flowlm.sampling.jump import Jumps
from flowlm.sampling.ode import Euler
from flowlm.sampling.point import COLDEST
from flowlm.sampling.residual import ResidualDenoiser, ResidualJumps
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PAPER = "https://arxiv.org/abs/2602.16813v1"


@dataclass(frozen=True)
class ResidualMap(Continuous):
    """Learn g in X_{s,t}(x) = x + (t-s) v_s(x) + (t-s)^2/2 g(x, s, t), where the flow v is frozen.

    The published first stage. g learns from its own two halves of a jump, by squared error. Its
    rows are centred: exact ones sum to 0, which the published network has to learn.
    """

    label: ClassVar[str] = "FMLM v1, residual"
    about: ClassVar[str] = (
        "A residual flow map: a flow language model and a second network that corrects its jumps, "
        f"so that it writes in a few of them, of two evaluations each ([paper]({PAPER}))."
    )

    likelihood_of: ClassVar[str] = (
        "its flow, by the stochastic sampler (Bridge) in the limit of many steps; a text written "
        "in a few jumps has no likelihood"
    )
    samplers: ClassVar[type[Sampler]] = ResidualJumps
    usual_steps: ClassVar[int] = 1
    times: ClassVar[int] = 2
    teachers: ClassVar[tuple[type[Method], ...]] = (Flow,)

    teacher: str | None = None
    """Run directory of the trained flow: its weights become a part of this model."""
    teacher_temperature: float = 1.0
    """The flow answers at this temperature. By default that at which the teacher writes."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_teacher(self)
        if not COLDEST <= self.teacher_temperature < float("inf"):
            raise Refusal(
                f"--method.teacher-temperature must be at least {COLDEST} and finite, not "
                f"{self.teacher_temperature}."
            )

    def with_teacher(self, name: str | None) -> ResidualMap:
        """The map of another flow."""
        return replace(self, teacher=name)

    def taught_by(self, theirs: Method, sampler: Sampler) -> ResidualMap:
        """With the input and the clock of a flow, and the temperature at which it writes."""
        assert isinstance(theirs, Flow)
        warmth = sampler.temperature if isinstance(sampler, Euler | Bridge | Jumps) else 1.0
        return replace(self, input=theirs.input, clock=theirs.clock, teacher_temperature=warmth)

    def like_teacher(self) -> Flow:
        """A flow that reads the same points."""
        return Flow(input=self.input, clock=self.clock)

    def network(
        self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None
    ) -> nn.ResidualDiT:
        """The flow, and a network of two times that starts from it with a head of zeros.

        Where the rows are evidence, that is the flow's matter: the residual reads the same views.
        """
        self.require_size(size)
        # Answers of the flow are targets, in training too: nothing is dropped.
        flow = self.like_teacher().network(replace(size, dropout=0.0), vocab, length)
        views: Input = PosteriorInput() if isinstance(self.input, BayesInput) else self.input
        encoder = views.encoder(vocab, size.width, self.time(vocab))
        model = nn.ResidualDiT(flow, size, encoder, vocab, length)
        if teacher is not None:
            theirs = teacher.state_dict()
            flow.load_state_dict(theirs)
            flow.head.divide_logits(self.teacher_temperature)
            body = {name: w for name, w in theirs.items() if not name.startswith("head.")}
            model.load_state_dict(model.state_dict() | body)
        if flow.head.cap is not None:  # cap(z) / T = cap' (z / T) with cap' = cap / T
            flow.head.cap /= self.teacher_temperature
        # Both networks read the same points: where they are made of a table, it is the flow's.
        model.encoder.table.requires_grad_(not self.input.of_table)
        return model

    def denoiser(self, model: nn.DiT, rng: core.Streams | None = None) -> ResidualDenoiser:
        """The flow and the jumps."""
        assert isinstance(model, nn.ResidualDiT)
        two_time, space = self.two_time(model, rng), self.space(model)
        return ResidualDenoiser(two_time, space, self.time(model.vocab), model.flow)

    def two_time(self, model: nn.DiT, rng: core.Streams | None = None) -> core.TwoTimeDenoiser:
        """delta_{s,t} = D_s + (t-s)(1-s)/2 g. No gradient flows into its rows."""
        assert isinstance(model, nn.ResidualDiT)
        flow, clock = model.flow, self.time(model.vocab)

        def denoise(x: core.Point, s: core.Time, t: core.Time) -> chunked.ResidualPrediction:
            k = residual_weight(clock.t(s), clock.t(t))
            return chunked.ResidualPrediction(flow(x, s), model(x, s, t, rng=rng), k, model.vocab)

        return denoise

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """exp(-w) L + w of the squared error L of a jump against its halves, w learnt from s.

        At its best w = log E[L | s], and every s counts alike. L is logged as `jump`.
        """
        assert isinstance(model, nn.ResidualDiT)
        denoiser = self.denoiser(model, rng)
        times = draw_jumps(rng, 1 / 64)
        x = denoiser.noisy(batch.tokens, times.s, rng)
        error = jump_error(denoiser, model(x, times.s, times.t, rng=rng), x, times)
        w = model.time_weight(times.s)
        logs = core.Loss(error, batch.weight).named("jump").logs
        return core.Loss(error * (-w).exp() + w, batch.weight, logs)


def jump_error(
    denoiser: ResidualDenoiser, residual: core.TokenDistribution, x: core.Point, times: core.Triple
) -> Float[Tensor, "b l"]:
    """|target - delta_{s,t}|^2 of each token, where g_{s,t} is the centred logits of `residual`.

    The target, h delta_{s,u} + (1-h) delta_{u,t}(X_{s,u}) with the semigroup's weight h, is the
    published x + (1-s) [(u-s) v_{s,u} + (t-u) v_{u,t}] / (t-s), and takes no gradient. D_s falls
    out of it but for its part in the second half:
    target - delta_{s,t} = (1-h) (delta_{u,t}(X_{s,u}) - D_s) + h k_{s,u} g_{s,u} - k_{s,t} g_{s,t}.
    """
    import torch  # not with the file: a recipe's options are shown without it

    s, u, t = (denoiser.clock.t(tau) for tau in times)
    with torch.no_grad():
        near = denoiser.two_time(x, times.s, times.u)
        assert isinstance(near, chunked.ResidualPrediction)
        far = denoiser.two_time(core.jump(x, near.point(denoiser.space), s, u), times.u, times.t)
        assert isinstance(far, chunked.ResidualPrediction)
        h = core.semigroup_weight(s, u, t).expand(near.shape)
        first = h * near.k
        own = residual_weight(s, t).expand(near.shape)

    def error(logits: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
        second = far.rows(patch) - near.base.log_probs(patch).exp()
        target = (1 - h[patch])[..., None] * second + first[patch][..., None] * near.change(patch)
        return (target - own[patch][..., None] * chunked.centred(logits)).square().sum(-1)

    return residual.reduce(error)


def residual_weight(s: core.Time, t: core.Time) -> core.Time:
    """k = (t-s)(1-s)/2 in delta_{s,t} = D_s + k g."""
    return (t - s) * (1 - s) / 2


def draw_jumps(rng: core.Streams, boundary: float) -> core.Triple:
    """Clock times s <= u <= t of version 1: d = t - s is stratified, s uniform in [0, 1 - d).

    With probability `boundary`, independently, (s, t) = (0, 1). u is the midpoint.
    """
    length = 1e-6 + (1 - 1e-6) * rng.stratified()
    s = rng.uniform(1) * (1 - length)
    whole = rng.uniform(1) < boundary
    s, t = s.masked_fill(whole, 0.0), (s + length).clamp(max=1).masked_fill(whole, 1.0)
    return core.Triple(s, (s + t) / 2, t)


def require_teacher(method: Method) -> None:
    """Refuse to learn from nothing."""
    if method.teacher is None:
        kinds = " or ".join(kind.__name__ for kind in method.teachers)
        raise Refusal(
            f"{method.label} cannot teach itself: give --method.teacher, the run of a {kinds}."
        )
