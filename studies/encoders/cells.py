"""One training of the study, in a process of its own: what it learnt, and what it writes.

A cell leaves a directory with `result.json`, `weights.pt` and the tokens it wrote. Cross-entropies
and texts are those of the averaged weights.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.provenance import provenance
from torch import Tensor

from flowlm import core
from flowlm.evaluate.measures import Written, figures
from flowlm.experiment import Experiment, Text
from flowlm.machine.hardware import keep_memory
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.method import Method
from flowlm.model.language_model import LanguageModel
from flowlm.nn import DiT, Size
from flowlm.sampling import Euler, Jumps, LeftToRight
from flowlm.train import Plan, State, train
from studies.encoders.inputs import Clocked, Variant
from studies.encoders.worlds import World, world

TAUS = (0.02, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
MEAN = slice(1, None)
"""The times whose mean is quoted: 0.05, 0.15 ... 0.95, evenly spread. 0.02 is there to see."""


@dataclass(frozen=True)
class Cell:
    """A training: of what, on what, how long."""

    name: str
    world: str
    kind: str
    """flow, map or judge."""
    variant: Variant
    seed: int
    steps: int
    lr: float
    batch: int
    blocks: int
    width: int
    reach: int = 0
    """How many neighbours on each side the trunk mixes in."""
    clock_words: int | None = None
    """Words of the clock, in place of the vocabulary's."""
    teacher: str | None = None
    """The cell whose flow a map distils."""
    writes: tuple[tuple[int, int], ...] = ()
    """(steps, texts) to write, each at every one of `temperatures`."""
    temperatures: tuple[float, ...] = (1.0,)
    """At which a flow writes; the first is the one at which a map distils its flow."""
    curve: int = 6
    """How often cross-entropies are measured on the way."""

    @property
    def size(self) -> Size:
        """The trunk, the same for all encoders."""
        return Size(self.blocks, self.width, 4, 64, 0.0, None, None, reach=self.reach)

    @property
    def flow(self) -> Flow:
        """The flow of its variant."""
        if self.clock_words is not None:
            return Clocked(input=self.variant, words=self.clock_words)
        return Flow(input=self.variant)

    @property
    def method(self) -> Method:
        """What is trained."""
        if self.kind == "judge":
            return Autoregressive()
        if self.kind == "flow":
            return self.flow
        # The table of a flow that was tuned is written out: its student needs no gain.
        variant, warmth = replace(self.variant, gain=1.0), self.temperatures[0]
        return FlowMap(input=variant, teacher="the flow", teacher_temperature=warmth)


def run(cell: Cell, folder: Path) -> None:
    """Train, measure, write; the result comes last, so a cell with a result is whole."""
    torch.set_num_threads(1)
    keep_memory()
    place = folder / cell.name
    place.mkdir(parents=True, exist_ok=True)
    where, method, teacher = world(cell.world, cell.batch, cell.seed, folder), cell.method, None
    torch.manual_seed(cell.seed)
    if cell.teacher is not None:
        teacher = loaded(replace(cell, kind="flow", name=cell.teacher), where, folder)
    network = method.network(cell.size, where.vocab, where.length, teacher)
    if teacher is None:
        method.prepare(network, lambda: where.counts)
    plan = Plan(
        steps=cell.steps, batch=cell.batch, lr=cell.lr, warmup=100, decay=0.4, beta2=0.99,
        ema=0.995, seed=cell.seed,
    )  # fmt: skip
    state, curve, spent = State(network, plan), [], 0.0
    every = max(1, cell.steps // cell.curve)
    for step in train(state, lambda *a: method.loss(*a, teacher), where.batches, plan):
        spent += step.seconds
        if step.number % every == 0 or step.number == cell.steps:
            curve.append([step.number, spent, costs(method, averaged(state), where)])
            print(cell.name, *curve[-1], flush=True)
    final = averaged(state)
    torch.save(plain(final), place / "weights.pt")
    written = [
        write(cell, final, where, place, *wanted, warmth)
        for warmth in cell.temperatures
        for wanted in cell.writes
    ]
    told = {
        "name": cell.name, "world": cell.world, "kind": cell.kind, "encoder": cell.variant.name,
        "steps": cell.steps, "commit": provenance()["commit"], "seconds": spent,
        "parameters": sum(p.numel() for p in network.parameters()),
        "curve": curve, "written": written,
    }  # fmt: skip
    (place / "result.json").write_text(json.dumps(told))


def loaded(cell: Cell, where: World, folder: Path) -> DiT:
    """The network of a cell that is done, with a table that is just a table."""
    method = replace(cell, variant=replace(cell.variant, gain=1.0)).method
    network = method.network(cell.size, where.vocab, where.length)
    network.load_state_dict(torch.load(folder / cell.name / "weights.pt"))
    return network.eval().requires_grad_(False)


def averaged(state: State[DiT]) -> DiT:
    """A copy of the network with the averaged weights."""
    network = copy.deepcopy(state.model).eval().requires_grad_(False)
    network.load_state_dict(state.average.weights)
    return network


def plain(network: DiT) -> dict[str, Tensor]:
    """The weights, with a table that is just a table."""
    weights = network.state_dict()
    if weights.pop("encoder.parametrizations.table.original", None) is not None:
        weights["encoder.table"] = network.encoder.table
    return weights


@torch.no_grad()
def costs(method: Method, network: DiT, where: World) -> list[float]:
    """Nats per held-out token at each of TAUS (of the vocabulary's clock); of a judge, one number.

    The same noise for everybody, as far as states are alike.
    """
    count = len(where.valid.tokens)
    rng = partial(core.Streams.of, 991, count=count)
    own, common = method.time(where.vocab), core.Decoding(where.vocab)
    if own is None:
        return [float(method.nll(network, where.valid, rng()).mean())]  # pyright: ignore[reportOptionalMemberAccess]
    times = [own.tau(common.t(torch.full((count, 1), tau))) for tau in TAUS]
    found = (method.cross_entropy_at(network, where.valid, tau, rng()) for tau in times)
    return [float(nats.mean()) for nats in found if nats is not None]


def write(
    cell: Cell, network: DiT, where: World, place: Path, steps: int, texts: int, warmth: float
) -> dict[str, Any]:
    """Texts in `steps` evaluations: their figures, and the tokens in a file for the judge."""
    usual = {"flow": Euler(warmth), "map": Jumps(gamma=0.0), "judge": LeftToRight()}[cell.kind]
    text = Text(length=where.length)
    model = LanguageModel(
        Experiment("cell", cell.method, usual, text, cell.size), network, None, where.length
    )
    began = time.perf_counter()
    tokens = torch.cat(list(model.batches(texts, steps, seed=7, most=16)))
    seconds = (time.perf_counter() - began) / texts
    torch.save(tokens, place / written_file(steps, warmth))
    told = {"steps": steps, "temperature": warmth}
    told |= figures(Written(tokens, where.task, seconds=seconds))
    print(place.name, told, flush=True)
    return told


def written_file(steps: int, temperature: float) -> str:
    """Where a cell keeps the tokens that it wrote."""
    return f"tokens-{steps}-{temperature}.pt"
