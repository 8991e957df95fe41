"""Text that changes while it is prepared, or between two attempts at it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from flowlm.data import preparation
from flowlm.data.corpora.corpus import Corpus
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.corpora.published import LM1B, Part
from flowlm.data.corpora.tables import table_corpus, table_files
from flowlm.data.corpora.text8 import Text8
from flowlm.data.layout import Encoder
from flowlm.data.ledger import EVERY
from flowlm.data.preparation import prepare, unfinished
from flowlm.data.tokenizer import Tokenizer

LETTERS = Tokenizer.characters(["abcdefghijklmnopqrstuvwxyz "])
LINES = [f"{'story' if i % 3 else 'verse'} of the day" for i in range(2000)]
OTHER = [line.replace("story", "tales") for line in LINES]
"""The same number of bytes."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_BATCH", 300)
    monkeypatch.setattr("flowlm.data.corpora.text8.PIECE", 300)


def write_text(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines))


def write_table(file: Path, lines: list[str]) -> None:
    # Without statistics and dictionaries equally long texts are equally many bytes.
    table = pyarrow.table({"text": lines})
    pyarrow.parquet.write_table(table, file, compression="NONE", use_dictionary=False)


def lines_of(file: Path) -> Corpus:
    return text_corpus(str(file), "line", 0.05)


def table_of(file: Path) -> Corpus:
    return table_corpus(table_files(str(file)), 0.05)


def text8_of(file: Path) -> Corpus:
    size = file.stat().st_size
    known = Text8(train=size - 2000, valid=1000, size=size)
    return known.corpus("text8", file, whole=False)


def lm1b_of(file: Path) -> Corpus:
    assert isinstance(LM1B.valid, Part)
    small = replace(
        LM1B,
        train=Part("x", (file.name,), len(LINES)),
        valid=Part("x", (file.name,), len(LINES)),
    )
    return small.corpus("lm1b", file.parent, whole=False)


Write, Find = Callable[[Path, list[str]], None], Callable[[Path], Corpus]
KINDS: dict[str, tuple[str, Write, Find]] = {
    "lines": ("a.txt", write_text, lines_of),
    "a table": ("a.parquet", write_table, table_of),
    "text8": ("text8", lambda file, lines: file.write_text(" ".join(lines)) and None, text8_of),
    "a published corpus": ("shard", write_text, lm1b_of),
}


def stopped(corpus: Corpus, out: Path) -> None:
    """Prepare until some of it is certain."""
    calls = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == EVERY + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, out, LETTERS, resume=True, progress=stop)
    assert unfinished(out).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_another_text_of_the_same_size_is_not_gone_on_with(kind, tmp_path, refused) -> None:
    name, write, find = KINDS[kind]
    file = tmp_path / name
    write(file, LINES)
    before = file.stat()
    stopped(find(file), tmp_path / "out")
    write(file, OTHER)
    assert file.stat().st_size == before.st_size
    with refused(unfinished(tmp_path / "out"), "another preparation", "has changed since"):
        prepare(find(file), tmp_path / "out", LETTERS, resume=True)


def test_a_file_that_was_exchanged_is_another_whatever_its_time(tmp_path, refused) -> None:
    file, other = tmp_path / "a.txt", tmp_path / "b.txt"
    write_text(file, LINES)
    stopped(lines_of(file), tmp_path / "out")
    write_text(other, OTHER)
    kept = file.stat()
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    other.replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (kept.st_size, kept.st_mtime_ns)
    with refused("another preparation"):
        prepare(lines_of(file), tmp_path / "out", LETTERS, resume=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resume", [False, True])
def test_what_changes_while_it_is_read_is_refused(kind, resume, tmp_path, refused) -> None:
    name, write, find = KINDS[kind]
    file = tmp_path / name
    write(file, LINES)

    def exchange(done: int, total: int | None) -> None:
        os.utime(file, ns=(1, 1))

    with refused(file, "has changed while it was being read"):
        prepare(find(file), tmp_path / "out", LETTERS, resume=resume, progress=exchange)
    assert list(tmp_path.iterdir()) == [file]
    prepare(find(file), tmp_path / "out", LETTERS, resume=resume)


def test_a_tokenizer_learnt_from_another_text_is_refused_at_once(
    tmp_path, refused, monkeypatch
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, LINES)
    corpus = lines_of(file)
    letters = Tokenizer.characters(corpus.documents())
    write_text(file, OTHER)
    encoded: list[object] = []
    monkeypatch.setattr(Encoder, "__call__", lambda self, chunk: encoded.append(chunk))
    with refused(file, "has changed"):
        prepare(corpus, tmp_path / "out", letters)
    assert encoded == []
    file.unlink()
    with refused(file, "cannot be read"):
        prepare(corpus, tmp_path / "out", letters)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_stays_the_files_that_were_found_in_it(tmp_path) -> None:
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text/b.txt", LINES)
    corpus = lines_of(tmp_path / "text")
    write_text(tmp_path / "text/a.txt", ["something else"])
    assert list(corpus.documents()) == LINES
    stopped(corpus, tmp_path / "out")
    prepared = prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert [source["name"] for source in prepared.manifest["sources"]] == [
        str(tmp_path / "text/b.txt")
    ]


def test_the_same_text_has_the_same_manifest_whenever_it_was_written(tmp_path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, LINES)
    prepare(lines_of(file), tmp_path / "first", LETTERS)
    file.unlink()
    write_text(file, LINES)
    os.utime(file, ns=(1, 1))
    prepare(lines_of(file), tmp_path / "second", LETTERS)
    for made in (tmp_path / "first").iterdir():
        assert made.read_bytes() == (tmp_path / "second" / made.name).read_bytes()
