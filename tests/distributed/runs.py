"""Whole runs in several processes, with mishaps."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from several import join_anew
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.checkpoint import filesystem

from flowlm.core.types import Batch
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.nn import Size
from flowlm.run import training as module
from flowlm.run.chain import resume_chain, train_chain
from flowlm.run.training import Interrupted, train_run
from flowlm.train.plan import Plan
from writing import usual

STEPS = 8
SIZE = Size(
    blocks=2, width=16, heads=2, condition=8, dropout=0.2, attention_cap=None, output_cap=None
)
PLAN = Plan(
    steps=STEPS, batch=8, lr=1e-3, warmup=2, ema=0.9, log_every=1, validate_every=4, save_every=4,
    keep=9, device="cpu", threads=1,
)  # fmt: skip


def experiment(text: Path, method: Method | None = None, **plan: Any) -> Experiment:
    data = Text(path=str(text), length=16)
    own = Masked() if method is None else method
    return Experiment("tiny", own, usual(own), data, SIZE, replace(PLAN, **plan))


def here(wanted: Experiment, out: Path, resume: bool = False) -> tuple[str, str]:
    """How a run ended in this process, and what it printed."""
    paper = io.StringIO()
    try:
        train_run(wanted, out, Console(file=paper, width=100), resume)
        end = "done"
    except (Interrupted, Refusal) as told:
        end = f"{type(told).__name__}: {told}"
    except SystemExit as stopped:
        end = f"exit {stopped.code}"
    join_anew()
    return end, paper.getvalue()


@contextmanager
def signalled(number: signal.Signals, call: int) -> Iterator[None]:
    """This process gets a signal in its `call`-th step."""
    loss, calls = Masked.loss, []

    def counting(self: Masked, model: Any, batch: Batch, *others: Any) -> Any:
        # Not when operations are counted or held-out texts are read.
        if torch.is_grad_enabled() and not isinstance(batch.tokens, FakeTensor):
            calls.append(0)
            if len(calls) == call:
                os.kill(os.getpid(), number)
        return loss(self, model, batch, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Masked, "loss", counting)
        yield


def only(rank: int) -> bool:
    return os.environ["RANK"] == str(rank)


def stopped_and_resumed(text: Path, folder: Path) -> list[tuple[str, str]]:
    """A whole run, and one that is stopped by a signal to process 1 alone and goes on."""
    wanted = experiment(text)
    whole = here(wanted, folder / "whole")
    with signalled(signal.SIGTERM, 3 if only(1) else -1):
        first = here(wanted, folder / "stopped")
    return [whole, first, here(wanted, folder / "stopped", resume=True)]


def chained(text: Path, folder: Path) -> list[str]:
    """A whole chain, and one that is stopped in its second stage by process 1 and goes on."""
    ends = []
    for name, step in (("whole", -1), ("stopped", STEPS + 3)):
        stages = (experiment(text), experiment(text, seed=1))
        with signalled(signal.SIGTERM, step if only(1) else -1):
            ends.append(_ended(lambda p: train_chain(stages, folder / name, p)))  # noqa: B023
    return [*ends, _ended(lambda paper: resume_chain(folder / "stopped", paper))]


def _ended(walk: Callable[[Console], None]) -> str:
    try:
        walk(Console(file=io.StringIO()))
        return "done"
    except (Interrupted, Refusal) as told:
        return f"{type(told).__name__}: {told}"
    finally:
        join_anew()


def resumed(text: Path, out: Path, stop: int) -> tuple[str, str]:
    """Go on with a run, until a signal to process 0 at the given step of it."""
    with signalled(signal.SIGINT, stop if only(0) else -1):
        return here(experiment(text), out, resume=True)


def mishaps(text: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """What goes wrong in one process, or in all."""
    found = {
        name: here(wanted, folder / name)
        for name, wanted in {
            "uneven": experiment(text, batch=7),
            "no group": experiment(text, shard=3),
        }.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        if only(1):
            patch.setattr(module, "open_inputs", _refusing)
        found["blind"] = here(experiment(text), folder / "blind")
    with pytest.MonkeyPatch.context() as patch:
        if only(1):
            patch.setattr(filesystem, "_write_item", _full)
        found["full"] = here(experiment(text), folder / "full")
    found["full, resumed"] = here(experiment(text), folder / "full", resume=True)
    return found


def _refusing(*_: Any) -> Any:
    raise Refusal("There is no such text on this machine.")


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")
