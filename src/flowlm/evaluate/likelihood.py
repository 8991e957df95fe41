"""How likely a method finds real text, where it can tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch

Nll = Callable[[Batch, Streams], Float[Tensor, "b l"] | None]
"""Nats per token of a batch, or None where there is no bound."""

AT_ONCE = 32
"""Texts that are read at once."""

DRAWS = 16
"""Times at which a bound reads a text: then texts differ by more than their draws do."""


class Estimate(NamedTuple):
    """A mean, and how far off it may be."""

    mean: float
    error: float
    """Standard error: of texts drawn like these, and of the noise with which they are read."""


@torch.no_grad()
def mean_nll(
    nll: Nll,
    texts: Batch,
    seed: int = 0,
    at_once: int = AT_ONCE,
    device: str | torch.device = "cpu",
    sizes: Int[Tensor, " b"] | None = None,
) -> Estimate | None:
    """Weighted mean nats per token, `at_once` texts at a time on `device`.

    The noise of a text depends on the seed and its place among `texts`, so how many are read at
    once changes nothing but rounding. The error is that of a ratio of sums over texts (nan of a
    single one). `sizes` are the tokens that the nats of each text are per, where that is not its
    weight: those of a row of its own without its padding.
    """
    paid, weights, count = [], [], len(texts.tokens)
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        batch = Batch(texts.tokens[part].to(device), texts.weight[part].to(device))
        place = {"count": len(batch.tokens), "first": first, "total": count}
        value = nll(batch, Streams.of(seed, 0, **place, device=device))
        if value is None:
            return None
        paid.append((value * batch.weight).cpu().double().sum(1))
        own = batch.weight.double().sum(1) if sizes is None else sizes[part].double()
        weights.append(own.cpu())
    total, weight = torch.cat(paid), torch.cat(weights)
    mean = float(total.sum() / weight.sum())
    apart = float((total - mean * weight).square().sum())
    scale = math.sqrt(count / (count - 1)) if count > 1 else math.nan
    return Estimate(mean, scale * math.sqrt(apart) / float(weight.sum()))
