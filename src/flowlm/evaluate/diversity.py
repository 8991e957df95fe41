"""How varied texts are. Quality means nothing without it: a repeated good sentence is perfect.

Of texts that are rows of their own (`evaluate/extent.py`), what follows their end, `stop`, is no
text and counts nowhere.
"""

from __future__ import annotations

from math import nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.types import Tokens


def sample_entropy(tokens: Tokens) -> float:
    """Entropy of the token frequencies within a text, nats, averaged over texts.

    The field's measure. Values for different tokenisations or lengths do not compare.
    """
    return float(entropies(tokens).mean())


def entropies(tokens: Tokens, stop: int | None = None) -> Float[Tensor, " b"]:
    """Entropy of the token frequencies within each text, nats; 0 of an empty one."""
    rows = tokens.sort(-1).values
    # In a sorted row a token's count is the length of its run. Averaging -log of the frequency over
    # tokens, not over words, weighs each word by its frequency: that is the entropy.
    counts = torch.searchsorted(rows, rows, right=True) - torch.searchsorted(rows, rows)
    if stop is None:
        return -(counts.double() / tokens.shape[1]).log().mean(1)
    text = rows != stop
    size = text.sum(1, keepdim=True).clamp(min=1)
    return -((counts / size.double()).log() * text).sum(1) / size.squeeze(1)


def corpus_entropy(tokens: Tokens, stop: int | None = None) -> float:
    """Entropy of the token frequencies of all texts together, nats.

    It tells what the entropy within texts cannot: that every text is the same.
    """
    counts = _counts(tokens, stop)
    shares = counts.double() / counts.sum()
    return -float(torch.special.xlogy(shares, shares).sum())


def zipf(tokens: Tokens, most: int = 1000, stop: int | None = None) -> float | None:
    """Minus the slope of log frequency over log rank, of the `most` frequent tokens at most.

    By least squares; None of fewer than two tokens. Only a truncated vocabulary shows in it.
    """
    counts = _counts(tokens, stop)
    counts = counts[counts > 0].sort(descending=True).values[:most].double().log()
    if len(counts) < 2:
        return None
    ranks = torch.arange(1, len(counts) + 1, dtype=torch.float64).log()
    ranks, counts = ranks - ranks.mean(), counts - counts.mean()
    return -float((ranks * counts).sum() / ranks.square().sum())


def unique_share(tokens: Tokens) -> float:
    """Different texts over all texts."""
    return len(tokens.unique(dim=0)) / len(tokens)


def distinct(tokens: Tokens, n: int, stop: int | None = None) -> float:
    """Different n-grams over all n-grams of all texts; nan of none."""
    grams = tokens.unfold(1, n, 1).flatten(0, 1)
    if stop is not None:
        grams = grams[grams[:, -1] != stop]
    return len(grams.unique(dim=0)) / len(grams) if len(grams) else nan


def _counts(tokens: Tokens, stop: int | None) -> Int[Tensor, " v"]:
    return (tokens.flatten() if stop is None else tokens[tokens != stop]).bincount()
