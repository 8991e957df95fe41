"""How a step's time and memory grow with vocabulary, length and batch, and a sampler's with steps.

python -m benchmarks.growth              about ten minutes on two cores

On a small trunk (4 blocks of width 256), where the vocabulary weighs most. Also draws
docs/growth.svg.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.cells import Numbers, in_a_process, median_seconds, step_cell, table
from benchmarks.memory import counted
from benchmarks.provenance import RESULTS, write_result
from benchmarks.rivals import DEVICE, Case
from flowlm import core
from flowlm.evaluate.report.charts import Line, Point, chart, powers_axis
from flowlm.evaluate.report.markup import Html, element
from flowlm.methods.flow_map import FlowMap
from flowlm.nn import DiT, Size
from flowlm.run.footprint import Footprint

SMALL = Size(4, 256, 4, 64, dropout=0.0, attention_cap=None)
SWEEPS: dict[str, list[Case]] = {
    "vocabulary": [Case("flow", v, 8, 128, SMALL) for v in (4096, 16384, 65536, 131072)],
    "length": [Case("flow", 30_522, 2, n, SMALL) for n in (128, 512, 2048)],
    "batch": [Case("flow", 30_522, n, 128, SMALL) for n in (1, 4, 16, 64)],
}
FIELDS = {"vocabulary": "vocab", "length": "length", "batch": "batch"}
REPEATS = 5
STYLE = """
svg { --soft: #5f5c55; --hair: #dcd8ce; font: 12px system-ui, sans-serif; }
.s0 { --c: #b4430a; } .s1 { --c: #0063a6; }
text { fill: var(--soft); } .end { text-anchor: end; } .mid { text-anchor: middle; }
.grid { stroke: var(--hair); fill: none; } .line { stroke: var(--c); stroke-width: 2; fill: none; }
.thread { stroke: var(--c); opacity: .4; fill: none; } .mark, .end-label { fill: var(--c); }
"""


def main() -> None:
    """Measure, print the tables, write benchmarks/results/growth.json and docs/growth.svg."""
    if sys.argv[1:] and sys.argv[1] != "--draw":
        print(json.dumps(step_cell(json.loads(sys.argv[1]))))
        return
    if "--draw" in sys.argv:
        result = json.loads((RESULTS / "growth.json").read_text())
    else:
        rows = [row for name in SWEEPS for row in swept(name)]
        result = {"rows": rows, "steps": by_steps()}
        write_result("growth", {"command": "python -m benchmarks.growth", **result})
    show(result)
    (Path(__file__).parent.parent / "docs" / "growth.svg").write_text(drawn(result))


def swept(name: str) -> list[Numbers]:
    """Both rivals along one sweep: median seconds, and peak memory counted."""
    rows = []
    for ours in SWEEPS[name]:
        for rival in ("flow", "dense"):
            case = replace(ours, rival=rival)
            settings = {"repeats": REPEATS, "threads": os.cpu_count() or 1}
            ran = in_a_process("benchmarks.growth", asdict(case) | settings)
            row: Numbers = {"sweep": name, "at": asdict(case)[FIELDS[name]], "rival": rival}
            row |= {"seconds": statistics.median(ran["seconds"]), "peak": counted(case)["peak"]}
            rows.append(row)
            print(row, flush=True)
    return rows


def by_steps() -> list[Numbers]:
    """Seconds of a sampler by its steps, and its peak beside the weights by vocabulary."""
    rows: list[Numbers] = []
    for vocab, steps in [(30_522, s) for s in (1, 2, 4, 8, 16)] + [(4096, 4), (131_072, 4)]:
        method = FlowMap()
        network = method.network(SMALL, vocab, 128).to(DEVICE).eval().requires_grad_(False)
        prompt = torch.full((8, 128), core.FREE, device=DEVICE)
        write = partial(written, method, network, prompt, steps)
        seconds = median_seconds(write, REPEATS)
        with Footprint(*network.parameters(), *network.buffers()) as seen:
            weights = seen.live
            write()
        peak = seen.peak - weights
        rows.append({"vocab": vocab, "steps": steps, "seconds": seconds, "peak": peak})
        print(rows[-1], flush=True)
    return rows


def written(method: FlowMap, network: DiT, prompt: core.Tokens, steps: int) -> None:
    """Write texts in so many steps."""
    with torch.no_grad():
        for _ in method.sample(network, prompt, steps, core.Streams.of(0, count=len(prompt))):
            pass


def show(result: Numbers) -> None:
    """Tables; `power` is the slope between neighbours on logarithmic scales."""
    lines = []
    before: Numbers = {}
    for row in sorted(result["rows"], key=lambda r: (r["sweep"], r["rival"], r["at"])):
        same = before.get("sweep") == row["sweep"] and before.get("rival") == row["rival"]
        slopes = ["", ""]
        if same:
            wide = math.log(row["at"] / before["at"])
            slopes = [f"{math.log(row[k] / before[k]) / wide:.2f}" for k in ("seconds", "peak")]
        lines.append(
            [
                f"{row['rival']}, {row['sweep']} {row['at']:,}",
                f"{row['seconds']:.3f}",
                slopes[0],
                f"{row['peak'] / 2**30:.3f}",
                slopes[1],
            ]
        )
        before = row
    print(table(["a training step", "seconds", "power", "peak GiB", "power"], lines))
    lines = []
    for row in result["steps"]:
        name = f"{row['steps']} steps, vocabulary {row['vocab']:,}"
        lines.append([name, f"{row['seconds']:.3f}", f"{row['peak'] / 2**20:.1f}"])
    print(table(["writing 8 texts", "seconds", "peak MiB beside weights"], lines))


def drawn(result: Numbers) -> str:
    """Panels of time and memory, ours and dense, and of a sampler's time by steps."""
    panels: list[Html] = []
    for sweep in SWEEPS:
        for key, unit, scale in (("seconds", "seconds a step", 1.0), ("peak", "peak MiB", 2**20)):
            lines = []
            for style, (rival, name) in enumerate((("flow", "flowlm"), ("dense", "one-hot"))):
                rows = [r for r in result["rows"] if (r["sweep"], r["rival"]) == (sweep, rival)]
                points = tuple(
                    Point(r["at"], r[key] / scale, f"{r['at']}: {r[key] / scale:.3g}") for r in rows
                )
                lines.append(Line(name, style, points))
            panels.append(panel(f"{unit} by {sweep}", sweep, unit, lines))
    rows = [r for r in result["steps"] if r["vocab"] == 30_522]
    points = tuple(Point(r["steps"], r["seconds"], f"{r['steps']}") for r in rows)
    steps = [Line("flow map", 0, points)]
    panels.append(panel("seconds to write 8 texts by steps", "steps", "seconds", steps))
    placed = [
        element("svg", p, x=20 + 440 * (i % 2), y=16 + 300 * (i // 2), width=420, height=290)
        for i, p in enumerate(panels)
    ]
    height = 320 + 300 * ((len(panels) - 1) // 2)
    paper = element("rect", width=900, height=height, fill="#fdfcfa")
    whole = element(
        "svg", element("style", Html(STYLE)), paper, *placed,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 900 {height}",
    )  # fmt: skip
    return whole + "\n"


def panel(title: str, across: str, up: str, lines: list[Line]) -> Html:
    """One chart, both of its axes logarithmic."""
    xs = [p.x for line in lines for p in line.points]
    ys = [p.y for line in lines for p in line.points]
    axes = (powers_axis(xs, across), powers_axis(ys, up))
    return chart(title.replace(" ", "-"), title, axes, lines)


if __name__ == "__main__":
    main()
