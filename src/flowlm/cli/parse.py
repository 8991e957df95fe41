"""From words on the command line to options; a mistake becomes one sentence."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from flowlm.cli.options import Evaluate, Sample, Train, Way
from flowlm.errors import Refusal, meant, reason
from flowlm.experiment import (
    INPUTS,
    RULES,
    SAMPLERS,
    Experiment,
    from_json,
    inherit_from_start,
    inherit_from_teacher,
)
from flowlm.experiment.kinds import Kind, Kinds, by_word
from flowlm.hub.transfer import locate
from flowlm.model.amounts import amounts
from flowlm.model.finding import experiment_of
from flowlm.recipes import CHAINS, RECIPES
from flowlm.sampling.sampler import Sampler

Options = TypeVar("Options")
Writing = TypeVar("Writing", Sample, Evaluate)


def parsed(
    kind: type[Options],
    command: str,
    words: Sequence[str],
    default: Options | None = None,
    about: str | None = None,
) -> Options:
    """Options of one command. --help prints and exits; a mistake is a Refusal.

    `about` is what help begins with, by default the docstring of `kind`.
    """
    complaint = io.StringIO()
    config = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind, args=words, prog=f"flowlm {command}", config=config, description=about,
                **given,
            )  # fmt: skip
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise Refusal(
            f"{_first_sentence(complaint.getvalue())}: `flowlm {command} --help` shows what fits."
        ) from None


def train_options(words: Sequence[str]) -> Train:
    """Options of `flowlm train RECIPE ...`; a flow map takes its teacher's defaults."""
    name = words[0] if words else ""
    if name not in RECIPES:
        known = [*RECIPES, *CHAINS]
        raise Refusal(
            f"There is no recipe {name!r}{meant(name, known)}; `flowlm recipes` lists them."
        )
    experiment, words = RECIPES[name](), list(words)
    usual = experiment.method.teacher
    teacher = _value_of("--method.teacher", words)
    if teacher is None and usual is not None and Path(usual).exists():
        teacher = usual
    origin = _value_of("--init", words)
    if origin not in (None, "None"):
        experiment = inherit_from_start(experiment, experiment_of(locate(origin)))
    taught: tuple[str, Experiment] | None = None
    if experiment.method.teachers and teacher is not None and teacher != "None":
        taught = teacher, experiment_of(locate(teacher))  # refused before torch is imported
    experiment = with_kinds(experiment, taught, words)
    chosen = parsed(Train, f"train {name}", words[1:], Train(experiment))
    # A dry run takes a teacher of the recipe's own size for granted.
    if usual is not None and teacher is None and not chosen.dry_run:
        raise Refusal(
            f"There is no {usual} to distil: train it with `flowlm train {Path(usual).name}`, or "
            "name another teacher with --method.teacher."
        )
    return chosen


def config_options(words: Sequence[str]) -> tuple[Train, Experiment]:
    """Options of `flowlm train --config FILE ...`, and the experiment that the file states."""
    if not words or words[0].startswith("-"):
        raise Refusal("Name an experiment.json to train: flowlm train --config FILE.")
    place, rest = Path(words[0]), list(words[1:])
    file = place / "experiment.json" if place.is_dir() else place
    try:
        stated = from_json(file.read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{file} cannot be read ({reason(error)}): name an experiment.json."
        ) from error
    experiment = with_kinds(stated, None, rest)
    return parsed(Train, f"train --config {words[0]}", rest, Train(experiment)), stated


def with_kinds(
    experiment: Experiment, teacher: tuple[str, Experiment] | None, words: list[str]
) -> Experiment:
    """The experiment with its teacher's size and data, and with parts of the kinds that are chosen.

    The options that choose kinds leave the words.
    """
    if (chosen := _taken("--sampler", words)) is not None:
        experiment = replace(experiment, sampler=_sampler(chosen, experiment)())
    if teacher is not None:
        experiment = inherit_from_teacher(experiment, *teacher)
    for part, kinds in {"input": INPUTS, "rule": RULES}.items():
        option = f"--method.{part}"
        if (chosen := _taken(option, words)) is not None:
            kind = kind_of(kinds, option, chosen)
            method: Any = experiment.method
            if part not in {field.name for field in fields(method)}:
                raise Refusal(f"{method.label} has no {option}: leave it out.")
            # Copied, not made anew: it may be refused until the other options are in it.
            experiment = copy.copy(experiment)
            object.__setattr__(experiment, "method", replace(method, **{part: kind()}))
    return experiment


def require_amounts(num: int, steps: Sequence[int], seed: int) -> None:
    """Refuse what is no number of texts or of steps, or no seed."""
    if not steps:
        raise Refusal("Give at least one number of --steps.")
    for count in steps:
        amounts(num, count, seed)


def sampling_options(kind: type[Writing], command: str, words: Sequence[str]) -> Writing:
    """Options of a command that writes texts; what begins with --sampler. is left for `sampler`."""
    settings, rest = [], list(words)
    while (start := next((w for w in rest if w.startswith("--sampler.")), None)) is not None:
        place = rest.index(start)
        count = 1 if "=" in start else 2
        settings += rest[place : place + count]
        del rest[place : place + count]
    chosen = parsed(kind, command, rest)
    return replace(chosen, settings=tuple(settings))


def sampler(chosen: Writing, command: str, model: Experiment) -> Sampler:
    """The sampler that is chosen: of another kind or with other settings than the model's own."""
    way = model.sampler
    if chosen.sampler is not None:
        way = _sampler(chosen.sampler, model)()
    return parsed(Way, command, chosen.settings, Way(way)).sampler


def _sampler(name: str, experiment: Experiment) -> type[Sampler]:
    """The kind of sampler that is called so. A Refusal if it does not write with the method."""
    method, kind = experiment.method, kind_of(SAMPLERS, "--sampler", name)
    if not method.writes_with(kind):
        fit = [word for word, of in by_word(SAMPLERS).items() if method.writes_with(of)]
        raise Refusal(
            f"--sampler {name} does not write with {method.label}: choose {' or '.join(fit)}."
        )
    return kind


def _taken(option: str, words: list[str]) -> str | None:
    """The last value that an option is given; it leaves the words."""
    value = _value_of(option, words)
    if words[-1:] == [option]:
        raise Refusal(f"{option} needs a name after it.")
    while option in words:
        del words[(place := words.index(option)) : place + 2]
    words[:] = [word for word in words if not word.startswith(option + "=")]
    return value


def kind_of(kinds: Kinds[Kind], option: str, name: str) -> type[Kind]:
    """The kind that is called so on the command line."""
    known = by_word(kinds)
    if name not in known:
        raise Refusal(
            f"There is no {option} {name}{meant(name, known)}: choose one of {', '.join(known)}."
        )
    return known[name]


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """The last value that an option is given: the one that counts."""
    value = None
    for word, after in zip(words, [*words[1:], None]):
        if word == option:
            value = after
        elif word.startswith(option + "="):
            value = word.partition("=")[2]
    return value


def _first_sentence(box: str) -> str:
    """The first paragraph of tyro's framed message, on one line."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    # The frame's upper edge, or without UTF-8 the rule below its title.
    edge = next((i for i, line in enumerate(lines) if line.startswith(("╭", "---"))), -1)
    content: list[str] = []
    for line in lines[edge + 1 :]:
        if line.startswith(("╰", "─", "---")):
            break
        content.append(line)
    sentence = " ".join(" ".join(content).split()).replace(". ", "; ")
    return sentence.rstrip(".:") or "The options do not fit"
