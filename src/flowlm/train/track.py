"""Where figures go besides metrics.jsonl: to trackio, wandb or TensorBoard, if one is asked for.

These packages are imported here alone, and only when a run names one (`--train.track`).
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, assert_never

from flowlm.errors import Refusal

Tracker = Literal["trackio", "wandb", "tensorboard"]

PROJECT = "flowlm"


class Sink(ABC):
    """An open run of a tracker. Any exception means that it has stopped working."""

    @abstractmethod
    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Numbers by name; a slash in a name makes a group."""

    @abstractmethod
    def texts(self, step: int, texts: Sequence[str]) -> None:
        """Sample texts."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more will come."""


@dataclass(frozen=True)
class Track:
    """Which tracker to tell, about which run."""

    to: Tracker
    directory: Path
    settings: Mapping[str, Any]
    """What the run is, for the tracker's own tables."""

    def require(self) -> None:
        """A Refusal if the package is not installed."""
        spec = find_spec(self.to)
        # A folder called wandb, such as wandb itself makes, is not the package.
        if spec is None or spec.origin is None:
            raise Refusal(
                f"{self.to} is not installed: pip install 'flowlm[track]', or leave "
                "--train.track out."
            )

    def open(self) -> Sink:
        """Begin the tracker's run, or go on with it where the directory has one already."""
        match self.to:
            case "trackio":
                return _Trackio(self)
            case "wandb":
                return _Wandb(self)
            case "tensorboard":
                return _TensorBoard(self)
            case other:
                assert_never(other)

    def id(self) -> str:
        """The name of this directory's run at the tracker, made once and kept in the directory."""
        file = self.directory / "track.id"
        if not file.exists():
            file.write_text(f"{self.directory.resolve().name}-{uuid.uuid4().hex[:8]}\n")
        return file.read_text().strip()


class _Trackio(Sink):
    """trackio: local, or in a Space that TRACKIO_SPACE_ID names."""

    def __init__(self, track: Track) -> None:
        import trackio

        self._markdown = trackio.Markdown
        self._run = trackio.init(
            PROJECT, name=track.id(), resume="allow", config=dict(track.settings), embed=False
        )

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def texts(self, step: int, texts: Sequence[str]) -> None:
        self._run.log({"samples": self._markdown(_markdown(texts))}, step=step)

    def close(self) -> None:
        self._run.finish()


class _Wandb(Sink):
    """Weights & Biases; its own environment variables (WANDB_MODE, WANDB_ENTITY, ...) hold."""

    def __init__(self, track: Track) -> None:
        import wandb

        self._table = wandb.Table
        self._run = wandb.init(
            project=PROJECT,
            id=track.id(),
            name=track.id(),
            resume="allow",
            config=dict(track.settings),
            dir=str(track.directory),
        )

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def texts(self, step: int, texts: Sequence[str]) -> None:
        table = self._table(columns=["text"], data=[[text] for text in texts])
        self._run.log({"samples": table}, step=step)

    def close(self) -> None:
        self._run.finish()


class _TensorBoard(Sink):
    """TensorBoard's files, in the run's own directory."""

    def __init__(self, track: Track) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(track.directory / "tensorboard"))

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def texts(self, step: int, texts: Sequence[str]) -> None:
        self._writer.add_text("samples", _markdown(texts), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _markdown(texts: Sequence[str]) -> str:
    """Texts as they are, between rules: indented lines are not read as Markdown."""
    return "\n\n---\n\n".join("\n".join("    " + line for line in t.splitlines()) for t in texts)
