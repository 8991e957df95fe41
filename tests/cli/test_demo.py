"""The demo from end to end with four tiny models, each chain in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import flowlm.run.demo as demo
from flowlm.experiment import Experiment
from flowlm.nn.size import Size
from flowlm.run.forecast import Work

SIZE = Size(
    blocks=1, width=16, heads=2, condition=8, dropout=0.0, attention_cap=None, output_cap=None
)


class Here(BaseProcess):
    """A process that does its work when it is started, in this one."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], name: str) -> None:
        self.work, self.given, self.title, self.ended = target, args, name, 0

    @property
    def name(self) -> str:
        return self.title

    @property
    def exitcode(self) -> int:
        return self.ended

    def start(self) -> None:
        try:
            self.work(*self.given)
        except SystemExit as end:
            self.ended = int(end.code or 0)

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""

    def terminate(self) -> None:
        """Nothing to end."""


@pytest.fixture(autouse=True)
def given_way(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far chains gave way to others: processes of their own would, this one does not."""
    steps: list[int] = []
    monkeypatch.setattr("os.nice", steps.append)
    return steps


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(recipe: Callable[[], Experiment]) -> Callable[[], Experiment]:
        def make() -> Experiment:
            whole = recipe()
            size = replace(SIZE, positions=whole.size.positions)
            return replace(whole, size=size, train=replace(whole.train, steps=4, batch=4))

        return make

    monkeypatch.setattr(demo, "RECIPES", {k: smaller(r) for k, r in demo.RECIPES.items()})
    monkeypatch.setattr(demo, "NUM", 20)
    # How fast the machine is used is no part of the demo, and counting operations takes seconds.
    monkeypatch.setattr("flowlm.run.monitor.work", lambda *_: Work(1.0, 0.0))
    context = type("Context", (), {"Process": Here})
    monkeypatch.setattr("multiprocessing.get_context", lambda method: context)


def test_the_demo_trains_measures_and_reports(
    flowlm: Callable, tmp_path: Path, given_way: list[int]
) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    (out / "report.json").write_text("of somebody")
    answer = flowlm("demo", "--out", out)
    assert answer.status == 0
    assert answer.err.count("\n") == 1, answer.err
    assert "kept as report-1.json" in answer.err
    assert (out / "report-1.json").read_text() == "of somebody"
    assert demo.CHAINS[0] == ("flow", "flow-map"), "the longest chain"
    assert given_way == [demo.GIVE_WAY] * 2, "the two others give way to it"
    for shown in ("FMLM", "FLM", "Autoregressive", "Entropy of the language itself"):
        assert shown in answer.out
    report = json.loads((out / "report.json").read_text())
    rows = [(row["method"], row["steps"]) for row in report["rows"]]
    many = ("FMLM", "FLM", "Masked diffusion")
    expected = [(method, steps) for method in many for steps in (1, 2, 4, 8, "full")]
    perfect = [("Masked, perfect", steps) for steps in (1, 2, 4, 8)]
    assert rows == [*expected, ("Autoregressive", "full"), *perfect]
    assert len(report["curves"]) == 4
    assert "FMLM" in (out / "report.html").read_text()
    # A second time there is nothing left to train, and the answer is the same.
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("*/checkpoints/*/.metadata")}
    assert len(stamps) == 4
    again = flowlm("demo", "--out", out)
    assert (again.status, again.err) == (0, "")
    assert not list(out.glob("report-2*")), "the same demo's report is replaced"
    assert {f: f.stat().st_mtime_ns for f in out.glob("*/checkpoints/*/.metadata")} == stamps
    assert json.loads((out / "report.json").read_text())["rows"] == report["rows"]
    # Another seed would be another demo.
    refused = flowlm("demo", "--out", out, "--seed", 1)
    assert "another seed" in refused.refusal(out)
    assert {f: f.stat().st_mtime_ns for f in out.glob("*/checkpoints/*/.metadata")} == stamps


def test_a_place_that_is_a_file_is_refused(flowlm: Callable, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for out in (file, file / "below"):
        flowlm("demo", "--out", out).refusal(out)
    assert file.read_text() == "precious"
