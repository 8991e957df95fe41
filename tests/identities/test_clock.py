"""The clock against tabulated values, an integral of its own, and decoding itself."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlm.core import Batch, Clock, Decoding, Streams, Uniform
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.shares import parted, picked

TIMES = (0.1, 0.3, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9)
# Adaptive quadrature, good to 1e-8.
TABLE = {
    2: (0.0626233, 0.23814501, 0.52049988, 0.90103985, 0.96610515, 0.99532227, 0.99993849, 1.0),
    27: (0.0093417, 0.0461781, 0.15935949, 0.61160087, 0.81197394, 0.96129542, 0.99927157, 1.0),
    30522: (
        *(1.872e-5, 0.00014317, 0.00124416, 0.04259352),
        *(0.14109455, 0.45609693, 0.93130952, 0.99999778),
    ),
    50258: (
        *(1.176e-5, 9.225e-5, 0.0008473, 0.03327667),
        *(0.117489, 0.41273562, 0.91615683, 0.99999659),
    ),
}
CLOCKS = [Uniform(), *(Decoding(k) for k in (2, 5, 27, 4096, 30522, 50258))]
DTYPES = [torch.float32, torch.float64]


def shown(clock: Clock, t: list[float] | np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return clock.tau(torch.tensor(t, dtype=dtype)[None])[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", TABLE)
def test_the_clock_shows_the_tabulated_times(vocab: int, dtype: torch.dtype) -> None:
    wanted = torch.tensor(TABLE[vocab], dtype=dtype)
    assert (shown(Decoding(vocab), list(TIMES), dtype) - wanted).abs().max() <= 2e-5


@pytest.mark.parametrize("vocab", [2, 5, 27, 50258])
def test_the_clock_is_the_integral_between_its_nodes_too(vocab: int) -> None:
    """tau = K/(K-1) (q - 1/K), q = E[Phi(z + t/(1-t))^(K-1)], by Simpson's rule."""
    times = np.random.default_rng(0).uniform(0.0, 0.95, 40)
    z = np.linspace(-9, 9, 1201)
    simpson = np.where(np.arange(len(z)) % 2, 4.0, 2.0)
    simpson[[0, -1]] = 1.0
    density = simpson * np.exp(-(z**2) / 2)
    density /= density.sum()
    wanted = []
    for t in times:
        wrong = np.array([math.erfc((a + t / (1 - t)) / math.sqrt(2)) / 2 for a in z])
        right = (density * np.exp((vocab - 1) * np.log1p(-np.minimum(wrong, 1 - 1e-16)))).sum()
        wanted.append(vocab / (vocab - 1) * (right - 1 / vocab))
    got = shown(Decoding(vocab), times, torch.float64)
    assert (got - torch.tensor(wanted)).abs().max() <= 2e-5


def test_the_clock_counts_how_often_a_noisy_row_is_decoded() -> None:
    vocab, t, draws = 5, 0.42, 400_000
    rows = (1 - t) * torch.randn(draws, vocab, generator=torch.Generator().manual_seed(1))
    rows[:, 0] += t
    wrong = float((rows.argmax(1) != 0).double().mean())
    scale = vocab / (vocab - 1)
    error = scale * math.sqrt(wrong * (1 - wrong) / draws)
    tau = float(shown(Decoding(vocab), [t], torch.float64)[0])
    assert abs(tau - (1 - scale * wrong)) <= 4 * error
    assert error < 2e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_the_two_directions_undo_each_other(clock: Clock, dtype: torch.dtype) -> None:
    tau = torch.linspace(1e-4, 1 - 1e-4, 5001, dtype=dtype)[None]
    t = clock.t(tau)
    assert (clock.t(clock.tau(t)) - t).abs().max() <= 1e-5
    assert (clock.tau(t) - tau).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_the_clock_never_runs_back_and_its_ends_are_fixed(clock: Clock, dtype: torch.dtype) -> None:
    fine = torch.linspace(0, 1, 20_011, dtype=dtype)[None]
    for direction in (clock.tau, clock.t):
        image = direction(fine)
        assert image[0, 0] == 0
        assert image[0, -1] == 1
        assert (image.diff() >= 0).all()
        assert image.dtype == dtype
    # Strictly, wherever float32 can still tell that something is decoded or something is not.
    inside = clock.tau(torch.linspace(0.02, 0.85, 500, dtype=dtype)[None])
    assert (inside.diff() > 0).all()


@pytest.mark.parametrize("clock", CLOCKS[:2], ids=str)
def test_sampling_times_are_even_in_tau(clock: Clock) -> None:
    assert torch.allclose(clock.grid(5), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), atol=1e-7)


def cuts(total: int) -> st.SearchStrategy[list[int]]:
    inner = st.sets(st.integers(1, total - 1)) if total > 1 else st.just(set())
    return inner.map(lambda s: [0, *sorted(s), total])


@given(st.integers(1, 40).flatmap(cuts), st.integers(0, 10_000))
def test_draws_are_stratified_over_the_global_batch_however_it_is_split(
    edges: list[int], seed: int
) -> None:
    total = edges[-1]
    parts = [
        Uniform().draw(Streams.of(seed, count=b - a, first=a, total=total))
        for a, b in pairwise(edges)
    ]
    draws = torch.cat(parts)
    assert draws.shape == (total, 1)
    assert (draws[:, 0].double() * total).floor().long().tolist() == list(range(total))
    assert torch.equal(draws, Uniform().draw(Streams.of(seed, count=total)))


def test_a_draw_is_uniform_in_its_stratum() -> None:
    """Kolmogorov and Smirnov: P(sup |F_n - F| > e) <= 2 exp(-2 n e^2)."""
    n = 4000
    place = torch.cat([Streams.of(i, count=1, first=2, total=3).stratified() for i in range(n)])
    place = (place[:, 0].double() * 3 - 2).sort().values
    assert (place - torch.linspace(0, 1, n, dtype=torch.float64)).abs().max() < 0.045


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8, 9, 40])
@pytest.mark.parametrize("share", [1 / 2, 1 / 3, 0.25, 0.75, 0.1])
def test_a_share_of_a_batch_is_a_smaller_batch_with_strata_of_its_own(
    count: int, share: float
) -> None:
    batch = Batch(torch.arange(count)[:, None], torch.ones(count, 1))
    there, others = parted(batch, Streams.of(3, count=count), share)
    mine = [i for i in range(count) if picked(i, share)]
    assert len(mine) == math.ceil(count * share)
    rest = [i for i in range(count) if i not in mine]
    for (part, rng), rows in ((there, mine), (others, rest)):
        if not rows:
            assert float(part.weight.sum()) == 0
            continue
        assert part.tokens[:, 0].tolist() == rows
        draws = rng.stratified()[:, 0].double()
        assert (draws * len(rows)).floor().long().tolist() == list(range(len(rows)))


@pytest.mark.parametrize("share", [1 / 2, 0.3])
def test_a_share_is_the_same_in_any_split(share: float) -> None:
    """Sequence by sequence: the same ones, with the same index and total."""

    def seen(first: int, count: int) -> dict[int, tuple[int, int, int]]:
        batch = Batch(torch.arange(first, first + count)[:, None], torch.ones(count, 1))
        rng = Streams.of(0, count=count, first=first, total=12)
        return {
            int(token): (part, index, streams.total)
            for part, (chosen, streams) in enumerate(parted(batch, rng, share))
            if float(chosen.weight.sum())
            for token, index in zip(chosen.tokens[:, 0], streams.index)
        }

    assert seen(0, 12) == seen(0, 1) | seen(1, 4) | seen(5, 7)


@given(st.integers(1, 200), st.integers(0, 1000), st.integers(2, 40), st.floats(0.5, 1))
def test_jumps_follow_the_released_schedule(
    count: int, seed: int, boundary: int, latest: float
) -> None:
    rule = Semigroup(boundary=1 / boundary, latest=latest)
    s, t = rule.times(Streams.of(seed, count=count))
    assert ((s >= 0) & (s < t) & (t <= latest + 1e-6)).all()
    strata = (t - s).double() / latest * count
    wanted = torch.arange(count)[:, None].double()
    whole = (s == 0) & ((t - latest).abs() < 1e-6)
    assert (whole | ((strata >= wanted - 1e-3) & (strata <= wanted + 1 + 1e-3))).all()


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_as_many_jumps_go_all_the_way_in_small_batches(batch: int) -> None:
    """Also where their share of a batch is less than one."""
    rule, whole = Semigroup(boundary=1 / 8), 0
    for seed in range(4000 // batch):
        s, t = rule.times(Streams.of(seed, count=batch))
        whole += int(((s == 0) & (t == 1)).sum())
    assert whole / 4000 == pytest.approx(1 / 8, abs=0.02)


def test_jumps_of_some_lengths_have_these_lengths() -> None:
    s, t = Semigroup().times(Streams.of(0, count=200), (0.2, 0.3))
    assert ((t - s >= 0.2 - 1e-6) & (t - s <= 0.3 + 1e-6)).all()
    s, t = Semigroup(boundary=1 / 4).times(Streams.of(0, count=200), (0.3, 1.0))
    assert float(((s == 0) & (t == 1)).float().mean()) == pytest.approx(1 / 4, abs=0.1)
    assert (t - s >= 0.3 - 1e-6).all()


def test_a_jump_starts_anywhere_that_its_length_allows() -> None:
    s, t = Semigroup(boundary=0.0).times(Streams.of(0, count=6000))
    share = (s / (1 - (t - s)))[1:-10].double().flatten().sort().values
    even = torch.linspace(0, 1, len(share), dtype=torch.float64)
    assert (share - even).abs().max() < 0.04


@pytest.mark.parametrize("vocab", [2, 4, 50, 50258])
def test_the_slope_of_the_clock_is_its_derivative(vocab: int) -> None:
    """Against differences of the integral itself, wide enough for the table's steps."""
    t = torch.linspace(0.01, 0.95, 60, dtype=torch.float64)[:, None]
    clock, h = Decoding(vocab), 2e-3
    found = (clock.tau(t + h) - clock.tau(t - h)) / (2 * h)
    slope = clock.slope(t)
    assert (found - slope).abs().max() <= 2e-3 * slope.max()
    assert torch.equal(clock.slope(torch.ones(1, 1)), torch.zeros(1, 1))
    assert torch.equal(Uniform().slope(t), torch.ones_like(t))


@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 1000))
def test_a_text_has_the_same_numbers_in_any_batch(count: int, place: int, seed: int) -> None:
    place %= count
    among = Streams.of(seed, 5, count=count)
    alone = Streams.of(seed, 5, count=1, first=place, total=count)
    for draw in ("normal", "uniform"):
        many, one = (
            rng.normal(3, 2) if draw == "normal" else rng.uniform(4) for rng in (among, alone)
        )
        assert torch.equal(many[place], one[0])
    assert torch.equal(among.stratified()[place], alone.stratified()[0])


def test_streams_of_other_seeds_and_places_are_other_numbers() -> None:
    drawn = [Streams.of(*seed, count=4).normal(8) for seed in ((0,), (1,), (0, 0), (0, 1), (1, 0))]
    rows = torch.cat(drawn)
    assert len(rows.unique(dim=0)) == len(rows)
