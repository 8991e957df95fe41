"""The figures of further judges on the page: a table for each."""

from __future__ import annotations

from flowlm.evaluate.measures import JUDGED, JUDGES, MEASURES
from flowlm.evaluate.report.markup import Html, element, joined, steps_text
from flowlm.evaluate.report.schema import Report, Row, aim


def judges(report: Report) -> Html:
    """Every row as each further judge reads it, real text first."""
    reference = report.get("reference") or {}
    rows: list[Row] = [{**reference, "method": aim(report)}, *report["rows"]]
    names = dict.fromkeys(name for row in rows for name in row.get(JUDGES) or {})
    return joined(_table(name, [row for row in rows if name in row[JUDGES]]) for name in names)


def _table(judge: str, rows: list[Row]) -> Html:
    found = [row[JUDGES][judge] for row in rows]
    known = [MEASURES[key] for key in JUDGED if any(key in figures for figures in found)]
    heads = ("Method", "steps", *(f"{m.heading} {m.unit}".strip() for m in known))
    lines = []
    for row, figures in zip(rows, found):
        steps = "" if "steps" not in row else steps_text(str(row["steps"]))
        cells = (steps, *(m.plain(figures.get(m.key)) for m in known))
        name = element("th", row["method"], scope="row")
        lines.append(element("tr", name, *(element("td", cell) for cell in cells)))
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    table = element("table", head, element("tbody", *lines), class_="results")
    return joined([element("h3", judge), element("div", table, class_="scroll")])
