from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlm.data import loader
from flowlm.data.loader import Ahead, Windows, sequential
from flowlm.tasks.drawn import Drawn
from flowlm.tasks.generated import Generated


def row(n: int) -> np.ndarray:
    """Every token is its own place, so that a window shows where it was cut."""
    return np.arange(n, dtype=np.uint16)


def starts(windows: Windows, epoch: int) -> list[int]:
    """First tokens of an epoch's windows in the order of visit, read off batches."""
    first, per = epoch * windows.windows_per_epoch, windows.windows_per_epoch
    seen: list[int] = []
    for step in range(first // windows.batch, (first + per - 1) // windows.batch + 1):
        seen += windows(step).tokens[:, 0].tolist()
    skip = first - first // windows.batch * windows.batch
    return seen[skip : skip + per]


@given(
    length=st.integers(1, 9),
    extra=st.integers(0, 60),
    batch=st.integers(1, 11),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 5),
)
def test_an_epoch_visits_every_window_of_its_cut_once(length, extra, batch, seed, epoch) -> None:
    n = length + extra
    windows = Windows(row(n), length, batch, seed)
    visited = sorted(starts(windows, epoch))
    offset = visited[0]
    assert visited == [offset + i * length for i in range(windows.windows_per_epoch)]
    assert visited[-1] + length <= n
    left_out = n - windows.windows_per_epoch * length
    assert left_out <= 2 * length - 2
    assert left_out >= length - 1 or windows.windows_per_epoch == 1


@given(step=st.integers(0, 1000), seed=st.integers(0, 10))
def test_a_batch_is_slices_of_the_text(step: int, seed: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 60_000, 1000).astype(np.uint16)
    places = Windows(row(1000), 16, 5, seed)(step).tokens[:, 0].tolist()
    batch = Windows(tokens, 16, 5, seed)(step)
    assert batch.tokens.tolist() == [tokens[p : p + 16].tolist() for p in places]


def test_a_batch_is_int64_with_weight_one() -> None:
    batch = Windows(row(100), 8, 3, 0)(0)
    assert (batch.tokens.dtype, batch.tokens.shape) == (torch.int64, (3, 8))
    assert (batch.weight.dtype, batch.weight.shape) == (torch.float32, (3, 8))
    assert bool((batch.weight == 1).all())


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    fresh = {step: Windows(row(500), 7, 4, 3)(step).tokens for step in (5, 40, 123)}
    loader._epoch.cache_clear()
    windows = Windows(row(500), 7, 4, 3)
    other = Windows(row(500), 7, 4, 4)
    for step in (123, 5, 0, 40, 5):
        other(step)
        if step in fresh:
            assert torch.equal(windows(step).tokens, fresh[step])


def test_writing_into_a_batch_changes_neither_text_nor_later_batches() -> None:
    tokens = row(100).astype(np.int64)  # no conversion that would copy by itself
    windows = Windows(tokens, 10, 2, 0)
    before = windows(0).tokens.clone()
    windows(0).tokens.zero_()
    assert torch.equal(windows(0).tokens, before)
    np.testing.assert_array_equal(tokens, np.arange(100))


def test_epochs_and_seeds_differ_in_cut_and_order() -> None:
    epochs = [starts(Windows(row(5000), 50, 8, 0), epoch) for epoch in range(20)]
    assert len({min(epoch) for epoch in epochs}) > 10
    orders = {tuple(np.argsort(epoch)) for epoch in epochs}
    assert len(orders) == 20
    assert starts(Windows(row(5000), 50, 8, 1), 0) != epochs[0]
    assert epochs[0] != sorted(epochs[0])


def test_offsets_reach_every_token() -> None:
    windows = Windows(row(40), 10, 3, 0)
    seen = {t for step in range(200) for t in windows(step).tokens.flatten().tolist()}
    assert seen == set(range(40))


def test_a_batch_over_several_epochs_has_whole_ones_inside() -> None:
    windows = Windows(row(35), 10, 11, 0)
    assert windows.windows_per_epoch == 2
    first = windows(0).tokens[:, 0].tolist()
    for epoch in range(5):
        low, high = sorted(first[2 * epoch : 2 * epoch + 2])
        assert high - low == 10


def test_a_text_of_exactly_one_window_is_enough() -> None:
    windows = Windows(row(10), 10, 2, 0)
    assert windows.windows_per_epoch == 1
    assert windows(3).tokens.tolist() == [list(range(10))] * 2


def test_sequential_is_every_window_in_order() -> None:
    batches = list(sequential(row(75), 10, 3))
    assert [len(batch.tokens) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch.tokens for batch in batches]).flatten().tolist() == list(range(70))
    assert all(batch.weight.shape == batch.tokens.shape for batch in batches)
    assert [len(batch.tokens) for batch in sequential(row(60), 10, 3)] == [3, 3]


@pytest.mark.parametrize("make", [lambda *a: Windows(*a, seed=0), sequential])
def test_a_short_text_is_refused_at_once(refused, make) -> None:
    with refused("9 tokens", "10", "--data.length"):
        make(row(9), 10, 2)
    with refused("0 x 4"):
        make(row(9), 4, 0)


def test_a_negative_seed_is_refused(refused) -> None:
    with refused("-1"):
        Windows(row(9), 3, 1, -1)


@given(
    n=st.integers(10, 60),
    rows=st.integers(1, 4),
    world=st.sampled_from([1, 2, 3, 6]),
    step=st.integers(0, 50),
)
def test_processes_hold_the_consecutive_parts_of_one_global_batch(n, rows, world, step) -> None:
    batch = 6 * rows  # over ends of epochs too: there are at most 12 windows in one
    whole = Windows(row(n), 5, batch, 7)(step)
    parts = [Windows(row(n), 5, batch, 7, rank, world)(step) for rank in range(world)]
    assert {len(part.tokens) for part in parts} == {batch // world}
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)


def test_a_process_reads_its_own_rows_and_no_other(monkeypatch) -> None:
    cut, read = loader._cut, []

    def watched(tokens, starts, length, pad):
        read.append(starts)
        return cut(tokens, starts, length, pad)

    monkeypatch.setattr(loader, "_cut", watched)
    batch = Windows(row(1000), 10, 12, 0, rank=1, world=3)(0)
    (starts,) = read
    assert starts.tolist() == batch.tokens[:, 0].tolist()
    assert len(starts) == 4


def test_sentences_are_shared_in_the_same_way() -> None:
    for step in (0, 33):
        whole = Drawn(Generated(), 6, 1)(step).tokens
        parts = [Drawn(Generated(), 6, 1, rank, 3)(step).tokens for rank in range(3)]
        assert torch.equal(torch.cat(parts), whole)


def test_a_batch_that_cannot_be_shared_is_refused(refused) -> None:
    for make in (lambda *a: Windows(row(99), 3, *a), lambda *a: Drawn(Generated(), *a)):
        with refused("batch of 10", "4 processes", "--train.batch"):
            make(10, 0, 0, 4)
        for rank, world in ((2, 2), (-1, 2), (0, 0)):
            with refused(f"{rank} of {world}"):
                make(4, 0, rank, world)


# --- rows that are packed already -------------------------------------------------------------


@given(rows=st.integers(1, 12), batch=st.integers(1, 7), epoch=st.integers(0, 3))
def test_rows_are_visited_as_they_are(rows: int, batch: int, epoch: int) -> None:
    windows = Windows(row(10 * rows), 10, batch, 3, rows=True)
    assert windows.windows_per_epoch == rows
    assert sorted(starts(windows, epoch)) == list(range(0, 10 * rows, 10))


def test_padding_has_no_weight() -> None:
    tokens = np.array([[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0]], np.uint16).reshape(-1)
    for batch in (Windows(tokens, 4, 3, 0, rows=True, pad=0)(0), *sequential(tokens, 4, 3, pad=0)):
        assert batch.weight.dtype == torch.float32
        assert torch.equal(batch.weight, (batch.tokens != 0).float())
        assert batch.weight.sum() == 7
    assert Windows(tokens, 4, 3, 0, rows=True)(0).weight.sum() == 12


# --- ahead of time ----------------------------------------------------------------------------


def test_batches_made_ahead_are_the_batches() -> None:
    windows = Windows(row(500), 7, 4, 3)
    ahead = Ahead(windows, pinned=False)
    for step in (0, 1, 2, 7, 8, 3, 3, 0):
        assert torch.equal(ahead(step).tokens, windows(step).tokens)


def test_the_next_batch_is_made_while_this_one_is_used() -> None:
    made = {step: threading.Event() for step in range(4)}
    windows = Windows(row(500), 7, 4, 3)

    def watched(step: int):
        made[step].set()
        return windows(step)

    ahead = Ahead(watched, pinned=False)
    ahead(1)
    assert made[2].wait(timeout=10)
    assert not made[3].is_set()


def test_an_error_in_a_batch_made_ahead_is_raised_when_it_is_asked_for() -> None:
    def broken(step: int):
        if step == 2:
            raise OSError("the disk is gone")
        return Windows(row(500), 7, 4, 3)(step)

    ahead = Ahead(broken, pinned=False)
    ahead(1)
    with pytest.raises(OSError, match="gone"):
        ahead(2)
