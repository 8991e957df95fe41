"""The command `flowlm train`: a recipe, a chain of them, what a file says, or what was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowlm.cli import options
from flowlm.cli.chained import ChosenChain, chain_options
from flowlm.cli.parse import config_options, parsed, train_options
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, read_experiment
from flowlm.hub.names import CHAIN
from flowlm.recipes import CHAINS, RECIPES
from flowlm.run.room import require_batch

if TYPE_CHECKING:
    from rich.console import Console


def train(words: Sequence[str]) -> int:
    """Train what the words name."""
    match list(words):
        case ["--resume", *rest]:
            return resume(parsed(options.Resume, "train --resume", rest))
        case ["--config", *rest]:
            return train_one(*config_options(rest))
        case [name, *_] if name in CHAINS:
            return train_chain(chain_options(words))
        case _:
            chosen = train_options(words)
            return train_one(chosen, RECIPES[words[0]]())


def train_one(chosen: options.Train, stated: Experiment) -> int:
    """Train an experiment into its run directory, or say what that would take.

    `stated` is what it was before options changed it.
    """
    experiment = chosen.experiment
    _require_text(experiment, stated, chosen.dry_run)
    if chosen.dry_run:
        from flowlm.cli import show
        from flowlm.run.forecast import forecast

        ahead = forecast(experiment, chosen.accelerator, chosen.devices)
        show.forecast(show.console(), experiment, ahead, chosen.devices)
        return 0
    require_batch(experiment)
    return _train(experiment, chosen.out or Path("runs") / experiment.name, again=False)


def train_chain(chosen: ChosenChain) -> int:
    """Train a chain into its directory, or say what that would take."""
    _require_text(chosen.stages[0], CHAINS[chosen.name]()[0], chosen.options.dry_run)
    if chosen.options.dry_run:
        from flowlm.cli import show
        from flowlm.experiment.chain import of_one_text
        from flowlm.run.forecast import forecast

        console, devices = show.console(), chosen.options.devices
        stages = of_one_text(chosen.stages)
        ahead = [forecast(stage, chosen.options.accelerator, devices) for stage in stages]
        for stage, of_stage in zip(stages, ahead):
            show.forecast(console, stage, of_stage, devices)
        show.forecast_sum(console, chosen.name, ahead)
        return 0
    for stage in chosen.stages:
        require_batch(stage)
    from flowlm.run import chain

    return _walked(
        chosen.out, lambda console: chain.train_chain(chosen.stages, chosen.out, console)
    )


def _require_text(experiment: Experiment, stated: Experiment, dry_run: bool) -> None:
    """Refuse a text that is not there; a dry run of the `stated` one needs none."""
    data = experiment.data
    if not isinstance(data, Text) or data.path is None:
        return
    taken_for_granted = dry_run and data == stated.data
    if not taken_for_granted and not os.path.exists(os.path.expanduser(data.path)):
        from flowlm.data.finding import find_corpus

        find_corpus(data.path, data.documents, data.valid)


def resume(chosen: options.Resume) -> int:
    """Continue the run or the chain that is named, for more steps if that is asked for."""
    directory, steps = Path(chosen.run), chosen.train.steps
    if (directory / CHAIN).exists():
        if steps is not None:
            raise Refusal(
                f"{directory} is a chain, whose runs have steps of their own: leave --train.steps "
                "out, or name one of its runs."
            )
        from flowlm.run import chain

        return _walked(directory, lambda console: chain.resume_chain(directory, console))
    experiment = read_experiment(chosen.run)
    if steps is not None:
        from flowlm.cli import show
        from flowlm.run.longer import longer

        experiment, said = longer(experiment, directory, steps)
        if said is not None:
            show.console().print(said, soft_wrap=True)
    return _train(experiment, directory, again=True)


def _train(experiment: Experiment, directory: Path, again: bool) -> int:
    from flowlm.run.training import train_run

    return _walked(directory, lambda console: train_run(experiment, directory, console, again))


def _walked(directory: Path, work: Callable[[Console], None]) -> int:
    """Train, and say what can be done with what there is then."""
    from flowlm.cli import show
    from flowlm.run.training import Interrupted

    console = show.console()
    try:
        work(console)
    except Interrupted as stopped:
        console.print(str(stopped), soft_wrap=True)
        return 130
    console.print(f"Done. Write with it: flowlm sample {directory} --steps 1 4 32", soft_wrap=True)
    return 0
