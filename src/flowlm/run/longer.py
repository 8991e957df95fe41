"""A run for more steps than it was started for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flowlm.errors import Refusal
from flowlm.experiment import Experiment
from flowlm.train.checkpoint import found, number_of
from flowlm.train.trainer import learning_rate


def longer(experiment: Experiment, directory: Path, steps: int) -> tuple[Experiment, str | None]:
    """The experiment of the run in `directory`, for `steps` steps in all, to be resumed.

    With a sentence where the steps taken had other learning rates than they have in a run of as
    many steps from the start: else the two are equal. A Refusal unless `steps` is more than it has
    taken.
    """
    before, wanted = experiment.train, replace(experiment.train, steps=steps)
    taken = max((number_of(path) for path in found(directory / "checkpoints")), default=0)
    if steps <= taken:
        raise Refusal(f"{directory} has taken {taken:,} steps: --train.steps must be more.")
    if taken == 0 or learning_rate(before, taken - 1) == learning_rate(wanted, taken - 1):
        said = None
    else:
        said = (
            f"The learning rate falls over the last {wanted.decay:.0%} of the steps, which are now "
            f"{steps:,} and were {before.steps:,}: it was {learning_rate(before, taken - 1):.3g} "
            f"at step {taken:,} and goes on at {learning_rate(wanted, taken):.3g}, unlike in a run "
            f"of {steps:,} steps from the start."
        )
    return replace(experiment, train=wanted), said
