"""Words of commands that tests have in common."""

from __future__ import annotations

SMALL = ["--size.blocks", "1", "--size.width", "16", "--size.heads", "2", "--size.condition", "8"]
SHORT = [
    "--train.steps",
    "4",
    "--train.batch",
    "4",
    "--train.warmup",
    "2",
    "--train.save-every",
    "2",
]
