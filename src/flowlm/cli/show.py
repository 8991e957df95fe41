"""Output of the commands: consoles, headings, bars and tables."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from flowlm.cli import leads
from flowlm.evaluate.held_out import in_words
from flowlm.evaluate.measures import present
from flowlm.evaluate.report.schema import aim

if TYPE_CHECKING:
    from flowlm.experiment import Experiment
    from flowlm.methods.method import Method
    from flowlm.run.demo import Progress
    from flowlm.run.forecast import Forecast
    from flowlm.sampling import Sampler

QUIET = 15
"""Seconds between plain lines of progress."""


class Paper(Console):
    """A console that prints text as it is."""

    def on_broken_pipe(self) -> None:
        """The reader has seen enough: `main` ends without a complaint."""
        raise BrokenPipeError


def console(stderr: bool = False, quiet: bool = False) -> Paper:
    """Where commands print."""
    silent = quiet or not leads()
    return Paper(highlight=False, markup=False, emoji=False, quiet=silent, stderr=stderr)


def heading(sampler: Sampler, steps: int, length: int) -> str:
    """The line above texts that are written in `steps` steps."""
    evaluations = sampler.evaluations(steps, length)
    moved = f"{steps} step{'s' * (steps > 1)}"
    if evaluations == steps:
        return moved
    called = f"{evaluations} evaluations"
    return f"{moved}, {called}" if sampler.counts_steps else called


def one_way(method: Method, sampler: Sampler, length: int) -> str:
    """Says that the number of steps is not for the user to choose."""
    if sampler.all_steps == 1:
        return f"{method.label}: it writes in one step, whatever --steps says."
    return (
        f"{method.label}: a step is a token, so it writes once, in {length} evaluations, whatever "
        "--steps says."
    )


def results(console: Console, report: Mapping[str, Any]) -> None:
    """The table of a report, grouped by steps; what is to compare with below."""
    table = Table(title=report["title"], title_justify="left", header_style="bold")
    reference = report.get("reference") or {}
    controls = report.get("controls") or []
    known = present([*report["rows"], reference, *controls], brief=True)
    table.add_column("steps", justify="right")
    table.add_column("method", min_width=17)
    for measure in known:
        table.add_column(f"{measure.heading}\n{measure.unit}", justify="right")
    rows = sorted(report["rows"], key=lambda row: (row["steps"] == "full", row["evaluations"]))
    for i, row in enumerate(rows):
        new_group = i > 0 and rows[i - 1]["steps"] != row["steps"]
        if new_group:
            table.add_section()
        table.add_row(str(row["steps"]), row["method"], *(m.plain(row.get(m.key)) for m in known))
    if reference:
        table.add_section()
        for row in ({**reference, "method": aim(report)}, *controls):
            table.add_row("", row["method"], *(m.plain(row.get(m.key)) for m in known))
    console.print(table)
    if "entropy" in reference:
        console.print(f"Entropy of {aim(report).lower()}: {reference['entropy']:.3f} nats/token.")
    for row in report.get("held_out") or []:
        console.print(in_words(row) + ".", soft_wrap=True)
    console.print(report["summary"], soft_wrap=True)


def runs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line a run."""
    table = Table(header_style="bold")
    for name, side in (
        ("run", "left"), ("method", "left"), ("data", "left"), ("size", "right"),
        ("steps", "right"), ("held-out loss", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=side)  # pyright: ignore[reportArgumentType]
    for row in rows:
        loss = "-" if row["valid"] is None else f"{row['valid']:.4f}"
        table.add_row(
            row["run"], row["method"], row["data"], row["size"],
            f"{row['step']:,} / {row['steps']:,}", loss,
        )  # fmt: skip
    console.print(table)


class Measuring:
    """Rows of figures as they come: above a bar on a terminal, else a plain line each.

    A context manager. The bar, on the error stream, counts evaluations of the network.
    """

    def __init__(self, paper: Console, work: int) -> None:
        terminal = console(stderr=True)
        self._lines = terminal if terminal.is_terminal else paper
        self._bar = Bars(console=terminal, disable=not terminal.is_terminal, transient=True)
        self._task = self._bar.add_task("writing", total=work)

    def __enter__(self) -> Measuring:
        self._bar.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self._lines.print(sentence, soft_wrap=True)

    def work(self, evaluations: int) -> None:
        """Move the bar on."""
        self._bar.advance(self._task, evaluations)

    def row(self, row: Mapping[str, Any]) -> None:
        """Print the figures of a row."""
        known = present([row], brief=True)
        figures = ", ".join(f"{m.heading} {m.plain(row[m.key])}" for m in known)
        self.say(f"{row['method']} @ {row['steps']}: {figures}")


def bar_of_texts(console: Console, shown: bool) -> Bars:
    """A bar of texts that are written elsewhere; a context manager."""
    return Bars(
        TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=not (shown and console.is_terminal), transient=True,
        redirect_stdout=False, redirect_stderr=False,  # the texts themselves are not for it
    )  # fmt: skip


def progress(console: Console, parts: Iterable[Mapping[str, Progress]]) -> None:
    """A bar per model while the demo trains; plain lines without a terminal."""
    if not console.is_terminal:
        last = -QUIET
        for state in parts:
            if (now := time.monotonic()) - last >= QUIET:
                done = ", ".join(f"{name} {p.step}/{p.steps}" for name, p in state.items())
                console.print(done, highlight=False, soft_wrap=True)
                last = now
        return
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {}
        for state in parts:
            for name, part in state.items():
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=part.steps)
                bars.update(tasks[name], completed=part.step)


def forecast(console: Console, experiment: Experiment, ahead: Forecast, devices: int) -> None:
    """Print a forecast, a line a question."""
    plan, held = experiment.train, ahead.memory
    assumed = " (assumed: the text is not prepared)" * ahead.assumed
    gib = {name: f"{value / 2**30:.2f}" for name, value in asdict(held).items() if value}
    parts = ", ".join(f"{name} {size}" for name, size in gib.items())
    each = "" if devices == 1 else f" of each of {devices} devices"
    there, fits = ahead.device.memory, ""
    if there is not None:
        fits = f"; {ahead.device.name} has {there / 2**30:.1f} GiB: it " + (
            "fits" if held.total <= there else "does not fit, but for a smaller --train.micro-batch"
        )
    lines = {
        "parameters": f"{ahead.parameters:,}",
        "vocabulary": f"{ahead.vocab:,}{assumed}",
        "tokens": f"{ahead.tokens:,} = {plan.steps:,} steps x {plan.batch:,} texts x "
        f"{ahead.length:,} tokens",
        "operations": f"{ahead.operations / ahead.tokens / 1e9:.3f} GFLOP a token, forward and "
        f"back; {ahead.operations:.3g} in all",
        "memory": f"{held.total / 2**30:.2f} GiB{each}, with {ahead.texts:,} texts at once{fits}",
        "": f"GiB: {parts} (a tile of the head: {ahead.tile / 2**30:.2f})",
        "time": f"{_span(ahead.hours)} at {_rounded(devices * ahead.device.speed / 1e12)} TFLOP/s: "
        f"{devices} x {ahead.device.reached}",
    }
    console.print(f"{experiment.name}, counted; nothing was trained.")
    for name, line in lines.items():
        console.print(f"  {name:12}{line}", soft_wrap=True)


def forecast_sum(console: Console, name: str, ahead: Sequence[Forecast]) -> None:
    """Print the sum of a chain's forecasts."""
    most = max(part.memory.total for part in ahead)
    lines = {
        "operations": f"{sum(part.operations for part in ahead):.3g} in all",
        "memory": f"{most / 2**30:.2f} GiB at most",
        "time": _span(sum(part.hours for part in ahead)),
    }
    console.print(f"{name}, all {len(ahead)} stages:")
    for question, line in lines.items():
        console.print(f"  {question:12}{line}", soft_wrap=True)


def _span(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:,.1f} minutes"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"
