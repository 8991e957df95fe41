"""The table of results: methods compared at the same number of steps."""

from __future__ import annotations

from typing import Literal

from flowlm.evaluate.measures import INTERVALS, SPREAD, Measure, present
from flowlm.evaluate.report.charts import marker
from flowlm.evaluate.report.figures import styles
from flowlm.evaluate.report.markup import (
    FORMS,
    Html,
    element,
    joined,
    measured,
    spoken,
)
from flowlm.evaluate.report.schema import Reference, Report, Row, Steps, aim

FEW = 8
"""Up to here a sampler counts as few-step, and the best entries are marked."""

_RULES: dict[str | None, str] = {
    "high": "highest",
    "low": "lowest",
    "near": "nearest to that of {target}",
    None: "",
}

COLLAPSE = 0.9
"""A sample entropy below this share of the reference is no rival for the best entry."""


def results_table(report: Report) -> Html:
    """Steps by method, with what a perfect model would write and the controls to compare with."""
    reference, controls = report.get("reference") or {}, list(report.get("controls") or [])
    columns = present([*report["rows"], reference, *controls])
    if len({row.get("samples") for row in report["rows"]}) == 1:
        columns = [column for column in columns if column.key != "samples"]  # in the note
    groups: dict[Steps, list[Row]] = {}
    for row in sorted(report["rows"], key=lambda row: _order(row["steps"])):
        groups.setdefault(row["steps"], []).append(row)
    known = styles(report)
    least = {column.key: _least_fault(column, controls, reference) for column in columns}
    bodies = [_controls(report, reference, controls, columns)]
    bodies += [
        _group(steps, rows, columns, reference, least, known) for steps, rows in groups.items()
    ]
    head = element(
        "tr",
        element("th", "Method", scope="col"),
        *(
            element("th", column.heading, " ", element("span", column.unit), scope="col")
            for column in columns
        ),
    )
    name = "Results by number of steps and method"
    caption = element("caption", name, class_="spoken")
    table = element("table", caption, element("thead", head), *bodies, class_="results")
    scroll = element("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")
    note = _note(report, columns, reference, least)
    return joined([scroll, element("p", note, class_="note")])


def _order(steps: Steps) -> tuple[bool, int]:
    return (False, steps) if isinstance(steps, int) else (True, 0)


def _note(
    report: Report,
    columns: list[Measure],
    reference: Reference,
    least: dict[str, float | None],
) -> str:
    """The texts behind a row, and the meaning of the marks."""
    rows = report["rows"]
    counts = {row.get("samples") for row in rows} - {None}
    parts = [f"Each row judges {count} texts." for count in counts if len(counts) == 1]
    target = "real text" if report.get("judge") else "the language"
    rules = [
        f"{column.heading} {rule.format(target=target)}"
        for column in columns
        if (rule := _RULES[_aim(column, reference)])
    ]
    if rules:
        parts.append(f"Bold: the best at that number of steps, up to {FEW} ({', '.join(rules)}).")
    if any(_collapsed(row, reference) for row in rows):
        parts.append(
            f"↓ marks an entropy below {100 * COLLAPSE:.0f} % of {target}'s: "
            "such texts repeat themselves, and their other numbers do not compete."
        )
    if any(_beaten(c, row, reference, least) for c in columns for row in rows):
        parts.append(
            "Grey: a writer without a model scores as well or better, so the figure proves nothing."
        )
    return " ".join(parts)


def _least_fault(column: Measure, controls: list[Row], reference: Reference) -> float | None:
    """How far the best control is from the best value; None where none says anything."""
    if not column.of_texts:
        return None
    values = [measured(row.get(column.key)) for row in controls]
    faults = [_fault(column, value, reference) for value in values if value is not None]
    return min((fault for fault in faults if fault is not None), default=None)


def _beaten(
    column: Measure, row: Row, reference: Reference, least: dict[str, float | None]
) -> bool:
    """Whether a control is as good as a row."""
    value, best = measured(row.get(column.key)), least[column.key]
    if value is None or best is None:
        return False
    fault = _fault(column, value, reference)
    return fault is not None and fault >= best


def _controls(
    report: Report, reference: Reference, controls: list[Row], columns: list[Measure]
) -> Html:
    """Figures of real text, and of writers without a model, as the first rows."""
    listed: list[Row] = [{**reference, "method": aim(report)}, *controls]
    title = element("th", "To compare with", scope="rowgroup", colspan=len(columns) + 1)
    rows = [
        element(
            "tr",
            element("th", row["method"], scope="row"),
            *(_cell(column, row) for column in columns),
        )
        for row in listed
        if any(measured(row.get(column.key)) is not None for column in columns)
    ]
    if not rows:
        return Html("")
    return element("tbody", element("tr", title, class_="group"), *rows, class_="compare")


def _group(
    steps: Steps,
    rows: list[Row],
    columns: list[Measure],
    reference: Reference,
    least: dict[str, float | None],
    known: dict[str, int],
) -> Html:
    """The methods at one number of steps."""
    few = isinstance(steps, int) and steps <= FEW
    best = {c.key: _best(c, rows, reference) if few else set() for c in columns}
    name = "Full" if steps == "full" else f"{steps} step{'s' if steps != 1 else ''}"
    title = element("th", name, scope="rowgroup", colspan=len(columns) + 1)
    lines = []
    for row in rows:
        collapsed = _collapsed(row, reference)
        cells = []
        for column in columns:
            value = measured(row.get(column.key))
            shown = None if value is None or collapsed else _show(column, value)
            wins = shown in best[column.key]
            low = collapsed and column.key == "sample_entropy"
            cells.append(_cell(column, row, wins, low, _beaten(column, row, reference, least)))
        method = element("th", marker(known[row["method"]]), row["method"], scope="row")
        lines.append(element("tr", method, *cells))
    return element("tbody", element("tr", title, class_="group"), *lines)


def _best(column: Measure, rows: list[Row], reference: Reference) -> set[str]:
    """The winning entries as they are written: what is as good to the last digit shown wins too."""
    values = [measured(row.get(column.key)) for row in rows if not _collapsed(row, reference)]
    faults = {value: _fault(column, value, reference) for value in values if value is not None}
    ranked = {value: fault for value, fault in faults.items() if fault is not None}
    if len({_show(column, value) for value in ranked}) < 2:
        return set()
    least = _show(column, abs(min(ranked.values())))
    return {
        _show(column, value)
        for value, fault in ranked.items()
        if _show(column, abs(fault)) == least
    }


def _aim(column: Measure, reference: Reference) -> Literal["high", "low", "near"] | None:
    """Where the best value of a measure lies, with what is known of real text."""
    if column.best not in ("near", "near or low"):
        return column.best
    if measured(reference.get(column.key)) is not None:
        return "near"
    return "low" if column.best == "near or low" else None


def _fault(column: Measure, value: float, reference: Reference) -> float | None:
    """How far a value is from the best; None where none is better than another."""
    match _aim(column, reference):
        case "high":
            return -value
        case "low":
            return value
        case "near":
            return abs(value - reference[column.key])
        case None:
            return None


def _show(column: Measure, value: float) -> str:
    return FORMS[column.form](value)


def _collapsed(row: Row, reference: Reference) -> bool:
    level, value = measured(reference.get("sample_entropy")), measured(row.get("sample_entropy"))
    return level is not None and value is not None and value < COLLAPSE * level


def _cell(
    column: Measure, row: Row, wins: bool = False, low: bool = False, beaten: bool = False
) -> Html:
    value = measured(row.get(column.key))
    if value is None:
        dash = element("span", "–", aria_hidden="true")
        return element("td", dash, spoken("not measured"), class_="none")
    shown, title = _show(column, value), _interval(column, row)
    if low:
        return element("td", "↓ ", shown, spoken(" far too low"), class_="low", title=title)
    if beaten:
        return element("td", shown, spoken(" no better than a control"), class_="grey", title=title)
    if wins:
        return element("td", element("strong", shown), class_="best", title=title)
    return element("td", shown, title=title)


def _interval(column: Measure, row: Row) -> str | None:
    """The uncertainty of a figure, in words; None where none is known."""
    ends = (row.get(INTERVALS) or {}).get(column.key)
    over_seeds = (row.get(SPREAD) or {}).get(column.key)
    parts = []
    if ends is not None:
        parts.append(f"95 %: {_show(column, ends[0])} to {_show(column, ends[1])}")
    if over_seeds is not None:
        parts.append(f"standard deviation over seeds: {over_seeds:.3g}")
    return "; ".join(parts) or None
