"""How likely a method finds real text, where it can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch

Nll = Callable[[Batch, Streams], Float[Tensor, "b l"] | None]
"""Nats per token of a batch, or None where the method has no bound."""


@torch.no_grad()
def mean_nll(nll: Nll, batches: Iterable[Batch], seed: int = 0) -> float | None:
    """Weighted mean nats per token over batches, the last partial one included."""
    total, weight = 0.0, 0.0
    for i, batch in enumerate(batches):
        rng = Streams.of(seed, i, count=len(batch.tokens), device=batch.tokens.device)
        value = nll(batch, rng)
        if value is None:
            return None
        total += float((value * batch.weight).sum())
        weight += float(batch.weight.sum())
    return total / weight
