"""What is measured beside the trainings: costs, the judge's opinion, what a sampler leaves out."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.cells import in_a_process
from benchmarks.rivals import PAPER, Case

from flowlm import core
from flowlm.chunked import points
from flowlm.core import Batch, Streams, Tokens
from flowlm.evaluate.diversity import sample_entropy
from flowlm.evaluate.likelihood import mean_nll
from flowlm.machine.hardware import keep_memory
from flowlm.sampling import Euler
from flowlm.train import Plan, State, train
from studies.encoders import plan
from studies.encoders.argument import linear_bound, row_information
from studies.encoders.cells import TAUS, Cell, loaded, written_file
from studies.encoders.worlds import World, world

REPEATS = 15


def ratio(folder: Path) -> dict[str, Any]:
    """Seconds of a training step, flow and map, and of writing eight texts in eight steps.

    Those of the encoders are taken in turn, in one process.
    """
    torch.set_num_threads(1)
    keep_memory()
    found = {}
    for template in (plan.TEXT, plan.SENTENCES):
        where = world(template.world, template.batch, 0, folder)
        for kind in ("flow", "map", "writing"):
            cells = {v.name: plan.flow(template, v, 0) for v in plan.COMPARED[template.world]}
            turns = {name: _work(kind, cell, where) for name, cell in cells.items()}
            seconds: dict[str, list[float]] = {name: [] for name in turns}
            for _ in range(REPEATS):
                for name, work in turns.items():
                    began = time.perf_counter()
                    work()
                    seconds[name].append(time.perf_counter() - began)
            linear = seconds["linear"][3:]
            for name, own in seconds.items():
                pairs = [p / q for p, q in zip(own[3:], linear)]
                found[f"{template.world}, {kind}, {name}"] = {
                    "ratio": statistics.median(pairs),
                    "lowest": min(pairs),
                    "highest": max(pairs),
                    "seconds": statistics.median(own[3:]),
                }
    for name, times in found.items():
        print(name, times)
    return {"ratios": found}


def _work(kind: str, cell: Cell, where: World) -> Callable[[], object]:
    """A training step of a flow or a map, or writing with the flow."""
    network = cell.flow.network(cell.size, where.vocab, where.length)
    if kind == "writing":
        network.eval().requires_grad_(False)
        prompt = torch.full((8, where.length), core.FREE)

        def write() -> None:
            frames = Euler().frames(cell.flow.denoiser(network), prompt, 8, Streams.of(0, count=8))
            deque(frames, maxlen=0)

        return write
    method, teacher = cell.flow, None
    if kind == "map":
        as_taught = replace(cell, variant=replace(cell.variant, gain=1.0), kind="map")
        teacher = as_taught.flow.network(cell.size, where.vocab, where.length).requires_grad_(False)
        method = as_taught.method
        network = method.network(cell.size, where.vocab, where.length, teacher)
    settings = Plan(steps=REPEATS, batch=cell.batch)
    state = State(network, settings)
    return train(state, lambda *a: method.loss(*a, teacher), where.batches, settings).__next__


def step(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of a training step at the published size, v = 30,522.

    The linear one is that of the package: projected, without vocabulary-sized state.
    """
    threads, found = os.cpu_count() or 1, {}
    for rival in ("flow", "posterior", "bayes"):
        settings = {"repeats": 5, "threads": threads}
        size = PAPER if rival == "flow" else replace(PAPER, reach=2)
        size = replace(size, output_cap=None) if rival == "bayes" else size
        cell = asdict(Case(rival, 30_522, 32, 128, size)) | settings
        found[rival] = in_a_process("benchmarks.training", cell)
        linear, own = found["flow"], found[rival]
        times = {
            "seconds": statistics.median(own["seconds"]) / statistics.median(linear["seconds"]),
            "memory": own["bytes"] / linear["bytes"],
        }
        print(rival, own, times, flush=True)
        own["times the linear"] = times
    return {"threads": threads, "found": found}


def judged(judge: Cell, cells: list[Cell], folder: Path) -> dict[str, list[dict[str, float]]]:
    """Nats per token of what the cells of a world wrote, under its judge, and of held-out text."""
    where = world(judge.world, 8, 0, folder)
    method, network = judge.method, loaded(judge, where, folder)
    draws = torch.Generator().manual_seed(5)

    def opinion(tokens: Tokens) -> float:
        texts = Batch(tokens, torch.ones(tokens.shape))
        nats = mean_nll(lambda batch, rng: method.nll(network, batch, rng), texts, at_once=64)
        assert nats is not None
        return nats.mean

    def opinions(tokens: Tokens) -> dict[str, float]:
        """Of the texts, and of the same words in any order and text: what they say together."""
        shuffled = tokens.flatten()[torch.randperm(tokens.numel(), generator=draws)]
        counts = tokens.flatten().bincount().double()
        shares = counts[counts > 0] / counts.sum()
        return {
            "nats": opinion(tokens),
            "shuffled": opinion(shuffled.view_as(tokens)),
            "entropy": sample_entropy(tokens),
            "entropy of all": float(-(shares * shares.log()).sum()),
            "words": len(shares),
        }

    found = {"held-out text": [opinions(where.valid.tokens[:48])]}
    # Words drawn by their frequency, without regard to each other.
    shares = where.counts.double() / where.counts.sum()
    drawn = torch.multinomial(shares, 48 * where.length, True, generator=draws)
    found["words by frequency"] = [opinions(drawn.view(48, -1))]
    for cell in cells:
        if cell.world == judge.world and cell.writes:
            found[cell.name] = [
                {
                    "steps": steps,
                    "temperature": temperature,
                    **opinions(torch.load(folder / cell.name / written_file(steps, temperature))),
                }
                for temperature in cell.temperatures
                for steps, _ in cell.writes
            ]
    return found


@torch.no_grad()
def kept(folder: Path) -> dict[str, Any]:
    """Tokens that differ when a sampler carries on fewer entries of its predictions than all."""
    torch.set_num_threads(1)
    cell = plan.flow(plan.TEXT, plan.BAYES, 0)
    where = world("text", cell.batch, 0, folder)
    denoiser = cell.flow.denoiser(loaded(cell, where, folder))
    prompt, rows = torch.full((16, where.length), core.FREE), []
    for steps in (8, 32):
        whole = None
        for entries in (where.vocab, 1024, 256, 64, 16):
            points.TOP_K = entries
            frames = Euler().frames(denoiser, prompt, steps, Streams.of(3, count=len(prompt)))
            (last,) = deque(frames, maxlen=1)
            tokens = last.tokens()
            whole = tokens if whole is None else whole
            differ = float((tokens != whole).double().mean())
            rows.append({"steps": steps, "kept": entries, "differ": differ})
            print(rows[-1], flush=True)
    return {"rows": rows}


def argument(folder: Path) -> dict[str, Any]:
    """Nats that a row tells of its token, of what a linear view can tell at most, by time."""
    where, rows = world("text", 8, 0, folder), []
    text = (where.counts + 1).double() / (where.counts + 1).sum()
    even = torch.full((30_522,), 1 / 30_522, dtype=torch.float64)
    for name, prior, width in (("text", text, 128), ("even", even, 768)):
        clock = core.Decoding(len(prior))
        entropy = float(-(prior * prior.log()).sum())
        for tau in TAUS:
            t = float(clock.t(torch.tensor([[tau]])))
            lift = t / (1 - t)
            bound = min(linear_bound(prior, lift, width), entropy)
            told = row_information(prior, lift, 2048)
            rows.append(
                {"prior": name, "width": width, "tau": tau, "linear": bound, "row": told}
                | {"entropy": entropy}
            )
            print(rows[-1], flush=True)
    return {"rows": rows}


MEASURED = {f.__name__: f for f in (ratio, step, kept, argument)}
