"""Losses of few-step models: what a step takes in seconds, and what its matrix products let expect.

python -m benchmarks.passes            three minutes on two idle cores

A network of the recipes text-* with four blocks, tokens drawn evenly. Steps of all methods take
turns, so that whatever else the machine does hits all of them. Excess: time per counted operation
(forward and back, teachers' evaluations included) over that of the method's base, which is 1. Above
it lies what is no matrix product: softmaxes, draws, rows of noise, forward mode in plain attention.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.cells import table
from benchmarks.provenance import write_result
from flowlm import core
from flowlm.methods.by_length import ByLength
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import PosteriorInput
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.rule import Rule
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.methods.uniform_state import UniformState
from flowlm.recipes import text
from flowlm.run.forecast import networks, work

VOCAB, LENGTH, TEXTS, REPEATS = 4096, 64, 16, 9
SIZE = replace(text.flow().size, blocks=4, dropout=0.0)
RUN, READS = "runs/teacher", PosteriorInput()


def map_by(rule: Rule) -> FlowMap:
    """A flow map with a teacher."""
    return FlowMap(input=READS, teacher=RUN, rule=rule)


BASES: dict[str, Method] = {
    "flow": Flow(input=READS),
    "masked": Masked(),
    "uniform": UniformState(),
    "autoregressive": text.autoregressive().method,
}
LOSSES: dict[str, tuple[str, Method]] = {
    "map, semigroup": ("flow", map_by(Semigroup())),
    "map, Lagrangian": ("flow", map_by(Lagrangian())),
    "map, Eulerian": ("flow", map_by(Eulerian())),
    "map, teacher leg": ("flow", map_by(TeacherLeg())),
    "map, by length": ("flow", map_by(ByLength())),
    "residual map": ("flow", ResidualMap(input=READS, teacher=RUN)),
    "residual student": ("flow", ResidualStudent(input=READS, teacher=RUN)),
    "SDTT": ("masked", SDTT(teacher=RUN)),
    "Di4C, 4 latents": ("masked", Di4C(teacher=RUN, latents=4)),
    "SEDD": ("masked", SEDD()),
    "SEDD, uniform": ("uniform", SEDDUniform()),
    "Duo's curriculum": ("uniform", Curriculum()),
    "DCD": ("uniform", DCD(teacher=RUN)),
    "Gumbel map": ("autoregressive", GumbelMap(teacher=RUN)),
}


def main() -> None:
    """Measure, print the table, write benchmarks/results/passes.json."""
    torch.set_num_threads(os.cpu_count() or 1)
    methods = BASES | {name: method for name, (_, method) in LOSSES.items()}
    steps = {name: step_of(method) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(REPEATS + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if turn:  # the first one makes tables and memory
                seconds[name].append(time.perf_counter() - begun)
    counted = {
        name: work(method, SIZE, VOCAB, LENGTH).flops_per_token for name, method in methods.items()
    }
    rate = {name: statistics.median(taken) / counted[name] for name, taken in seconds.items()}
    rows = {
        name: {
            "base": base,
            "seconds": statistics.median(seconds[name]),
            "operations over the base's": counted[name] / counted[base],
            "seconds over the base's": statistics.median(seconds[name])
            / statistics.median(seconds[base]),
            "excess": rate[name] / rate[base],
        }
        for name, (base, _) in LOSSES.items()
    }
    file = write_result(
        "passes",
        {
            "command": "python -m benchmarks.passes",
            "threads": torch.get_num_threads(),
            "texts": TEXTS,
            "tokens a text": LENGTH,
            "words": VOCAB,
            "repeats": REPEATS,
            "bases": {name: statistics.median(seconds[name]) for name in BASES},
            "losses": rows,
        },
    )
    cells = [
        [name, f"{row['base']}", *(f"{value:.2f}" for value in list(row.values())[1:])]
        for name, row in rows.items()
    ]
    heads = ["loss", "base", "seconds a step", "operations", "time", "excess"]
    print(table(heads, cells))
    print(f"Written: {file}")


def step_of(method: Method) -> Callable[[], None]:
    """A loss and its gradients."""
    torch.manual_seed(0)
    network, teacher = networks(method, SIZE, VOCAB, LENGTH)
    tokens = torch.randint(VOCAB, (TEXTS, LENGTH))
    batch = core.Batch(tokens, torch.ones(tokens.shape))

    def step() -> None:
        loss = method.loss(network, batch, core.Streams.of(0, count=TEXTS), teacher)
        ((loss.value * loss.weight).sum() / loss.weight.sum()).backward()
        network.zero_grad()

    return step


if __name__ == "__main__":
    main()
