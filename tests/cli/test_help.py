"""Help and refusals come without torch, and a recipe's help shows that recipe's options only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from flowlm.experiment import Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.masked import Masked
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.uniform_state import UniformState
from flowlm.recipes import CHAINS, RECIPES
from flowlm.sampling import Jumps

# One process asks for everything, and says after each which heavy modules have come in.
WATCH = """
import contextlib, io, json, sys
from flowlm.cli import main
seen = {}
for words in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code or 0
    heavy = [m for m in ("torch", "numpy", "tokenizers", "safetensors") if m in sys.modules]
    seen[" ".join(words)] = [status, heavy, len(out.getvalue())]
print(json.dumps(seen))
"""

HELPED = [
    ["--help"],
    [],
    ["--version"],
    ["recipes"],
    *[
        [command, "--help"]
        for command in (
            "demo",
            "prepare",
            "train",
            "sample",
            "evaluate",
            "convert",
            "export",
            "publish",
        )
    ],
    *[["train", recipe, "--help"] for recipe in (*RECIPES, *CHAINS)],
]
REFUSED = [
    ["trian"], ["train", "text-flwo"], ["train", "text-flow", "--bogus"],
    ["train", "text-map", "--bogus"], ["sample"],
]  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> dict[str, list]:
    answer = subprocess.run(
        [sys.executable, "-c", WATCH],
        input=json.dumps(HELPED + REFUSED),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize("words", HELPED + REFUSED, ids=" ".join)
def test_help_imports_no_torch(words: list[str], seen: dict[str, list]) -> None:
    status, heavy, length = seen[" ".join(words)]
    assert status == (0 if words in HELPED else 2)
    assert "torch" not in heavy
    assert "tokenizers" not in heavy
    assert length > 10


def options(help: str) -> set[str]:
    return {word.strip("│|, ") for word in help.split() if word.startswith("--") and word != "--"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_shows_its_own_options_only(recipe: str, flowlm: Callable) -> None:
    answer = flowlm("train", recipe, "--help")
    assert (answer.status, answer.err) == (0, "")
    shown = options(answer.out)
    experiment = RECIPES[recipe]()
    own = {Flow: "temperature", FlowMap: "gamma", Masked: "top-p", Autoregressive: "top-p"}
    own |= dict.fromkeys((SEDD, SEDDUniform), "top-p")
    own[Di4C] = "top-p"
    own |= dict.fromkeys((UniformState, Curriculum, Duo, DCD), "tail") | {ResidualStudent: "gamma"}
    own |= {SDTT: "order"}
    if not isinstance(experiment.method, ResidualMap | GumbelMap):  # its sampler has no settings
        assert f"--sampler.{own[type(experiment.method)]}" in shown
    maps = FlowMap | ResidualMap | ResidualStudent
    assert ("--sampler.gamma" in shown) == isinstance(experiment.sampler, Jumps)
    assert ("--method.teacher" in shown) == bool(experiment.method.teachers)
    assert ("--method.clock" in shown) == isinstance(experiment.method, Flow | maps)
    assert ("--data.path" in shown) == isinstance(experiment.data, Text)
    assert {"--out", "--train.steps", "--train.seed", "--size.width"} <= shown
    # Its own defaults, not those of the classes.
    assert f"(default: {experiment.train.steps})" in answer.out
    assert f"(default: {experiment.size.width})" in answer.out


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_shows_its_stages(chain: str, flowlm: Callable) -> None:
    answer = flowlm("train", chain, "--help")
    assert (answer.status, answer.err) == (0, "")
    assert options(answer.out) >= {"--out", "--dry-run", "--accelerator", "--devices"}
    for stage in CHAINS[chain]():
        assert f"-{stage.name}" in " ".join(answer.out.split())


def test_every_command_that_is_listed_exists(flowlm: Callable) -> None:
    listed = flowlm("--help").out
    for command in (
        "demo",
        "recipes",
        "prepare",
        "train",
        "sample",
        "evaluate",
        "convert",
        "export",
        "publish",
        "serve",
        "completion",
    ):
        assert f"\n  {command}" in listed
        assert flowlm(command, "--help").status == 0


def test_nothing_said_is_a_call_for_help(flowlm: Callable) -> None:
    assert flowlm() == flowlm("--help") == flowlm("-h")


def test_the_version_is_the_packages(flowlm: Callable) -> None:
    from importlib.metadata import version

    assert flowlm("--version").out == f"flowlm {version('flowlm')}\n"
