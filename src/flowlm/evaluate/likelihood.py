"""How likely a method finds real text, where it can tell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch

Nll = Callable[[Batch, Streams], Float[Tensor, "b l"] | None]
"""Nats per token of a batch, or None where the method has no bound."""

AT_ONCE = 32
"""Texts that are read at once."""


@torch.no_grad()
def mean_nll(
    nll: Nll,
    texts: Batch,
    seed: int = 0,
    at_once: int = AT_ONCE,
    device: str | torch.device = "cpu",
) -> float | None:
    """Weighted mean nats per token, `at_once` texts at a time on `device`.

    The noise of a text depends on the seed and its place among `texts`, so how many are read at
    once changes nothing but rounding.
    """
    total, weight, count = 0.0, 0.0, len(texts.tokens)
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        batch = Batch(texts.tokens[part].to(device), texts.weight[part].to(device))
        place = {"count": len(batch.tokens), "first": first, "total": count}
        value = nll(batch, Streams.of(seed, 0, **place, device=device))
        if value is None:
            return None
        total += float((value * batch.weight).cpu().double().sum())
        weight += float(batch.weight.cpu().double().sum())
    return total / weight
