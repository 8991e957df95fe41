"""Writing text: a flow map in 1 to 8 steps, masked diffusion, and left to right with a cache.

python -m benchmarks.generation          about 15 minutes on two cores

Networks with random weights on one trunk of 12 blocks of width 768, v = 30,522, texts of 128
tokens: what a sampler costs does not depend on what it has learnt.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import torch

from benchmarks.cells import Numbers, table
from benchmarks.provenance import write_result
from benchmarks.rivals import DEVICE, PAPER
from flowlm import core
from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.model.language_model import LanguageModel
from flowlm.nn import DiT
from flowlm.sampling import Jumps, LeftToRight, Sampler, Unmask
from flowlm.train import Plan

VOCAB, LENGTH, REPEATS = 30_522, 128, 5
BATCHES = (1, 4, 16)
STEPS = (1, 2, 4, 8)
EVALUATIONS = 64
"""Texts times steps of a cell, at most."""


def main() -> None:
    """Measure, print the tables, write benchmarks/results/generation.json."""
    torch.set_num_threads(os.cpu_count() or 1)
    methods: dict[str, tuple[Method, Sampler, DiT]] = {
        "map": prepared(FlowMap(), Jumps()),
        "masked": prepared(Masked(), Unmask()),
        "left to right": prepared(Autoregressive(), LeftToRight()),
    }
    rows: list[Numbers] = []
    for batch in BATCHES:
        cells = [("left to right", LENGTH)]
        cells += [("map", s) for s in STEPS if s * batch <= EVALUATIONS]
        cells += [("masked", 8)] if 8 * batch <= EVALUATIONS else []
        for name, steps in cells:
            rows.append({"method": name, "batch": batch, "steps": steps})
            rows[-1]["seconds"] = seconds(*methods[name], batch, steps)
            print(rows[-1], flush=True)
    show(rows)
    latency = first_sample(*methods["map"])
    print(latency)
    result = {"vocab": VOCAB, "length": LENGTH, "rows": rows, "first_sample": latency}
    name = "generation" if DEVICE == "cpu" else f"generation-{DEVICE}"
    write_result(name, {"command": "python -m benchmarks.generation", **result})


def prepared(method: Method, sampler: Sampler) -> tuple[Method, Sampler, DiT]:
    """A network with random weights, none of them zero."""
    torch.manual_seed(0)
    network = method.network(PAPER, VOCAB, LENGTH).to(DEVICE).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    return method, sampler, network


def seconds(method: Method, sampler: Sampler, network: DiT, batch: int, steps: int) -> list[float]:
    """Of each of a few calls, sorted, after a first one that is not counted."""
    prompt = torch.full((batch, LENGTH), core.FREE, device=DEVICE)
    taken = []
    for i in range(REPEATS + 1):
        began = time.perf_counter()
        with torch.no_grad():
            rng = core.Streams.of(i, count=batch, device=DEVICE)
            frames = sampler.frames(method.denoiser(network), prompt, steps, rng)
            (last,) = deque(frames, maxlen=1)
            last.tokens().cpu()
        taken.append(time.perf_counter() - began)
    return sorted(taken[1:])


def first_sample(method: Method, sampler: Sampler, network: DiT) -> Numbers:
    """Seconds from starting Python to a text, and what of it is loading and the first call."""
    data = Text(path=None, length=LENGTH)
    experiment = Experiment("benchmark", method, sampler, data, PAPER, Plan())
    code = (
        "import sys, time; began = time.perf_counter()\n"
        "import flowlm\nmodel = flowlm.load(sys.argv[1], 'cpu')\n"
        "loaded = time.perf_counter(); model.sample(1)\n"
        "first = time.perf_counter(); model.sample(1)\n"
        "print(loaded - began, first - loaded, time.perf_counter() - first)\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "model"
        LanguageModel(experiment, network, None, LENGTH).save(place)
        runs = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True
            )
            runs.append([time.perf_counter() - began, *map(float, done.stdout.split())])
    names = ("process", "import and load", "first text", "second text")
    return {k: statistics.median(run[i] for run in runs) for i, k in enumerate(names)}


def show(rows: list[Numbers]) -> None:
    """Medians, and how many times faster than left to right at the same batch."""
    lines = []
    for row in rows:
        median = statistics.median(row["seconds"])
        slow = next(
            statistics.median(other["seconds"])
            for other in rows
            if other["method"] == "left to right" and other["batch"] == row["batch"]
        )
        lines.append(
            [
                f"{row['method']}, {row['steps']} steps",
                str(row["batch"]),
                f"{median:.3f} ({row['seconds'][0]:.3f} to {row['seconds'][-1]:.3f})",
                f"{row['batch'] / median:.2f}",
                f"{slow / median:.2f}",
            ]
        )
    head = ["sampler", "texts at once", "seconds", "texts a second", "against left to right"]
    print(table(head, lines), flush=True)


if __name__ == "__main__":
    main()
