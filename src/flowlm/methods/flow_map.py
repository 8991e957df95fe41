"""FMLM: a flow map language model, which travels far in one jump (arXiv 2602.16813)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from flowlm import core, nn, sampling
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.continuous import PAPER, Continuous, require_warmth
from flowlm.methods.flow import Flow
from flowlm.methods.method import Method
from flowlm.nn.size import Size


@dataclass(frozen=True)
class FlowMap(Continuous):
    """Learn the two-time denoiser delta_{s,t} by the semigroup rule (PSD in the paper).

    Half of a batch learns the diagonal delta_{t,t} = D_t from the teacher (without one: from the
    data), the other half learns that one jump equals two, with its own jumps as targets.
    """

    label: ClassVar[str] = "FMLM"
    about: ClassVar[str] = (
        "A flow map language model (FMLM): it carries noise to text in one evaluation of the "
        f"network, or in a few ([paper]({PAPER}))."
    )

    usual_steps: ClassVar[int] = 1
    times: ClassVar[int] = 2
    teachers: ClassVar[tuple[type[Method], ...]] = (Flow,)

    teacher: str | None = None
    """Run directory of a trained flow to distil; without one the map teaches itself."""
    gamma: float = 0.0
    """Fresh noise between jumps when sampling, from 0 (none) to 1 (all); nothing at one step."""
    temperature: float = 1.0
    """Of the teacher: the map learns to write in few steps what the flow writes at this one. By
    default that at which the teacher writes."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        if not 0 <= self.gamma <= 1:
            raise Refusal(f"--method.gamma must lie between 0 and 1, not {self.gamma}.")
        require_warmth(self.temperature)
        if self.teacher is None and self.temperature != 1:
            raise Refusal(
                f"--method.temperature {self.temperature} is that of a teacher: give "
                "--method.teacher, or leave it out."
            )

    def taught_by(self, theirs: Method) -> FlowMap:
        """With the encoder and the clock of a flow, and the temperature at which it writes."""
        assert isinstance(theirs, Flow)
        return replace(
            self, encoder=theirs.encoder, clock=theirs.clock, temperature=theirs.temperature
        )

    def like_teacher(self) -> Flow | None:
        """A flow that reads the same points."""
        return None if self.teacher is None else Flow(encoder=self.encoder, clock=self.clock)

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A network that reads two times and, at the start, answers like the teacher.

        Like the teacher at the temperature that is distilled, but for the cap of its logits.
        """
        model = self.build(size, vocab, length)
        if teacher is not None:
            model.load_state_dict(model.state_dict() | teacher.state_dict())
            model.head.divide_logits(self.temperature)
            # The teacher must read the student's points. In projected space that needs one table.
            model.encoder.table.requires_grad_(self.encoder != "projected")
        return model

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """Texts 0, 2, 4, ... of the global batch pay on the diagonal, texts 1, 3, 5, ... off it."""
        diagonal = self._diagonal(model, *_half(batch, rng, 0), teacher)
        return diagonal.concat(self._jump(model, *_half(batch, rng, 1)))

    def _diagonal(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None
    ) -> core.Loss:
        """delta_{t,t} against the teacher's D_t, or against the data."""
        clock = self.time(model.vocab)
        tau = clock.draw(rng)
        x = self.noisy(model, batch.tokens, clock.t(tau), rng)
        prediction = model(x, tau, tau, rng=rng)
        if teacher is None:
            value = prediction.nll(batch.tokens)
        else:
            wanted = teacher(x, tau).with_temperature(self.temperature)
            value = prediction.cross_entropy(wanted.probs())
        return core.Loss(value, batch.weight).named("diagonal")

    def denoise(self, model: nn.DiT, x: core.Point, tau: core.Time) -> core.TokenDistribution:
        """delta_{t,t}, the jump of no length."""
        return model(x, tau, tau)

    def _jump(self, model: nn.DiT, batch: core.Batch, rng: core.Streams) -> core.Loss:
        """delta_{s,t} against the student's own two shorter jumps (semigroup)."""
        clock, space = self.time(model.vocab), self.space(model)
        times = core.draw_triples(rng)
        x = self.noisy(model, batch.tokens, clock.t(times.s), rng)
        answer = partial(model, rng=rng)
        target = core.semigroup_target(answer, space, clock, x, times)
        value = answer(x, times.s, times.t).cross_entropy(target)
        return core.Loss(value, batch.weight).named("jump")

    def frames(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[sampling.Frame]:
        """`steps` jumps on an even grid of clock time; the last one takes the likeliest tokens."""
        clock, space = self.time(model.vocab), self.space(model)
        x, pinned = self.start(model, prompt, rng)
        grid = clock.grid(steps, x.device)
        return sampling.jumps(model, space, clock, x, grid, self.gamma, rng, pinned)


def _half(batch: core.Batch, rng: core.Streams, parity: int) -> tuple[core.Batch, core.Streams]:
    """The texts whose index in the global batch has a parity.

    A single text is in one half only. In the other one it counts nothing, with noise of its own:
    processes that share weights must evaluate their networks equally often.
    """
    first = (rng.index[0] + parity) % 2
    if first < len(rng):
        return batch.strided(first, 2), rng.strided(first, 2)
    nothing = core.Batch(batch.tokens, 0 * batch.weight)
    return nothing, core.Streams.of(0, count=1, device=rng.device)
