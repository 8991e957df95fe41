"""Checkpoints: the whole state of training, written atomically and checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from flowlm.errors import Refusal
from flowlm.train.trainer import State


def save(state: State[Any], directory: Path, keep: int) -> Path:
    """Write `directory/step-00001000/` and remove all but the newest `keep`.

    The checkpoint is built under a temporary name and renamed when complete. A Refusal if the disk
    is full or not writable; older checkpoints are untouched then.
    """
    target = directory / f"step-{state.step:08d}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory) as scratch:
            built = Path(scratch) / "checkpoint"
            built.mkdir()
            torch.save(_content(state), built / "state.pt")
            digest = _sha256(built / "state.pt")
            stamp = {"step": state.step, "sha256": digest}
            (built / "checkpoint.json").write_text(json.dumps(stamp))
            if target.exists():
                shutil.rmtree(target)
            os.replace(built, target)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise Refusal(
            f"The checkpoint {target} could not be written ({_reason(error)}): free some space or "
            "choose another --out; the checkpoints before it are intact."
        ) from error
    for old in found(directory)[:-keep]:
        shutil.rmtree(old)
    return target


def restore(state: State[Any], directory: Path) -> list[str]:
    """Load the newest checkpoint that is whole. Returns a sentence for each one skipped.

    A Refusal if there is none.
    """
    skipped: list[str] = []
    for path in reversed(found(directory)):
        try:
            stamp = json.loads((path / "checkpoint.json").read_text())
            if _sha256(path / "state.pt") != stamp["sha256"]:
                raise ValueError("its checksum differs")
            content = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            skipped.append(f"Skipped {path}, which is damaged ({_reason(error)}).")
            continue
        try:
            state.model.load_state_dict(content["model"])
        except RuntimeError as error:
            raise Refusal(
                f"{path} holds another network than experiment.json says: put back the "
                "experiment.json that the run was started with."
            ) from error
        state.average.load(content["average"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.step = content["step"]
        return skipped
    damaged = f" ({len(skipped)} are damaged)" if skipped else ""
    raise Refusal(f"{directory} holds no checkpoint to resume from{damaged}: train from the start.")


def found(directory: Path) -> list[Path]:
    """Checkpoints in the directory, oldest first."""
    return sorted(directory.glob("step-*"))


def _content(state: State[Any]) -> dict[str, object]:
    return {
        "step": state.step,
        "model": state.model.state_dict(),
        "average": state.average.weights,
        "optimizer": state.optimizer.state_dict(),
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
