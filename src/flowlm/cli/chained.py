"""Options of a chain: every word goes to the stages that know it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowlm.cli.options import Train, TrainChain
from flowlm.cli.parse import kind_of, parsed, with_kinds
from flowlm.errors import Refusal
from flowlm.experiment import SAMPLERS, Experiment
from flowlm.experiment.chain import Stages, is_taught, run_names
from flowlm.experiment.dotted import has
from flowlm.recipes import CHAINS

OWN = ("--out", "--dry-run", "--accelerator", "--devices", "--help", "-h")
KINDS = ("--sampler", "--method.input", "--method.rule")
"""Options that choose the kind of a part: they come first, the settings of the part after them."""

INHERITED = ("--data.", "--size.")
"""Beginnings of options that a student takes over from its teacher."""


@dataclass(frozen=True)
class ChosenChain:
    """A chain as the command line wants it."""

    name: str
    stages: Stages
    """Linked: every one has its teacher."""
    out: Path
    options: TrainChain


@dataclass(frozen=True)
class Word:
    """An option and its values, as they were written."""

    option: str
    said: tuple[str, ...]

    @property
    def value(self) -> str:
        """Its last value."""
        return self.said[-1].partition("=")[2] if "=" in self.said[0] else self.said[-1]


def chain_options(words: Sequence[str]) -> ChosenChain:
    """Options of `flowlm train CHAIN ...`: what no stage knows is refused."""
    name, command = words[0], f"train {words[0]}"
    stages, given = CHAINS[name](), _split(words[1:])
    own = [word for word in given if word.option in OWN or not word.option.startswith("--")]
    options = parsed(TrainChain, command, _flat(own), about=_about(name, stages))
    out = Path("runs") / name if options.out is None else options.out
    shared, known = [word for word in given if word not in own], set[Word]()
    chosen: list[Experiment] = []
    for number, stage in enumerate(stages):
        before = chosen[-1] if chosen else None
        teacher = None
        if before is not None and is_taught(stage, before):
            teacher = str((out / run_names(stages)[number - 1]).absolute()), before
        theirs = [word for word in shared if teacher is None or not _is_inherited(stage, word)]
        kinds = [w for w in theirs if w.option in KINDS and _fits(stage, w)]
        stage = with_kinds(stage, teacher, _flat(kinds))
        settings = [w for w in theirs if w.option not in KINDS and _has(stage, w.option)]
        chosen.append(parsed(Train, command, _flat(settings), Train(stage)).experiment)
        known |= {*kinds, *settings}
    for word in shared:
        if word.option == "--method.teacher":
            raise Refusal(
                f"Every stage of {name} is taught by the one before it: leave --method.teacher out."
            )
        if word not in known:
            raise Refusal(
                f"No stage of {name} takes {' '.join(word.said)}: leave it out; `flowlm train "
                f"{stages[0].name} --help` and the like show what each of them takes."
            )
    return ChosenChain(name, tuple(chosen), out, options)


def _about(name: str, stages: Stages) -> str:
    """The head of a chain's help."""
    said = (CHAINS[name].__doc__ or "").strip().splitlines()[0]
    runs = ", ".join(run_names(stages))
    return (
        f"{said} A chain: it trains {runs}, each taught by the one before it, and goes on with "
        "`flowlm train --resume` and its directory. Any option of its stages is one of the chain, "
        "and goes to every stage that has it (--train.seed to all; --data, --size and a flow's "
        "--sampler.temperature to the first, whose students take them over): see `flowlm train "
        f"{stages[0].name} --help`."
    )


def _split(words: Sequence[str]) -> list[Word]:
    """Options with the values that follow them."""
    split: list[list[str]] = []
    for word in words:
        if word.startswith("--") or word == "-h" or not split:
            split.append([word])
        else:
            split[-1].append(word)
    return [Word(said[0].partition("=")[0].replace("_", "-"), tuple(said)) for said in split]


def _flat(words: Iterable[Word]) -> list[str]:
    return [part for word in words for part in word.said]


def _is_inherited(stage: Experiment, word: Word) -> bool:
    """Whether a student takes over from its teacher what an option says.

    One that learns a cooled teacher's answers has its temperature: its own sampler cools no more.
    """
    if word.option == "--sampler.temperature":
        return _has(stage, "--method.teacher-temperature")
    return word.option.startswith(INHERITED)


def _fits(stage: Experiment, word: Word) -> bool:
    """Whether a stage can have a part of this kind."""
    if word.option == "--sampler":
        return issubclass(kind_of(SAMPLERS, word.option, word.value), stage.method.samplers)
    return _has(stage, word.option)


def _has(stage: Experiment, option: str) -> bool:
    """Whether an option names a setting of a stage, its teacher aside."""
    path, _, last = option.removeprefix("--").replace("-", "_").rpartition(".")
    if not path or option == "--method.teacher":
        return False
    return any(has(stage, f"{path}.{name}") for name in (last, last.removeprefix("no_")))
