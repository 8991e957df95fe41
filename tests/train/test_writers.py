"""One process writes a run: a second one is told who the first is, and harms nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowlm.errors import Refusal
from flowlm.files import LOCK, locked
from flowlm.run import demo
from flowlm.run import training as running


def contents(directory: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in directory.rglob("*") if f.is_file() and f.name != LOCK}


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Do something when a run comes to one of its functions."""

    def arrange(name: str, act: Callable[[], None]) -> None:
        real = getattr(running, name)

        def acting(*arguments: object) -> object:
            monkeypatch.setattr(running, name, real)
            act()
            return real(*arguments)

        monkeypatch.setattr(running, name, acting)

    return arrange


@pytest.mark.parametrize("moment", ["_open_together", "networks", "_steps"])
@pytest.mark.parametrize("again", [False, True], ids=["begun", "resumed"])
def test_a_second_run_into_one_directory_is_refused(
    moment: str,
    again: bool,
    meanwhile: Callable,
    experiments: Callable,
    run: Callable,
    tmp_path: Path,
) -> None:
    out, alone = tmp_path / "run", tmp_path / "alone"
    first, other = experiments("masked"), experiments("autoregressive", seed=3)
    if again:
        for place in (out, alone):
            run(experiments("masked", steps=4), place)
    seen = []

    def second() -> None:
        before = contents(out)
        for resume in (False, True):
            with pytest.raises(Refusal, match=rf"{out} is being written by process {os.getpid()}"):
                run(other, out, resume)
        assert contents(out) == before
        seen.append(moment)

    meanwhile(moment, second)
    run(first, out, resume=again)
    assert seen == [moment]
    run(first, alone, resume=again)
    weights = [(place / "model.safetensors").read_bytes() for place in (out, alone)]
    assert weights[0] == weights[1]
    assert not (out / LOCK).exists()


def test_a_teacher_that_is_being_trained_teaches_nobody(
    teacher: Path, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    with (
        locked(teacher / LOCK, teacher),
        pytest.raises(Refusal, match=rf"{teacher} is still being trained, by process"),
    ):
        run(experiments("flow map with a teacher"), tmp_path / "map")
    assert list(tmp_path.iterdir()) == []


def test_a_second_demo_in_one_place_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / LOCK, tmp_path), pytest.raises(Refusal, match=str(os.getpid())):
        next(demo.train_demo(tmp_path, seed=0))
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_checkpoints_is_not_written_over(
    teacher: Path, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    from flowlm import load

    load(teacher).save(tmp_path / "export")
    before = contents(tmp_path)
    with pytest.raises(Refusal, match="export holds a model"):
        run(experiments("masked"), tmp_path / "export")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_workers_that_outlive_torchrun_keep_a_resume_out(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = ["--size.blocks", "1", "--size.width", "16", "--size.heads", "2", "--train.batch", "4"]
    long = ["--train.steps", "1000000", "--train.log-every", "1", "--train.save-every", "2"]
    words = ["train", "text-masked", *small, *long, "--data.length", "16", "--train.device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    process = subprocess.Popen(
        [*launch, "2", "-m", "flowlm", *words, "--data.path", str(text), "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    workers: list[int] = []
    try:
        end = time.monotonic() + 120
        while not list(out.glob("checkpoints/step-*")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        workers = children(process.pid)
        process.kill()
        process.wait()
        done = subprocess.run(
            [sys.executable, "-m", "flowlm", "train", "--resume", str(out)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2
        assert len(workers) == 2
        held = [f"{out} is being written by process {worker}:" in done.stderr for worker in workers]
        assert held.count(True) == 1, done.stderr
    finally:
        process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def children(process: int) -> list[int]:
    told = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=True)
    return [int(line) for line in told.stdout.split()]
