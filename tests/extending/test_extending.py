"""What docs/extending.md adds is one file each, and works without a change to the package."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import flowlm
from flowlm.cli import main
from flowlm.errors import Refusal
from flowlm.evaluate.measures import MEASURES
from flowlm.evaluate.report import checked
from flowlm.experiment import DATA, METHODS, RULES, SAMPLERS, Experiment, Text, read_experiment
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.method import Method
from flowlm.model.card import model_card
from flowlm.nn import Size
from flowlm.recipes import RECIPES
from flowlm.sampling import Euler, Heun, Sampler
from flowlm.train import Plan

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
TABLES: tuple[dict[str, Any], ...] = (DATA, METHODS, RULES, SAMPLERS, MEASURES, RECIPES)
SIZE = Size(blocks=2, width=32, heads=2, condition=16, dropout=0.0)
PLAN = Plan(steps=20, batch=8, warmup=2, log_every=10, validate_every=20, save_every=20)
TEXT = "the small cat sat on the old mat and saw a bird\n" * 60


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a file of the page; what it names in a table is forgotten after the test."""
    tables = [(table, dict(table)) for table in TABLES]
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield lambda name: importlib.import_module(name)
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)
    for table, before in tables:
        table.clear()
        table.update(before)


def trained(name: str, method: Method, sampler: Sampler, *words: str) -> flowlm.LanguageModel:
    """By the command line, as a recipe; then loaded from its run."""
    RECIPES[name] = lambda: Experiment(name, method, sampler, Text(length=16), SIZE, PLAN)
    assert main(["train", name, "--data.path", "text.txt", *words]) == 0
    model = flowlm.load(f"runs/{name}")
    assert model.experiment.method == method
    return model


def evaluated(run: str, *words: str) -> list[dict]:
    assert main(["evaluate", run, "--steps", "1", "4", "--num", "8", *words]) == 0
    return json.loads(Path(run, "report.json").read_text())["rows"]


def test_every_example_is_a_short_file() -> None:
    assert set(FILES) >= {
        "uniform.py",
        "two_steps.py",
        "midpoint.py",
        "doubled.py",
        "sqlite_corpus.py",
        "palindromes.py",
    }
    assert {name: code.count("\n") for name, code in FILES.items() if code.count("\n") > 60} == {}


def test_a_method(own: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    example = own("uniform")
    model = trained("uniform", example.UniformNoise(), example.Redraw())
    prompt = torch.full((3, 16), -1)
    prompt[:, 0] = 2
    tokens = model.sample(3, 4, prompt=prompt)
    assert (tokens[:, 0] == 2).all()
    assert torch.equal(model.sample(5, 4)[:2], model.sample(2, 4))
    assert not torch.equal(model.sample(5, 4), model.sample(5, 4, seed=1))
    assert len(model.generate(2, 4)) == 2
    rows = evaluated("runs/uniform")
    assert [row["method"] for row in rows] == ["Uniform diffusion"] * 2
    assert "Uniform diffusion" in capsys.readouterr().out
    card = model_card(model.experiment, 1, model.network.vocab, 16, "me/mine", None)
    assert "A discrete diffusion with uniform noise, trained by cross-entropy." in card
    model.save("export")
    assert torch.equal(flowlm.load("export").sample(2, 4), model.sample(2, 4))
    del METHODS["UniformNoise"]
    with pytest.raises(Refusal, match="no method of the kind 'UniformNoise'"):
        read_experiment("runs/uniform")


def test_a_rule_and_a_recipe(own: Callable) -> None:
    own("recipe")
    trained("teacher", Flow(), Euler())
    words = ["--method.teacher", "runs/teacher", "--data.path", "text.txt"]
    assert main(["train", "two-step-map", *words]) == 0
    model = flowlm.load("runs/two-step-map")
    assert type(model.experiment.method.rule) is RULES["TwoSteps"]
    records = map(json.loads, Path("runs/two-step-map/metrics.jsonl").read_text().splitlines())
    assert all(record["jump"] > 0 for record in records if "loss" in record)
    assert len(model.generate(3, steps=1)) == 3
    assert [row["method"] for row in evaluated("runs/two-step-map")] == ["FMLM"] * 2


def test_a_rule_without_a_teacher_learns_from_itself(own: Callable) -> None:
    rule = own("two_steps").TwoSteps()
    assert trained("alone", FlowMap(rule=rule), Euler()).sample(2, 3).shape == (2, 16)


def test_a_sampler(own: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    way = own("midpoint").Midpoint()
    model = trained("flow", Flow(), Euler())
    assert torch.equal(model.sample(4, 6, sampler=way)[:2], model.sample(2, 6, sampler=way))
    capsys.readouterr()
    assert main(["sample", "runs/flow", "--steps", "4", "--sampler", "midpoint"]) == 0
    assert "4 steps, 7 evaluations" in capsys.readouterr().err
    rows = evaluated("runs/flow", "--sampler", "midpoint")
    assert [row["evaluations"] for row in rows] == [1, 7]


def test_the_sampler_of_the_page_is_of_second_order(own: Callable) -> None:
    """Ever more steps of it lead where Heun's do, and a hundred times closer than Euler's."""
    way = own("midpoint").Midpoint()
    model = trained("flow", Flow(), Euler())

    def end(sampler: Sampler, steps: int) -> torch.Tensor:
        *_, last = model.film(4, steps, sampler=sampler)
        return last.x

    # The last frame of n steps is at tau = 1 - 1/n.
    truth = end(Heun(), 32)
    off = {s: float((end(s, 32) - truth).abs().mean()) for s in (way, Euler())}
    assert off[way] < off[Euler()] / 5


def test_a_task(own: Callable) -> None:
    task = own("palindromes").Palindromes()
    RECIPES["mirrored"] = lambda: Experiment("mirrored", Flow(), Euler(), task, SIZE, PLAN)
    assert main(["train", "mirrored"]) == 0
    model = flowlm.load("runs/mirrored")
    assert model.experiment.data == task
    rows = evaluated("runs/mirrored")
    for row, steps in zip(rows, (1, 4), strict=True):
        texts = [text.split() for text in model.generate(8, steps)]
        assert row["valid"] == sum(text == text[::-1] for text in texts) / 8
        assert row["coverage"] == len({" ".join(t) for t in texts if t == t[::-1]}) / 64
    report = json.loads(Path("runs/mirrored/report.json").read_text())
    assert report["reference"]["method"] == "All palindromes"
    assert report["controls"][0]["valid"] == pytest.approx(1 / 64)
    del DATA["Palindromes"]
    with pytest.raises(Refusal, match="no data of the kind 'Palindromes'"):
        read_experiment("runs/mirrored")


def test_a_measure(own: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained("flow", Flow(), Euler())
    own("doubled")
    capsys.readouterr()
    rows = evaluated("runs/flow")
    for row, steps in zip(rows, (1, 4), strict=True):
        tokens = model.sample(8, steps)
        pairs = [a == b for text in tokens.tolist() for a, b in itertools.pairwise(text)]
        assert row["doubled"] == pytest.approx(sum(pairs) / len(pairs))
        low, high = row["intervals"]["doubled"]
        assert low <= row["doubled"] <= high
    shown = MEASURES["doubled"].plain(rows[0]["doubled"])
    assert "Doubled" in (told := capsys.readouterr().out)
    assert shown in told
    page = Path("runs/flow/report.html").read_text()
    for said in ("Doubled", MEASURES["doubled"].definition, "Tokens that stand twice in a row."):
        assert said in page
    report = json.loads(Path("runs/flow/report.json").read_text())
    card = model_card(model.experiment, 1, model.network.vocab, 16, "me/mine", report)
    assert "Doubled (share)" in card
    assert f" {shown} |" in card
    del MEASURES["doubled"]
    with pytest.raises(Refusal, match="no place for doubled"):
        checked(report)


def test_a_corpus(own: Callable) -> None:
    with sqlite3.connect("base.db") as base:
        base.execute("create table letters (body text)")
        base.executemany("insert into letters values (?)", [(line,) for line in TEXT.splitlines()])
    prepared = own("sqlite_corpus").prepare_table("base.db", "letters", "body", "tokens")
    whole = prepared.tokenizer.decode(prepared.train[:40].tolist())
    assert whole.startswith("the small cat sat on the old mat")
    RECIPES["here"] = lambda: Experiment("here", Flow(), Euler(), Text(length=16), SIZE, PLAN)
    assert main(["train", "here", "--data.path", "tokens"]) == 0
