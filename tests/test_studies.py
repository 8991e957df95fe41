"""Studies run: their smallest cells, and the pages that are made of their results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from studies.encoders import plan, report
from studies.encoders.cells import TAUS, run

RESULTS = Path(report.__file__).parents[1] / "results"


def test_cells_have_names_of_their_own() -> None:
    for part in plan.PARTS.values():
        names = [cell.name for cell in part()]
        assert len(names) == len(set(names))


def test_the_page_shows_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/encoders.svg is what the kept results draw."""
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    report.show(RESULTS)
    docs = Path(report.__file__).parents[2] / "docs"
    assert Path("docs/encoders.svg").read_text() == (docs / "encoders.svg").read_text()


@pytest.mark.parametrize("variant", [plan.BAYES, plan.LINEAR], ids=str)
def test_a_flow_and_its_map_are_trained_measured_and_written(variant, tmp_path: Path) -> None:
    of = replace(plan.SENTENCES, world="demo", steps=2, blocks=1, width=16)
    flow = replace(plan.flow(of, variant, 0), writes=((2, 3),), temperatures=(0.8,), curve=1)
    flow_map = replace(plan.distilled(flow), steps=2, writes=((1, 3),))
    for cell in (flow, flow_map):
        run(cell, tmp_path)
        told = json.loads((tmp_path / cell.name / "result.json").read_text())
        (*_, (_, _, nats)) = told["curve"]
        assert len(nats) == len(TAUS)
        (written,) = told["written"]
        assert written["samples"] == 3
        assert {"valid", "nll", "sample_entropy"} <= written.keys()
