"""Samplers of the shipped map and of its diagonal, which is a flow: what each writes in few steps.

    python -m benchmarks.samplers            about 8 minutes on one core

Share of valid sentences, exact nats per token and entropy within a text, over SEEDS of TEXTS texts
each, beside the evaluations of the network. The texts of a seed begin with the same noise.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import torch

import flowlm
from benchmarks.cells import table
from benchmarks.provenance import write_result
from flowlm import core
from flowlm.evaluate.measures import MEASURES, Written
from flowlm.methods.guides import guidable, with_dropout
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import (
    Bridge,
    Denoiser,
    Euler,
    GuidedSampler,
    Heun,
    Jumps,
    LookAhead,
    PointSampler,
    Refine,
)  # fmt: skip
from flowlm.tasks.generated import Generated

STEPS = (1, 2, 4, 8, 16)
TEXTS, SEEDS = 400, (0, 1)
SHOWN = ("valid", "nll", "sample_entropy")
CANDIDATES = 4


def main() -> None:
    """Measure, print the table, write benchmarks/results/samplers.json."""
    torch.set_num_threads(1)
    model = flowlm.load("demo")
    jumps: Denoiser = model.experiment.method.denoiser(model.network)

    def diagonal(x: core.Point, s: core.Time, t: core.Time) -> core.TokenDistribution:
        return jumps.two_time(x, s, s)

    found = []
    for kind, denoiser in (("flow", replace(jumps, two_time=diagonal)), ("map", jumps)):
        for name, sampler in ways(model, kind).items():
            for steps in STEPS:
                found.append({"model": kind, "sampler": name, "steps": steps})
                found[-1] |= measured(denoiser, sampler, steps)
            print(kind, line(found[-len(STEPS) :]), flush=True)
    file = write_result(
        "samplers",
        {
            "command": "python -m benchmarks.samplers",
            "model": "the shipped demo map, and its diagonal as a flow",
            "texts": TEXTS,
            "seeds": list(SEEDS),
            "rows": found,
        },
    )
    head = ["model", "sampler", *map(str, STEPS)]
    rows = [found[i : i + len(STEPS)] for i in range(0, len(found), len(STEPS))]
    print(table(head, [[row[0]["model"], *line(row)] for row in rows]))
    print(f"Written: {file}")


def ways(model: LanguageModel, kind: str) -> dict[str, PointSampler]:
    """Samplers by name."""
    weak, method = with_dropout(model.network, 0.1), guidable(model.experiment.method)
    own = {f"Jumps(gamma={g})": Jumps(gamma=g) for g in (0.0, 0.8, 1.0)} | {"Jumps()": Jumps()}
    guides = {
        f"guided by dropout 0.1, weight {w}": GuidedSampler(
            Jumps(), lambda denoiser, rng: _weak(method.two_time(weak, rng), kind), w
        )
        for w in (1.5, 2.0)
    }
    if kind == "flow":
        return {
            "Euler()": Euler(),
            "Heun()": Heun(),
            'Bridge("mean")': Bridge("mean"),
            'Bridge("mean", churn=4)': Bridge("mean", churn=4.0),
            "Bridge()": Bridge(),
            "Bridge(churn=4)": Bridge(churn=4.0),
            "Bridge(temperature=0.7)": Bridge(temperature=0.7),
            "Bridge(top_p=0.9)": Bridge(top_p=0.9),
            **own,
            "Jumps(temperature=0.8)": Jumps(temperature=0.8),
            **guides,
        }
    task = Generated()
    ahead = LookAhead(reward=lambda tokens: task.valid(tokens).double(), candidates=CANDIDATES)
    return {
        **own,
        "Jumps(temperature=0.8)": Jumps(temperature=0.8),
        **guides,
        f"LookAhead(valid, {CANDIDATES})": ahead,
        "Refine()": Refine(),
    }


def _weak(two_time: core.TwoTimeDenoiser, kind: str) -> core.TwoTimeDenoiser:
    return two_time if kind == "map" else lambda x, s, t: two_time(x, s, s)


@torch.no_grad()
def measured(denoiser: Denoiser, sampler: PointSampler, steps: int) -> dict[str, Any]:
    """Evaluations, and the figures of each seed."""
    task = Generated()
    prompt = torch.full((TEXTS, task.length), core.FREE)
    row: dict[str, Any] = {"evaluations": sampler.evaluations(steps, task.length)}
    row |= {key: [] for key in SHOWN}
    for seed in SEEDS:
        *_, last = sampler.frames(denoiser, prompt, steps, core.Streams.of(seed, count=TEXTS))
        written = Written(last.tokens(), task)
        for key in SHOWN:
            value = MEASURES[key].compute(written)
            assert value is not None
            row[key].append(float(torch.as_tensor(value).double().mean()))
    return row


def line(rows: list[dict[str, Any]]) -> list[str]:
    """A sampler's cells: valid share, nats and entropy, means over the seeds."""

    def cell(row: dict[str, Any]) -> str:
        valid, nll, entropy = (statistics.mean(row[key]) for key in SHOWN)
        return f"{100 * valid:.1f} % / {nll:.3f} / {entropy:.2f}"

    return [rows[0]["sampler"], *map(cell, rows)]


if __name__ == "__main__":
    main()
