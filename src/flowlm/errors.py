"""The one exception that a user's mistake raises, and the one warning."""

from __future__ import annotations


class Refusal(Exception):
    """Bad input, refused at the door.

    The message is one sentence for the person at the keyboard: what is wrong and what to do about
    it. The command line prints it and exits with status 2; nothing has been written by then.
    """


class Notice(UserWarning):
    """Something that a user should know and that stops nothing, in a sentence or two."""
