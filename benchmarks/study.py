"""Every way to a few-step model at equal training compute, on the demo's language.

python -m benchmarks.study [--out runs/study] [--seeds 1] [--budget 1.0] [--chains demo-map ...]

A budget is the operations of the recipe demo-masked. A chain spends a share of it on distillation,
each of SHARES in turn; the share, and the sampler where a model may have several, are chosen by the
valid texts at 1, 2 and 4 evaluations, of noise that the table does not use. Undistilled models take
the whole budget. docs/fair-comparison.md says what is counted. What is trained and measured in
--out already is kept: a change of the code calls for another --out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.cells import table
from benchmarks.provenance import write_result
from benchmarks.trainings import Figures, Training, carry_out, figures_of, trainings_of
from flowlm.experiment import Experiment
from flowlm.experiment.chain import is_taught
from flowlm.recipes import CHAINS, RECIPES, demo
from flowlm.run.budget import operations, per_step, spread
from flowlm.sampling import Jumps, Replace, Sampler, Unmask

ENTRANTS = (
    "demo-map", "demo-v1", "demo-masked-sdtt", "demo-masked-di4c", "demo-duo-dcd",
    "demo-autoregressive-gumbel",
)  # fmt: skip
"""Chains."""
BASES = ("demo-flow", "demo-masked", "demo-uniform", "demo-sedd", "demo-autoregressive")
"""Recipes that take the whole budget."""
SAMPLERS: dict[type[Sampler], tuple[Sampler, ...]] = {
    Jumps: (Jumps(gamma=0.0), Jumps(gamma=1.0)),
    Unmask: (Unmask(), Unmask(order="confidence")),
    Replace: (Replace(), Replace(tail="posterior"), Replace(tail="network")),
}
"""What a model may write with; others write with their recipe's alone. All at temperature 1, which
is the law that was learnt: a colder one trades entropy for validity, with every method."""
SHARES = (0.1, 0.25, 0.5)
"""Of the budget, for distillation."""
OTHERWISE = 0.25
"""The share at which every distillation is carried out by the other of the demo's plans as well."""
EVALUATIONS = (1, 2, 4, 8, 16, 32)
CHOSEN_AT = (1, 2, 4)
"""Evaluations at which share and sampler are chosen."""
TEXTS = 1000
CHOOSING = 10_000
"""Added to a seed for the noise of the texts by which share and sampler are chosen."""
SHOWN = ("valid", "nll", "sample_entropy", "unique")
KEPT = ("steps", "evaluations", *SHOWN, "novel", "seconds")


@dataclass(frozen=True)
class Row:
    """Trainings that make up a row of the table, one a seed."""

    entrant: str
    share: float
    """Of the budget for distillation; 0 for an undistilled model."""
    otherwise: bool
    """Whether it is distilled by the plan that its recipe has not."""
    chains: tuple[tuple[Training, ...], ...]

    @property
    def models(self) -> tuple[Training, ...]:
        """The last stages, which write."""
        return tuple(chain[-1] for chain in self.chains)

    @property
    def teachers(self) -> tuple[Training, ...]:
        """The last stages that distil nothing, whose models the others distil."""
        return tuple(next(t for t in chain[::-1] if _is_base(t)) for chain in self.chains)


def _is_base(training: Training) -> bool:
    return training.teacher is None or training.experiment.method.continues


def main() -> None:
    """Train, measure, print one table, write benchmarks/results/study.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, default=1, help="seeds of training, from 0 on")
    parser.add_argument("--budget", type=float, default=1.0, help="in trainings of demo-masked")
    parser.add_argument("--chains", nargs="+", choices=ENTRANTS, default=ENTRANTS)
    given = parser.parse_args()
    compute = given.budget * operations((demo.masked(),))
    rows = planned(compute, range(given.seeds), given.chains)
    wanted = [training for row in rows for training in (*row.teachers, *row.models)]
    carry_out(wanted, given.out, measured)
    figures = {t: figures_of(t, given.out, measured) for t in wanted}
    best = {name: chosen(name, rows, figures) for name in given.chains}
    file = write_result(
        "study",
        {
            "command": f"python -m benchmarks.study {' '.join(sys.argv[1:])}".strip(),
            "operations of each row": compute,
            "seeds": given.seeds,
            "texts": TEXTS,
            "chosen shares": {name: row.share for name, row in best.items()},
            "reference": reference(),
            "rows": [told(row, figures) for row in rows],
        },
    )
    print(shown(rows, best, figures))
    print(f"Written: {file}")


def planned(compute: float, seeds: Sequence[int], chains: Sequence[str] = ENTRANTS) -> list[Row]:
    """All rows: every chain with every share, and what is not distilled."""
    found = [
        Row(name, share, otherwise, tuple(_trainings(of, compute, share, seed) for seed in seeds))
        for name in chains
        for stages in (CHAINS[name](),)
        for share, otherwise, of in (
            *((share, False, stages) for share in SHARES),
            (OTHERWISE, True, replanned(stages)),
        )
    ]
    for name in BASES:
        stages = (RECIPES[name](),)
        chains_of = tuple(_trainings(stages, compute, 0.0, seed) for seed in seeds)
        found.append(Row(name, 0.0, False, chains_of))
    return found


def replanned(stages: tuple[Experiment, ...]) -> tuple[Experiment, ...]:
    """The chain with the other plan of distillation: many texts at once, or few in more steps."""
    many = replace(demo.PLAN, lr=1.5e-3)
    found = []
    for stage, before in zip(stages, (None, *stages[:-1])):
        if is_taught(stage, before) and not stage.method.continues:
            other = demo.FEW_AT_ONCE if stage.train.batch == many.batch else many
            stage = replace(stage, train=replace(other, steps=stage.train.steps))
        found.append(stage)
    return tuple(found)


def _trainings(
    stages: tuple[Experiment, ...], compute: float, share: float, seed: int
) -> tuple[Training, ...]:
    paid = spread(stages, compute, share)
    return trainings_of([replace(s, train=replace(s.train, seed=seed)) for s in paid])


def steps_for(sampler: Sampler, evaluations: int, length: int) -> int | None:
    """The most steps that take no more evaluations; None where one step takes more."""
    fitting = range(1, evaluations + 1)
    return max((k for k in fitting if sampler.evaluations(k, length) <= evaluations), default=None)


def measured(run: Path) -> Figures:
    """Figures of a run's texts by evaluations, and of other texts, by which choices are made."""
    from flowlm.model.loading import load

    model = load(run, "cpu")
    seed, usual = model.experiment.train.seed, model.experiment.sampler
    samplers = SAMPLERS.get(type(usual), (usual,))
    choosing = [written(model, each, seed + CHOOSING, CHOSEN_AT) for each in samplers]
    best = max(range(len(samplers)), key=lambda i: valid_share(choosing[i]))
    return {
        "sampler": settings(samplers[best]),
        "rows": written(model, samplers[best], seed, EVALUATIONS),
        "choosing": choosing[best],
    }


def settings(sampler: Sampler) -> str:
    """The name of a sampler, and what is not as by default."""
    usual = type(sampler)()
    own = (f.name for f in fields(sampler) if getattr(sampler, f.name) != getattr(usual, f.name))
    return " ".join((type(sampler).__name__, *(f"{n}={getattr(sampler, n)}" for n in own)))


def valid_share(rows: dict[str, dict[str, Any]]) -> float:
    """The mean over CHOSEN_AT; what cannot write with as few evaluations has none."""
    return statistics.mean(rows[str(n)]["valid"] if str(n) in rows else 0.0 for n in CHOSEN_AT)


def written(
    model: Any, sampler: Sampler, seed: int, evaluations: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Figures of texts, by the evaluations that each may take at most."""
    from flowlm.run import assess

    steps = {n: steps_for(sampler, n, model.length) for n in evaluations}
    each = sorted({k for k in steps.values() if k is not None})
    rows = {}
    if each:
        listed = assess.rows(
            model, each if sampler.counts_steps else each[:1], TEXTS, seed, sampler
        )
        for k, row in zip(each, listed):
            rows[k] = {key: row[key] for key in KEPT if key in row}
    return {str(n): rows[k] for n, k in steps.items() if k in rows}


def chosen(name: str, rows: Sequence[Row], figures: dict[Training, Figures]) -> Row:
    """The row of an entrant with the share that is best by the texts for choosing."""

    def valid(row: Row) -> float:
        return statistics.mean(valid_share(figures[model]["choosing"]) for model in row.models)

    own = (row for row in rows if row.entrant == name and not row.otherwise)
    return max(own, key=valid)


def told(row: Row, figures: dict[Training, Figures]) -> dict[str, Any]:
    """A row as JSON: every seed with its stages, its figures and its teacher's."""
    seeds = []
    for chain, teacher in zip(row.chains, row.teachers):
        stages = [stage.experiment for stage in chain]
        paid = [s.train.steps * cost for s, cost in zip(stages, per_step(stages))]
        of_teacher = {"teacher": figures[teacher]} if teacher is not chain[-1] else {}
        seeds.append(
            {
                "stages": [{"run": t.name, "operations": cost} for t, cost in zip(chain, paid)],
                "model": figures[chain[-1]],
            }
            | of_teacher
        )
    batch = row.models[0].experiment.train.batch
    return {"entrant": row.entrant, "share": row.share, "batch": batch, "seeds": seeds}


def reference() -> dict[str, Any]:
    """Figures of texts of the language itself."""
    from flowlm.run import comparison
    from flowlm.tasks.generated import Generated

    return comparison.of_task(Generated(), TEXTS, 0).reference(())


def shown(rows: Sequence[Row], best: dict[str, Row], figures: dict[Training, Figures]) -> str:
    """The Markdown table: valid share, exact nats, entropy and unique share by evaluations."""
    lines = []
    for row in rows:
        mark = " (chosen)" * (best.get(row.entrant) is row)
        batch = row.models[0].experiment.train.batch
        share = f", {row.share:.0%} distilled by {batch} texts a step{mark}" * bool(row.share)
        lines.append([f"{row.entrant}{share}", *_cells(row.models, figures)])
        if mark:
            teacher = row.teachers[0].experiment.name
            lines.append([f"its teacher, {teacher}", *_cells(row.teachers, figures)])
    itself = reference()
    lines.append(["the language itself", "", *[_cell([itself])] * len(EVALUATIONS)])
    heads = ["valid % / nats / entropy / unique %", "sampler"]
    return table([*heads, *map(str, EVALUATIONS)], lines)


def _cells(models: Sequence[Training], figures: dict[Training, Figures]) -> list[str]:
    samplers = dict.fromkeys(figures[m]["sampler"] for m in models)
    found = ([figures[m]["rows"].get(str(n)) for m in models] for n in EVALUATIONS)
    return [", ".join(samplers), *(_cell([r for r in of if r is not None]) for of in found)]


def _cell(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "-"
    valid, nats, entropy, unique = (statistics.mean(r[key] for r in rows) for key in SHOWN)
    return f"{100 * valid:.1f} / {nats:.2f} / {entropy:.2f} / {100 * unique:.1f}"


if __name__ == "__main__":
    main()
