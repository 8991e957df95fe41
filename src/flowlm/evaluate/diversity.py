"""How varied texts are. Quality means nothing without it: a repeated good sentence is perfect."""

from __future__ import annotations

import torch

from flowlm.core.types import Tokens


def sample_entropy(tokens: Tokens) -> float:
    """Entropy of the token frequencies within a text, nats, averaged over texts.

    The field's measure. Values for different tokenisations or lengths do not compare.
    """
    rows = tokens.sort(-1).values
    # In a sorted row a token's count is the length of its run. Averaging -log of the frequency over
    # tokens, not over words, weighs each word by its frequency: that is the entropy.
    counts = torch.searchsorted(rows, rows, right=True) - torch.searchsorted(rows, rows)
    return float(-(counts.double() / tokens.shape[1]).log().mean())


def unique_share(tokens: Tokens) -> float:
    """Different texts over all texts."""
    return len(tokens.unique(dim=0)) / len(tokens)


def distinct(tokens: Tokens, n: int) -> float:
    """Different n-grams over all n-grams of all texts."""
    grams = tokens.unfold(1, n, 1).flatten(0, 1)
    return len(grams.unique(dim=0)) / len(grams)
