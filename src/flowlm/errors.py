"""Errors that end a command with a sentence, and notices."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class Refusal(Exception):
    """Bad input, refused at the door.

    The message is one sentence for the person at the keyboard: what is wrong and what to do about
    it. The command line prints it and exits with status 2; nothing has been written by then.
    """


class CutShort(Refusal):
    """Work that something outside of it ended, such as a lost connection: what is done stays good.

    Work that can be resumed keeps it, and the same command goes on from there.
    """


class Notice(UserWarning):
    """Something that a user should know and that stops nothing, in a sentence or two."""


def reason(error: BaseException) -> str:
    """First line of an error's message, as a part of a sentence, or the name of its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    return re.sub(r"[.!?]+(?=\s|$)", ";", said).rstrip("; ")


def meant(word: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` if a known word is close, as a part of a sentence."""
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""
