"""From words on the command line to options; a mistake becomes one sentence."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from flowlm.cli.options import Evaluate, Sample, Train, Way
from flowlm.errors import Refusal
from flowlm.experiment import INPUTS, RULES, SAMPLERS, Experiment, inherit_from_teacher
from flowlm.experiment.kinds import Kind, Kinds, spelt
from flowlm.hub.transfer import locate
from flowlm.model.finding import experiment_of
from flowlm.recipes import RECIPES
from flowlm.sampling.sampler import Sampler

Options = TypeVar("Options")
Writing = TypeVar("Writing", Sample, Evaluate)


def parsed(
    kind: type[Options], command: str, words: Sequence[str], default: Options | None = None
) -> Options:
    """Options of one command. --help prints and exits; a mistake is a Refusal."""
    complaint = io.StringIO()
    config = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, args=words, prog=f"flowlm {command}", config=config)
            return tyro.cli(
                kind, args=words, prog=f"flowlm {command}", config=config, default=default
            )
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
        raise Refusal(
            f"There is no recipe {name!r}{meant(name, list(RECIPES))}; `flowlm recipes` lists them."
        )
    experiment = RECIPES[name]()
    words = list(words)
    if (chosen := _taken("--sampler", words)) is not None:
        experiment = replace(experiment, sampler=_sampler(chosen, experiment)())
    usual = experiment.method.teacher
    teacher = _value_of("--method.teacher", words)
    if teacher is None and usual is not None and Path(usual).exists():
        teacher = usual
    if experiment.method.teachers and teacher is not None and teacher != "None":
        place = locate(teacher)  # refused before torch is imported
        experiment = inherit_from_teacher(experiment, teacher, experiment_of(place))
    for part, kinds in {"input": INPUTS, "rule": RULES}.items():
        option = f"--method.{part}"
        if (chosen := _taken(option, words)) is not None:
            kind = _kind(kinds, option, chosen)
            method: Any = experiment.method
            if part not in {field.name for field in fields(method)}:
                raise Refusal(f"{method.label} has no {option}: leave it out.")
            # Copied, not made anew: it may be refused until the other options are in it.
            experiment = copy.copy(experiment)
            object.__setattr__(experiment, "method", replace(method, **{part: kind()}))
    chosen = parsed(Train, f"train {name}", words[1:], Train(experiment))
    # A dry run takes a teacher of the recipe's own size for granted.
    if usual is not None and teacher is None and not chosen.dry_run:
        raise Refusal(
            f"There is no {usual} to distil: train it with `flowlm train {Path(usual).name}`, or "
            "name another teacher with --method.teacher."
        )
    return chosen


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
    method, kind = experiment.method, _kind(SAMPLERS, "--sampler", name)
    if not issubclass(kind, method.samplers):
        fit = [spelt(n) for n, of in SAMPLERS.items() if issubclass(of, method.samplers)]
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


def _kind(kinds: Kinds[Kind], option: str, name: str) -> type[Kind]:
    """The kind that is called so on the command line."""
    known = {spelt(kind): of for kind, of in kinds.items()}
    if name not in known:
        raise Refusal(
            f"There is no {option} {name}{meant(name, list(known))}: choose one of "
            f"{', '.join(known)}."
        )
    return known[name]


def meant(word: str, known: Sequence[str]) -> str:
    """` (did you mean ...?)` if a known word is close."""
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


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
