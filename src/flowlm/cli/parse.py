"""From words on the command line to options; a mistake becomes one sentence."""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from flowlm.cli.options import Train
from flowlm.errors import Refusal
from flowlm.experiment import in_likeness
from flowlm.hub.transfer import locate
from flowlm.recipes import RECIPES

Options = TypeVar("Options")


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
    usual = experiment.method.teacher
    teacher = _value_of("--method.teacher", words)
    if teacher is None and usual is not None and Path(usual).exists():
        teacher = usual
    if experiment.method.teachers and teacher is not None and teacher != "None":
        place = locate(teacher)  # refused before torch is imported
        from flowlm.model.loading import experiment_of

        experiment = in_likeness(experiment, teacher, experiment_of(place))
    chosen = parsed(Train, f"train {name}", words[1:], Train(experiment))
    # A dry run takes a teacher of the recipe's own size for granted.
    if usual is not None and teacher is None and not chosen.dry_run:
        raise Refusal(
            f"There is no {usual} to distil: train it with `flowlm train {Path(usual).name}`, or "
            "name another teacher with --method.teacher."
        )
    return chosen


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
