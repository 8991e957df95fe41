"""Standard output and error, whatever they are: full, closed, or of an encoding of their own."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from typing import Any

from flowlm.errors import Refusal


class Output(io.FileIO):
    """Standard output, where a failure to write is a Refusal that says so.

    An OSError would be taken for one of the file that a command happens to be writing.
    """

    def write(self, data: Any, /) -> int:
        """Write bytes; returns how many were taken."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Refusal(
                f"The output could not be written ({error.strerror}): free some space, or send it "
                "elsewhere."
            ) from error


def open_all() -> None:
    """Make standard output and error such that anything can be printed.

    What an encoding cannot say is spelt as an escape. What is closed leads nowhere.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest free number: no file that is opened later may take its place.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        plain = sys.stdout
        plain.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(Output(plain.fileno(), "wb", closefd=False)),
            encoding=plain.encoding,
            errors="backslashreplace",
            line_buffering=plain.line_buffering,
            write_through=plain.write_through,
        )


def say(sentence: str) -> None:
    """A sentence on standard error, if that takes any; of a word beyond reason, its ends."""
    short = re.sub(r"(\S{80})\S{200,}(\S{80})", r"\1...\2", sentence)
    with suppress(OSError):
        print(short, file=sys.stderr, flush=True)


def settle_all() -> None:
    """Let go of what could not be written, which Python would complain about at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, Refusal):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
