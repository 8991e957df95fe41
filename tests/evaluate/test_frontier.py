"""The frontier: Pareto sets by hand, interpolation and areas by integrals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlm.evaluate.frontier import Reached, area, interpolated, nearest, pareto, summed
from flowlm.evaluate.report import render

POINTS = st.lists(
    st.builds(Reached, st.floats(2, 6).map(lambda x: round(x, 2)), st.floats(1, 9)), min_size=1,
    max_size=8,
)  # fmt: skip


@given(POINTS)
def test_the_pareto_set_is_what_nothing_beats(points: list[Reached]) -> None:
    kept = pareto(points)
    for point in points:
        beaten = any(
            q != point and q.entropy >= point.entropy and q.nll <= point.nll for q in points
        )
        assert (point in kept) == (not beaten)
    assert [p.entropy for p in kept] == sorted(p.entropy for p in kept)
    assert [p.nll for p in kept] == sorted(p.nll for p in kept)


def test_between_points_it_is_linear_and_beyond_it_says_nothing() -> None:
    points = [Reached(4.0, 3.0), Reached(4.4, 5.0), Reached(4.2, 6.0)]
    assert interpolated(4.1, points) == pytest.approx(3.5)
    assert interpolated(4.0, points) == 3.0
    assert interpolated(3.99, points) is None
    assert interpolated(4.41, points) is None
    assert nearest(4.19, points) == Reached(4.0, 3.0)


@given(POINTS, st.floats(2.5, 5.5), st.floats(1, 5))
def test_the_area_is_the_integral(points: list[Reached], entropy: float, nll: float) -> None:
    grid = np.linspace(entropy - 0.3, entropy + 0.1, 4001)
    found = np.array([np.nan if (y := interpolated(h, points)) is None else y for h in grid])
    inside = ~np.isnan(found)
    mean, reached = area(Reached(entropy, nll), points)
    assert reached == pytest.approx(inside.mean(), abs=1e-3)
    if reached > 0.02:
        assert mean == pytest.approx(found[inside].mean() - nll, abs=0.05)
    if mean is None:
        assert reached == 0


def test_the_page_shows_it_and_does_not_extrapolate() -> None:
    rows = [
        {"value": t, "sample_entropy": h, "nll": y}
        for t, h, y in ((0.5, 4.0, 3.0), (1.0, 4.4, 5.0))
    ]
    near = summed("FLM", 8, "temperature", rows, {"sample_entropy": 4.2, "nll": 3.5})
    assert near["nll_at_real"] == pytest.approx(4.0)
    far = summed("FLM", 1, "temperature", rows, {"sample_entropy": 4.6, "nll": 3.5})
    assert far["nll_at_real"] is None
    assert far["nearest"] == [4.4, 5.0]
    report = {"title": "T", "summary": "S.", "rows": [], "judge": "J"}
    page = render(report | {"frontier": [near, far], "reference": {"nll": 3.5}})
    assert "not reached" in page
    assert "4.000 (perplexity 54.6)" in page
