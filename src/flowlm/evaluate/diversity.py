"""How varied texts are. Quality means nothing without it: a repeated good sentence is perfect."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.types import Tokens


def sample_entropy(tokens: Tokens) -> float:
    """Entropy of the token frequencies within a text, nats, averaged over texts.

    The field's measure. Values for different tokenisations or lengths do not compare.
    """
    return float(entropies(tokens).mean())


def entropies(tokens: Tokens) -> Float[Tensor, " b"]:
    """Entropy of the token frequencies within each text, nats."""
    rows = tokens.sort(-1).values
    # In a sorted row a token's count is the length of its run. Averaging -log of the frequency over
    # tokens, not over words, weighs each word by its frequency: that is the entropy.
    counts = torch.searchsorted(rows, rows, right=True) - torch.searchsorted(rows, rows)
    return -(counts.double() / tokens.shape[1]).log().mean(1)


def corpus_entropy(tokens: Tokens) -> float:
    """Entropy of the token frequencies of all texts together, nats.

    It tells what the entropy within texts cannot: that every text is the same.
    """
    shares = tokens.flatten().bincount().double() / tokens.numel()
    return -float(torch.special.xlogy(shares, shares).sum())


def zipf(tokens: Tokens, most: int = 1000) -> float | None:
    """Minus the slope of log frequency over log rank, of the `most` frequent tokens at most.

    By least squares; None of fewer than two tokens. Only a truncated vocabulary shows in it.
    """
    counts = tokens.flatten().bincount()
    counts = counts[counts > 0].sort(descending=True).values[:most].double().log()
    if len(counts) < 2:
        return None
    ranks = torch.arange(1, len(counts) + 1, dtype=torch.float64).log()
    ranks, counts = ranks - ranks.mean(), counts - counts.mean()
    return -float((ranks * counts).sum() / ranks.square().sum())


def unique_share(tokens: Tokens) -> float:
    """Different texts over all texts."""
    return len(tokens.unique(dim=0)) / len(tokens)


def distinct(tokens: Tokens, n: int) -> float:
    """Different n-grams over all n-grams of all texts."""
    grams = tokens.unfold(1, n, 1).flatten(0, 1)
    return len(grams.unique(dim=0)) / len(grams)
