"""Valid texts by kind of text, where a task has kinds."""

from __future__ import annotations

from typing import Any

from flowlm.core.types import Tokens
from flowlm.tasks.task import Task


def valid_by_group(task: Task, tokens: Tokens) -> list[dict[str, Any]]:
    """For each kind its name, how many texts are of it and the share of them that are valid."""
    found = task.groups(tokens)
    if found is None:
        return []
    names, kinds = found
    valid = task.valid(tokens)
    rows = []
    for kind, name in enumerate(names):
        own = valid[kinds == kind]
        share = float(own.double().mean()) if len(own) else None
        rows.append({"kind": name, "texts": len(own), "valid": share})
    return rows
