"""Features to a distribution over tokens, worked through in chunks of tokens.

Rows of the softmax do not see each other, so nothing here needs more of the vocabulary-sized rows
than one chunk at a time; under autograd a chunk's rows are recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flowlm.core.distribution import Mixture, TokenDistribution, draw_tokens
from flowlm.core.rng import Streams
from flowlm.core.types import Probs, Tokens

CHUNK = 2**25
"""Largest number of logits alive at once (128 MiB in float32)."""


@dataclass(frozen=True, eq=False)
class HeadDistribution(TokenDistribution):
    """softmax(cap(y W^T + c)): features y (b, l, d), weight W (v, d), bias c (v,)."""

    features: Float[Tensor, "b l d"]
    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, " v"]
    cap: float | None = None
    chunk: int = CHUNK

    def rows(self, start: int, stop: int) -> Float[Tensor, "n v"]:
        """Log-probabilities of flattened tokens `start ... stop`, nats, at least float32."""
        return _logits(self.features.flatten(0, 1)[start:stop], *self._head()).log_softmax(-1)

    def log_probs(self) -> Probs:
        """All rows at once, (b, l, v)."""
        return self.rows(0, self.features.shape[:2].numel()).unflatten(0, self.features.shape[:2])

    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """softmax(y W^T + c) @ table."""

        def mean(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return _logits(y, weight, bias, self.cap).softmax(-1).to(table.dtype) @ table

        return self._chunked(lambda start, stop: mean)

    def nll(self, tokens: Tokens) -> Float[Tensor, "b l"]:
        """-log p(token), nats."""
        wanted = tokens.flatten()

        def piece(start: int, stop: int) -> Callable[..., Tensor]:
            return lambda y, weight, bias: F.cross_entropy(
                _logits(y, weight, bias, self.cap), wanted[start:stop], reduction="none"
            )

        return self._chunked(piece)

    def cross_entropy(self, target: Mixture) -> Float[Tensor, "b l"]:
        """-sum_v target(v) log p(v), nats; the target's rows exist chunk by chunk only."""
        shape = self.features.shape[:2]
        weights = [w.expand(shape).flatten()[:, None] for w, _ in target.parts]

        def piece(start: int, stop: int) -> Callable[..., Tensor]:
            def paid(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                with torch.no_grad():
                    soft = sum(
                        w[start:stop] * part.rows(start, stop).exp()
                        for w, (_, part) in zip(weights, target.parts)
                    )
                assert isinstance(soft, Tensor)
                logits = _logits(y, weight, bias, self.cap)
                return -(soft.to(logits.dtype) * logits.log_softmax(-1)).sum(-1)

            return paid

        return self._chunked(piece)

    @torch.no_grad()
    def argmax(self) -> Tokens:
        """The likeliest token of every row."""
        return self._chunked(
            lambda start, stop: lambda y, w, c: _logits(y, w, c, self.cap).argmax(-1)
        )

    @torch.no_grad()
    def sample(self, rng: Streams, temperature: float = 1.0, top_p: float = 1.0) -> Tokens:
        """One token a row from p^(1/temperature) cut to its nucleus, in float64."""
        u = rng.uniform(self.features.shape[1], dtype=torch.float64).flatten()

        def piece(start: int, stop: int) -> Callable[..., Tensor]:
            return lambda y, w, c: draw_tokens(
                _logits(y, w, c, self.cap), u[start:stop], temperature, top_p
            )

        return self._chunked(piece)

    def _head(self) -> tuple[Tensor, Tensor, float | None]:
        return self.weight, self.bias, self.cap

    def _chunked(self, piece: Callable[[int, int], Callable[..., Tensor]]) -> Tensor:
        """Run `piece(start, stop)(rows of y, W, c)` chunk by chunk and join the answers."""
        shape, y = self.features.shape[:2], self.features.flatten(0, 1)
        size = max(1, self.chunk // len(self.weight))
        if len(y) <= size:
            return piece(0, len(y))(y, self.weight, self.bias).unflatten(0, shape)
        answers = []
        for start in range(0, len(y), size):
            stop = min(start + size, len(y))
            work = piece(start, stop)
            arguments = (y[start:stop], self.weight, self.bias)
            answers.append(
                checkpoint(work, *arguments, use_reentrant=False, preserve_rng_state=False)
                if torch.is_grad_enabled()
                else work(*arguments)
            )
        return torch.cat(answers).unflatten(0, shape)


def _logits(y: Tensor, weight: Tensor, bias: Tensor, cap: float | None) -> Float[Tensor, "n v"]:
    logits = F.linear(y, weight, bias)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()  # a softmax over a vocabulary needs the mantissa
    return logits if cap is None else cap * torch.tanh(logits / cap)


class Head(nn.Module):
    """The last layer, zero at the start: every token is equally likely."""

    def __init__(self, width: int, vocab: int, cap: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab, width))
        self.bias = nn.Parameter(torch.zeros(vocab))
        self.cap = cap

    def forward(self, features: Float[Tensor, "b l d"]) -> HeadDistribution:
        """The distribution, nothing of which is computed yet."""
        return HeadDistribution(features, self.weight, self.bias, self.cap)
