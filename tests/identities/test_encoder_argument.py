"""The argument of docs/encoders.md: what a linear view of a noisy row can tell at most."""

from __future__ import annotations

import math

import pytest
import torch
from studies.encoders.argument import (
    linear_bound,
    linear_information,
    row_information,
    separation,
)

VOCAB, WIDTH = 40, 6


def zipf() -> torch.Tensor:
    shares = 1 / (torch.arange(VOCAB) + 2.0)
    return shares / shares.sum()


def test_a_separation_is_that_of_whitened_images() -> None:
    """By its definition: (E_i - E_j)^T (E^T E)^-1 (E_i - E_j), over the 2 of whole rows."""
    table = torch.randn(VOCAB, WIDTH, dtype=torch.float64)
    inverse = torch.linalg.inv(table.T @ table)
    pairs = [(i, j) for i in range(VOCAB) for j in range(VOCAB) if i != j]
    apart = [(table[i] - table[j]) @ inverse @ (table[i] - table[j]) / 2 for i, j in pairs]
    assert separation(table) == pytest.approx(float(sum(apart)) / len(pairs), rel=1e-9)


def test_no_table_separates_further_than_d_of_v() -> None:
    most = WIDTH / (VOCAB - 1)
    for seed in range(20):
        torch.manual_seed(seed)
        assert separation(torch.randn(VOCAB, WIDTH) * torch.rand(VOCAB, 1) ** 3) < most
    balanced = torch.randn(VOCAB, WIDTH, dtype=torch.float64)
    assert separation(balanced - balanced.mean(0)) == pytest.approx(most, rel=1e-9)


@pytest.mark.parametrize("lift", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("even", [True, False])
def test_no_table_tells_more_than_the_bound(lift: float, even: bool) -> None:
    prior = torch.full((VOCAB,), 1 / VOCAB) if even else zipf()
    bound = linear_bound(prior, lift, WIDTH)
    rows = 20_000
    noise = 5 * lift / math.sqrt(rows)  # generous: what a row tells varies by about `lift` nats
    for seed in range(4):
        torch.manual_seed(seed)
        told = linear_information(prior, lift, torch.randn(VOCAB, WIDTH), rows)
        assert told < bound + noise
    # The table that keeps the likeliest words and nothing else comes closest where noise is large.
    best = linear_information(prior, lift, torch.eye(VOCAB)[:, :WIDTH], rows)
    assert best < bound + noise
    if lift == 0.5:
        assert best > 0.7 * bound - noise


def test_a_row_is_a_linear_view_that_keeps_everything() -> None:
    for lift in (1.0, 3.0):
        whole = row_information(zipf(), lift, 20_000)
        kept = linear_information(zipf(), lift, torch.randn(VOCAB, VOCAB), 20_000)
        assert kept == pytest.approx(whole, abs=5 * lift / math.sqrt(20_000))
        assert whole < -float((zipf() * zipf().log()).sum())
