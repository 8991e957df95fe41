"""The command lines of README and docs: the parser of the command line takes every one of them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from pages import PAGES, ROOT, flowlm_of, programs_of, shell_of, spans_of

from flowlm.cli import HELP, main, options
from flowlm.cli.parse import Writing, sampler, sampling_options
from flowlm.cli.preparing import Prepare
from flowlm.cli.serving import Serve
from flowlm.errors import Refusal
from flowlm.experiment import (
    DATA,
    INPUTS,
    METHODS,
    RULES,
    SAMPLERS,
    Experiment,
    read_experiment,
    to_json,
)
from flowlm.methods.prompts import Prompts
from flowlm.nn.size import Size
from flowlm.recipes import RECIPES
from flowlm.train.plan import Plan

PLACEHOLDERS = {"RECIPE": "text-flow", "N": "1", "NAME": "bridge"}
"""What stands for a recipe, a number or a sampler; other capitals will do as names of files."""

TRAINED = ("text-flow", "text-masked", "text-autoregressive")
"""What a RUN may be: one of them has to know the options of a line."""

OTHERS = {
    "--budget": "python -m benchmarks.study",
    "--text": "python -m benchmarks.data",
    "--signals-to-handle": "torchrun",
}
"""Options in the prose that are those of other programs."""


def lines_of(text: str) -> Iterator[list[str]]:
    """The words behind `flowlm` of every command line of a page: of blocks, and of the prose.

    A command that the prose only names, such as `flowlm train`, is a line without words behind it.
    """
    for line in [*shell_of(text), *spans_of(text)]:
        for program in programs_of(line):
            words = flowlm_of(program)
            if words:
                yield [PLACEHOLDERS.get(word, word) for word in words if word != "..."]


LINES = {page: list(lines_of(text)) for page, text in PAGES.items()}
COMMANDS = re.findall(r"^  (\w+) ", HELP, re.MULTILINE)


def taken(words: Sequence[str]) -> bool:
    """Whether the command line takes a line; of one that names a command, whether it is there."""
    if len(words) == 1 and not words[0].startswith("-"):
        return words[0] in COMMANDS
    return main(words) == 0


def write_run(experiment: Experiment, directory: Path) -> None:
    """What the parser wants of a run."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "experiment.json").write_text(to_json(experiment), encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of every recipe: teachers, and what a line goes on from."""
    place = tmp_path_factory.mktemp("reader")
    for name, recipe in RECIPES.items():
        write_run(recipe(), place / "runs" / name)
    return place


def writers(run: str) -> list[Experiment]:
    """The models that a name on a page may stand for."""
    if run == "demo" or Path(run).exists():
        return [read_experiment(run)]
    return [read_experiment(f"runs/{name}") for name in TRAINED]


def fits(chosen: Writing, command: str) -> int:
    """Parse the settings of a sampler, by the first model that has them."""
    refused: Refusal | None = None
    for experiment in writers(chosen.run):
        try:
            sampler(chosen, command, experiment)
            return 0
        except Refusal as refusal:
            refused = refused or refusal
    raise refused or AssertionError(chosen.run)


def sampled(words: Sequence[str]) -> int:
    return fits(sampling_options(options.Sample, "sample", words), "sample")


@pytest.fixture
def parsing_only(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands read their options and do nothing; a run that is trained leaves its name."""

    def trained(chosen: options.Train, stated: Experiment) -> int:
        if chosen.out is not None and not chosen.out.is_absolute():
            write_run(chosen.experiment, chosen.out)
        return 0

    monkeypatch.chdir(runs)
    commands = ("demo", "prepare", "serve", "compare", "runs", "convert", "export", "publish")
    for command in commands:
        monkeypatch.setattr(f"flowlm.cli.commands.{command}", lambda chosen: 0)
    monkeypatch.setattr("flowlm.cli.commands.sample", sampled)
    monkeypatch.setattr("flowlm.cli.commands.evaluate", lambda chosen: fits(chosen, "evaluate"))
    monkeypatch.setattr("flowlm.cli.training.train_one", trained)
    monkeypatch.setattr("flowlm.cli.training.train_chain", lambda chosen: 0)
    monkeypatch.setattr("flowlm.cli.training.resume", lambda chosen: 0)


@pytest.mark.parametrize("page", [page for page, lines in LINES.items() if lines])
def test_the_command_lines_of_a_page_are_taken(
    page: str, parsing_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in LINES[page]:
        fine = taken(words)
        assert fine, f"{page}: flowlm {' '.join(words)}: {capsys.readouterr().err}"


@pytest.mark.parametrize(
    "line",
    ["flowlm sample RUN --stepz 4", "flowlm train text-flow --data.pathh FILE",
     "flowlm train no-such-recipe", "torchrun -m flowlm train owt-flow --train.shards 4",
     "flowlm sample RUN --sampler.gama 0 # a comment", "flowlm tell"],
)  # fmt: skip
def test_a_line_with_a_mistake_is_found(line: str, parsing_only: None) -> None:
    (words,) = lines_of(f"```\n{line}\n```\n")
    assert not taken(words)


def test_no_line_is_overlooked() -> None:
    for page, text in PAGES.items():
        begun = [line for line in shell_of(text) if re.match(r"\s*(flowlm [a-z-]|torchrun )", line)]
        assert all(any(map(flowlm_of, programs_of(line))) for line in begun), page


def test_lines_are_found_in_blocks_and_prose() -> None:
    text = """See `flowlm runs`.

    flowlm sample demo | head   # some

```
pip install . && flowlm serve demo > log
flowlm demo [--seed N] \\
    --out DIR
sbatch --nodes 2 examples/slurm.sh owt-flow --train.track wandb
it's a text that a model wrote
```
"""
    assert [*lines_of(text)] == [
        ["serve", "demo"], ["demo", "--seed", "1", "--out", "DIR"],
        ["train", "owt-flow", "--train.track", "wandb"], ["sample", "demo"], ["runs"],
    ]  # fmt: skip


def options_of(kind: object, before: str) -> Iterator[str]:
    """The options that set the fields of a dataclass."""
    assert is_dataclass(kind)
    for field in fields(kind):
        yield f"--{before}{field.name.replace('_', '-')}"


def every_option() -> set[str]:
    """All options of all commands: of commands, plans, sizes, and of every kind of every part."""
    of_commands = (
        options.Demo, Prepare, options.Train, options.Sample, options.Evaluate,
        options.Compare, options.Runs, options.Convert, options.Export, options.Publish, Serve,
    )  # fmt: skip
    parts: list[tuple[str, object]] = [("", kind) for kind in of_commands]
    parts += [("train.", Plan), ("size.", Size), ("method.prompts.", Prompts)]
    tables = {
        "method.": METHODS, "method.rule.": RULES, "method.input.": INPUTS, "sampler.": SAMPLERS,
        "data.": DATA,
    }  # fmt: skip
    parts += [(before, kind) for before, table in tables.items() for kind in table.values()]
    known = {option for before, kind in parts for option in options_of(kind, before)}
    return known | {"--size", "--data", "--init", "--config", "--resume", "--help"}


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_prose_are_there(page: str) -> None:
    known = every_option()
    named = {
        word.partition("=")[0]
        for span in spans_of(PAGES[page])
        if span.startswith("--")
        for word in span.split()
        if word.startswith("--")
    }
    assert sorted(named - known - {*OTHERS}) == []


def test_modules_and_targets_of_the_docs_are_there() -> None:
    """`python -m benchmarks.demo` and `make demo` are there to be run."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page, text in PAGES.items():
        for name in re.findall(r"python -m ((?:benchmarks|studies)[\w.]*\w)", text):
            assert importlib.util.find_spec(name) is not None, f"{page}: python -m {name}"
        said = [*shell_of(text), *spans_of(text)]
        for name in re.findall(r"^make ([\w-]+)", "\n".join(said), re.MULTILINE):
            assert name in targets, f"{page}: make {name}"
