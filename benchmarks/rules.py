"""Rules of the flow map at equal training compute, on the demo's language.

python -m benchmarks.rules [--out runs/study] [--seeds 3] [--budget 1.0]

A flow a seed teaches one map by every rule. Flow and map together take the operations of the
recipe demo-masked: what a rule's step costs more, it has fewer of. Agreement: share of words that
are those of the exact flow from the same noise, which is integrated with the language's own
denoiser.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cells import table
from benchmarks.demo import spread as ranged
from benchmarks.provenance import write_result
from benchmarks.study import TEXTS, written
from benchmarks.trainings import Figures, Training, carry_out, figures_of, trainings_of
from flowlm.experiment import Experiment
from flowlm.methods.by_length import ByLength
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.rule import Rule
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.recipes import demo
from flowlm.run.budget import operations, spread
from flowlm.sampling import Jumps

MAP = demo.flow_map()


def taught(rule: Rule, latest: float = 1.0, diagonal: float = 0.5) -> Experiment:
    """The demo's map by a rule, which writes with jumps no later than it has learnt."""
    assert isinstance(MAP.method, FlowMap)
    method = replace(MAP.method, rule=rule, diagonal=diagonal)
    return replace(MAP, method=method, sampler=Jumps(gamma=0.0, latest=latest))


LATEST = 0.999
ENTRANTS: dict[str, Experiment] = {
    "semigroup": taught(Semigroup()),
    "semigroup, none at (0, 1)": taught(Semigroup(boundary=0.0)),
    "semigroup, a quarter on the diagonal": taught(Semigroup(), diagonal=0.25),
    "lagrangian, simplex": taught(Lagrangian(), LATEST),
    "eulerian, damped": taught(Eulerian()),
    "eulerian, logits": taught(Eulerian(form="logits", latest=LATEST), LATEST),
    "teacher leg at the start": taught(TeacherLeg()),
    "by length: damped, semigroup": taught(ByLength()),
    "semigroup, weight adaptive": taught(Semigroup(weight="adaptive")),
}
"""Flow maps by the names of their rules; the demo's flow teaches them all."""
EVALUATIONS = (1, 2, 4)
AGREEING = 256
"""Texts that are compared with the exact flow."""
SHOWN = ("valid", "nll", "sample_entropy", "agreement")

END, INTERVALS = 0.97, 20
"""Time at which the exact flow is read off, and steps of the integration (order 4) until then."""


def main() -> None:
    """Train, measure, print one table, write benchmarks/results/rules.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of training, from 0 on")
    parser.add_argument("--budget", type=float, default=1.0, help="in trainings of demo-masked")
    given = parser.parse_args()
    compute = given.budget * operations((demo.masked(),))
    trainings = planned(compute, given.budget, range(given.seeds))
    by_seed = zip(*trainings.values(), strict=True)
    carry_out([map for maps in by_seed for map in maps], given.out, measured)
    figures = {
        name: [figures_of(map, given.out, measured) for map in maps]
        for name, maps in trainings.items()
    }
    file = write_result(
        "rules",
        {
            "command": f"python -m benchmarks.rules {' '.join(sys.argv[1:])}".strip(),
            "operations of each row": compute,
            "texts": TEXTS,
            "texts compared with the exact flow": AGREEING,
            "rows": [{"rule": name, "seeds": of} for name, of in figures.items()],
        },
    )
    print(shown(figures))
    print(f"Written: {file}")


def planned(compute: float, budget: float, seeds: Sequence[int]) -> dict[str, list[Training]]:
    """By rule a map a seed; the maps of a seed have one teacher."""
    flow = demo.flow()
    flow = replace(flow, train=replace(flow.train, steps=round(budget * flow.train.steps)))
    share = 1 - operations((flow,)) / compute
    found: dict[str, list[Training]] = {}
    for name, entrant in ENTRANTS.items():
        stages = spread((flow, entrant), compute, share)
        for seed in seeds:
            seeded = [replace(s, train=replace(s.train, seed=seed)) for s in stages]
            found.setdefault(name, []).append(trainings_of(seeded)[-1])
    return found


def measured(run: Path) -> Figures:
    """Figures of a map's texts by evaluations, and how far they are the exact flow's."""
    import torch

    from flowlm.model.loading import load

    model = load(run, "cpu")
    seed, sampler = model.experiment.train.seed, model.experiment.sampler
    rows = written(model, sampler, seed, EVALUATIONS)
    exact = exact_texts(model, seed)
    for count, row in rows.items():
        own = model.sample(AGREEING, int(count), seed)
        row["agreement"] = float((own == exact).to(torch.float64).mean())
    return {"rows": rows}


def exact_texts(model: Any, seed: int) -> Any:
    """Texts to which the exact flow leads from the noise of a map's texts, (n, l).

    dx/da = D(x) - x in the time a = -log(1 - t), by Runge and Kutta's method.
    """
    import torch

    first = next(iter(model.film(AGREEING, 1, seed)))
    language = model.experiment.data.language
    x = first.x.dense().double()
    a = torch.zeros(len(x), 1, dtype=torch.float64)
    h = -math.log1p(-END) / INTERVALS

    def slope(y: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return language.denoiser(y, -torch.expm1(-a)).logp.exp() - y

    for _ in range(INTERVALS):
        k1 = slope(x, a)
        k2 = slope(x + h / 2 * k1, a + h / 2)
        k3 = slope(x + h / 2 * k2, a + h / 2)
        k4 = slope(x + h * k3, a + h)
        x, a = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), a + h
    return language.denoiser(x, -torch.expm1(-a)).logp.argmax(-1)


def shown(figures: dict[str, list[Figures]]) -> str:
    """The Markdown table: mean [lowest, highest] over seeds, a line a rule and evaluations."""
    lines = []
    for name, seeds in figures.items():
        steps = f"{statistics.mean(of['steps'] for of in seeds):.0f}"
        for count in map(str, EVALUATIONS):
            rows = [of["rows"][count] for of in seeds]
            lines.append([name, steps, count, *(ranged([r[key] for r in rows]) for key in SHOWN)])
    heads = ["valid", "nats", "entropy", "agreement"]
    return table(["rule", "steps", "evaluations", *heads], lines)


if __name__ == "__main__":
    main()
