"""One training of the study, in a process of its own: what it learnt, and what it writes.

A cell leaves a directory with `result.json`, `weights.pt` and the tokens it wrote. Cross-entropies
and texts are those of the averaged weights.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.encoders.variants import Variant, methods
from benchmarks.encoders.worlds import World, world
from benchmarks.provenance import provenance
from flowlm import core
from flowlm.core.rng import Streams
from flowlm.evaluate.diversity import sample_entropy, unique_share
from flowlm.machine.hardware import keep_memory
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.continuous import Continuous
from flowlm.methods.method import Method
from flowlm.nn import DiT, Posterior, Size
from flowlm.train import Plan, State, train

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
        return Size(self.blocks, self.width, 4, 64, 0.0, None, None)


def run(cell: Cell, folder: Path) -> None:
    """Train, measure, write; the result comes last, so a cell with a result is whole."""
    torch.set_num_threads(1)
    keep_memory()
    place = folder / cell.name
    place.mkdir(parents=True, exist_ok=True)
    where = world(cell.world, cell.batch, cell.seed, folder / "tokens")
    torch.manual_seed(cell.seed)
    method, network, teacher = _made(cell, where, folder)
    plan = Plan(
        steps=cell.steps, batch=cell.batch, lr=cell.lr, warmup=100, decay=0.4, beta2=0.99,
        ema=0.995, seed=cell.seed,
    )  # fmt: skip
    state = State(network, plan)
    curve, spent = [], 0.0

    def loss(model: DiT, batch: core.Batch, rng: Streams) -> core.Loss:
        return method.loss(model, batch, rng, teacher)

    every = max(1, cell.steps // cell.curve)
    for step in train(state, loss, where.batches, plan):
        spent += step.seconds
        if step.number % every == 0 or step.number == cell.steps:
            values = costs(method, averaged(state), where)
            curve.append({"step": step.number, "seconds": spent, "nats": values})
            print(cell.name, step.number, f"{spent:.0f} s", _brief(values), flush=True)
    final = averaged(state)
    torch.save(plain(final), place / "weights.pt")
    result: dict[str, Any] = {
        "cell": asdict(cell),
        "commit": provenance()["commit"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": spent,
        "curve": curve,
        "written": [
            _written(cell, final, where, place, *wanted, temperature)
            for temperature in cell.temperatures
            for wanted in cell.writes
        ],
    }
    (place / "result.json").write_text(json.dumps(result))


def _made(cell: Cell, where: World, folder: Path) -> tuple[Method, DiT, DiT | None]:
    if cell.kind == "judge":
        method = Autoregressive()
        return method, method.network(cell.size, where.vocab, where.length), None
    flow, flow_map = methods(cell.variant)
    if cell.kind == "flow":
        network = flow.network(cell.size, where.vocab, where.length)
        if isinstance(network.encoder, Posterior) and cell.variant.prior:
            network.set_prior(where.counts)
        return flow, network, None
    # The table of a flow that was tuned is written out: its student needs no gain.
    flow, flow_map = methods(replace(cell.variant, gain=1.0), cell.temperatures[0])
    teacher = flow.network(cell.size, where.vocab, where.length)
    teacher.load_state_dict(torch.load(folder / str(cell.teacher) / "weights.pt"))
    teacher.eval().requires_grad_(False)
    return flow_map, flow_map.network(cell.size, where.vocab, where.length, teacher), teacher


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
    rng = partial(Streams.of, 991, count=len(where.valid.tokens))
    if not isinstance(method, Continuous):
        value = method.nll(network, where.valid, rng())
        assert value is not None
        return [float(value.mean())]
    common, own = core.Decoding(where.vocab), method.time(where.vocab)
    found = []
    for tau in TAUS:
        t = common.t(torch.full((len(where.valid.tokens), 1), tau))
        found.append(float(method.cross_entropy_at(network, where.valid, own.tau(t), rng()).mean()))
    return found


@torch.no_grad()
def _written(
    cell: Cell, network: DiT, where: World, place: Path, steps: int, texts: int, temperature: float
) -> dict[str, Any]:
    """Texts in `steps` evaluations: their figures, and the tokens in a file for the judge."""
    flow, flow_map = methods(cell.variant, temperature)
    method = flow if cell.kind == "flow" else flow_map
    began, made = time.perf_counter(), []
    for first in range(0, texts, 16):
        count = min(16, texts - first)
        prompt = torch.full((count, where.length), core.FREE)
        rng = Streams.of(7, count=count, first=first)
        *_, last = Euler().frames(method.denoiser(network), prompt, steps, rng)
        made.append(last.prediction.argmax())
    tokens = torch.cat(made)
    torch.save(tokens, place / written_file(steps, temperature))
    figures = {
        "steps": steps,
        "temperature": temperature,
        "texts": texts,
        "seconds": (time.perf_counter() - began) / texts,
        "entropy": sample_entropy(tokens),
        "unique": unique_share(tokens),
        **where.quality(tokens),
    }
    print(place.name, figures, flush=True)
    return figures


def written_file(steps: int, temperature: float) -> str:
    """Where a cell keeps the tokens that it wrote."""
    return f"tokens-{steps}-{temperature}.pt"


def _brief(values: list[float]) -> str:
    mean = sum(values[MEAN]) / max(1, len(values[MEAN])) if len(values) > 1 else values[0]
    return f"mean {mean:.3f}: " + " ".join(f"{value:.2f}" for value in values)
