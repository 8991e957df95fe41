"""A loss that is not a number stops the run, and nothing made of it is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stored import stored
from torch._subclasses.fake_tensor import FakeTensor

from flowlm.core import Loss
from flowlm.errors import Refusal
from flowlm.methods.flow import Flow


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Make a flow's training loss bad at one step (counted from 1) and at that one only."""

    def at(step: int, value: float) -> None:
        loss, calls = Flow.loss, []

        def spoilt(self: Flow, model: Any, batch: Any, rng: Any, teacher: Any = None) -> Loss:
            paid = loss(self, model, batch, rng, teacher)
            if not torch.is_grad_enabled() or isinstance(paid.value, FakeTensor):
                return paid  # validation, or counting operations
            calls.append(0)
            factor = value if len(calls) == step else 1.0
            return replace(paid, value=paid.value * factor)

        monkeypatch.setattr(Flow, "loss", spoilt)

    return at


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "rhythm",
    [
        {"log_every": 1, "validate_every": 99, "save_every": 2},
        {"log_every": 99, "validate_every": 99, "save_every": 2},
        {"log_every": 99, "validate_every": 1, "save_every": 2},
        {"log_every": 4, "validate_every": 2, "save_every": 2},
        {"log_every": 99, "validate_every": 3, "save_every": 5},
    ],
    ids=str,
)
def test_nothing_made_of_a_bad_loss_is_saved(
    value: float,
    rhythm: dict[str, int],
    spoil: Callable,
    experiments: Callable,
    run: Callable,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    spoil(3, value)
    with pytest.raises(Refusal) as caught:
        run(experiments("flow", **rhythm), out)
    message = str(caught.value)
    for named in ("step 3", "learning rate 0.01", "--train.lr 0.01", "--train.warmup"):
        assert named in message
    checkpoints = [path.name for path in out.glob("checkpoints/*")]
    assert checkpoints == (["step-00000002"] if rhythm["save_every"] == 2 else [])
    assert (out / "model.safetensors").exists() == bool(checkpoints)
    assert all(int(path.stem[-8:]) < 3 for path in out.glob("samples/*"))
    for line in (out / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line, parse_constant=pytest.fail)
        assert record["step"] < 3
        assert all(math.isfinite(figure) for figure in record.values())


def test_a_run_that_stopped_at_a_bad_loss_can_be_resumed(
    spoil: Callable, experiments: Callable, run: Callable, same: Callable, tmp_path: Path
) -> None:
    experiment = experiments("flow")
    run(experiment, tmp_path / "whole")
    spoil(4, math.nan)
    with pytest.raises(Refusal, match="step 4"):
        run(experiment, tmp_path / "stopped")
    run(experiment, tmp_path / "stopped", resume=True)
    last = "checkpoints/step-00000006"
    same(stored(tmp_path / "whole" / last), stored(tmp_path / "stopped" / last))


def test_an_interruption_after_a_bad_loss_saves_nothing(
    spoil: Callable, experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    import os
    import signal

    spoil(2, math.nan)
    loss, calls = Flow.loss, []

    def interrupted(*arguments: Any) -> Loss:
        calls.append(0)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flow, "loss", interrupted)
        with pytest.raises(Refusal, match="step 2"):
            run(experiments("flow", log_every=99, validate_every=99, save_every=99), tmp_path / "a")
    assert not list(tmp_path.glob("a/checkpoints/*"))
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_a_learning_rate_that_is_far_too_high_is_named(
    experiments: Callable, run: Callable, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"--train\.lr 1e\+38") as caught:
        run(experiments("flow", lr=1e38, steps=30, validate_every=99), tmp_path / "run")
    assert "try half" in str(caught.value)
