"""Tables and the results of the study."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import table
from benchmarks.provenance import provenance

from flowlm.evaluate.frontier import Reached, interpolated
from flowlm.files import write_text

RESULTS = Path(__file__).parents[1] / "results"
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Figures of every seed, by entrant."""


def write(world: str, rows: Rows) -> None:
    """The results as JSON."""
    # Where the text and the runs lie is no part of a result.
    words = ["FILE" if "/" in word else word for word in sys.argv[1:]]
    told = {
        "provenance": provenance(),
        "command": " ".join(("python -m studies.real_text", *words)),
        "rows": {name: list(of) for name, of in rows.items()},
    }
    write_text(json.dumps(told, indent=1) + "\n", RESULTS / f"real-text-{world}.json")


def shown(rows: Rows) -> str:
    """The tables: likelihood, what is written by evaluations, filled gaps."""
    return "\n\n".join((likelihoods(rows), texts(rows), filled(rows)))


def likelihoods(rows: Rows) -> str:
    """Held-out nats per token."""
    lines = []
    for name, seeds in rows.items():
        known = [of["held_out"][0] for of in seeds if of["held_out"]]
        if known:
            nats = statistics.mean(k["nats"] for k in known)
            lines.append([name, f"{nats:.3f} ± {known[0]['error'] or 0:.3f}", known[0]["kind"]])
    return table(["held-out text", "nats per token", "kind"], lines)


def texts(rows: Rows) -> str:
    """Nats under the first judge (entropy of all words written) by evaluations.

    After them, at the entropy of real text, where temperatures reach it on both sides.
    """
    (first, *_), *_ = rows.values()
    counts = sorted(
        {n for of in rows.values() for way in of[0]["written"].values() for n in way}, key=int
    )
    lines = [["real text", "", *[_cell([first["real"]])] * len(counts)]]
    for name, seeds in rows.items():
        for way, by_count in seeds[0]["written"].items():
            for temperature in dict.fromkeys(t for of in by_count.values() for t in of):
                cells = [
                    _cell([s["written"][way].get(n, {}).get(temperature) for s in seeds])
                    for n in counts
                ]
                lines.append([name, f"{way}, T {temperature}", *cells])
            aim = first["real"]["entropy"]
            level = [_level([s["written"][way].get(n, {}) for s in seeds], aim) for n in counts]
            lines.append([name, f"{way}, at real entropy", *level])
    return table(["nats (entropy)", "sampler", *counts], lines)


def _level(seeds: Sequence[Mapping[str, Any]], aim: float) -> str:
    found = [
        interpolated(aim, [Reached(of["entropy"], of["nats"][0]) for of in by.values()])
        for by in seeds
        if by
    ]
    known = [nats for nats in found if nats is not None]
    return f"{statistics.mean(known):.2f}" if known and len(known) == len(seeds) else "-"


def _cell(seeds: Sequence[Mapping[str, Any] | None]) -> str:
    known = [of for of in seeds if of is not None]
    if not known:
        return "-"
    nats = statistics.mean(of["nats"][0] for of in known)
    return f"{nats:.2f} ({statistics.mean(of['entropy'] for of in known):.2f})"


def filled(rows: Rows) -> str:
    """Nats of held-out texts with filled gaps (entropy of the words written; share as it was)."""
    lines = []
    for name, seeds in rows.items():
        for gap, by_way in (seeds[0]["infilled"] or {}).items():
            for way, of in by_way.items():
                for temperature in of:
                    known = [s["infilled"][gap][way][temperature] for s in seeds]
                    mean = {
                        key: statistics.mean(k[key] for k in known)
                        for key in ("entropy", "as it was")
                    }
                    nats = statistics.mean(k["nats"][0] for k in known)
                    cell = f"{nats:.2f} ({mean['entropy']:.2f}; {mean['as it was']:.0%})"
                    lines.append([name, gap, f"{way}, T {temperature}", cell])
    return table(["model", "gap", "evaluations", "nats (entropy; as it was)"], lines)
