"""What is in a checkpoint, without the program that wrote it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save


def stored(checkpoint: Path) -> dict[str, Any]:
    """The whole state of a checkpoint, whatever number of processes wrote it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "state.pt"
        dcp_to_torch_save(checkpoint, file)
        return torch.load(file, weights_only=True)
