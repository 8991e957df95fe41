"""An experiment from the name of its recipe and options by dotted names, for callers in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flowlm.errors import Refusal, meant
from flowlm.experiment import Experiment, inherit_from_teacher
from flowlm.experiment.dotted import Options, changed
from flowlm.hub.transfer import locate
from flowlm.model.finding import experiment_of
from flowlm.recipes import CHAINS, RECIPES


def recipe(name: str | Experiment, options: Options | None = None) -> Experiment:
    """The experiment of a recipe, with some of its options changed; see `flowlm.recipe`."""
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise Refusal('Options are a dict of values by dotted names, such as {"train.steps": 200}.')
    options = {key.replace("-", "_"): value for key, value in options.items()}
    experiment = name if isinstance(name, Experiment) else _named(name)
    usual = experiment.method.teacher
    teacher = options.get("method.teacher")
    if teacher is None and usual is not None and not isinstance(name, Experiment):
        teacher = usual if Path(usual).exists() else None
    if teacher is not None and experiment.method.teachers:
        if not isinstance(teacher, str | Path):
            raise Refusal("method.teacher must be the name of a run, as a str.")
        options["method.teacher"] = str(teacher)
        theirs = experiment_of(locate(teacher))
        experiment = inherit_from_teacher(experiment, str(teacher), theirs)
    return changed(experiment, options)


def _named(name: object) -> Experiment:
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]()
    if isinstance(name, str) and name in CHAINS:
        stages = ", ".join(stage.name for stage in CHAINS[name]())
        raise Refusal(
            f"{name} is a chain of recipes: train {stages} one after the other, or all by "
            f"`flowlm train {name}`."
        )
    said = repr(name) if isinstance(name, str) else f"of the type {type(name).__name__}"
    near = meant(name, RECIPES) if isinstance(name, str) else ""
    raise Refusal(f"There is no recipe {said}{near}: flowlm.recipes.RECIPES holds them by name.")
