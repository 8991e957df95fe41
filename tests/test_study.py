"""The comparison at equal compute: what it plans, counts, chooses and shows; tiny trainings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import rules, study, trainings
from benchmarks.trainings import Training, carry_out_one, figures_of, trainings_of

from flowlm.model.loading import load
from flowlm.recipes import demo
from flowlm.run.budget import operations, per_step
from flowlm.run.forecast import Work
from flowlm.sampling import Heun, Jumps, LeftToRight, Replace, Unmask

COMPUTE = operations((demo.masked(),))


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        (Jumps(), [1, 2, 4, 8, 16, 32]),
        (Unmask(), [1, 2, 4, 8, 16, 32]),
        (Heun(), [1, 1, 2, 4, 8, 16]),
        (Replace(tail="network"), [None, 1, 3, 7, 15, 31]),
        (LeftToRight(), [None, None, None, None, None, 32]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_evaluations_are_counted_exactly(sampler, steps: list[int | None]) -> None:
    found = [study.steps_for(sampler, n, 18) for n in study.EVALUATIONS]
    assert found == steps
    for n, k in zip(study.EVALUATIONS, found):
        assert k is None or sampler.evaluations(k, 18) <= n


def test_a_sampler_is_named_by_what_is_not_usual() -> None:
    assert study.settings(Jumps()) == "Jumps"
    assert study.settings(Unmask(order="confidence")) == "Unmask order=confidence"


def test_what_cannot_write_so_fast_counts_as_wrong() -> None:
    all_valid = {str(n): {"valid": 1.0} for n in study.CHOSEN_AT}
    assert study.valid_share(all_valid) == 1
    del all_valid["1"]
    assert study.valid_share(all_valid) == pytest.approx(2 / 3)


def test_every_row_costs_the_same() -> None:
    rows = study.planned(COMPUTE, (0, 1))
    assert len({(row.entrant, row.share, row.otherwise) for row in rows}) == len(rows)
    assert {row.share for row in rows if row.entrant in study.ENTRANTS} == set(study.SHARES)
    for row in rows:
        for seed, chain in enumerate(row.chains):
            stages = [training.experiment for training in chain]
            assert abs(operations(stages) - COMPUTE) <= per_step(stages)[-1]
            assert all(stage.train.seed == seed for stage in stages)


def test_rules_share_a_teacher_a_seed_and_cost_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("semigroup", "lagrangian, simplex", "by length: damped, semigroup")
    monkeypatch.setattr(rules, "ENTRANTS", {name: rules.ENTRANTS[name] for name in names})
    first, dearer, mixed = rules.planned(COMPUTE, 1.0, (0, 1, 2)).values()
    assert [t.teacher for t in first] == [t.teacher for t in dearer] == [t.teacher for t in mixed]
    assert len({t.teacher for t in first}) == 3
    # A derivative costs more than two evaluations do.
    assert first[0].experiment.train.steps > dearer[0].experiment.train.steps
    for training in (*first, *dearer, *mixed):
        assert training.teacher is not None
        assert training.teacher.experiment.train.steps == demo.flow().train.steps
        stages = (training.teacher.experiment, training.experiment)
        assert operations(stages) == pytest.approx(COMPUTE, rel=0.001)


def test_a_run_is_named_after_all_that_it_depends_on() -> None:
    chain = demo.map_chain()
    flow, flow_map = trainings_of(chain)
    assert trainings_of(chain)[-1].name == flow_map.name
    assert flow_map.teacher == flow
    longer = replace(chain[0], train=replace(chain[0].train, steps=2001))
    other, student = trainings_of((longer, chain[1]))
    assert len({flow.name, flow_map.name, other.name, student.name}) == 4
    assert trainings_of((demo.flow(), demo.masked()))[1] == Training(demo.masked(), None)


def tiny(training: Training) -> Training:
    """The same with a small network and a few steps."""
    whole = training.experiment
    size = replace(whole.size, blocks=1, width=16, heads=2, condition=8)
    plan = replace(whole.train, steps=2, batch=4)
    teacher = None if training.teacher is None else tiny(training.teacher)
    method = whole.method if teacher is None else whole.method.with_teacher(teacher.name)
    return Training(replace(whole, size=size, train=plan, method=method), teacher)


def here(wanted, out: Path, measure) -> None:
    """Carry all out in this process, teachers first."""
    for training in wanted:
        if training.teacher is not None:
            here([training.teacher], out, None)
        out.mkdir(exist_ok=True)
        carry_out_one(training, out, measure)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go in place of benchmarks/results, all of it tiny."""
    monkeypatch.setattr("benchmarks.provenance.RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "TEXTS", 6)
    monkeypatch.setattr(study, "EVALUATIONS", (1, 2, 32))
    monkeypatch.setattr(study, "CHOSEN_AT", (1, 2))
    monkeypatch.setattr(study, "SHARES", (0.25, 0.5))
    monkeypatch.setattr(study, "ENTRANTS", ("demo-map", "demo-duo-dcd"))
    monkeypatch.setattr(study, "BASES", ("demo-masked", "demo-autoregressive"))
    # How fast the machine is used is no part of the study, and counting operations takes seconds.
    monkeypatch.setattr("flowlm.run.monitor.work", lambda *_: Work(1.0, 0.0))
    monkeypatch.setattr(rules, "ENTRANTS", {"semigroup": rules.ENTRANTS["semigroup"]})
    monkeypatch.setattr(rules, "AGREEING", 2)
    monkeypatch.setattr(rules, "INTERVALS", 2)
    for module in (study, rules):
        made = module.trainings_of
        monkeypatch.setattr(
            module, "trainings_of", lambda stages, of=made: tuple(map(tiny, of(stages)))
        )
        monkeypatch.setattr(module, "carry_out", here)
    monkeypatch.setattr("sys.argv", ["study", "--seeds", "1", "--out", str(tmp_path / "runs")])
    return tmp_path / "results"


def test_the_study_trains_chooses_and_shows(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.main()
    table = capsys.readouterr().out
    for share in ("25%", "50%"):
        assert f"| demo-map, {share} distilled" in table
    assert table.count("(chosen)") == 2
    # Of a training in two stages the second teaches.
    assert table.count("its teacher, demo-duo |") == 1
    assert re.search(r"demo-duo-dcd, .* \| Replace", table)
    assert table.count("its teacher, demo-flow") == 1
    (autoregressive,) = (r for r in table.splitlines() if r.startswith("| demo-autoregressive"))
    assert autoregressive.count("| - ") == 2, "it takes 18 evaluations"
    told = json.loads((results / "study.json").read_text())
    assert {"provenance", "command", "chosen shares", "reference"} <= told.keys()
    rows = {(row["entrant"], row["share"]): row["seeds"] for row in told["rows"]}
    assert len(rows) == 6
    (seed,) = rows["demo-map", 0.25]
    assert seed["model"]["rows"]["1"]["evaluations"] == 1
    assert set(seed["model"]["choosing"]) == {"1", "2"}
    assert seed["teacher"]["rows"]["32"]["evaluations"] == 32
    assert len(rows["demo-duo-dcd", 0.5][0]["stages"]) == 4
    # A second time nothing is trained or written again.
    files = {
        f: f.stat().st_mtime_ns for f in results.parent.rglob("study.json") if "runs" in str(f)
    }
    assert len(files) >= 4
    study.main()
    assert {f: f.stat().st_mtime_ns for f in files} == files


def test_the_share_is_chosen_by_other_texts_than_the_table_shows() -> None:
    rows = [row for row in study.planned(COMPUTE, (0,)) if row.entrant == "demo-map"]
    figures = {}
    for row, valid in zip(rows, (0.2, 0.3, 0.1)):
        held_out = {str(n): {"valid": valid} for n in study.CHOSEN_AT}
        figures[row.models[0]] = {"rows": {"1": {"valid": 1 - valid}}, "choosing": held_out}
    assert study.chosen("demo-map", rows, figures).share == 0.25


def test_rules_are_compared(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.main()
    lines = [r for r in capsys.readouterr().out.splitlines() if r.startswith("| semigroup")]
    assert len(lines) == 3
    (row,) = json.loads((results / "rules.json").read_text())["rows"]
    assert 0 <= row["seeds"][0]["rows"]["1"]["agreement"] <= 1


def test_the_exact_flow_ends_in_the_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the very noise from which a model writes."""
    monkeypatch.setattr(rules, "AGREEING", 3)
    monkeypatch.setattr(rules, "INTERVALS", 8)
    (flow,) = map(tiny, trainings_of((demo.flow(),)))
    carry_out_one(flow, tmp_path, None)
    assert (tmp_path / flow.name / trainings.DONE).exists()
    model = load(tmp_path / flow.name)
    texts = rules.exact_texts(model, 5)
    assert bool(demo.flow().data.valid(texts).all())
    assert not bool((texts == rules.exact_texts(model, 6)).all())
    with pytest.raises(FileNotFoundError):
        figures_of(flow, tmp_path, study.measured)
