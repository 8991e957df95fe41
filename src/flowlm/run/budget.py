"""Training compute, counted and shared out: how many steps a budget of operations buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.experiment.chain import Stages, is_taught, linked, of_one_text, run_names
from flowlm.run.forecast import work
from flowlm.run.vocabulary import vocabulary


def operations(stages: Sequence[Experiment]) -> float:
    """Useful operations of the whole training of a chain, its teachers' evaluations included."""
    costs = per_step(stages)
    return sum(stage.train.steps * cost for stage, cost in zip(stages, costs, strict=True))


def per_step(stages: Sequence[Experiment]) -> tuple[float, ...]:
    """Useful operations of an optimizer step of every stage of a chain."""
    return tuple(map(_step, of_one_text(linked(stages, run_names(stages)))))


def spread(stages: Sequence[Experiment], compute: float, share: float = 0.0) -> Stages:
    """The chain with as many steps as `compute` operations buy, to half a step of its last stage.

    `share` of them goes to distillation, in equal parts to its stages, the rest to the others, also
    to those that only go on from the weights of the stage before. A Refusal where that leaves a
    stage without a step, or a share without a stage.
    """
    befores = (None, *stages[:-1])
    taught = [
        is_taught(stage, before) and not stage.method.continues
        for stage, before in zip(stages, befores)
    ]
    if not (0 < share < 1 if any(taught) else share == 0):
        raise Refusal(
            f"A share of {share} for distillation does not fit {len(stages)} stages of which "
            f"{sum(taught)} distil: choose one between 0 and 1 where there are any, else 0."
        )
    bases, students = taught.count(False), taught.count(True)
    found: list[Experiment] = []
    left = due = compute
    for stage, cost, student in zip(stages, per_step(stages), taught):
        due -= compute * (share / students if student else (1 - share) / bases)
        # What rounding has left over, or spent too much, is the next stage's.
        steps = round((left - due) / cost)
        if steps < 1:
            raise Refusal(
                f"{compute:.3g} operations are too few for {stage.name}, whose step takes "
                f"{cost:.3g}: choose a larger budget or share."
            )
        left -= steps * cost
        found.append(replace(stage, train=replace(stage.train, steps=steps)))
    return tuple(found)


def _step(stage: Experiment) -> float:
    counted = work(stage.method, stage.size, vocabulary(stage)[0], stage.data.length)
    tokens = stage.train.batch * stage.data.length
    return tokens * counted.flops_per_token + counted.flops_per_step
