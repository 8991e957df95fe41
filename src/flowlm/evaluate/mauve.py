"""MAUVE: how much two sets of texts overlap in the features of a judge (Pillutla et al. 2021).

Both sets are cut into clusters of like texts, and the area under the
curve of the two Kullback-Leibler divergences to a mixture, as the mixture moves from one set to the
other, says how much they overlap. It falls with the number of texts, so the same number of real
texts beside it says what can be reached.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

FEWEST = 20
"""Texts of each set from which anything is said."""

KEPT = 0.9
"""Share of the variance that the features keep."""

TEXTS_A_CLUSTER = 10
STARTS, ROUNDS = 5, 100
"""Of k-means: the best of so many starts, each with at most so many rounds."""

SCALE, WEIGHTS = 5.0, 25
"""c of exp(-c KL); points of the curve besides its corners."""


def mauve(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], seed: int = 0) -> float | None:
    """From 0, where no text is like any of the other set, to 1. None of fewer than FEWEST.

    Both sets are cut to the size of the smaller one: MAUVE falls with it.
    """
    count = min(len(x), len(y))
    if count < FEWEST:
        return None
    x, y = x[:count], y[:count]
    both = _principal(torch.nn.functional.normalize(torch.cat([x, y]).double()))
    clusters = max(2, round(count / TEXTS_A_CLUSTER))
    labels = k_means(both, clusters, seed)
    p, q = (part.bincount(minlength=clusters) / count for part in labels.split(count))
    return overlap(p, q)


def overlap(p: Float[Tensor, " k"], q: Float[Tensor, " k"]) -> float:
    """The area under (exp(-c KL(q | r)), exp(-c KL(p | r))), r = a p + (1 - a) q, 0 < a < 1."""
    a = torch.linspace(0, 1, WEIGHTS + 2, dtype=torch.float64)[1:-1, None]
    r = a * p.double() + (1 - a) * q.double()
    across, along = (torch.exp(-SCALE * _divergence(z.double(), r)) for z in (q, p))
    zero, one = across.new_zeros(1), across.new_ones(1)
    # From all of q to all of p: at the ends one divergence is 0 and the other may be infinite.
    x, y = torch.cat([one, across, zero]), torch.cat([zero, along, one])
    return float(-torch.trapezoid(y, x))


def _divergence(p: Float[Tensor, " k"], r: Float[Tensor, "w k"]) -> Float[Tensor, " w"]:
    """KL(p | r), nats."""
    return torch.where(p > 0, p * (p / r).log(), 0.0).sum(1)


def _principal(x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """The first principal components, which keep KEPT of the variance."""
    centred = x - x.mean(0)
    _, scale, directions = torch.linalg.svd(centred, full_matrices=False)
    share = scale.square().cumsum(0) / scale.square().sum().clamp(min=1e-300)
    count = min(int((share < KEPT).sum()) + 1, len(scale))
    return centred @ directions[:count].T


def k_means(x: Float[Tensor, "n k"], clusters: int, seed: int) -> Int[Tensor, " n"]:
    """The cluster of every row: Lloyd's rounds from k-means++, the best of STARTS."""
    rng = torch.Generator().manual_seed(seed)
    found = [_lloyd(x, _spread(x, clusters, rng)) for _ in range(STARTS)]
    return min(found, key=lambda one: one[0])[1]


def _spread(x: Float[Tensor, "n k"], clusters: int, rng: torch.Generator) -> Tensor:
    """Centres drawn one after the other, by squared distance to those before (k-means++)."""
    centres = [x[torch.randint(len(x), (), generator=rng)]]
    nearest = (x - centres[0]).square().sum(1)
    for _ in range(clusters - 1):
        weights = nearest if float(nearest.sum()) > 0 else torch.ones_like(nearest)
        centres.append(x[torch.multinomial(weights, 1, generator=rng).squeeze()])
        nearest = torch.minimum(nearest, (x - centres[-1]).square().sum(1))
    return torch.stack(centres)


def _lloyd(x: Float[Tensor, "n k"], centres: Tensor) -> tuple[float, Int[Tensor, " n"]]:
    """The sum of squared distances to the nearest centre, and the labels."""
    labels = torch.full((len(x),), -1)
    for _ in range(ROUNDS):
        distances = torch.cdist(x, centres)
        before, labels = labels, distances.argmin(1)
        if torch.equal(before, labels):
            break
        counts = labels.bincount(minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, labels, x)
        means = sums / counts.clamp(min=1)[:, None]
        centres = torch.where(counts[:, None] > 0, means, centres)
    return float(torch.cdist(x, centres).amin(1).square().sum()), labels
