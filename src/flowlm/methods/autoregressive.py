"""The autoregressive baseline, on the same trunk with causal attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn
from flowlm.methods.method import Likelihood, Method
from flowlm.nn.size import Size
from flowlm.sampling.left_to_right import NextToken, NextTokenSampler
from flowlm.sampling.sampler import Sampler

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
    likelihood_of: ClassVar[str] = ""
    samplers: ClassVar[type[Sampler]] = NextTokenSampler
    infills: ClassVar[bool] = False

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A causal trunk over v + 1 tokens: the last one begins every sequence."""
        return nn.DiT(size, nn.Lookup(vocab + 1, size.width), vocab, length, times=0, causal=True)

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """-log p(token | tokens before it), exactly."""
        return core.Loss(self.nll(model, batch, rng), batch.weight)

    def denoiser(self, model: nn.DiT) -> NextToken:
        """The next token, with a key-value cache of those before: for one batch of sequences."""
        cached = partial(model, cache=nn.Cache(model.size.blocks))
        return NextToken(cached, model.vocab, partial(self.next_tokens, model))

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """Exact nats per token."""
        return model(_before(batch.tokens, model.vocab), rng=rng).nll(batch.tokens)

    def next_tokens(self, model: nn.DiT, tokens: core.Tokens) -> core.TokenDistribution:
        """See `Method`: in one pass."""
        return model(_before(tokens, model.vocab))


def _before(tokens: core.Tokens, start: int) -> core.Tokens:
    """The token before each, `start` before the first."""
    return tokens.roll(1, dims=1).index_fill_(1, tokens.new_zeros(1), start)
