from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from flowlm.data.corpora.plain import documents, measured, sources
from flowlm.errors import Refusal


def write(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_lines_are_stripped_and_empty_ones_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "  one \n\n \t\ntwo\x0cstill\u2028two\nlast, without newline")
    expected = ["one", "two\x0cstill\u2028two", "last, without newline"]
    assert list(documents(path, "line")) == expected


def test_blocks_keep_their_inner_newlines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\n\nA:\n  indented\n \n\n\nB:\nend")
    assert list(documents(path, "blank")) == ["A:\n  indented", "B:\nend"]


@pytest.mark.parametrize("separator", ["line", "blank"])
def test_crlf_and_byte_order_mark_leave_no_trace(tmp_path: Path, separator) -> None:
    unix = write(tmp_path / "unix.txt", "é one\ntwo\n\nthree\n")
    dos = write(tmp_path / "dos.txt", b"\xef\xbb\xbf" + "é one\r\ntwo\r\n\r\nthree\r\n".encode())
    assert list(documents(dos, separator)) == list(documents(unix, separator))


def test_a_directory_is_its_text_files_in_order(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "b")
    write(tmp_path / "a/deep/z.txt", "z")
    write(tmp_path / "a/notes.md", "not this")
    write(tmp_path / "c.txt", "")
    assert list(documents(str(tmp_path), "blank")) == ["z", "b"]
    assert sources(str(tmp_path)) == sorted(tmp_path.rglob("*.txt"))


def test_a_pattern_is_its_matches_in_order(tmp_path: Path) -> None:
    for name in ("2.text", "1.text", "1.md"):
        write(tmp_path / name, name)
    (tmp_path / "folder.text").mkdir()
    assert list(documents(str(tmp_path / "*.text"), "line")) == ["1.text", "2.text"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].txt", "brackets")
    assert list(documents(path, "line")) == ["brackets"]


def test_the_end_of_a_file_ends_a_document(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", "one")
    write(tmp_path / "2.txt", "two")
    assert list(documents(str(tmp_path), "blank")) == ["one", "two"]


def test_bytes_read_rise_to_the_size_of_the_corpus(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", "é\n\nb\n")
    write(tmp_path / "2.txt", "c")
    assert [read for _, read in measured(str(tmp_path), "line")] == [3, 6, 7]
    assert [read for _, read in measured(str(tmp_path), "blank")] == [4, 6, 7]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "long.txt", "a line of text\n" * 50_000)
    tracemalloc.start()
    count = sum(1 for _ in documents(path, "line"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 100_000  # of 750 kB


def test_paths_that_lead_nowhere_are_refused_at_the_call(tmp_path: Path, refused) -> None:
    with refused("gone.txt", "does not exist"):
        documents(str(tmp_path / "gone.txt"), "line")
    with refused("*.gone", "No file matches"):
        documents(str(tmp_path / "*.gone"), "line")
    with refused(tmp_path, ".txt"):
        documents(str(tmp_path), "line")
    with refused("empty path"):
        documents("", "line")
    file = write(tmp_path / "a.txt", "a")
    with refused("a.txt/b"):
        documents(file + "/b", "line")
    with pytest.raises((Refusal, TypeError), match="sentence"):  # whoever looks first
        documents(file, "sentence")  # pyright: ignore[reportArgumentType]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, refused) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused("pipe", "not a regular file"):
        documents(str(tmp_path / "pipe"), "line")


def zipped(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (lzma.compress(b"text"), "xz -dk"),
        (gzip.compress(b"text"), "gunzip -k"),
        (bz2.compress(b"text"), "bunzip2 -k"),
        (zipped(b"text"), "unzip"),
        (b"\x28\xb5\x2f\xfd rest", "zstd -d"),
    ],
    ids=["xz", "gzip", "bzip2", "zip", "zstd"],  # gzip's bytes hold the time
)
def test_compressed_files_are_refused_with_the_command(tmp_path, refused, content, command) -> None:
    path = write(tmp_path / "my text.bin", content)
    with refused(f"`{command} '{path}'`"):
        list(documents(path, "line"))


def test_text_that_begins_like_bzip2_is_text(tmp_path: Path) -> None:
    assert list(documents(write(tmp_path / "a.txt", "BZh is no word"), "line")) == [
        "BZh is no word"
    ]


@pytest.mark.parametrize("before", [b"", b"line\n" * 2000])
def test_binary_data_is_refused_wherever_it_begins(tmp_path: Path, refused, before: bytes) -> None:
    path = write(tmp_path / "a.txt", before + b"ab\x00cd\n")
    with refused(path, "binary"):
        list(documents(path, "line"))


def test_other_encodings_are_refused_with_the_line(tmp_path: Path, refused) -> None:
    latin = write(tmp_path / "latin.txt", b"fine\nfine\ncaf\xe9\n")
    with refused(latin, "line 3", "iconv -f LATIN1"):
        list(documents(latin, "line"))
    wide = write(tmp_path / "wide.txt", "text".encode("utf-16"))
    with refused(wide, "iconv -f UTF-16"):
        list(documents(wide, "line"))


@pytest.mark.parametrize("content", ["", "\n \n\t\r\n", "\ufeff"])
def test_a_corpus_without_a_document_is_refused(tmp_path: Path, refused, content: str) -> None:
    path = write(tmp_path / "a.txt", content)
    for separator in ("line", "blank"):
        with refused(path, "no text"):
            list(documents(path, separator))


def test_an_unreadable_file_is_refused(tmp_path: Path, refused, monkeypatch) -> None:
    path = write(tmp_path / "a.txt", "secret")

    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "open", denied)  # a mode of 0 would not stop an administrator
    with refused(path, "Permission denied"):
        list(documents(path, "line"))
