"""Reports in a directory: where they go, and never one over another of other settings."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from flowlm.errors import Notice, Refusal, reason
from flowlm.evaluate.report import Report, checked, write_report
from flowlm.files import locked, write_text

REPORT, PAGE = "report.json", "report.html"

UNFINISHED = "report-unfinished.json"
"""The rows of an evaluation that was stopped, as a report; the finished report takes its place."""


def place_of(name: str) -> Path:
    """Where the report of the model `name` goes: into its run, else into reports/NAME.

    A file, an export, a shipped model and a model of the hub have no room for a report.
    """
    place = Path(name)
    if (place / "metrics.jsonl").exists() or (place / "checkpoints").exists():
        return place
    place = place.resolve() if place.is_dir() else place  # `.` has no name
    return Path("reports") / (place.stem if place.is_file() else place.name)


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Be the only process that writes a report into `directory`; it is made if it is missing.

    A Refusal at the start if nothing can be written there, or somebody else does.
    """
    with locked(directory / ".report.lock", directory / REPORT):
        yield


def write(report: Mapping[str, Any], directory: Path) -> None:
    """Write report.json and report.html in place of those of the same settings.

    What else is there under these names is kept beside them, and a Notice says so.
    """
    settings = report["settings"]
    _make_room(directory, (PAGE, REPORT), settings)
    write_text(json.dumps(report, indent=1) + "\n", directory / REPORT)
    write_report(report, directory / PAGE)
    if unfinished_rows(directory, settings):
        (directory / UNFINISHED).unlink()


def write_unfinished(report: Mapping[str, Any], directory: Path) -> None:
    """Keep the rows that are measured so far, for the same evaluation to go on after them."""
    _make_room(directory, (UNFINISHED,), report["settings"])
    write_text(json.dumps(report, indent=1) + "\n", directory / UNFINISHED)


def unfinished_rows(directory: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that an earlier evaluation with the same settings has measured; maybe none."""
    known = _read(directory / UNFINISHED)
    if known is None or known.get("settings") != settings:
        return []
    return [dict(row) for row in known["rows"]]


def _read(file: Path) -> Report | None:
    """A report, or None of what is none."""
    try:
        return checked(json.loads(file.read_text(encoding="utf-8")))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        Refusal,
    ):
        return None


def _make_room(directory: Path, names: tuple[str, ...], settings: Mapping[str, Any]) -> None:
    """Rename files that are not a report of these settings; the last of `names` is the report."""
    there = [name for name in names if os.path.lexists(directory / name)]
    known = _read(directory / names[-1])
    if not there or (known is not None and known.get("settings") == settings):
        return
    free = next(
        f"report-{n}"
        for n in count(1)
        if not any(os.path.lexists(directory / f"report-{n}{s}") for s in (".json", ".html"))
    )
    kept = [free + Path(name).suffix for name in there]
    try:
        for name, other in zip(there, kept):
            os.rename(directory / name, directory / other)
    except OSError as error:
        raise Refusal(
            f"{directory / names[-1]} is of other settings and cannot be renamed "
            f"({error.strerror or reason(error)}): choose another --out."
        ) from error
    warnings.warn(
        f"{directory / there[-1]} was a report of other settings or other weights: it is kept as "
        f"{' and '.join(kept[::-1])}.",
        Notice,
        stacklevel=3,
    )
