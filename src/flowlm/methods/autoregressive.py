"""The autoregressive baseline, on the same trunk with causal attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn, sampling
from flowlm.checks import require_fields
from flowlm.errors import Refusal
from flowlm.methods.method import Likelihood, Method
from flowlm.nn.size import Size

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Autoregressive(Method):
    """Predict each token from those before it; write one token per evaluation."""

    label: ClassVar[str] = "Autoregressive"
    about: ClassVar[str] = (
        "An autoregressive language model, a baseline: it writes one token at a time."
    )
    likelihood: ClassVar[Likelihood] = "exact"
    counts_steps: ClassVar[bool] = False

    temperature: float = 1.0
    """Of the sampler; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the mass from which the sampler draws (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.")
        if not 0 <= self.temperature < float("inf"):
            raise Refusal(f"--method.temperature must be 0 or more, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise Refusal(f"--method.top-p must lie above 0 and up to 1, not {self.top_p}.")

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A causal trunk over v + 1 tokens: the last one begins every text."""
        return nn.DiT(size, nn.Lookup(vocab + 1, size.width), vocab, length, times=0, causal=True)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """-log p(token | tokens before it), exactly."""
        return core.Loss(self.nll(model, batch, rng), batch.weight)

    def evaluations(self, steps: int, length: int) -> int:
        """One a token, whatever `steps` says."""
        return length

    def sample(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[core.Tokens]:
        """Left to right with a key-value cache. It takes l evaluations, whatever `steps` says."""
        cache = nn.Cache(model.size.blocks)

        def predict(tokens: core.Tokens) -> core.TokenDistribution:
            return model(tokens, cache=cache)

        return sampling.autoregress(predict, prompt, model.vocab, rng, self.temperature, self.top_p)

    def nll(self, model: nn.DiT, batch: core.Batch, rng: core.Streams) -> Float[Tensor, "b l"]:
        """Exact nats per token."""
        before = batch.tokens.roll(1, dims=1).index_fill_(1, batch.tokens.new_zeros(1), model.vocab)
        return model(before, rng=rng).nll(batch.tokens)
