"""FLM: a flow language model (arXiv 2602.16813)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from flowlm import core, nn
from flowlm.methods.continuous import PAPER, Continuous
from flowlm.methods.prompts import Prompts
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

    prompts: Prompts = field(default_factory=Prompts)
    """Tokens that are given in training."""

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A network that reads the time."""
        return self.build(size, vocab, length)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """-log D_t(x_t)[token]: its minimum is exactly D_t(x) = E[x1 | x_t = x]."""
        batch = self.prompts.drawn(batch, rng)
        denoiser = self.denoiser(model, rng)
        tau = core.with_given(denoiser.clock.draw(rng), batch.given)
        x = denoiser.noisy(batch.tokens, tau, rng)
        return core.Loss(denoiser.at(x, tau).nll(batch.tokens), batch.weight)

    def two_time(self, model: nn.DiT, rng: core.Streams | None = None) -> core.TwoTimeDenoiser:
        """D_s, wherever the step is to lead."""

        def denoise(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
            return model(x, s, rng=rng)

        return denoise
