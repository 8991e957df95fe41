"""The disk fills up at any moment of a run: a sentence, nothing half-written, nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import flowlm.model.weights

STATE = "__0_0.distcp"
"""What the first process writes into a checkpoint."""

FULL = OSError(errno.ENOSPC, "No space left on device")
WRITERS = {
    # Where to put the broken function, its name, and what it raises on a full disk.
    "os.replace": (os, "replace", FULL),
    "write_text": (Path, "write_text", FULL),
    "mkdir": (Path, "mkdir", FULL),
    "torch.save": (torch, "save", FULL),
    "torch.save as torch": (torch, "save", RuntimeError("[enforce fail] . unexpected pos 5 vs 3")),
    "save_file": (flowlm.model.weights, "save_file", FULL),
    "save_file as safetensors": (
        flowlm.model.weights,
        "save_file",
        SafetensorError("I/O error (error 28)"),
    ),
}
CALLS = {"torch.save": 2, "torch.save as torch": 2, "save_file": 2, "save_file as safetensors": 2}


class Failing:
    """A function whose call number `bad` raises."""

    def __init__(self, real: Callable[..., Any], bad: int, error: Exception) -> None:
        self.real, self.bad, self.error, self.calls = real, bad, error, 0

    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., Any]:
        return self if instance is None else lambda *a, **k: self(instance, *a, **k)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls - 1 == self.bad:
            raise self.error
        return self.real(*arguments, **options)


def started(train: Callable, writer: str, bad: int, out: Path) -> tuple[Any, Failing]:
    """A run in which one call fails, and the function that failed."""
    place, name, error = WRITERS[writer]
    with pytest.MonkeyPatch.context() as patch:
        failing = Failing(getattr(place, name), bad, error)
        patch.setattr(place, name, failing)
        return train("text-flow", out), failing


@pytest.mark.parametrize("places", [4, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("writer", WRITERS)
def test_whichever_write_fails_nothing_is_lost(
    writer: str, places: int, train: Callable, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    _, counted = started(train, writer, -1, tmp_path / "counted")
    assert counted.calls >= CALLS.get(writer, 4)
    whole = (runs / "flow" / "model.safetensors").read_bytes()
    lost = []
    # Every tensor of a checkpoint is a call of torch.save: some of them will do.
    for bad in range(0, counted.calls, max(1, counted.calls // places)):
        home = tmp_path / str(bad)
        home.mkdir()
        out = home / "run"
        try:
            answer, _ = started(train, writer, bad, out)
            answer.refusal()
            partial = [file.name for file in home.rglob("*partial*")]
            assert not partial, f"left behind: {partial}"
            if any(out.glob("checkpoints/step-*")):
                again = flowlm("train", "--resume", out)
            else:
                again = train("text-flow", out)
            assert again.status == 0, again.err
            assert (out / "model.safetensors").read_bytes() == whole, "other weights at the end"
        except (Exception, AssertionError) as problem:
            lost.append(f"call {bad}: {type(problem).__name__}: {problem}".splitlines()[0])
    assert not lost, "\n".join(lost)


@pytest.fixture
def nearly_full() -> Iterator[Callable[[int], None]]:
    """Refuse, as the kernel does, to let any file grow beyond a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [100, 5_000, 20_000, 60_000, 150_000])
def test_files_that_cannot_grow_leave_older_ones_whole(
    size: int,
    nearly_full: Callable[[int], None],
    train: Callable,
    flowlm: Callable,
    flow_run: Path,
    tmp_path: Path,
) -> None:
    before = {f: f.read_bytes() for f in flow_run.rglob("*") if f.is_file()}
    largest = max(len(data) for data in before.values())
    assert size < largest, "the limit is not reached"
    out = tmp_path / "out"
    nearly_full(size)
    answer = train("text-flow", out)
    nearly_full(resource.RLIM_INFINITY)
    answer.refusal(out)
    assert not list(tmp_path.rglob("*partial*"))
    for checkpoint in out.glob("checkpoints/step-*"):
        there = flow_run / checkpoint.relative_to(out)
        assert (there / STATE).read_bytes() == (checkpoint / STATE).read_bytes()


def test_a_full_disk_at_a_later_checkpoint_keeps_the_earlier(
    train: Callable, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _, counted = started(train, "torch.save as torch", -1, tmp_path / "counted")
    answer, _ = started(train, "torch.save as torch", counted.calls // 2, out)
    answer.refusal(out / "checkpoints" / "step-00000004", "space", "intact")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    resumed = flowlm("train", "--resume", out)
    assert resumed.status == 0
    assert "Skipped" not in resumed.out
    same = (runs / "flow" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == same


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    flowlm: Callable, flow_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", flow_run, "--num", 2, "--steps", 1]
    assert flowlm(*words).status == 0
    before = {f: f.read_bytes() for f in flow_run.rglob("*") if f.is_file()}
    monkeypatch.setattr(os, "replace", Failing(os.replace, 0, FULL))
    flowlm(*words).refusal(flow_run)
    assert {f: f.read_bytes() for f in flow_run.rglob("*") if f.is_file()} == before
