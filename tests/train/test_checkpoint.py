"""Checkpoints: whole or not there, checked when read, and no more than asked for."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from flowlm.core import Batch, Loss, Streams
from flowlm.errors import Refusal
from flowlm.train import Plan, State, restore, save
from flowlm.train import train as steps_of

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
        "model": dict(state.model.state_dict()),
        "average": state.average.weights,
        "optimizer": state.optimizer.state_dict(),
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_all_of_the_state_comes_back(steps: int, same: Callable, tmp_path: Path) -> None:
    saved = advance(state(), steps)
    assert save(saved, tmp_path, keep=1) == tmp_path / f"step-{steps:08d}"
    restored = state()
    advance(restored, 2)
    assert restore(restored, tmp_path) == []
    same(everything(restored), everything(saved))
    same(everything(advance(restored, 2)), everything(advance(saved, 2)))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    training = state()
    for expected in (["1"], ["1", "2"], ["2", "3"], ["3", "4"]):
        save(advance(training, 1), tmp_path, keep=2)
        assert names(tmp_path) == [f"step-{int(n):08d}" for n in expected]


def test_the_same_step_can_be_saved_again(same: Callable, tmp_path: Path) -> None:
    first = advance(state(), 2)
    save(first, tmp_path, keep=2)
    with torch.no_grad():
        first.model.get_parameter("0.weight").zero_()
    save(first, tmp_path, keep=2)
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
@pytest.mark.parametrize("broken", [(torch, "save"), (os, "replace"), (json, "dumps")])
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

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with pytest.raises(Refusal) as caught:
            save(training, tmp_path, keep=2)
    message = str(caught.value)
    assert str(tmp_path / "step-00000003") in message
    assert "\n" not in message
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    restored = state()
    assert restore(restored, tmp_path) == []
    same(everything(restored), older)


def test_any_flipped_byte_of_the_state_is_noticed(same: Callable, tmp_path: Path) -> None:
    training = advance(state(), 1)
    save(training, tmp_path, keep=2)
    older = everything(advance(state(), 1))
    newest = save(advance(training, 1), tmp_path, keep=2)
    whole = (newest / "state.pt").read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (newest / "state.pt").write_bytes(damaged)
        restored = state()
        (sentence,) = restore(restored, tmp_path)
        assert str(newest) in sentence
        same(everything(restored), older)
    (newest / "state.pt").write_bytes(whole)
    assert restore(state(), tmp_path) == []


def test_any_flipped_byte_of_the_stamp_is_survived(tmp_path: Path) -> None:
    training = advance(state(), 1)
    save(training, tmp_path, keep=2)
    newest = save(advance(training, 1), tmp_path, keep=2)
    whole = (newest / "checkpoint.json").read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            (newest / "checkpoint.json").write_bytes(damaged)
            restored = state()
            skipped = restore(restored, tmp_path)
            assert restored.step == 2 - len(skipped)


def test_what_a_killed_process_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(advance(state(), 1), tmp_path, keep=1)
    partial = tmp_path / ".partial-x" / "checkpoint"
    shutil.copytree(tmp_path / "step-00000001", partial)
    (partial / "state.pt").write_bytes(b"half")
    restored = state()
    assert restore(restored, tmp_path) == []
    assert restored.step == 1


def test_nothing_to_restore_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Refusal, match="no checkpoint"):
            restore(state(), directory)
