"""Signals: whichever asks a run to stop, it saves; an ignored one stays ignored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flowlm.cli import main
from flowlm.machine.stopping import SIGNALS, stoppable
from flowlm.run import training as running
from flowlm.train.checkpoint import found


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_every_signal_asks_and_ends_nothing(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as stop:
        stop.stepping = True
        send(number)
        assert stop.asked
    assert signal.getsignal(number) == before
    assert {n.name for n in SIGNALS} == {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"}


def test_a_scheduler_that_warns_and_then_ends_does_not_cut_the_save_short() -> None:
    with stoppable() as stop:
        stop.stepping = True
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)  # somebody at a keyboard, twice


def test_what_nohup_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            stop.stepping = True
            send(signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_trains_without_signals() -> None:
    went: list[bool] = []

    def train() -> None:
        with stoppable() as stop:
            went.append(stop.asked)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert went == [False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_run_that_is_stopped_while_it_begins_leaves_nothing(
    number: int,
    experiments: Callable,
    run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    networks = running.networks

    def stopped(*arguments: object) -> object:
        assert (tmp_path / "run" / "tokens").exists()
        send(number)
        return networks(*arguments)

    monkeypatch.setattr(running, "networks", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(experiments("masked"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_saves_when_its_terminal_is_closed(
    experiments: Callable, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowlm.methods.masked import Masked

    loss, calls = Masked.loss, []

    def closing(*arguments: object) -> object:
        calls.append(0)
        if len(calls) == 3:
            send(signal.SIGHUP)
        return loss(*arguments)

    monkeypatch.setattr(Masked, "loss", closing)
    small = ["--size.blocks", "1", "--size.width", "16", "--size.heads", "2", "--data.length", "16"]
    words = ["train", "text-masked", *small, "--train.steps", "9", "--train.batch", "4"]
    assert main([*words, "--data.path", str(text), "--out", str(tmp_path / "run")]) == 130
    assert [path.name for path in found(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
