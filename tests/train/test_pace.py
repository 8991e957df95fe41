"""The time left is that of the steps, not of what comes before and between them."""

from __future__ import annotations

import pytest

from flowlm.train.pace import FEWEST, Pace


def paced(stretches: list[float], each: int = 10, first: int = 0, start: float = 100.0) -> Pace:
    """A pace that was told the first step after `start` seconds, and then every `each` steps."""
    pace, now, step = Pace(first), start, first + 1
    pace.reached(step, now)
    for seconds in stretches:
        now, step = now + seconds, step + each
        pace.reached(step, now)
    return pace


def test_nothing_is_said_at_first() -> None:
    assert Pace(0).left(100) is None
    assert paced([5.0] * (FEWEST - 1)).left(100) is None
    assert paced([5.0] * FEWEST).left(100) is not None


@pytest.mark.parametrize("start", [0.0, 60.0, 3600.0])
def test_starting_up_says_nothing_of_the_rest(start: float) -> None:
    pace = paced([5.0] * 4, start=start)
    assert pace.left(1041) == pytest.approx(1000 * 0.5)


def test_the_last_steps_count() -> None:
    slow_first = paced([9.0] * 4 + [5.0] * 16)
    assert slow_first.left(201 + 1000) == pytest.approx(1000 * 0.5)


def test_what_comes_between_steps_is_spread_over_them() -> None:
    """A validation of 20 seconds every 50 steps: 0.5 + 0.4 seconds a step."""
    pace = paced([5.0, 5.0, 5.0, 5.0, 25.0] * 4)
    assert pace.left(201 + 1000) == pytest.approx(1000 * 0.9)


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    assert paced([5.0] * 4, first=900).left(1041) == pytest.approx(100 * 0.5)


def test_at_the_end_nothing_is_left() -> None:
    assert paced([5.0] * 4).left(41) == 0
