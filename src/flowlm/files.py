"""Files written whole or not at all, checksums, and locks on directories."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from flowlm.errors import Refusal

LOCK = ".lock"
"""The file in a directory that its only writer holds locked."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the name `path` at the end.

    If the body fails, the temporary file is removed and `path` is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Write a small file whole or not at all; a Refusal if it cannot be written."""
    try:
        with replacing(file) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refusal(
            f"{file} could not be written ({error.strerror or error}): free some space."
        ) from error


@contextmanager
def new_file(path: Path) -> Iterator[TextIO]:
    """A text file (UTF-8) to write to; it takes the name `path` when it is complete.

    A Refusal if `path` exists, or cannot be written; after any failure nothing is left behind.
    """
    with (
        _new(path) as partial,
        partial.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        yield file


@contextmanager
def new_binary(path: Path) -> Iterator[BinaryIO]:
    """A file of bytes to write to, otherwise as `new_file`."""
    with _new(path) as partial, partial.open("xb") as file:
        yield file


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """As `replacing`, of a path where nothing is; failures are Refusals."""
    try:
        if os.path.lexists(path):
            raise Refusal(f"{path} exists already: remove it or choose another file.")
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise Refusal(
            f"{path} could not be written ({error.strerror or error}): free some space or choose "
            "another place."
        ) from error


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A temporary directory to fill; it takes the name `target` when it is complete.

    A Refusal if `target` exists and is not empty, or cannot be written; after any failure nothing
    is left behind.
    """
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise Refusal(f"{target} exists already: remove it or choose another directory.")
        place = Path(os.path.realpath(target))  # of a loop of links too
        # Beside the first directory that is missing on the way: renaming needs one disk.
        home = next(parent for parent in place.parents if parent.exists())
        mark = f".{place.name}."
        with tempfile.TemporaryDirectory(prefix=mark, suffix=".partial", dir=home) as scratch:
            built = Path(scratch) / "built"  # a level down: the scratch is closed to other people
            built.mkdir()
            yield built
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(built, place)
    except OSError as error:
        raise Refusal(
            f"{target} could not be written ({error.strerror or error}): free some space or choose "
            "another place."
        ) from error


def clear_leftovers(directory: Path, files: Sequence[str]) -> None:
    """Remove what a killed process has half written of these files (patterns of their names).

    Nobody may be writing them meanwhile.
    """
    for name in files:
        for leftover in directory.glob(f".{name}.*.partial"):  # as `replacing` names them
            leftover.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """sha256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(file: Path, what: Path) -> Iterator[None]:
    """Be the only process that writes `what`, for as long as `file` is held locked.

    A Refusal names the process that holds it already, or says that nothing can be written there.
    The lock ends with the process, however it ends, and the file is removed at the end; so are
    directories that were made for it and have stayed empty. On a file system without locks there
    is none.
    """
    missing: list[Path] = []
    try:
        missing += (place for place in file.parents if not place.exists())
        file.parent.mkdir(parents=True, exist_ok=True)
        held = _take(file, what)
    except OSError as error:
        _remove_empty(missing)
        raise Refusal(
            f"{what} cannot be written ({error.strerror or error}): choose another place (--out)."
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: see `_take`
        held.close()
        _remove_empty(missing)


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove those of the directories that are empty, the innermost first."""
    for place in directories:
        with suppress(OSError):
            place.rmdir()


def holder(file: Path) -> str | None:
    """The process that holds `file` locked, in words, or None."""
    try:
        opened = file.open("r+", encoding="utf-8")
    except OSError:
        return None
    with opened:
        return None if _lock(opened) else _named(opened)


def _take(file: Path, what: Path) -> IO[str]:
    """The file, open and locked, with the name of this process in it."""
    while True:
        opened = file.open("a+", encoding="utf-8")
        if not _lock(opened):
            who = _named(opened)
            opened.close()
            raise Refusal(
                f"{what} is being written by {who}: wait for it to end, or choose another place."
            )
        with suppress(FileNotFoundError):
            # The one who held it before may have removed it since it was opened.
            if os.path.samestat(os.stat(file), os.fstat(opened.fileno())):
                opened.truncate(0)
                opened.write(f"{os.getpid()} {socket.gethostname()}\n")
                opened.flush()
                return opened
        opened.close()


def _lock(file: IO[str]) -> bool:
    """Lock an open file; False if another process has it."""
    if sys.platform == "win32":  # without such locks
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _named(file: IO[str]) -> str:
    file.seek(0)
    pid, _, host = file.read().strip().partition(" ")
    if not pid:
        return "another process"
    return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"
