"""Ranks of next tokens under a judge: how surprising each was, and their histogram."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

HEAD, TAIL = 25, 10
"""Bins of one rank each, and bins of equal width in the logarithm of the rank behind them."""


def rank_edges(vocab: int) -> Int[Tensor, " bins"]:
    """The first rank of every bin: 0 to HEAD - 1, then TAIL logarithmic ones up to `vocab`.

    Of a small vocabulary there are fewer: no bin is without a rank.
    """
    head = torch.arange(min(HEAD, vocab))
    if vocab <= HEAD:
        return head
    steps = torch.arange(TAIL, dtype=torch.float64) / TAIL
    tail = (HEAD * (vocab / HEAD) ** steps).ceil().long()
    return torch.cat([head, tail[tail < vocab]]).unique()


def nats_and_ranks(
    logp: Float[Tensor, "*rows v"], tokens: Int[Tensor, "*rows"]
) -> tuple[Float[Tensor, "*rows"], Int[Tensor, "*rows"]]:
    """-log p(token), and how many tokens are likelier than it: rank 0 is the likeliest."""
    own = logp.gather(-1, tokens[..., None])
    return -own.squeeze(-1), (logp > own).sum(-1)


def rank_counts(ranks: Int[Tensor, "*shape"], vocab: int) -> Int[Tensor, " bins"]:
    """How many ranks fall into each bin of `rank_edges`."""
    edges = rank_edges(vocab)
    bins = torch.bucketize(ranks.flatten().cpu(), edges, right=True) - 1
    return bins.bincount(minlength=len(edges))


def rank_chi2(counts: Int[Tensor, " bins"], real: Int[Tensor, " bins"]) -> float:
    """sum_k (p_k - q_k)^2 / q_k of the shares p of ranks and the shares q of real text.

    1/2 is added to every count of real text, so that a bin that it leaves empty costs something
    finite.
    """
    p, q = counts.double(), real.double() + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q).square() / q).sum())
