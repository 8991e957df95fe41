"""The figures of the page: what a report says about quality, diversity and training, as charts."""

from __future__ import annotations

import math
from collections.abc import Callable

from flowlm.evaluate.measures import Measure, present
from flowlm.evaluate.report.charts import (
    MARKERS,
    PANEL,
    Axis,
    Line,
    Point,
    Rule,
    chart,
    decades_axis,
    linear_axis,
    marker,
    plain,
    powers_axis,
    thinned,
)
from flowlm.evaluate.report.markup import (
    FORMS,
    THIN,
    Html,
    element,
    measured,
    steps_text,
)
from flowlm.evaluate.report.schema import Report, Row, aim

_STYLES = ("FMLM", "FLM", "Masked diffusion", "Autoregressive", "Uniform diffusion")
_BINS = 240


def styles(report: Report) -> dict[str, int]:
    """The style of each method: always the same for those known, a free one for any other."""
    names = [row["method"] for row in report["rows"]] + list(report.get("curves") or {})
    found = {name: _STYLES.index(name) for name in names if name in _STYLES}
    free = [style for style in reversed(range(len(MARKERS))) if style not in found.values()]
    others = [name for name in dict.fromkeys(names) if name not in found]
    for i, name in enumerate(others):
        found[name] = free[i % len(free)] if free else i % len(MARKERS)
    return found


def results(report: Report) -> Html:
    """Every measure that has a chart, over steps, side by side."""
    measures = present(list(report["rows"]))
    figures = [_measure(report, m, m.chart) for m in measures if m.chart is not None]
    figures = [figure for figure in figures if figure is not None]
    return element("div", *figures, class_="figures") if figures else Html("")


def training(report: Report) -> Html:
    """One small chart a method: their losses are different quantities."""
    known, panels = styles(report), []
    for i, (name, curve) in enumerate((report.get("curves") or {}).items()):
        finite = [(step, loss) for step, loss in curve if math.isfinite(loss)]
        means = thinned(finite, _BINS)
        if not means:
            continue
        told = {k: f"{means[k][1]:.3g} at step {means[k][0]:.0f}" for k in (0, len(means) - 1)}
        points = tuple(Point(x, y, told.get(k, "")) for k, (x, y) in enumerate(means))
        line = Line(name, known[name], points, markers=False)
        axes = (
            linear_axis(0, max(x for x, _ in means), "steps of training", _short),
            _loss_axis([y for _, y in means]),
        )
        title = f"{name}: training loss over steps of training"
        caption = element(
            "figcaption", marker(known[name]), name, class_=f"s{known[name]} panel-name"
        )
        panels.append(
            element("figure", caption, chart(f"curve-{i}", title, axes, [line], size=PANEL))
        )
    return element("div", *panels, class_="figures panels") if panels else Html("")


def levels(report: Report) -> Html:
    """Cross-entropy of held-out text by clock time, a line a method."""
    lines = []
    for style, (name, pairs) in enumerate((report.get("levels") or {}).items()):
        points = tuple(
            Point(tau, nats, f"{nats:.3g} at {tau:.2f}")
            for tau, nats in pairs
            if math.isfinite(nats)
        )
        if points:
            lines.append(Line(name, styles(report).get(name, style), points))
    if not lines:
        return Html("")
    most = max(point.y for line in lines for point in line.points)
    axes = (
        linear_axis(0, 1, "tau"),
        linear_axis(0, most, "nats per held-out token"),
    )
    drawn = chart("levels", "Held-out cross-entropy over clock time", axes, lines)
    return element("figure", drawn)


def _measure(report: Report, measure: Measure, caption: str) -> Html | None:
    """A measure over steps, with what real text scores, or for a share what chance scores."""
    lines = _lines(report, lambda row: _point(measure, row))
    if not lines:
        return None
    reference, share = report.get("reference") or {}, measure.form == "share"
    chance = [measured(row.get(measure.key)) for row in report.get("controls") or []]
    best = max((value for value in chance if value is not None), default=None)
    level = best if share else measured(reference.get(measure.key))
    itself = aim(report).lower()
    name = "best control" if share else itself
    rules = [] if level is None else [Rule(level, name)]
    if rules:
        caption += f" Dashed: {'the best writer without a model' if share else itself}."
    if share:
        y = linear_axis(0, 1, measure.heading.lower(), lambda part, _: f"{100 * part:.0f}{THIN}%")
    else:
        y = _value_axis(measure, lines, rules)
    title = f"{measure.heading} over steps"
    return _figure(measure.key, title, caption, y, lines, rules)


def _figure(
    key: str, title: str, caption: str, y: Axis, lines: list[Line], rules: list[Rule]
) -> Html:
    x = powers_axis((point.x for line in lines for point in line.points), "steps")
    return element(
        "figure",
        element("figcaption", caption),
        chart(key, title, (x, y), lines, rules),
    )


def _lines(report: Report, point: Callable[[Row], Point | None]) -> list[Line]:
    known = styles(report)
    lines = []
    for name in dict.fromkeys(row["method"] for row in report["rows"]):
        rows = (row for row in report["rows"] if row["method"] == name)
        points = {p.x: p for p in map(point, rows) if p is not None and p.x > 0}
        if points:
            lines.append(Line(name, known[name], tuple(points[x] for x in sorted(points))))
    return lines


def _point(measure: Measure, row: Row) -> Point | None:
    """A value with its words and, of a share, its interval."""
    value, samples = measured(row.get(measure.key)), row.get("samples")
    if value is None or math.isinf(value):
        return None
    said = f"{steps_text(row['steps'])} {FORMS[measure.form](value)}"
    if measure.form == "nats":
        said += " nats"
    interval = _wilson(value, samples) if measure.form == "share" and samples else None
    return Point(_along(row), value, said, interval)


def _along(row: Row) -> float:
    """Place on the axis of steps; "full" stands at its network evaluations (0: nowhere)."""
    steps = row["steps"]
    return steps if isinstance(steps, int) else row.get("evaluations") or 0


def _wilson(share: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z2 = 1.96**2 / samples
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * share * (1 - share) + z2 * z2 / 4) / (1 + z2)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _value_axis(measure: Measure, lines: list[Line], rules: list[Rule]) -> Axis:
    values = [point.y for line in lines for point in line.points] + [rule.y for rule in rules]
    return linear_axis(min(values), max(values), measure.unit)


def _loss_axis(losses: list[float]) -> Axis:
    """Logarithmic where the loss falls by more than a factor of twenty."""
    low, high = min(losses), max(losses)
    if low > 0 and high / low > 20:
        return decades_axis(losses, "loss, log scale")
    return linear_axis(low, high, "loss")


def _short(value: float, digits: int) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return plain(value, digits)
