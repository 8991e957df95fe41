"""Checkpoints: the whole state of training, written in the background and checked when read.

A checkpoint is a directory step-00001000 with what torch.distributed.checkpoint wrote, a file per
process, and checkpoint.json: the checksum of every other file and the validation loss. It is
filled under another name and renamed when it is complete. Any number of processes can read it.
Whatever else is in the directory of the checkpoints is neither read nor removed.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from flowlm.errors import Refusal, reason
from flowlm.files import sha256_of
from flowlm.train.parallel import ALONE, World
from flowlm.train.trainer import State

STAMP = "checkpoint.json"

_NAME, _PARTIAL = "step-", ".partial-step-"


class Checkpoints:
    """The checkpoints of a run; a context manager that leaves no half-written one behind.

    Of them the newest `keep` stay, and the one with the lowest validation loss. Everything here is
    to be called by all processes.
    """

    def __init__(self, directory: Path, keep: int, world: World = ALONE) -> None:
        self._directory, self._keep, self._world = directory, keep, world
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._newest: int | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        elif self._writing is not None:
            wait([self._writing])
        self._thread.shutdown()

    @property
    def failed(self) -> bool:
        """Whether this process knows that the last save went wrong: `finish` says how."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def save(
        self,
        state: State[Any],
        valid: float | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Copy the state and begin to write it; `valid` is its validation loss, if it is known.

        Process 0 calls `then` when the checkpoint is complete. Waits for the save before this one.
        """
        if state.step == self._newest:
            return  # asked to stop at a step that is saved already
        self.finish()
        target = self._directory / f"{_NAME}{state.step:08d}"
        partial = self._directory / f"{_PARTIAL}{state.step:08d}"
        with self._world.raise_together():
            if self._world.is_main:
                if target.exists() and not _numbered(target, _NAME):
                    raise Refusal(f"{target} is not a checkpoint: remove it, and resume the run.")
                try:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                except OSError as error:
                    raise _unwritten(target, error) from error
        from torch.distributed.checkpoint.state_dict_saver import async_save

        _quieten()
        written = async_save(
            _content(state),
            checkpoint_id=partial,
            process_group=self._world.background_group,
            no_dist=self._world.mesh is None,
        )
        assert isinstance(written, Future)
        self._newest = state.step
        self._writing = self._thread.submit(self._complete, written, partial, target, valid, then)

    def finish(self) -> None:
        """Wait for what is being written. A Refusal if it could not be."""
        writing, self._writing = self._writing, None
        with self._world.raise_together():
            if writing is not None:
                writing.result()

    def restore(self, state: State[Any]) -> list[str]:
        """Load the newest checkpoint that is whole. Returns a sentence for each one skipped.

        A Refusal if there is none, or if it is of another network.
        """
        skipped: list[str] = []
        for path in reversed(self._world.all_gather(found(self._directory))[0]):
            if (path / "state.pt").exists():
                raise Refusal(
                    f"{path} was written by an earlier version of flowlm, whose checkpoints this "
                    "one does not read: train from the start."
                )
            faults = [fault for fault in self._world.all_gather(self._fault(path)) if fault]
            if faults:
                skipped.append(f"Skipped {path}, which is damaged ({faults[0]}).")
                continue
            _load(state, path, self._world)
            self._newest = state.step
            return skipped
        damaged = f" ({len(skipped)} are damaged)" if skipped else ""
        raise Refusal(
            f"{self._directory} holds no checkpoint to resume from{damaged}: train from the start."
        )

    def _complete(
        self,
        written: Future[Any],
        partial: Path,
        target: Path,
        valid: float | None,
        then: Callable[[], None] | None,
    ) -> None:
        """Finish a checkpoint when every process has written its file (in the background)."""
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            written.result()
            if not self._world.is_main:
                return
            files = sorted(file for file in partial.iterdir() if file.is_file())
            stamp = {"valid": valid, "sha256": {file.name: sha256_of(file) for file in files}}
            (partial / STAMP).write_text(json.dumps(stamp))
            _settle(partial / STAMP)
            if target.exists():
                shutil.rmtree(target)
            os.replace(partial, target)
            _settle(self._directory)
        except (OSError, RuntimeError, CheckpointException) as error:
            if self._world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, CheckpointException):
                error, _ = next(iter(error.failures.values()))  # of the first process that failed
            raise _unwritten(target, error) from error
        self._prune()
        if then is not None:
            then()

    def _prune(self) -> None:
        paths = found(self._directory)
        best = min(paths, key=_valid)
        for path in paths[: -self._keep]:
            if path != best or _valid(best) == math.inf:
                shutil.rmtree(path)

    def _fault(self, path: Path) -> str | None:
        """Fault of this process's share of the files, or None."""
        try:
            stamp = json.loads((path / STAMP).read_text())
            files = sorted(stamp["sha256"].items())
            for name, digest in files[self._world.rank :: self._world.size]:
                if sha256_of(path / name) != digest:
                    return "its checksum differs"
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            return reason(error)
        return None


def found(directory: Path) -> list[Path]:
    """Checkpoints in the directory, oldest first: directories called step- and a number."""
    return _called(directory, _NAME)


def number_of(checkpoint: Path) -> int:
    """Steps taken at a checkpoint that was `found`."""
    return int(checkpoint.name.removeprefix(_NAME))


def clear_partial(directory: Path) -> None:
    """Remove the checkpoints that a killed process has half written; nobody may be writing any."""
    for leftover in _called(directory, _PARTIAL):
        shutil.rmtree(leftover, ignore_errors=True)


def _called(directory: Path, name: str) -> list[Path]:
    if not directory.is_dir():
        return []
    ours = [path for path in directory.iterdir() if _numbered(path, name)]
    return sorted(ours, key=lambda path: int(path.name.removeprefix(name)))


def _numbered(path: Path, name: str) -> bool:
    """Whether the name goes on with a number, and stands for a directory of its own."""
    named = re.fullmatch(re.escape(name) + "[0-9]+", path.name) is not None
    return named and path.is_dir() and not path.is_symlink()


def _content(state: State[Any]) -> dict[str, Any]:
    """Everything that a step changes, under the plain names of the network."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = get_state_dict(state.model, state.optimizer)
    average = state.average.weights
    return {"step": state.step, "model": model, "average": average, "optimizer": optimizer}


def _load(state: State[Any], path: Path, world: World) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    _quieten()
    content = _content(state)
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    theirs = {name: vars(kept)["size"] for name, kept in stored.items() if name[:6] == "model."}
    if theirs != {f"model.{name}": weight.shape for name, weight in content["model"].items()}:
        raise Refusal(
            f"{path} holds another network than experiment.json says: put back the "
            "experiment.json that the run was started with."
        )
    load(
        content,
        checkpoint_id=path,
        process_group=world.background_group,
        no_dist=world.mesh is None,
    )
    set_state_dict(
        state.model,
        state.optimizer,
        model_state_dict=content["model"],
        optim_state_dict=content["optimizer"],
    )
    state.step = content["step"]


def _valid(path: Path) -> float:
    """The validation loss of a checkpoint; infinite if it has none."""
    try:
        valid = float(json.loads((path / STAMP).read_text())["valid"])
    except (OSError, ValueError, LookupError, TypeError):
        return math.inf
    return valid if math.isfinite(valid) else math.inf


def _settle(path: Path) -> None:
    """Wait until the disk has it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritten(target: Path, error: BaseException) -> Refusal:
    return Refusal(
        f"The checkpoint {target} could not be written ({reason(error)}): free some space or "
        "choose another --out; the checkpoints before it are intact."
    )


def _quieten() -> None:
    # One process has no group, says torch at every save.
    warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
