"""Ctrl-C and SIGTERM: the step is finished, all is saved, and the message says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import stored

from flowlm.cli import main

STEPS = 60
WORDS = (
    "text-masked --data.length 16 --size.blocks 1 --size.width 16 --size.heads 2 --size.condition 8"
    f" --size.dropout 0.2 --train.steps {STEPS} --train.batch 4 --train.log-every 1"
    " --train.save-every 1000 --train.validate-every 1000"
).split()


def started(text: Path, out: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, "train", *words(text, out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


# The command itself, with steps slow enough to be interrupted for certain.
SLOW = """
import sys, time
from flowlm.cli import main
from flowlm.methods.masked import Masked
loss = Masked.loss
def slow(*arguments):
    time.sleep(0.02)
    return loss(*arguments)
Masked.loss = slow
sys.exit(main(sys.argv[1:]))
"""


def words(text: Path, out: Path) -> list[str]:
    return [*WORDS, "--data.path", str(text), "--out", str(out)]


def wait_for_lines(file: Path, lines: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not file.exists() or file.read_text().count("\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no step was taken"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *words(text, out)]) == 0
    return out


@pytest.mark.parametrize(
    "number",
    # What any other signal asks for is the same (test_stopping.py).
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=lambda n: n.name,
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    number: signal.Signals,
    whole: Path,
    text: Path,
    same: Callable,
    records: Callable,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = started(text, out)
    wait_for_lines(out / "metrics.jsonl", 5, process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    (checkpoint,) = (out / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 5 <= step < STEPS
    assert said.splitlines()[-1] == (
        f"Stopped after step {step} and saved; go on with: flowlm train --resume {out}"
    )
    assert (out / "model.safetensors").exists()
    assert not list(out.rglob("*partial*"))
    assert main(["train", "--resume", str(out)]) == 0
    last = f"checkpoints/step-{STEPS:08d}"
    same(*(stored(run / last) for run in (whole, out)))
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert records(out) == records(whole)


def test_a_second_interruption_stops_at_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowlm.methods.masked import Masked

    loss, calls = Masked.loss, []

    def impatient(*arguments: object) -> object:
        calls.append(0)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(Masked, "loss", impatient)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main(["train", *words(text, tmp_path / "run")]) == 130
    said = capsys.readouterr()
    assert said.err.strip() == "flowlm: stopped."
    assert len(calls) == 3
    # The handlers of before are back.
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
