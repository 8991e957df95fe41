"""Locks: one writer at a time, told by name, gone with its process, and no file left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowlm.errors import Refusal, reason
from flowlm.files import LOCK, holder, locked

HOLD = """
import sys, time
from pathlib import Path
from flowlm.files import locked
with locked(Path(sys.argv[1]), Path("it")):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_was_first(tmp_path: Path) -> None:
    file = tmp_path / "run" / LOCK
    first = hold(file)
    try:
        assert holder(file) == f"process {first.pid}"
        with pytest.raises(Refusal, match=rf"it is being written by process {first.pid}: .*\.$"):
            locked(file, Path("it")).__enter__()
    finally:
        first.kill()
        first.wait()
    assert holder(file) is None  # the file of a killed process locks nothing
    with locked(file, Path("it")):
        assert holder(file) == f"process {os.getpid()}"


def test_a_lock_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / LOCK, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / LOCK, tmp_path):
        (tmp_path / "a" / "kept").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["a", "kept"]
    assert holder(tmp_path / "a" / LOCK) is None


def test_a_stopped_process_holds_its_lock(tmp_path: Path) -> None:
    """It may go on writing at any time."""
    first = hold(tmp_path / LOCK)
    first.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Refusal, match=str(first.pid)):
            locked(tmp_path / LOCK, tmp_path).__enter__()
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("No space left on device."), "No space left on device"),
        (ValueError("\n  First. Second!\nThird."), "First; Second"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_an_error_says_is_a_part_of_a_sentence(error: Exception, said: str) -> None:
    assert reason(error) == said
