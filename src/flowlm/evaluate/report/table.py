"""The table of results: methods compared at the same number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowlm.evaluate.report.charts import marker
from flowlm.evaluate.report.figures import styles
from flowlm.evaluate.report.markup import (
    Html,
    duration,
    element,
    joined,
    measured,
    nats,
    percent,
    spoken,
    whole,
)
from flowlm.evaluate.report.schema import Reference, Report, Row, Steps

FEW = 8
"""Up to here a sampler counts as few-step, and the best entries are marked."""

COLLAPSE = 0.9
"""A sample entropy below this share of the reference is no rival for the best entry."""


@dataclass(frozen=True)
class _Column:
    """A measure: its heading, how to write it, and how far a value is from the best possible."""

    name: str
    unit: str
    value: Callable[[Row], float | None]
    show: Callable[[float], str]
    fault: Callable[[float, Reference], float | None] = lambda value, reference: None


def _nll_fault(value: float, reference: Reference) -> float:
    level = measured(reference.get("nll"))
    return value if level is None else abs(value - level)


def _entropy_fault(value: float, reference: Reference) -> float | None:
    level = measured(reference.get("sample_entropy"))
    return None if level is None else abs(value - level)


_COLUMNS = (
    _Column("Valid", "share", lambda row: row.get("valid"), percent, lambda v, _: -v),
    _Column("NLL", "nats/token", lambda row: row.get("nll"), nats, _nll_fault),
    _Column("Entropy", "nats", lambda row: row.get("sample_entropy"), nats, _entropy_fault),
    _Column("Unique", "share", lambda row: row.get("unique"), percent),
    _Column("Evaluations", "per text", lambda row: row.get("evaluations"), whole),
    _Column("Time", "per text", lambda row: row.get("seconds"), duration),
    _Column("Texts", "judged", lambda row: row.get("samples"), whole),
)


def results_table(report: Report) -> Html:
    """Steps by method, with the language itself and independent words to compare with."""
    reference = report.get("reference") or {}
    columns = _COLUMNS if len({row.get("samples") for row in report["rows"]}) > 1 else _COLUMNS[:-1]
    groups: dict[Steps, list[Row]] = {}
    for row in sorted(report["rows"], key=lambda row: _order(row["steps"])):
        groups.setdefault(row["steps"], []).append(row)
    known = styles(report)
    bodies = [_controls(report, reference, columns)]
    bodies += [_group(steps, rows, columns, reference, known) for steps, rows in groups.items()]
    head = element(
        "tr",
        element("th", "Method", scope="col"),
        *(
            element("th", column.name, " ", element("span", column.unit), scope="col")
            for column in columns
        ),
    )
    name = "Results by number of steps and method"
    caption = element("caption", name, class_="spoken")
    table = element("table", caption, element("thead", head), *bodies, class_="results")
    scroll = element("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")
    return joined([scroll, element("p", _note(report, reference), class_="note")])


def _order(steps: Steps) -> tuple[bool, int]:
    return (False, steps) if isinstance(steps, int) else (True, 0)


def _note(report: Report, reference: Reference) -> str:
    """What a row rests on, and what the marks mean."""
    rows = report["rows"]
    counts = {row.get("samples") for row in rows} - {None}
    parts = [f"Each row judges {count} texts." for count in counts if len(counts) == 1]
    target = "real text" if report.get("judge") else "the language"
    rules = {
        "the highest share of valid texts": any(measured(r.get("valid")) is not None for r in rows),
        "the lowest NLL": measured(reference.get("nll")) is None,
        f"the NLL nearest to {target}'s": measured(reference.get("nll")) is not None,
        f"the entropy nearest to {target}'s": measured(reference.get("sample_entropy")) is not None,
    }
    best = ", ".join(rule for rule, holds in rules.items() if holds)
    parts.append(f"Bold: the best at that number of steps, up to {FEW} ({best}).")
    if any(_collapsed(row, reference) for row in rows):
        parts.append(
            f"↓ marks an entropy below {100 * COLLAPSE:.0f} % of {target}'s: "
            "such texts repeat themselves, and their other numbers do not compete."
        )
    return " ".join(parts)


def _controls(report: Report, reference: Reference, columns: tuple[_Column, ...]) -> Html:
    """What the texts themselves score, and what chance scores, as the first rows."""
    itself: Row = {
        "method": "Real text" if report.get("judge") else "The language itself",
        "steps": "full",
        "valid": reference.get("valid"),
        "nll": reference.get("nll"),
        "sample_entropy": reference.get("sample_entropy"),
        "unique": reference.get("unique"),
    }
    chance: Row = {
        "method": "Words drawn independently",
        "steps": "full",
        "valid": reference.get("marginals_valid"),
        "nll": reference.get("marginals_nll"),
        "sample_entropy": reference.get("marginals_sample_entropy"),
    }
    title = element("th", "To compare with", scope="rowgroup", colspan=len(columns) + 1)
    rows = [
        element(
            "tr",
            element("th", row["method"], scope="row"),
            *(_cell(column, row, False, False) for column in columns),
        )
        for row in (itself, chance)
        if any(measured(column.value(row)) is not None for column in columns)
    ]
    if not rows:
        return Html("")
    return element("tbody", element("tr", title, class_="group"), *rows, class_="compare")


def _group(
    steps: Steps,
    rows: list[Row],
    columns: tuple[_Column, ...],
    reference: Reference,
    known: dict[str, int],
) -> Html:
    """The methods at one number of steps."""
    few = isinstance(steps, int) and steps <= FEW
    best = {c.name: _best(c, rows, reference) if few else set() for c in columns}
    name = "Full" if steps == "full" else f"{steps} step{'s' if steps != 1 else ''}"
    title = element("th", name, scope="rowgroup", colspan=len(columns) + 1)
    lines = []
    for row in rows:
        collapsed = _collapsed(row, reference)
        cells = []
        for column in columns:
            value = measured(column.value(row))
            shown = None if value is None or collapsed else column.show(value)
            wins = shown in best[column.name]
            cells.append(_cell(column, row, wins, collapsed and column.name == "Entropy"))
        method = element("th", marker(known[row["method"]]), row["method"], scope="row")
        lines.append(element("tr", method, *cells))
    return element("tbody", element("tr", title, class_="group"), *lines)


def _best(column: _Column, rows: list[Row], reference: Reference) -> set[str]:
    """The winning entries as they are written: what is as good to the last digit shown wins too."""
    values = [measured(column.value(row)) for row in rows if not _collapsed(row, reference)]
    faults = {value: column.fault(value, reference) for value in values if value is not None}
    ranked = {value: fault for value, fault in faults.items() if fault is not None}
    if len({column.show(value) for value in ranked}) < 2:
        return set()
    least = column.show(abs(min(ranked.values())))
    return {
        column.show(value) for value, fault in ranked.items() if column.show(abs(fault)) == least
    }


def _collapsed(row: Row, reference: Reference) -> bool:
    level, value = measured(reference.get("sample_entropy")), measured(row.get("sample_entropy"))
    return level is not None and value is not None and value < COLLAPSE * level


def _cell(column: _Column, row: Row, wins: bool, low: bool) -> Html:
    value = measured(column.value(row))
    if value is None:
        dash = element("span", "–", aria_hidden="true")
        return element("td", dash, spoken("not measured"), class_="none")
    if wins:
        return element("td", element("strong", column.show(value)), class_="best")
    if low:
        return element("td", "↓ ", column.show(value), spoken(" far too low"), class_="low")
    return element("td", column.show(value))
