"""What a linear view of a noisy row can tell of its token, and what the row itself tells.

A row is x = (1 - t) z + t e_w, and a = t / (1 - t) its signal to noise. A linear view x @ E,
whitened, is u = a U^T e_w + noise, where U (v, d) is an orthonormal basis of E's columns.
Units: nats.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def separation(table: Float[Tensor, "v d"]) -> float:
    """Mean over pairs of words of the squared whitened distance, over that of whole rows (2 a^2).

    At most d / (v - 1), whatever the table: the mean is (d - |U^T 1|^2 / v) / (v - 1).
    """
    basis = torch.linalg.qr(table.double()).Q
    distances = torch.cdist(basis, basis).square()
    v = len(table)
    return float(distances.sum() / (v * (v - 1)) / 2)


def linear_bound(prior: Float[Tensor, " v"], lift: float, width: int) -> float:
    """The most that any table of this width lets a row tell: (1/2) sum_k log(1 + a^2 prior_(k)).

    The sum is over the `width` likeliest words. The entropy of u is at most that of a normal
    variable with its covariance, I + a^2 U^T (diag(prior) - prior prior^T) U, whose eigenvalues are
    at most those of I + a^2 diag(prior), largest for largest (interlacing).
    """
    largest = prior.double().topk(min(width, len(prior))).values
    return float(0.5 * torch.log1p(lift**2 * largest).sum())


def linear_information(
    prior: Float[Tensor, " v"], lift: float, table: Float[Tensor, "v d"], rows: int, seed: int = 0
) -> float:
    """What x @ E tells of the token, by simulation of `rows` rows."""
    basis = lift * torch.linalg.qr(table.double()).Q
    generator = torch.Generator().manual_seed(seed)
    words = torch.multinomial(prior.double(), rows, True, generator=generator)
    view = basis[words] + torch.randn(rows, basis.shape[1], generator=generator).double()
    scores = view @ basis.T - 0.5 * basis.square().sum(-1) + prior.double().log()
    return float((scores.log_softmax(-1)[range(rows), words] - prior.double().log()[words]).mean())


def row_information(prior: Float[Tensor, " v"], lift: float, rows: int, seed: int = 0) -> float:
    """What the whole row tells, by simulation; softmax(a z + a^2 e_w + log prior) reads it."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.multinomial(prior.double(), rows, True, generator=generator)
    known = prior.double().log()
    told = []
    for some in words.split(256):
        scores = lift * torch.randn(len(some), len(prior), generator=generator).double() + known
        scores[range(len(some)), some] += lift**2
        told.append(scores.log_softmax(-1)[range(len(some)), some] - known[some])
    return float(torch.cat(told).mean())
