"""Line charts as inline SVG, drawn by hand: axes, lines, markers, labels at the lines' ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from flowlm.evaluate.report.markup import Html, element

MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",  # circle
    "M-3.6 -3.6h7.2v7.2h-7.2z",  # square
    "M0 -4.8L4.6 3.4H-4.6z",  # triangle
    "M0 -5.2L5.2 0L0 5.2L-5.2 0z",  # diamond
    "M0 4.8L4.6 -3.4H-4.6z",  # triangle, point down
    "M-1.6 -4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",  # plus
    "M-5 -2.6h10v5.2h-10z",  # bar
)
"""Outlines around the origin; style k of the style sheet goes with marker k."""


@dataclass(frozen=True)
class Point:
    """A measurement, perhaps with an interval, and its values in words."""

    x: float
    y: float
    note: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """One method: points in order of x; `style` picks its colour and marker."""

    name: str
    style: int
    points: tuple[Point, ...]
    markers: bool = True


@dataclass(frozen=True)
class Rule:
    """A dashed level to compare with."""

    y: float
    name: str


@dataclass(frozen=True)
class Axis:
    """A range, straight or logarithmic, and the values marked on it."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    label: str
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Size:
    """Size of a chart and the margins around its plot, in units of the view box."""

    width: float = 400
    height: float = 276
    left: float = 44
    right: float = 116
    top: float = 30
    bottom: float = 44


PANEL = Size(width=260, height=176, right=12)
"""A small chart that names itself: no labels at the ends."""


def plain(value: float, digits: int) -> str:
    """A value with so many digits behind the point; no -0."""
    return f"{value:.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def powers_axis(values: Iterable[float], label: str) -> Axis:
    """A logarithmic axis marked at powers of two, every other one where they are many."""
    values = list(values)
    low, high = min(values), max(max(values), 2 * min(values))
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    powers = powers[:: 1 + (len(powers) - 1) // 8]
    return Axis(low, high, tuple((2.0**k, f"{2**k}") for k in powers), label, log=True)


def decades_axis(values: Iterable[float], label: str) -> Axis:
    """A logarithmic axis marked at powers of ten, and in between where those are few."""
    values = list(values)
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1, 3) if len(decades) <= 4 else (1,)
    marks = [part * 10.0**k for k in decades for part in parts]
    ticks = tuple((v, f"{v:.0e}" if v < 1e-3 else f"{v:g}") for v in marks if low <= v <= high)
    if len(ticks) < 2:  # too narrow for round numbers
        ticks = tuple((v, said) for v, said in linear_axis(low, high, label).ticks if v > 0)
        low, high = min(low, ticks[0][0]), max(high, ticks[-1][0])
    return Axis(low, high, ticks, label, log=True)


def linear_axis(
    low: float, high: float, label: str, show: Callable[[float, int], str] = plain
) -> Axis:
    """A straight axis from one round value to another, about five of them marked.

    `show` writes a value with so many digits behind the point that no two marks read alike.
    """
    high = high if high > low else low + 1.0
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= 0.79 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = next(d for d in range(20) if abs(round(step, d) - step) < 1e-3 * step)
    ticks = tuple((k * step, show(k * step, digits)) for k in range(first, last + 1))
    return Axis(first * step, last * step, ticks, label)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in [low, high], at least `gap` apart, in the order of those wanted.

    They are the nearest in the sense of least squares: less `gap` for each before it, a place may
    not come before the last one, and neighbours that would are pooled at their mean.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[list[float]] = []
    for rank, i in enumerate(order):
        pools.append([wanted[i] - rank * gap])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    means = [fmean(pool) for pool in pools for _ in pool]
    most = high - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(means[rank], low), max(most, low)) + rank * gap
    return places


def marker(style: int) -> Html:
    """The sign of a style, to stand before a name in a table."""
    path = element("path", d=MARKERS[style % len(MARKERS)], class_="mark")
    return element(
        "svg",
        path,
        class_=f"sign s{style % len(MARKERS)}",
        viewBox="-6 -6 12 12",
        aria_hidden="true",
    )


def chart(
    key: str,
    title: str,
    axes: tuple[Axis, Axis],
    lines: Sequence[Line],
    rules: Sequence[Rule] = (),
    size: Size | None = None,
) -> Html:
    """The chart, with a title and its values in words for who cannot see it.

    `key` must be the page's only one of its name.
    """
    plot = _Plot(axes[0], axes[1], size or Size())
    words = "; ".join(
        [f"{line.name}: {', '.join(p.note for p in line.points if p.note)}" for line in lines]
        + [f"dashed line: {rule.name}" for rule in rules]
    )
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", f"{words}.", id=f"{key}-desc"),
        *plot.scales(),
        *(plot.rule(rule) for rule in rules),
        *(plot.line(line) for line in lines),
        *(plot.ends(lines, rules) if plot.size.right > 60 else ()),
        class_="chart",
        viewBox=f"0 0 {plot.size.width:g} {plot.size.height:g}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


@dataclass(frozen=True)
class _Plot:
    """Values to places in the view box, and the pieces of a chart."""

    x: Axis
    y: Axis
    size: Size

    def place(self, x: float, y: float) -> tuple[float, float]:
        f, inset = self.size, 8
        across = f.width - f.left - f.right - 2 * inset
        down = f.height - f.top - f.bottom
        return f.left + inset + self.x.at(x) * across, f.height - f.bottom - self.y.at(y) * down

    def scales(self) -> list[Html]:
        """Grid, ticks and the names of the axes."""
        f = self.size
        floor, end = f.height - f.bottom, f.width - f.right
        parts = [
            element("text", self.y.label, x=0, y=12, class_="name"),
            element("text", self.x.label, x=end, y=f.height - 6, class_="name end"),
        ]
        for value, text in self.y.ticks:
            height = self.place(self.x.low, value)[1]
            parts.append(_segment("grid", (f.left, height), (end, height)))
            parts.append(
                element("text", text, x=f.left - 6, y=f"{height + 4:.1f}", class_="tick end")
            )
        for value, text in self.x.ticks:
            along = self.place(value, self.y.low)[0]
            parts.append(_segment("grid", (along, floor), (along, floor + 4)))
            parts.append(element("text", text, x=f"{along:.1f}", y=floor + 18, class_="tick mid"))
        return parts

    def rule(self, rule: Rule) -> Html:
        """The dashed level across the plot."""
        height = self.place(self.x.low, rule.y)[1]
        return _segment(
            "rule", (self.size.left, height), (self.size.width - self.size.right, height)
        )

    def line(self, line: Line) -> Html:
        """A line through its points, their intervals and markers."""
        places = [self.place(point.x, point.y) for point in line.points]
        parts = [_path("line", places)] if len(places) > 1 else []
        for point in line.points:
            if point.interval is not None:
                low, high = (self.place(point.x, value) for value in point.interval)
                parts.append(_segment("whisker", low, high))
        if line.markers:
            for point, (x, y) in zip(line.points, places, strict=True):
                parts.append(
                    element(
                        "path",
                        element("title", f"{line.name}, {point.note}"),
                        d=MARKERS[line.style % len(MARKERS)],
                        transform=f"translate({x:.1f} {y:.1f})",
                        class_="mark",
                    )
                )
        return element("g", *parts, class_=f"s{line.style % len(MARKERS)}")

    def ends(self, lines: Sequence[Line], rules: Sequence[Rule]) -> list[Html]:
        """Names at the right, each beside the end of its line or joined to it by a thread."""
        f = self.size
        edge = f.width - f.right
        named = [(f"s{line.style % len(MARKERS)}", line.name, line.points[-1]) for line in lines]
        anchors = [self.place(point.x, point.y) for _, _, point in named]
        anchors += [(edge - 6, self.place(self.x.low, rule.y)[1]) for rule in rules]
        labels = [(style, name) for style, name, _ in named] + [("level", r.name) for r in rules]
        heights = spread([y for _, y in anchors], 15, f.top - 4, f.height - f.bottom)
        parts = []
        for (style, name), (x, y), height in zip(labels, anchors, heights, strict=True):
            thread = _segment("thread", (x + 7, y), (edge + 3, height))
            text = element("text", name, x=edge + 6, y=f"{height + 4:.1f}", class_="end-label")
            parts.append(element("g", thread, text, class_=style))
        return parts


def _path(kind: str, places: Sequence[tuple[float, float]]) -> Html:
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return element("path", d=d, class_=kind)


def _segment(kind: str, start: tuple[float, float], end: tuple[float, float]) -> Html:
    return _path(kind, (start, end))


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points: the means of equally many neighbours each."""
    size = math.ceil(len(points) / most) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
