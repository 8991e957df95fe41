"""FLM: a flow language model (arXiv 2602.16813)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from flowlm import core, nn, sampling
from flowlm.checks import require_fields
from flowlm.methods.continuous import PAPER, Continuous, require_warmth
from flowlm.nn.size import Size


@dataclass(frozen=True)
class Flow(Continuous):
    """Denoise text from Gaussian noise along a straight line; learn by cross-entropy."""

    label: ClassVar[str] = "FLM"
    about: ClassVar[str] = (
        "A flow language model (FLM): it moves one-hot text continuously from Gaussian noise to "
        f"words, in as many steps as you give it ([paper]({PAPER}))."
    )

    times: ClassVar[int] = 1

    solver: Literal["euler", "heun"] = "euler"
    """How the flow is integrated; heun takes two evaluations a step."""
    temperature: float = 1.0
    """Of the sampler: below 1 texts are likelier and less diverse. With the bayes encoder it is
    that of the context; what a row says of its own token is not touched."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        require_warmth(self.temperature)

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A network that reads the time."""
        return self.build(size, vocab, length)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """-log D_t(x_t)[token]: its minimum is exactly D_t(x) = E[x1 | x_t = x]."""
        clock = self.time(model.vocab)
        tau = clock.draw(rng)
        x = self.noisy(model, batch.tokens, clock.t(tau), rng)
        return core.Loss(model(x, tau, rng=rng).nll(batch.tokens), batch.weight)

    def denoise(self, model: nn.DiT, x: core.Point, tau: core.Time) -> core.TokenDistribution:
        """The network's answer."""
        return model(x, tau)

    def evaluations(self, steps: int, length: int) -> int:
        """One a step; of heun a second one, but for the last step."""
        return steps if self.solver == "euler" else 2 * steps - 1

    def frames(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[sampling.Frame]:
        """Integrate on an even grid of clock time; the last step takes the likeliest tokens."""
        clock, space = self.time(model.vocab), self.space(model)
        x, pinned = self.start(model, prompt, rng)
        solve = sampling.euler if self.solver == "euler" else sampling.heun

        def denoise(x: core.Point, tau: core.Time) -> core.TokenDistribution:
            return model(x, tau).with_temperature(self.temperature)

        return solve(denoise, space, clock, x, clock.grid(steps, x.device), pinned)
