"""Preparations that are interrupted, spoiled, or shared out to processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowlm.data import preparation
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.layout import Packed, Padded
from flowlm.data.ledger import EVERY
from flowlm.data.preparation import prepare, unfinished
from flowlm.data.processes import in_order
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal

LINES = [f"story {i} of {i * i}" for i in range(4000)]
LETTERS = Tokenizer.characters(LINES)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation, "_BATCH", 500)  # characters a chunk: about 150 chunks
    (tmp_path / "text").write_text("\n".join(LINES))
    return text_corpus(str(tmp_path / "text"), "line", 0.05)


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


class Stopped(BaseException):
    """Something that nobody catches."""


def interrupted(corpus, out: Path, after: int, kind=Stopped) -> Path:
    """The place of a preparation that was interrupted after so many chunks."""
    calls = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == after:
            raise kind

    with pytest.raises(kind):
        prepare(corpus, out, LETTERS, resume=True, progress=stop)
    return unfinished(out)


@pytest.mark.parametrize("after", [1, EVERY - 1, EVERY, EVERY + 1, 3 * EVERY + 5])
def test_an_interrupted_preparation_ends_as_an_uninterrupted_one(corpus, tmp_path, after) -> None:
    prepare(corpus, tmp_path / "whole", LETTERS)
    place = interrupted(corpus, tmp_path / "out", after)
    assert place.exists() == (after >= EVERY)
    calls: list[int] = []
    prepare(corpus, tmp_path / "out", LETTERS, resume=True, progress=lambda d, _: calls.append(d))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not place.exists()
    everything: list[int] = []
    prepare(corpus, tmp_path / "third", LETTERS, progress=lambda d, _: everything.append(d))
    assert len(everything) - len(calls) == after // EVERY * EVERY, "chunks that were not redone"


def test_it_may_be_interrupted_many_times(corpus, tmp_path) -> None:
    prepare(corpus, tmp_path / "whole", LETTERS)
    for _ in range(3):
        interrupted(corpus, tmp_path / "out", EVERY + 3, KeyboardInterrupt)
    prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_kill_is_an_interruption(corpus, tmp_path) -> None:
    prepare(corpus, tmp_path / "whole", LETTERS)
    code = f"""
import os, signal
from flowlm.data import preparation
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.tokenizer import Tokenizer
preparation._BATCH = 500
calls = []
def kill(done, total):
    calls.append(done)
    if len(calls) == {EVERY + 9}:
        os.kill(os.getpid(), signal.SIGKILL)
corpus = text_corpus({str(tmp_path / "text")!r}, "line", 0.05)
letters = Tokenizer.characters(corpus.documents())
out = {str(tmp_path / "out")!r}
preparation.prepare(corpus, out, letters, processes=2, resume=True, progress=kill)
"""
    # Returns when nobody writes to its pipes any more: no process outlives the first.
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert sorted(contents(unfinished(tmp_path / "out"))) == [
        "ledger.json",
        "train.bin",
        "valid.bin",
    ]
    prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_is_an_interruption(corpus, tmp_path, refused, files_limited_to) -> None:
    prepare(corpus, tmp_path / "whole", LETTERS)
    place = unfinished(tmp_path / "out")
    with files_limited_to(40_000), refused(tmp_path / "out", f"what is done is in {place}"):
        prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_is_spoiled_meanwhile_is_refused_and_left_alone(corpus, tmp_path, refused) -> None:
    place = interrupted(corpus, tmp_path / "out", EVERY + 1)
    good = contents(place)

    def again() -> None:
        prepare(corpus, tmp_path / "out", LETTERS, resume=True)

    file = place / "train.bin"
    content = bytearray(good["train.bin"])
    content[100] ^= 1
    file.write_bytes(content)
    with refused(file, "damaged"):
        again()
    file.write_bytes(good["train.bin"][:100])
    with refused(file, "cut short"):
        again()
    file.write_bytes(good["train.bin"])
    for text in ("", "[]", "{}"):
        (place / "ledger.json").write_text(text)
        with refused(place / "ledger.json", "damaged"):
            again()
    (place / "ledger.json").write_bytes(good["ledger.json"])
    assert contents(place) == good
    again()


def test_work_of_another_preparation_is_refused(corpus, tmp_path, refused) -> None:
    place = interrupted(corpus, tmp_path / "out", EVERY)
    others = {
        "text": (text_corpus(str(tmp_path / "text"), "line", 0.1), LETTERS),
        "tokenizer": (corpus, Tokenizer.characters([*LINES, "?"])),
    }
    for other, letters in others.values():
        with refused(place, "another preparation"):
            prepare(other, tmp_path / "out", letters, resume=True)
    assert json.loads((place / "ledger.json").read_text())["chunks"] == EVERY


def test_two_at_once_are_refused(corpus, tmp_path, refused) -> None:
    def second(done: int, total: int | None) -> None:
        with refused(unfinished(tmp_path / "out"), f"process {os.getpid()}"):
            prepare(corpus, tmp_path / "out", LETTERS, resume=True)

    prepare(corpus, tmp_path / "whole", LETTERS)
    prepare(corpus, tmp_path / "out", LETTERS, resume=True, progress=second)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_directory_of_somebody_elses_is_not_touched(corpus, tmp_path, refused) -> None:
    place = unfinished(tmp_path / "out")
    place.mkdir()
    (place / "thesis.tex").write_text("precious")
    with refused(place, "thesis.tex"):
        prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert contents(place) == {"thesis.tex": b"precious"}


def test_a_refused_text_leaves_nothing_to_go_on_with(corpus, tmp_path, refused) -> None:
    with (tmp_path / "text").open("ab") as file:
        file.write(b"\ncaf\xe9\n")
    corpus = text_corpus(str(tmp_path / "text"), "line", 0.05)
    with refused("line 4001"):
        prepare(corpus, tmp_path / "deep/down/out", LETTERS, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


LAYOUTS = [Packed(16, "s", "t", "o"), Padded(16, "s", "t", "o")]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["packed", "padded"])
def test_processes_change_nothing(corpus, tmp_path, layout, monkeypatch) -> None:
    monkeypatch.setattr(preparation, "GROUP", 300)
    for processes in (1, 2):
        out = tmp_path / str(processes)
        prepare(corpus, out, LETTERS, layout, processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert not any(out.name.startswith(".") for out in tmp_path.iterdir())


def refuse_seven(number: int) -> int:
    if number == 7:
        raise Refusal("Seven is too many.")
    return number * number


def die(number: int) -> int:
    os._exit(number)


def test_processes_answer_in_order_and_pass_a_refusal_on(refused) -> None:
    answers = in_order(refuse_seven, range(100), 2)
    for number in range(7):
        assert next(answers) == (number, number * number)
    with refused("Seven"):
        next(answers)


def test_a_process_that_dies_is_told(refused) -> None:
    with refused("killed", "--jobs"):
        list(in_order(die, range(5), 2))


def test_few_items_are_under_way_at_once() -> None:
    taken = []
    answers = in_order(abs, (taken.append(i) or i for i in range(100)), 2)
    for _ in range(10):
        next(answers)
    assert len(taken) <= 10 + 2 * 2 + 1
    answers.close()


def test_tokens_a_layout_needs_must_be_there(corpus, tmp_path, refused) -> None:
    with refused("[CLS]", "--tokenizer"):
        prepare(corpus, tmp_path / "out", LETTERS, Packed(16, "[CLS]", "s", "s"))
