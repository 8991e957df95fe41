"""The figures of the page: what a report says about quality, diversity and training, as charts."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    powers_axis,
    thinned,
)
from flowlm.evaluate.report.markup import (
    THIN,
    Html,
    element,
    measured,
    nats,
    percent,
    steps_text,
)
from flowlm.evaluate.report.schema import Report, Row

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
    """Valid share, NLL and sample entropy over steps, side by side."""
    figures = [figure for figure in (_valid(report), _nll(report), _entropy(report)) if figure]
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


def _valid(report: Report) -> Html | None:
    lines = _lines(report, _valid_point)
    if not lines:
        return None
    chance = measured((report.get("reference") or {}).get("marginals_valid"))
    rules = [] if chance is None else [Rule(chance, "independent words")]
    y = linear_axis(0, 1, "valid", lambda share: f"{100 * share:.0f}{THIN}%")
    caption = "Valid texts, with 95 % intervals. Dashed: words drawn independently."
    if not rules:
        caption = "Valid texts, with 95 % intervals."
    return _figure("valid", "Share of valid texts over steps", caption, y, lines, rules)


def _nll(report: Report) -> Html | None:
    lines = _lines(report, lambda row: _plain_point(row, measured(row.get("nll"))))
    if not lines:
        return None
    reference = report.get("reference") or {}
    level, name = measured(reference.get("entropy")), "the language"
    caption = "NLL per token. Dashed: the entropy of the language."
    if level is None or report.get("judge"):
        level, name = measured(reference.get("nll")), "real text"
        caption = "NLL per token. Dashed: real text."
    rules = [] if level is None else [Rule(level, name)]
    caption = caption if rules else "NLL per token."
    y = _nats_axis(lines, rules)
    return _figure("nll", "NLL per token over steps", caption, y, lines, rules)


def _entropy(report: Report) -> Html | None:
    lines = _lines(report, lambda row: _plain_point(row, measured(row.get("sample_entropy"))))
    if not lines:
        return None
    level = measured((report.get("reference") or {}).get("sample_entropy"))
    name = "real text" if report.get("judge") else "the language"
    rules = [] if level is None else [Rule(level, name)]
    caption = "Sample entropy: a low NLL counts only where this stays up."
    y = _nats_axis(lines, rules)
    return _figure("entropy", "Sample entropy over steps", caption, y, lines, rules)


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


def _plain_point(row: Row, value: float | None) -> Point | None:
    if value is None or math.isinf(value):
        return None
    return Point(_along(row), value, f"{steps_text(row['steps'])} {nats(value)} nats")


def _valid_point(row: Row) -> Point | None:
    share, samples = measured(row.get("valid")), row.get("samples")
    if share is None:
        return None
    interval = _wilson(share, samples) if samples else None
    return Point(_along(row), share, f"{steps_text(row['steps'])} {percent(share)}", interval)


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


def _nats_axis(lines: list[Line], rules: list[Rule]) -> Axis:
    values = [point.y for line in lines for point in line.points] + [rule.y for rule in rules]
    return linear_axis(min(values), max(values), "nats", lambda value: f"{value:.3g}")


def _loss_axis(losses: list[float]) -> Axis:
    """Logarithmic where the loss falls by more than a factor of twenty."""
    low, high = min(losses), max(losses)
    if low > 0 and high / low > 20:
        return decades_axis(losses, "loss, log scale")
    return linear_axis(low, high, "loss", lambda value: f"{value:.3g}")


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
