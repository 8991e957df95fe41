"""Surroundings that are full, closed, stale or of another encoding: one sentence, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowlm.cli import PATIENCE, leads, output
from flowlm.cli.unforeseen import unforeseen
from flowlm.errors import Refusal
from flowlm.train.launch import ALONE, Launch, launched

FULL = Path("/dev/full")
TORCHRUN = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command, in which $F is the command line of flowlm."""
    environ = {**os.environ, **environment, "F": f"{sys.executable} -m flowlm"}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environ, timeout=60
    )


# --- output -------------------------------------------------------------------------------------


@needs_full
@pytest.mark.parametrize("words", ["", "--version", "recipes", "train text-flow --help"])
def test_a_full_disk_under_the_output_is_said(words: str) -> None:
    done = shell(f"$F {words} > {FULL}")
    assert done.returncode == 2
    assert done.stderr == (
        "flowlm: The output could not be written (No space left on device): free some space, or "
        "send it elsewhere.\n"
    )


@needs_full
def test_a_full_output_is_not_taken_for_a_file_that_is_being_written() -> None:
    """What writes files turns an OSError into a Refusal that names the file."""
    with FULL.open("wb", buffering=0) as full:
        written = output.Output(full.fileno(), "wb", closefd=False)
        with pytest.raises(Refusal, match="The output could not be written"):
            written.write(b"words")


@needs_full
def test_where_nothing_can_be_said_the_status_says_it() -> None:
    assert shell(f"$F nonsense 2> {FULL}").returncode == 2
    assert shell("$F nonsense 2>&-").returncode == 2


def test_a_closed_output_is_no_file_of_ours(tmp_path: Path) -> None:
    """Number 1 is free then, and the next file that is opened would take it."""
    code = (
        "import sys\n"
        "from flowlm.cli import main\n"
        "assert main(['recipes']) == 0\n"
        "assert open(sys.argv[1], 'w').fileno() > 2\n"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" "$2" >&-', sys.executable, code, str(tmp_path / "file")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "ascii:strict"])
def test_what_an_encoding_cannot_say_is_spelt(encoding: str) -> None:
    code = (
        "import sys\n"
        "from flowlm.cli import output\n"
        "output.open_all()\n"
        "print('\\u4e2d \\ud800')\n"
        "from rich.console import Console\n"
        "Console().print('\\u4e2d')\n"
        "Console().rule('\\u4e2d')\n"
    )
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    said, printed, rule = done.stdout.decode("ascii").splitlines()
    assert (said, printed) == (r"\u4e2d \ud800", r"\u4e2d")
    assert "- \\u4e2d -" in rule


def test_a_word_beyond_reason_is_shown_by_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"begin {'a' * 2500}{'b' * 2500} end")
    assert capsys.readouterr().err == f"begin {'a' * 80}...{'b' * 80} end\n"


# --- processes ----------------------------------------------------------------------------------


def without(*names: str, **others: str) -> dict[str, str]:
    return {k: v for k, v in (TORCHRUN | others).items() if k not in names}


def test_torchrun_places_a_process() -> None:
    assert launched(TORCHRUN) == Launch(1, 2, 1, 2, True)
    assert launched(without("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE")) == Launch(1, 2, 1, 1, False)


@pytest.mark.parametrize(
    "environ", [{}, {"RANK": "1"}, {"RANK": "x"}, without(WORLD_SIZE="1"), {"MASTER_PORT": "x"}]
)
def test_one_process_is_alone_whatever_is_left_over(environ: dict[str, str]) -> None:
    assert launched(environ) == ALONE


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WORLD_SIZE": "8"}, "MASTER_ADDR"),
        (without("RANK"), "RANK"),
        (without("MASTER_PORT"), "MASTER_PORT"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many"),
        (without(WORLD_SIZE="-2"), "WORLD_SIZE=-2"),
        (without(WORLD_SIZE="0"), "WORLD_SIZE=0"),
        (without(RANK="2"), "RANK=2"),
        (without(RANK="-1"), "RANK=-1"),
        (without(LOCAL_RANK="first"), "LOCAL_RANK=first"),
        (without(LOCAL_WORLD_SIZE=""), "LOCAL_WORLD_SIZE="),
        (without(MASTER_PORT="99999"), "MASTER_PORT=99999"),
        (without(MASTER_PORT="http"), "MASTER_PORT=http"),
    ],
)
def test_what_another_program_left_behind_is_refused(environ: dict[str, str], named: str) -> None:
    with pytest.raises(Refusal, match=named) as refused:
        launched(environ)
    assert "torchrun" in str(refused.value)


def test_only_processes_of_a_torchrun_of_several_are_quiet(
    flowlm: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert not leads()
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert (flowlm("nonsense").status, flowlm("nonsense").err) == (2, "")
    assert waited == [PATIENCE] * 2, "process 0 might have been ended before it said why"
    for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name)
        assert leads()
        flowlm("nonsense").refusal("nonsense")
    monkeypatch.setenv("WORLD_SIZE", "8")
    flowlm("train", "demo-masked", "--train.steps", 1).refusal("WORLD_SIZE=8")


def test_a_port_that_is_taken_is_said(
    flowlm: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = without("TORCHELASTIC_RUN_ID", RANK="0", LOCAL_RANK="0", MASTER_PORT=port)
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        answer = flowlm("train", "demo-masked", "--train.steps", 1, "--out", tmp_path / "run")
    waiting, sentence = answer.err.splitlines()
    assert waiting.startswith(f"flowlm: Waiting for 2 processes at 127.0.0.1:{port}")
    assert f"could not meet at 127.0.0.1:{port}" in sentence
    assert (answer.status, sentence.count(". ")) == (2, 0)
    assert not list(tmp_path.iterdir())


# --- files and memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "sample {place}",
        "evaluate {place}",
        "convert {place} {out}",
        "publish {place} me/model",
        "train --resume {place}",
        "train text-flow --data.path {place} --out {out}",
        "train text-flow --train.steps 1 --data.path {text} --out {place}",
        "prepare {place} --out {out}",
        "prepare {text} --out {place}",
        "demo --out {place}",
        "sample demo --tokenizer {place}",
    ],
)
@pytest.mark.parametrize("what", ["a long name", "a long path", "below a file"])
def test_no_name_is_a_traceback(
    words: str, what: str, flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    place = {
        "a long name": "n" * 5000,
        "a long path": "/".join(["n" * 200] * 30),
        "below a file": f"{corpus}/below",
    }[what]
    filled = words.format(place=place, out=tmp_path / "out", text=corpus)
    sentence = flowlm(*filled.split()).refusal()
    assert len(sentence) < 7000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (PermissionError(13, "Permission denied", "secret"), "secret"),
        (IsADirectoryError(21, "Is a directory", "folder"), "folder"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UTF-8"),
        (UnicodeEncodeError("ascii", "\u4e2d", 0, 1, "ordinal not in range"), "UTF-8"),
        (ValueError("embedded null byte"), "NUL"),
        (RecursionError("maximum recursion depth exceeded"), "nested"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. More"), "--num"),
    ],
)
def test_what_lies_around_the_program_is_a_sentence(error: Exception, named: str) -> None:
    sentence = unforeseen(error)
    assert sentence is not None
    assert named in sentence
    assert sentence.endswith(".")
    assert ". " not in sentence


@pytest.mark.parametrize(
    "error", [ValueError("no"), TypeError("no"), RuntimeError("no"), KeyError("x"), IndexError()]
)
def test_a_fault_of_the_program_keeps_its_traceback(
    error: Exception, flowlm: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> int:
        raise error

    monkeypatch.setattr("flowlm.cli.commands.recipes", fails)
    with pytest.raises(type(error)):
        flowlm("recipes")
