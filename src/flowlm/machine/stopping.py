"""Signals that ask a run to stop: at once while it begins, after the step under way later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flowlm.train.launch import launched

SIGNALS = tuple(
    number
    for number in signal.Signals
    # A closed terminal, and what schedulers send before the end of a job, among them.
    if number.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
)


@dataclass
class Stop:
    """Requests of signals."""

    asked: bool = False
    """Whether to save and stop after the step under way."""
    stepping: bool = False
    """Whether there are steps to be finished: before, a signal raises KeyboardInterrupt."""
    impatient: bool = False
    """Whether somebody has pressed Ctrl-C: once more, and it raises KeyboardInterrupt."""


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 as requests to stop.

    A signal that is ignored stays so (nohup ignores SIGHUP), and outside of the main thread, where
    Python takes no signals, all are left alone.
    """
    stop = Stop()
    # torchrun passes on what the terminal has sent to everybody already: twice is once there.
    watched = launched().watched

    def ask(number: int, frame: object) -> None:
        if not stop.stepping or (stop.impatient and number == signal.SIGINT and not watched):
            raise KeyboardInterrupt
        stop.asked = True
        stop.impatient |= number == signal.SIGINT

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    try:
        for number in heard:
            signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
