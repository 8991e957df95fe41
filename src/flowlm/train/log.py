"""Watching a run: metrics.jsonl always, and a live line on the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


def plain(file: IO[str]) -> Console:
    """A console that writes plain lines into a file."""
    return Console(file=file, width=100)


class Log:
    """Appends a line per record to a file and shows progress; a context manager.

    On a terminal there is a live bar; elsewhere a plain line every few seconds. When a run resumes
    at `first`, records of later steps are dropped from the file, so that it reads as if the run
    had never stopped.
    """

    def __init__(self, path: Path, name: str, first: int, steps: int, console: Console) -> None:
        self._path, self._name, self._steps, self._console = path, name, steps, console
        _keep_until(path, first)
        self._file = path.open("a", encoding="utf-8")
        self._began, self._first, self._last_line = time.monotonic(), first, 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(name, total=steps, completed=first, figures="")

    def __enter__(self) -> Log:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._file.close()

    def record(self, step: int, **figures: float) -> None:
        """Append {"step": step, **figures} to the file, at once."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()

    def show(self, step: int, loss: float, tokens_per_second: float, **others: Any) -> None:
        """Move the bar to `step`, or print a plain line if the last one is long ago."""
        figures = f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s"
        figures += "".join(f"  {key} {value}" for key, value in others.items())
        self._bar.update(self._task, completed=step, figures=figures)
        now = time.monotonic()
        if self._console.is_terminal or (now - self._last_line < 5 and step < self._steps):
            return
        self._last_line = now
        done = step - self._first
        left = (now - self._began) / max(1, done) * (self._steps - step)
        self._console.print(
            f"{self._name}  step {step}/{self._steps}  {figures}  {left:,.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        self._console.print(sentence, highlight=False, soft_wrap=True)


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, LookupError, TypeError):
            continue  # the line that was being written when the run was cut off
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)
