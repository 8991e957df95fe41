"""Trackers are told what metrics.jsonl holds, once each, and none of them can stop a training."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.run.training import Interrupted
from flowlm.train import Log
from flowlm.train.track import Track

STUB = """
import json, pathlib
HEARD = pathlib.Path(__file__).with_name("heard.jsonl")

def hear(*what):
    with HEARD.open("a") as file:
        file.write(json.dumps(what) + "\\n")

class Table:
    def __init__(self, columns, data):
        self.rows = data

class Run:
    def log(self, figures, step):
        hear("log", step, {k: getattr(v, "rows", v) for k, v in figures.items()})
        if step == FAILS_AT:
            raise RuntimeError("the network is down\\nand more")
    def finish(self):
        hear("finish")

def init(**settings):
    hear("init", settings)
    return Run()
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """A stand-in for wandb, which needs an account; returns what it heard, and may fail."""
    home = tmp_path / "site"
    home.mkdir()
    (home / "wandb.py").write_text(STUB + "FAILS_AT = -1\n")
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)

    def heard(fails_at: int | None = None) -> list:
        if fails_at is not None:
            (home / "wandb.py").write_text(STUB + f"FAILS_AT = {fails_at}\n")
        file = home / "heard.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    yield heard
    sys.modules.pop("wandb", None)


def log(directory: Path, to: str, first: int = 0, paper: io.StringIO | None = None) -> Log:
    track = Track(to, directory, {"name": "tiny"})
    console = Console(file=paper or io.StringIO(), width=100)
    return Log(directory / "metrics.jsonl", "run", first, 9, console, track)


def test_wandb_hears_every_record_once_also_after_a_resume(
    wandb: Callable[..., list], tmp_path: Path
) -> None:
    with log(tmp_path, "wandb") as one:
        for step in (1, 2, 3):
            one.record(step, loss=step / 2)
        one.samples(2, ["a text", "[another]"])
    # The checkpoint was at step 2: step 3 is taken again.
    with log(tmp_path, "wandb", first=2) as two:
        two.record(3, loss=1.5)
        two.samples(3, ["heard already"])
        two.record(4, loss=2.0)
    begun, *first, finished, again, last, _ = wandb()
    settings = begun[1]
    assert settings["project"] == "flowlm"
    assert settings["config"] == {"name": "tiny"}
    assert settings["resume"] == "allow"
    assert Path(settings["dir"]) == tmp_path
    assert again == begun, "the same run goes on"
    logs = [["log", step, {"loss": step / 2}] for step in (1, 2, 3)]
    assert first == [*logs, ["log", 2, {"samples": [["a text"], ["[another]"]]}]]
    assert (finished, last) == (["finish"], ["log", 4, {"loss": 2.0}])


def test_two_directories_are_two_runs(wandb: Callable[..., list], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with log(tmp_path / name, "wandb"):
            pass
    ids = [heard[1]["id"] for heard in wandb() if heard[0] == "init"]
    assert [name.rpartition("-")[0] for name in ids] == ["one", "two"]
    assert len(set(ids)) == 2


def test_a_tracker_that_fails_is_let_go_with_one_sentence(
    wandb: Callable[..., list], tmp_path: Path
) -> None:
    wandb(fails_at=2)
    paper = io.StringIO()
    with log(tmp_path, "wandb", paper=paper) as told:
        for step in (1, 2, 3, 4):
            told.record(step, loss=0.5)
            told.samples(step, ["text"])
    assert [heard[1] for heard in wandb() if heard[0] == "log"] == [1, 1, 2]
    sentence = (
        "wandb stopped working (the network is down): training goes on, and metrics.jsonl has "
        "everything.\n"
    )
    assert paper.getvalue() == sentence
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_tracker_that_cannot_begin_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises
    paper = io.StringIO()
    with log(tmp_path, "wandb", paper=paper) as told:
        told.record(1, loss=0.5)
    assert paper.getvalue().startswith("wandb stopped working (")
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_a_missing_package_is_refused_before_anything_is_made(
    experiments: Callable[..., Experiment],
    run: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A folder of that name in the working directory is not the package.
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(Refusal, match=r"^wandb is not installed: pip install 'flowlm\[track\]'"):
        run(experiments("flow", track="wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_back_a_run_that_was_stopped_and_resumed(
    experiments: Callable[..., Experiment],
    run: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    experiment = experiments("flow", track="tensorboard")
    stopped_after(4, monkeypatch)
    with pytest.raises(Interrupted):
        run(experiment, tmp_path / "run")
    monkeypatch.undo()
    run(experiment, tmp_path / "run", resume=True)
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for key in ("loss", "lr", "valid", "valid/tau_0.95", "share_of_peak"):
        wanted = [(r["step"], r[key]) for r in map(json.loads, lines) if key in r]
        found = [(event.step, event.value) for event in events.Scalars(key)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted], key
    samples = events.Tensors("samples/text_summary")
    assert [event.step for event in samples] == [3, 6]
    written = (tmp_path / "run" / "samples" / "step-00000006.txt").read_text()
    shown = samples[1].tensor_proto.string_val[0].decode()
    texts = shown.split("\n\n---\n\n")
    assert len(texts) == 4
    # A text may have empty lines of its own, so the file does not tell where one ends.
    assert [word for text in texts for word in text.split()] == written.split()


def test_trackio_keeps_one_run_without_gaps_or_repeats(
    experiments: Callable[..., Experiment],
    run: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    experiment = replace(experiments("masked", track="trackio"), name="tiny")
    stopped_after(5, monkeypatch)
    with pytest.raises(Interrupted):
        run(experiment, tmp_path / "run")
    run(experiment, tmp_path / "run", resume=True)
    (name,) = trackio.SQLiteStorage.get_runs("flowlm")
    assert name == (tmp_path / "run" / "track.id").read_text().strip()
    logged = trackio.SQLiteStorage.get_logs("flowlm", name)
    assert [row["step"] for row in logged if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in logged if "samples" in row] == [3, 6]


def stopped_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run is asked to stop, as by Ctrl-C, when a step is shown."""
    import signal

    shown = Log.show

    def show(self: Log, number: int, *figures: object, **others: object) -> None:
        shown(self, number, *figures, **others)
        if number == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Log, "show", show)
