"""Watching a run: metrics.jsonl always, a live line on the terminal, a tracker if one is named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from flowlm.errors import Refusal, reason
from flowlm.files import replacing
from flowlm.train.pace import Pace
from flowlm.train.track import Sink, Track


def plain(file: IO[str]) -> Console:
    """A console that writes plain lines into a file."""
    return Console(file=file, width=100)


def screen(quiet: bool) -> Console:
    """The console of whoever trains from Python; a quiet one shows nothing."""
    return Console(quiet=quiet, highlight=False, markup=False, emoji=False)


class Log:
    """Appends a line per record to a file and shows progress; a context manager.

    On a terminal there is a live bar; elsewhere a plain line every few seconds. When a run resumes
    at `first`, records of later steps are dropped from the file, so that it reads as if the run
    had never stopped.

    A tracker is told the same records, each once: what a resumed run repeats it has heard already.
    One that fails is let go with a sentence, and the training goes on.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        first: int,
        steps: int,
        console: Console,
        track: Track | None = None,
    ) -> None:
        self._path, self._name, self._steps, self._console = path, name, steps, console
        self._track, self._sink, self._printing = track, None, True
        self._told = _keep_until(path, first)
        self._file = path.open("a", encoding="utf-8")
        self._pace, self._last_line = Pace(first), 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            # On a narrow terminal these may take two lines: nothing is cut off.
            TextColumn("{task.fields[figures]}", table_column=Column()),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(name, total=steps, completed=first, figures="", left="")

    def __enter__(self) -> Log:
        if self._track is not None:
            try:
                self._sink = self._track.open()
            except Exception as error:
                self._let_go(error)
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
        self._tell(lambda sink: sink.close())

    def record(self, step: int, **figures: float) -> None:
        """Append {"step": step, **figures} to the file, at once."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        if step > self._told:
            self._tell(lambda sink: sink.figures(step, figures))

    def samples(self, step: int, texts: Sequence[str]) -> None:
        """Show sample texts to the tracker; their file is written by whoever made them."""
        if step > self._told:
            self._tell(lambda sink: sink.texts(step, texts))

    def show(self, step: int, loss: float, tokens_per_second: float, **others: Any) -> None:
        """Move the bar to `step`, or print a plain line if the last one is long ago."""
        figures = f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s"
        figures += "".join(f"  {key} {value}" for key, value in others.items())
        now = time.monotonic()
        self._pace.reached(step, now)
        seconds = self._pace.left(self._steps)
        left = "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
        self._bar.update(self._task, completed=step, figures=figures, left=left)
        if self._console.is_terminal or (now - self._last_line < 5 and step < self._steps):
            return
        self._last_line = now
        said = (self._name, f"step {step}/{self._steps}", figures, left)
        self._print("  ".join(part for part in said if part))

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        self._print(sentence)

    def _print(self, line: str) -> None:
        """Print, for as long as the console takes it: the training is worth more than its output.

        A reader may have seen enough, and the disk that a console is sent to may be full.
        """
        if self._printing:
            try:
                self._console.print(
                    line, soft_wrap=True, markup=False, emoji=False, highlight=False
                )
            except (OSError, Refusal):
                self._printing = False

    def _tell(self, act: Callable[[Sink], None]) -> None:
        if self._sink is not None:
            try:
                act(self._sink)
            except Exception as error:  # whatever a tracker raises, the training is worth more
                self._let_go(error)

    def _let_go(self, error: Exception) -> None:
        assert self._track is not None
        self._sink = None
        self.say(
            f"{self._track.to} stopped working ({reason(error)}): training goes on, and "
            "metrics.jsonl has everything."
        )


def _keep_until(path: Path, step: int) -> int:
    """Drop the records after a step; returns the last step that had one."""
    if not path.exists():
        return 0
    kept, last = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            at = json.loads(line)["step"]
            if at <= step:
                kept.append(line + "\n")
            last = max(last, at)
        except (ValueError, LookupError, TypeError):
            continue  # the line that was being written when the run was cut off
    with replacing(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")
    return last
