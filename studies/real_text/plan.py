"""Which trainings make up the study: every method as a chain of the text recipes, one budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.trainings import Training, trainings_of

from flowlm.experiment import Experiment
from flowlm.experiment.chain import Stages
from flowlm.methods.flow import Flow
from flowlm.methods.prompts import Prompts
from flowlm.recipes import text
from flowlm.run.budget import operations, spread
from studies.real_text.worlds import World

SHARE = 0.4
"""Of the budget, for distillation."""
JUDGE_SEEDS = (100, 101)
"""Of the two autoregressive models that judge; they teach nobody."""


def prompted(stages: Stages) -> Stages:
    """A chain that begins with a flow which is trained with prompts in half of the texts."""
    flow, *others = stages
    assert isinstance(flow.method, Flow)
    return replace(flow, method=replace(flow.method, prompts=Prompts(0.5))), *others


ENTRANTS: dict[str, Callable[[], Stages]] = {
    "AR": lambda: (text.autoregressive(),),
    "MDLM": lambda: (text.masked(),),
    "FLM": lambda: (text.flow(),),
    "FMLM": text.map_chain,
    "FMLM, prompts": lambda: prompted(text.map_chain()),
}
"""By the names of the table."""


def judges(world: World, out: Path) -> list[Training]:
    """The autoregressive models that judge."""
    recipe = world.experiment(text.autoregressive(), out)
    return [_seeded((recipe,), seed)[-1] for seed in JUDGE_SEEDS]


def chain(name: str, world: World, out: Path, seed: int) -> tuple[Training, ...]:
    """The trainings of an entrant, which cost together what masked diffusion costs."""
    stages = tuple(world.experiment(recipe, out) for recipe in ENTRANTS[name]())
    compute = operations((world.experiment(text.masked(), out),))
    return _seeded(spread(stages, compute, SHARE if len(stages) > 1 else 0.0), seed)


def _seeded(stages: Stages | tuple[Experiment, ...], seed: int) -> tuple[Training, ...]:
    return trainings_of([replace(s, train=replace(s.train, seed=seed)) for s in stages])
