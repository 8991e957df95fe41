"""compare, runs and evaluate --frontier, as commands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import pytest

import flowlm as library
from flowlm.evaluate.measures import MEASURES, Written
from gpt2 import write

FEW = ("--num", 12, "--steps", 1, 2)


def test_models_are_compared_on_the_same_noise(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    names = [runs / "flow", runs / "masked"]
    answer = flowlm("compare", *names, *FEW, "--out", out)
    assert answer.status == 0, answer.err
    report = json.loads((out / "report.json").read_text())
    assert [(row["method"].split(" (")[0], row["steps"]) for row in report["rows"]] == [
        ("FLM", 1), ("FLM", 2), ("Masked diffusion", 1), ("Masked diffusion", 2),
    ]  # fmt: skip
    assert len(report["held_out"]) == 2
    texts = [library.load(name).sample(12, 2) for name in names]
    flow, masked = (MEASURES["rep_2"].compute(Written(tokens)) for tokens in texts)
    (told,) = (d for d in report["differences"] if (d["key"], d["steps"]) == ("rep_2", 2))
    assert told["difference"] == pytest.approx(float((masked - flow).mean()))
    low, high = told["interval"]
    assert low <= told["difference"] <= high
    page = (out / "report.html").read_text()
    assert "Differences, text by text" in page


def test_frontiers_of_models_stand_in_one_chart(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out, names = tmp_path / "out", [runs / "flow", runs / "masked"]
    words = ("compare", *names, "--num", 8, "--steps", 2, "--frontier", "temperature", "--out", out)
    flowlm(*words).refusal("--judge")
    flowlm("compare", *names, *FEW, "--frontier", "gamma").refusal("temperature")
    answer = flowlm(*words, "--judge", runs / "autoregressive")
    assert answer.status == 0, answer.err
    report = json.loads((out / "report.json").read_text())
    assert [entry["method"] for entry in report["frontier"]] == [
        f"FLM ({names[0]})", f"Masked diffusion ({names[1]})",
    ]  # fmt: skip
    assert {len(entry["points"]) for entry in report["frontier"]} == {11}
    assert (out / "report.html").read_text().count("NLL over sample entropy") == 1


def test_what_does_not_compare_is_refused(flowlm: Callable, runs: Path) -> None:
    flowlm("compare", runs / "flow", *FEW).refusal("two")
    flowlm("compare", runs / "flow", runs / "flow", *FEW).refusal("different")
    flowlm("compare", runs / "flow", "demo", *FEW).refusal("tokenizers")


def test_runs_are_listed(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    answer = flowlm("runs", runs)
    assert answer.status == 0
    for said in ("flow", "FLM", "masked", "Autoregressive"):
        assert said in answer.out
    flowlm("runs", tmp_path).refusal("no run")


def test_a_frontier_turns_a_setting(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    words = ("evaluate", runs / "flow", "--num", 8, "--steps", 2, "--out", tmp_path / "out")
    flowlm(*words, "--frontier", "temperature").refusal("--judge")
    flowlm(*words, "--frontier", "gamma").refusal("temperature")
    judged = (*words, "--judge", runs / "autoregressive", "--frontier", "temperature")
    assert flowlm(*judged).status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (entry,) = report["frontier"]
    assert entry["knob"] == "temperature"
    entropies = [point["sample_entropy"] for point in entry["points"]]
    assert len(entropies) == 11
    assert entropies[-1] > entropies[0]
    assert "Quality against diversity" in (tmp_path / "out" / "report.html").read_text()


def test_figures_spread_over_seeds(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("evaluate", runs / "flow", "--num", 9, "--steps", 2, "--seed", 5, "--seeds", 3)
    assert flowlm(*words, "--out", out).status == 0
    (row,) = json.loads((out / "report.json").read_text())["rows"]
    model = library.load(runs / "flow")
    found = [
        float(MEASURES["rep_2"].compute(Written(model.sample(9, 2, seed))).mean())
        for seed in (5, 6, 7)
    ]
    assert row["rep_2"] == pytest.approx(found[0])
    assert row["spread"]["rep_2"] == pytest.approx(stdev(found))
    page = (out / "report.html").read_text()
    assert "over seeds" in page
    report = json.loads((out / "report.json").read_text())
    (levels,) = report["levels"].values()
    assert [tau for tau, _ in levels] == pytest.approx([0.05 + 0.1 * i for i in range(10)])
    assert "Held-out cross-entropy over time" in page
    flowlm("evaluate", runs / "flow", "--seeds", 0).refusal("--seeds")


def test_rows_of_a_sampler_with_a_likelihood_have_its_bound(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    for name, sampler in (("flow", ("--sampler", "bridge")), ("masked", ()), ("flow", ())):
        out = tmp_path / f"{name}{len(sampler)}"
        words = ("evaluate", runs / name, "--num", 4, "--steps", 1, 4, *sampler)
        assert flowlm(*words, "--out", out).status == 0
        rows = json.loads((out / "report.json").read_text())["rows"]
        assert [("bound" in row) for row in rows] == [name == "masked" or bool(sampler)] * 2


def test_judges_are_checked_first(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    gpt2 = write(tmp_path / "small-gpt2")
    words = ("evaluate", runs / "flow", *FEW, "--out", tmp_path / "out", "--judge")
    flowlm(*words, gpt2, "--judge", gpt2).refusal("small-gpt2", "once")
    flowlm(*words, gpt2, "--judge", "nowhere").refusal("nowhere")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "transformers", None)
        flowlm(*words, gpt2).refusal("small-gpt2", "flowlm[judge]")
    bare = Path(shutil.copytree(gpt2, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    flowlm(*words, bare).refusal("bare", "safetensors")
    assert not (tmp_path / "out").exists()
    assert flowlm(*words, gpt2, "--judge", runs / "autoregressive").status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["judge"] == "small-gpt2, published protocol"
    assert {row["steps"] for row in report["rows"]} == {1, 2}
    assert all("autoregressive" in row["judges"] for row in report["rows"])
