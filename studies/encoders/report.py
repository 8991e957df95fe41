"""The study's tables, and docs/encoders.svg, from studies/results/encoders*.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.cells import table
from benchmarks.growth import STYLE

from flowlm.evaluate.report.charts import Axis, Line, Point, chart, decades_axis, linear_axis
from flowlm.evaluate.report.markup import Html, element
from flowlm.files import write_text
from studies.encoders.cells import MEAN, TAUS
from studies.encoders.plan import COMPARED

WORLDS = {"text": "WikiText-2, v = 8,192", "dialects": "sentences, v = 244"}
SMALLER = {
    "small": {"demo": "sentences, v = 61"},
    "vocabularies": {
        "text-2048": "WikiText-2, v = 2,048",
        "text-512": "WikiText-2, v = 512",
        "characters": "WikiText-2, characters",
    },
}

Results = dict[str, list[dict[str, Any]]]
"""The three seeds of a flow or a map, by world, encoder and kind."""


def file_of(part: str) -> str:
    """The name of the results of a part."""
    return "encoders.json" if part == "study" else f"encoders-{part}.json"


def write(found: dict[str, Any], file: Path) -> None:
    """Results as JSON, a line a cell."""
    lines = {
        key: "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"
        if isinstance(value, list)
        else json.dumps(value)
        for key, value in found.items()
    }
    body = ",\n".join(f"{json.dumps(key)}: {value}" for key, value in lines.items())
    write_text("{\n" + body + "\n}\n", file)


def show(results: Path) -> None:
    """Print the tables in Markdown and draw the curves."""
    known = {part: results / file_of(part) for part in ("study", *SMALLER, "tuning", "ablations")}
    found = {part: json.loads(f.read_text()) for part, f in known.items() if f.exists()}
    for part, worlds in ({"study": WORLDS} | SMALLER).items():
        if part in found:
            tables(found[part], worlds)
    for part in ("tuning", "ablations"):
        if part in found:
            print(f"\n{part}\n\n{variants(found[part]['cells'])}")
    ratios = json.loads((results / file_of("ratio")).read_text())["ratios"]
    write_text(drawn(grouped(found["study"]["cells"]), ratios), Path("docs/encoders.svg"))


def tables(study: dict[str, Any], worlds: dict[str, str]) -> None:
    """Cross-entropy and what is written in some worlds."""
    groups = grouped(study["cells"])
    for world, title in worlds.items():
        judged = study["judged"].get(world, {})
        print(f"\n{title}: nats per held-out token by tau, mean [lowest, highest] of the seeds\n")
        print(costs(groups, world))
        print(f"\n{title}: what is written\n")
        print(writings(groups, world, judged))
        for name in ("held-out text", "words by frequency"):
            if name in judged:
                only = judged[name][0]
                together = only["shuffled"] - only["nats"]
                print(
                    f"\n{name}: perplexity {math.exp(only['nats']):.1f}, together "
                    f"{together:.2f}, entropy of all {only['entropy of all']:.2f}, entropy "
                    f"{only['entropy']:.2f}"
                )


def grouped(cells: list[dict[str, Any]]) -> Results:
    """The seeds of every flow and map together."""
    groups: Results = {}
    for cell in cells:
        if cell["kind"] != "judge":
            key = f"{cell['world']} {cell['encoder']} {cell['kind']}"
            groups.setdefault(key, []).append(cell)
    return groups


def compared(world: str) -> list[str]:
    """Names of the encoders, the linear one last."""
    return [variant.name for variant in COMPARED[world]]


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean [lowest, highest]."""
    return f"{fmean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def costs(groups: Results, world: str) -> str:
    """A row for each time, and the mean over times; ratios to the linear encoder."""
    encoders = compared(world)
    found = {e: [r["curve"][-1][2] for r in groups[f"{world} {e} flow"]] for e in encoders}
    rows = []
    lines = [(f"{tau}", slice(i, i + 1)) for i, tau in enumerate(TAUS)]
    for name, times in [*lines, ("mean from 0.05", MEAN)]:
        own = {e: [fmean(nats[times]) for nats in found[e]] for e in encoders}
        least = fmean(own["linear"])
        ratios = [f"{fmean(own[e]) / least:.3f}" for e in encoders[:-1]]
        rows.append([name, *(spread(own[e]) for e in encoders), *ratios])
    return table(["tau", *encoders, *(f"{e} / linear" for e in encoders[:-1])], rows)


def writings(groups: Results, world: str, judged: dict[str, list[dict[str, float]]]) -> str:
    """A row for each kind, number of evaluations, encoder and temperature: quality and entropy."""
    rows = []
    for kind, name in (("flow", "FLM"), ("map", "FMLM")):
        cells = {e: groups.get(f"{world} {e} {kind}", []) for e in compared(world)}
        every = [
            (k, written["steps"], encoder)
            for encoder, seeds in cells.items()
            for first in seeds[:1]
            for k, written in enumerate(first["written"])
        ]
        for k, steps, encoder in sorted(every, key=lambda row: row[1]):
            seeds = [result["written"][k] for result in cells[encoder]]
            temperature = seeds[0]["temperature"]
            row = [f"{name}, {steps}", encoder, f"{temperature:g}"]
            if judged:
                said = [judged[r["name"]][k] for r in cells[encoder]]
                row.append(spread([math.exp(s["nats"]) for s in said], ".0f"))
                row.append(spread([s["shuffled"] - s["nats"] for s in said], ".2f"))
                row.append(spread([s["entropy of all"] for s in said], ".2f"))
            else:
                row.append(spread([100 * s["valid"] for s in seeds], ".1f"))
                row.append(spread([s["nll"] for s in seeds], ".2f"))
            row.append(f"{fmean([s['sample_entropy'] for s in seeds]):.2f}")
            rows.append(row)
    figures = ["perplexity", "together", "entropy of all"] if judged else ["valid %", "nats"]
    return table(["evaluations", "encoder", "temperature", *figures, "entropy"], rows)


def variants(cells: list[dict[str, Any]]) -> str:
    """A row for each flow: cross-entropy at some times and the mean."""
    shown = [TAUS.index(tau) for tau in (0.05, 0.25, 0.45, 0.65, 0.95)]
    rows = []
    for result in cells:
        nats = result["curve"][-1][2]
        name = result["name"].partition(": ")[2]
        some = [f"{nats[i]:.2f}" for i in shown]
        rows.append([name, f"{result['steps']:,}", *some, f"{fmean(nats[MEAN]):.3f}"])
    return table(["", "steps", *(f"{TAUS[i]}" for i in shown), "mean"], rows)


def drawn(groups: Results, ratios: dict[str, dict[str, float]]) -> str:
    """Cross-entropy as training goes on and by time, in both worlds.

    Training by seconds: steps, and what a step took when all encoders were timed in turn.
    """
    panels = []
    for world, title in WORLDS.items():
        lines = []
        for style, encoder in enumerate(compared(world)):
            curves = [r["curve"] for r in groups[f"{world} {encoder} flow"]]
            each = ratios[f"{world}, flow, {encoder}"]["seconds"]
            points = tuple(
                _point(at[0][0] * each, [fmean(nats[MEAN]) for _, _, nats in at])
                for at in zip(*curves)
            )
            lines.append(Line(encoder, style, points))
        xs = [p.x for line in lines for p in line.points]
        panels.append(_panel(f"{title}: training", decades_axis(xs, "seconds, one thread"), lines))
        lines = []
        for style, encoder in enumerate(compared(world)):
            ends = [r["curve"][-1][2] for r in groups[f"{world} {encoder} flow"]]
            points = tuple(_point(tau, list(at)) for tau, at in zip(TAUS, zip(*ends)))
            lines.append(Line(encoder, style, points))
        axis = linear_axis(0, 1, "tau")
        panels.append(_panel(f"{title}: by time", axis, lines))
    placed = [
        element("svg", p, x=20 + 440 * (i % 2), y=16 + 300 * (i // 2), width=420, height=290)
        for i, p in enumerate(panels)
    ]
    paper = element("rect", width=900, height=620, fill="#fdfcfa")
    return (
        element(
            "svg", element("style", Html(STYLE)), paper, *placed,
            xmlns="http://www.w3.org/2000/svg", viewBox="0 0 900 620",
        ) + "\n"
    )  # fmt: skip


def _point(x: float, values: list[float]) -> Point:
    mean = fmean(values)
    return Point(x, mean, f"{x:.3g}: {spread(values)}", (min(values), max(values)))


def _panel(title: str, across: Axis, lines: list[Line]) -> Html:
    most = max(p.y for line in lines for p in line.points)
    up = linear_axis(0, most, "nats per held-out token")
    name = "".join(c if c.isalnum() else "-" for c in title)
    return chart(name, title, (across, up), lines)
