"""Studies run: their smallest cells, and the pages that are made of their results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.trainings import carry_out_one, figures_of
from studies.encoders import plan, report
from studies.encoders.cells import TAUS, run
from studies.real_text import measures, worlds
from studies.real_text import plan as real_text
from studies.real_text import report as tables

from flowlm.recipes import text
from flowlm.run.budget import operations, per_step

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


LINES = "\n".join(
    f"The cat {i % 9} sat on a mat. It ran {'far ' * (i % 3)}off!" for i in range(400)
)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> worlds.World:
    """A world of short sentences, in which everything is small."""
    monkeypatch.setattr(measures, "EVALUATIONS", (1, 2))
    for name in ("TEXTS", "HELD_OUT", "INFILLED"):
        monkeypatch.setattr(measures, name, 8)
    size = replace(worlds.SIZE, blocks=1, width=16, heads=2, condition=8, positions="learned")
    plan = replace(worlds.PLAN, steps=6, batch=4, warmup=1)
    return worlds.World("little", 16, 300, True, size, plan)


def test_entrants_of_a_world_cost_the_same(little: worlds.World, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(LINES)
    little.prepared(tmp_path / "text", tmp_path)
    long = little.within(50)
    compute = operations((long.experiment(text.masked(), tmp_path),))
    for name in ("AR", "FMLM, prompts"):
        chain = real_text.chain(name, long, tmp_path, 0)
        stages = [training.experiment for training in chain]
        assert abs(operations(stages) - compute) <= per_step(stages)[-1], name
        assert {stage.size for stage in stages} == {long.size}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_world_is_trained_measured_and_shown(little: worlds.World, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(LINES)
    little.prepared(tmp_path / "text", tmp_path)
    judges = real_text.judges(little, tmp_path)
    assert len({judge.name for judge in judges}) == 2
    for judge in judges:
        carry_out_one(judge, tmp_path, measures.likely)
    (tmp_path / measures.JUDGES).write_text(json.dumps([judge.name for judge in judges]))
    rows = {}
    for name in ("MDLM", "FMLM, prompts", "AR"):
        chain = real_text.chain(name, little, tmp_path, 0)
        for training in chain:
            carry_out_one(training, tmp_path, measures.measured if training is chain[-1] else None)
        rows[name] = [figures_of(chain[-1], tmp_path, measures.measured)]
    of_map, masked, exact = (rows[name][0] for name in ("FMLM, prompts", "MDLM", "AR"))
    assert list(of_map["written"]["jumps"]) == list(masked["written"]["random"]) == ["1", "2"]
    # One jump reads off the likeliest tokens at every temperature; left to right has no steps.
    assert list(of_map["written"]["jumps"]["1"]) == ["1.0"]
    assert list(exact["written"]["own"]) == ["16"]
    assert exact["infilled"] is None
    (held_out,) = exact["held_out"]
    assert held_out["kind"] == "exact"
    for gap in of_map["infilled"].values():
        assert gap["real"]["1.0"]["as it was"] == 1
    shown = tables.shown(rows)
    assert "| MDLM | middle half | random, 2, T 0.8 |" in shown
    assert "| AR |" in shown
