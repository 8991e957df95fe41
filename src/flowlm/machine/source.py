"""The commit of the source that runs, where it runs from a checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
"""Of a checkout; of an installed package, a directory that is nothing to it."""


def commit(code: Sequence[str] = ("src",)) -> str | None:
    """The commit, marked if `code` has been changed since; None of an installed package."""
    if not (ROOT / ".git").exists():
        return None
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return None
    return head + "+changes" * bool(_git("status", "--porcelain", "--", *code))


def _git(*words: str) -> str:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:  # no git here
        return ""
