"""The frontier of quality against diversity on the page: a chart, and a table at equal entropy."""

from __future__ import annotations

import math

from flowlm.evaluate.frontier import Reached, pareto
from flowlm.evaluate.report.charts import Line, Point, Rule, chart, linear_axis
from flowlm.evaluate.report.markup import Html, element, joined, measured, steps_text
from flowlm.evaluate.report.schema import Frontier, Report


def frontiers(report: Report) -> Html:
    """A line a sampler, and what each says at the entropy of real text."""
    entries = report.get("frontier") or []
    if not entries:
        return Html("")
    reference = report.get("reference") or {}
    level = measured(reference.get("nll"))
    lines = [
        Line(_name(entry), style % 5, tuple(map(_point, _kept(entry))))
        for style, entry in enumerate(entries)
    ]
    xs = [point.x for line in lines for point in line.points]
    ys = [point.y for line in lines for point in line.points]
    ys += [] if level is None else [level]
    axes = (
        linear_axis(min(xs), max(xs), "sample entropy, nats"),
        linear_axis(min(ys), max(ys), "NLL, nats/token"),
    )
    rules = [] if level is None else [Rule(level, "real text")]
    drawn = chart("frontier", "NLL over sample entropy", axes, lines, rules)
    heads = ["Sampler", "NLL at the entropy of real text", "nearest point", "nats above", "reached"]
    rows = [
        element("tr", element("th", _name(entry), scope="row"), *(_cells(entry)))
        for entry in entries
    ]
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    table = element("table", head, element("tbody", *rows), class_="results")
    figure = element("figure", drawn)
    return joined([figure, element("div", table, class_="scroll")])


def _name(entry: Frontier) -> str:
    return f"{entry['method']}, {steps_text(entry['steps'])}, {entry['knob']}"


def _kept(entry: Frontier) -> list[Reached]:
    return pareto([Reached(point["sample_entropy"], point["nll"]) for point in entry["points"]])


def _point(reached: Reached) -> Point:
    return Point(reached.entropy, reached.nll, f"{reached.nll:.3f} nats at {reached.entropy:.3f}")


def _cells(entry: Frontier) -> list[Html]:
    at, near, share = entry.get("nll_at_real"), entry.get("nearest"), entry.get("reached")
    above = entry.get("area")
    said = [
        "not reached" if at is None else f"{at:.3f} (perplexity {math.exp(at):.1f})",
        "–" if near is None else f"{near[1]:.3f} at {near[0]:.3f}",
        "–" if above is None else f"{above:.3f}",
        "–" if share is None else f"{100 * share:.0f} %",
    ]
    return [element("td", text) for text in said]
