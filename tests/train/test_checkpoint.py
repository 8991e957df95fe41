"""Checkpoints: whole or not there, checked when read, and no more than asked for."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import filesystem

from flowlm.core import Batch, Loss, Streams
from flowlm.errors import Refusal, reason
from flowlm.train import Checkpoints, Plan, State
from flowlm.train import train as steps_of
from flowlm.train.checkpoint import clear_partial, found

PLAN = Plan(steps=9, batch=2, lr=0.1, warmup=1, ema=0.5)


def loss(model: nn.Module, batch: Batch, rng: Streams) -> Loss:
    return Loss(model(rng.normal(4, 3)).square().sum(-1), batch.weight)


def state() -> State:
    torch.manual_seed(0)
    return State(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3)), PLAN)


def advance(state: State, steps: int) -> State:
    loop = steps_of(
        state, loss, lambda step: Batch(torch.zeros(2, 4).long(), torch.ones(2, 4)), PLAN
    )
    for _ in range(steps):
        next(loop)
    return state


def everything(state: State) -> dict[str, object]:
    return {
        "step": state.step,
        "model": {name: weight.clone() for name, weight in state.model.state_dict().items()},
        "average": {name: weight.clone() for name, weight in state.average.weights.items()},
        "optimizer": copy.deepcopy(state.optimizer.state_dict()["state"]),
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def save(state: State, directory: Path, keep: int = 9, valid: float | None = None) -> Path:
    with Checkpoints(directory, keep) as checkpoints:
        checkpoints.save(state, valid)
    return directory / f"step-{state.step:08d}"


def restore(state: State, directory: Path) -> list[str]:
    return Checkpoints(directory, keep=1).restore(state)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_all_of_the_state_comes_back(steps: int, same: Callable, tmp_path: Path) -> None:
    saved = advance(state(), steps)
    save(saved, tmp_path)
    assert names(tmp_path) == [f"step-{steps:08d}"]
    restored = state()
    advance(restored, 2)
    assert restore(restored, tmp_path) == []
    if steps:  # before the first step AdamW has no moments, and after loading it has zeros
        same(everything(restored), everything(saved))
    same(everything(advance(restored, 2)), everything(advance(saved, 2)))


def test_what_is_written_is_the_state_of_when_it_was_asked_for(
    same: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is held up while training goes on."""
    go, write = threading.Event(), filesystem._write_item

    def slow(*arguments: object, **options: object) -> object:
        assert go.wait(30)
        return write(*arguments, **options)

    monkeypatch.setattr(filesystem, "_write_item", slow)
    training = advance(state(), 2)
    wanted = everything(training)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(training)
        advance(training, 2)
        assert names(tmp_path) == [".partial-step-00000002"]
        go.set()
    restored = state()
    restore(restored, tmp_path)
    same(everything(restored), wanted)


def test_what_follows_a_save_sees_it_complete(tmp_path: Path) -> None:
    seen = []
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for _ in range(3):
            training = advance(state(), 1 + len(seen))
            checkpoints.save(training, then=lambda: seen.append(names(tmp_path)))
            checkpoints.finish()
    assert [listing[-1] for listing in seen] == [f"step-{n:08d}" for n in (1, 2, 3)]


def test_a_save_that_is_under_way_is_finished_when_training_breaks_off(tmp_path: Path) -> None:
    def broken_off() -> None:
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            checkpoints.save(advance(state(), 1))
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    assert names(tmp_path) == ["step-00000001"]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    training = state()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for expected in (["1"], ["1", "2"], ["2", "3"], ["3", "4"]):
            checkpoints.save(advance(training, 1))
            checkpoints.finish()
            assert names(tmp_path) == [f"step-{int(n):08d}" for n in expected]


def test_the_best_is_kept_besides(tmp_path: Path) -> None:
    training = state()
    losses = [None, 3.0, 2.0, math.nan, 2.5, None, 1.5, 9.0]
    kept = ["1", "12", "23", "34", "345", "356", "67", "78"]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for loss, expected in zip(losses, kept):
            checkpoints.save(advance(training, 1), loss)
            checkpoints.finish()
            assert names(tmp_path) == [f"step-{int(n):08d}" for n in expected]
    # Another process knows which one it was.
    save(advance(training, 1), tmp_path, keep=1)
    assert names(tmp_path) == ["step-00000007", "step-00000009"]


def test_a_step_is_saved_once_and_replaced_by_another_process(
    same: Callable, tmp_path: Path
) -> None:
    first = advance(state(), 2)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(first)
        checkpoints.finish()
        written = (tmp_path / "step-00000002").stat().st_ino
        checkpoints.save(first)
        checkpoints.finish()
        assert (tmp_path / "step-00000002").stat().st_ino == written
    with torch.no_grad():
        first.model.get_parameter("0.weight").zero_()
    save(first, tmp_path)
    restored = state()
    restore(restored, tmp_path)
    same(everything(restored), everything(first))
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0\nmore"),
    ],
)
@pytest.mark.parametrize(
    "broken", [(filesystem, "_write_item"), (os, "replace"), (json, "dumps"), (os, "fsync")]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_others(
    broken: tuple[object, str],
    error: Exception,
    same: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = state()
    for _ in range(2):
        save(advance(training, 1), tmp_path, keep=2)
    older = everything(advance(state(), 2))
    advance(training, 1)

    def fail(*_: object, **__: object) -> None:
        raise error

    checkpoints = Checkpoints(tmp_path, keep=2)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        checkpoints.save(training, then=pytest.fail)
        end = time.monotonic() + 30
        while not checkpoints.failed:
            assert time.monotonic() < end
            time.sleep(0.001)
        with pytest.raises(Refusal) as caught:
            checkpoints.finish()
    message = str(caught.value)
    assert str(tmp_path / "step-00000003") in message
    assert reason(error) in message
    assert "\n" not in message
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    restored = state()
    assert restore(restored, tmp_path) == []
    same(everything(restored), older)


def test_a_failure_comes_up_at_the_end_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no more")))
    with pytest.raises(Refusal, match="no more"), Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(advance(state(), 1))


def test_any_flipped_byte_is_noticed(same: Callable, tmp_path: Path) -> None:
    training = advance(state(), 1)
    save(training, tmp_path)
    older = everything(training)
    newest = save(advance(training, 1), tmp_path)
    for file in (newest / "__0_0.distcp", newest / ".metadata"):
        whole = file.read_bytes()
        for place in range(0, len(whole), len(whole) // 20):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            file.write_bytes(damaged)
            restored = state()
            (sentence,) = restore(restored, tmp_path)
            assert str(newest) in sentence
            assert "checksum" in sentence
            same(everything(restored), older)
        file.write_bytes(whole)
    assert restore(state(), tmp_path) == []


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "checkpoint.json"])
@pytest.mark.parametrize("left", [None, 0, 0.5])
def test_a_checkpoint_that_was_cut_short_is_skipped(
    file: str, left: float | None, same: Callable, tmp_path: Path
) -> None:
    training = advance(state(), 1)
    save(training, tmp_path)
    older = everything(training)
    cut = save(advance(training, 1), tmp_path) / file
    if left is None:
        cut.unlink()
    else:
        os.truncate(cut, int(cut.stat().st_size * left))
    restored = state()
    (sentence,) = restore(restored, tmp_path)
    assert str(cut.parent) in sentence
    same(everything(restored), older)


def test_any_flipped_byte_of_the_stamp_is_survived(tmp_path: Path) -> None:
    training = advance(state(), 1)
    save(training, tmp_path)
    newest = save(advance(training, 1), tmp_path)
    whole = (newest / "checkpoint.json").read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= (1, 32)[place % 2]
        (newest / "checkpoint.json").write_bytes(damaged)
        restored = state()
        skipped = restore(restored, tmp_path)
        assert restored.step == 2 - len(skipped)


def test_what_a_killed_process_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(advance(state(), 1), tmp_path)
    partial = tmp_path / ".partial-step-00000002"
    shutil.copytree(tmp_path / "step-00000001", partial)
    (partial / "__0_0.distcp").write_bytes(b"half")
    restored = state()
    assert restore(restored, tmp_path) == []
    assert restored.step == 1
    clear_partial(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_another_network_is_refused(width: int, layers: int, tmp_path: Path) -> None:
    save(advance(state(), 1), tmp_path)
    other = State(
        nn.Sequential(nn.Linear(3, width), *(nn.Linear(width, 3), nn.Linear(3, 3))[: layers - 1]),
        PLAN,
    )
    if (width, layers) == (5, 2):
        assert restore(other, tmp_path) == []
        return
    with pytest.raises(Refusal, match="another network"):
        restore(other, tmp_path)


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "step-00000004").mkdir()
    (tmp_path / "step-00000004" / "state.pt").touch()
    with pytest.raises(Refusal, match="step-00000004 was written by an earlier version of flowlm"):
        restore(state(), tmp_path)


def test_nothing_to_restore_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Refusal, match="no checkpoint"):
            restore(state(), directory)


@pytest.mark.parametrize("keep", [1, 2])
def test_only_numbered_directories_are_checkpoints(
    keep: int, same: Callable, tmp_path: Path
) -> None:
    """Notes, copies and links of somebody else's are neither read, counted nor removed."""
    training = state()
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    save(advance(state(), 7), elsewhere, keep=1)
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-99999999").write_text("a file")
    shutil.copytree(elsewhere / "step-00000007", tmp_path / "step-best")
    shutil.copytree(elsewhere / "step-00000007", tmp_path / "step-00000010-mine")
    shutil.copytree(elsewhere / "step-00000007", tmp_path / ".partial-mine")
    (tmp_path / "step-00000012").symlink_to(elsewhere / "step-00000007")
    (tmp_path / ".partial-step-00000012").symlink_to(elsewhere / "step-00000007")
    (tmp_path / "latest").symlink_to("nowhere")
    strangers = set(names(tmp_path))
    for _ in range(3):
        save(advance(training, 1), tmp_path, keep=keep)
    ours = [f"step-{step:08d}" for step in range(4 - keep, 4)]
    assert [path.name for path in found(tmp_path)] == ours
    clear_partial(tmp_path)
    assert set(names(tmp_path)) == strangers | set(ours)
    restored = state()
    assert restore(restored, tmp_path) == []
    same(everything(restored), everything(training))


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    for number in ("99999999", "100000000", "00000005"):
        (tmp_path / f"step-{number}").mkdir()
    numbers = [path.name.removeprefix("step-") for path in found(tmp_path)]
    assert numbers == ["00000005", "99999999", "100000000"]


def test_what_stands_in_the_place_of_a_checkpoint_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").write_text("precious")
    with pytest.raises(Refusal, match="step-00000001 is not a checkpoint"):
        save(advance(state(), 1), tmp_path, keep=1)
    assert (tmp_path / "step-00000001").read_text() == "precious"
