"""An experiment from the name of its recipe and options by dotted names, for callers in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from flowlm.errors import Refusal, meant
from flowlm.experiment import INPUTS, RULES, SAMPLERS, Experiment, inherit_from_teacher
from flowlm.experiment.kinds import Kinds, by_word
from flowlm.hub.transfer import locate
from flowlm.model.finding import experiment_of
from flowlm.recipes import CHAINS, RECIPES

Part = TypeVar("Part")
Options = Mapping[str, Any]
"""Values by dotted names: {"train.steps": 200, "data.path": "book.txt", "sampler": "heun"}."""

KINDS: dict[str, Kinds[Any]] = {"sampler": SAMPLERS, "input": INPUTS, "rule": RULES}
"""Parts that may be named by the word of the command line."""


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


def changed(part: Part, options: Options, within: str = "") -> Part:
    """A frozen dataclass with other values in its fields, and in those of its parts.

    All at once: values that go together are checked together.
    """
    assert is_dataclass(part)
    assert not isinstance(part, type)
    known = [field.name for field in fields(part)]
    new: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        head, _, rest = name.partition(".")
        if head not in known:
            raise Refusal(
                f"There is no option {within}{head}{meant(head, known)}: choose one of "
                f"{', '.join(known)}."
            )
        if rest:
            deeper.setdefault(head, {})[rest] = value
        else:
            new[head] = _of_kind(head, value)
    for head, inner in deeper.items():
        value = new.get(head, vars(part)[head])
        if not is_dataclass(value):
            raise Refusal(
                f"{within}{head} is one value, without {next(iter(inner))}: set it alone."
            )
        new[head] = changed(value, inner, f"{within}{head}.")
    return replace(part, **new)


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


def _of_kind(field: str, value: object) -> object:
    """The part that a word stands for, in its field; anything else as it is."""
    if field not in KINDS or not isinstance(value, str):
        return value
    known = by_word(KINDS[field])
    if value not in known:
        raise Refusal(
            f"There is no {field} {value!r}{meant(value, known)}: choose one of {', '.join(known)}."
        )
    return known[value]()
