"""Plain text on disk, one document at a time.

A corpus is a UTF-8 text file, a directory of `*.txt` files or a glob pattern. Everything streams:
memory holds one document, never a file. Whatever is wrong with the input is said here, at the
door, in one sentence (a `Refusal`).
"""

from __future__ import annotations

import codecs
import glob
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from flowlm.data.corpora.corpus import Corpus, divided
from flowlm.data.corpora.foreign import require_text
from flowlm.data.corpora.watched import Files
from flowlm.errors import Refusal

Separator = Literal["line", "blank", "endoftext"]
"""What stands between documents: the end of a line, at least one blank line, or ENDOFTEXT."""

ENDOFTEXT = "<|endoftext|>"
"""How some corpora spell the end of a document, on a line of its own or within one."""

_HEAD = 4096  # bytes looked at before a file is read, so that a large binary is refused at once

_PACKED = (
    (b"\xfd7zXZ\x00", "xz", "xz -dk {}"),
    (b"\x1f\x8b", "gzip", "gunzip -k {}"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d {}"),
    (b"PK\x03\x04", "zip", "unzip {}"),
    (b"BZh", "bzip2", "bunzip2 -k {}"),
)
"""First bytes, name and unpacking command of the formats that text is usually packed in."""


def sources(path: str) -> list[Path]:
    """The files that `path` stands for, sorted by name.

    A file stands for itself, a directory for every `*.txt` below it, anything else is read as a
    glob pattern (`**` crosses directories). A Refusal if there is no such file, or for a directory
    of something else than text.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _matches(path)
    except OSError as error:
        raise Refusal(_unreadable(path, error)) from error
    if stat.S_ISDIR(mode):
        found = sorted(file for file in Path(path).rglob("*.txt") if file.is_file())
        require_text(path, found)
        if not found:
            raise Refusal(
                f"The directory {path} has no .txt file in it: put the text there as .txt files, "
                "or name one file or a pattern."
            )
        return found
    if not stat.S_ISREG(mode):
        raise Refusal(
            f"{path} is not a regular file and a corpus is read more than once: "
            "write the text to a file first."
        )
    require_text(path)
    return [Path(path)]


def text_corpus(path: str, separator: Separator, valid: float) -> Corpus:
    """The corpus at `path`, of which the share `valid` is held out; read in bytes.

    A Refusal to go on reading if a file changes after this call.
    """
    found = sources(path)
    files = Files.seen(found)
    origin = {"sources": files.sources, "separator": separator}
    total = sum(size for _, size, _, _ in files.states)

    def read() -> Iterator[tuple[str, int]]:
        return files.unchanged(_measured(path, found, separator))

    return divided(read, valid, origin, total, files.states)


def documents(path: str, separator: Separator) -> Iterator[str]:
    """The documents of the corpus at `path`, file after file.

    `"line"`: every line is a document. `"blank"`: blank lines stand between documents and the
    newlines inside a document are kept. `"endoftext"`: the same, with ENDOFTEXT between them. White
    space around a document is stripped and an empty one skipped; CRLF becomes a newline and a byte
    order mark is dropped. The end of a file ends its last document. A missing path is refused by
    this call; what a file holds (compressed or binary data, bytes that are not UTF-8, no document
    at all) when it is reached.
    """
    stream = measured(path, separator)
    return (document for document, _ in stream)


def measured(path: str, separator: Separator) -> Iterator[tuple[str, int]]:
    """`documents`, each with the number of bytes of the corpus read so far, for progress."""
    if separator not in get_args(Separator):
        known = ", ".join(get_args(Separator))
        raise Refusal(f"There is no separator {separator!r}: choose one of {known}.")
    return _measured(path, sources(path), separator)


def _measured(path: str, files: list[Path], separator: Separator) -> Iterator[tuple[str, int]]:
    before = 0
    empty = True
    for file in files:
        read = 0
        for text, read in _CUTS[separator](file):
            if document := text.strip():
                empty = False
                yield document, before + read
        before += read
    if empty:
        raise Refusal(
            f"{path} holds no text: name a file with at least one line that is not blank."
        )


def _blocks(file: Path) -> Iterator[tuple[str, int]]:
    block: list[str] = []
    read = 0
    for line, read in _lines(file):
        if line.strip():
            block.append(line)
        else:
            yield "\n".join(block), read
            block = []
    yield "\n".join(block), read


def _marked(file: Path) -> Iterator[tuple[str, int]]:
    block: list[str] = []
    read = 0
    for line, read in _lines(file):
        first, *others = line.split(ENDOFTEXT)
        block.append(first)
        for other in others:
            yield "\n".join(block), read
            block = [other]
    yield "\n".join(block), read


def _lines(file: Path) -> Iterator[tuple[str, int]]:
    """Lines without their ends, each with the bytes of `file` read so far.

    The file is cut at newline bytes before it is decoded, so that an error knows its line and the
    rarer separators of Unicode (U+2028, form feed) stay part of the text.
    """
    read = 0
    try:
        with file.open("rb") as stream:
            _refuse_binary(file, stream.read(_HEAD))
            stream.seek(0)
            for number, raw in enumerate(stream, start=1):
                read += len(raw)
                if b"\0" in raw:
                    raise Refusal(_binary(file))
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise Refusal(
                        f"{file} is not UTF-8 (line {number}): if it is Latin-1, convert it with "
                        f"`iconv -f LATIN1 -t UTF-8 {_quoted(file)} > converted.txt`."
                    ) from error
                yield line.rstrip("\r\n"), read
    except OSError as error:
        raise Refusal(_unreadable(str(file), error)) from error


_CUTS = {"line": _lines, "blank": _blocks, "endoftext": _marked}


def _refuse_binary(file: Path, head: bytes) -> None:
    for magic, name, command in _PACKED:
        # A text may begin with BZh: bzip2 goes on with a digit and the digits of pi.
        if head.startswith(magic) and (name != "bzip2" or head[4:10] == b"1AY&SY"):
            unpack = command.format(_quoted(file))
            raise Refusal(f"{file} is compressed ({name}): unpack it first with `{unpack}`.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Refusal(
            f"{file} is UTF-16: convert it with "
            f"`iconv -f UTF-16 -t UTF-8 {_quoted(file)} > converted.txt`."
        )
    if b"\0" in head:
        raise Refusal(_binary(file))


def _matches(pattern: str) -> list[Path]:
    if not glob.has_magic(pattern):
        named = pattern or "The empty path"
        raise Refusal(f"{named} does not exist: name a text file, a directory or a glob pattern.")
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    files = [file for file in found if file.is_file()]
    if not files:
        raise Refusal(f"No file matches {pattern}: check the pattern (quoted, in a shell).")
    return files


def _binary(file: Path) -> str:
    return f"{file} is a binary file (it has NUL bytes): name a plain UTF-8 text file."


def _unreadable(path: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{path} cannot be read ({reason}): check the file and its permissions."


def _quoted(file: Path) -> str:
    return shlex.quote(str(file))
