"""Whether a model is in the released format. Torch-free: a mistyped name is refused at once."""

from __future__ import annotations

from pathlib import Path


def is_released(place: Path) -> bool:
    """Whether a path is in the released format: a file, or a folder with a config.json."""
    ours = (place / "experiment.json").exists()
    return place.is_file() or (not ours and (place / "config.json").exists())
