"""The records of a run, as its log has written them. No torch is needed to read them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def records(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; none of an export, which has no such file."""
    file = directory / "metrics.jsonl"
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # the line that is being written
            found.append(json.loads(line))
    return found
