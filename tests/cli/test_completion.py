"""`flowlm completion SHELL`: scripts with which shells complete commands, recipes and options."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flowlm.cli.commands import COMMANDS
from flowlm.cli.completion import SHELLS, script
from flowlm.recipes import CHAINS, RECIPES

ASKED = {
    "bash": """
source {file}
COMP_WORDS=({words} "{last}"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _flowlm
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
compdef() {{ }}; _files() {{ }}; compadd() {{ shift; print -l -- ${{(M)@:#{last}*}} }}
source {file}
words=({words} "{last}"); CURRENT=$#words; _flowlm
""",
    "fish": """
source {file}
cd /nowhere 2> /dev/null
complete -C "{words} {last}"
""",
}
"""Of each shell a program that prints the words that it offers."""


def helping(command: str, words: Sequence[str]) -> int:
    """Commands whose help is short."""
    print(f"│ --{command}-option STR   what it is for, as --nothing else\n│     --help")
    return 0


def offered(shell: str, line: str, file: Path) -> set[str]:
    """Words that a shell offers at the end of a line."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    words, _, last = line.rpartition(" ")
    program = ASKED[shell].format(file=file, words=words, last=last)
    done = subprocess.run([shell, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_recipes_and_options(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "flowlm"
    file.write_text(script(shell, COMMANDS, helping))
    assert {*COMMANDS, "--help"} <= offered(shell, "flowlm ", file)
    assert offered(shell, "flowlm sam", file) == {"sample"}
    wanted = {name for name in (*RECIPES, *CHAINS) if name.startswith("text-f")}
    assert {"text-flow", "text-flow-map"} <= wanted
    assert offered(shell, "flowlm train text-f", file) == wanted
    for line in ("flowlm sample demo --s", "flowlm sample --json --s"):
        assert offered(shell, line, file) == {"--sample-option"}
    assert offered(shell, "flowlm train text-flow-map --t", file) == {"--train-option"}
    assert offered(shell, "flowlm completion z", file) == {"zsh"}


@pytest.mark.slow
def test_the_options_are_those_of_the_commands(flowlm: Callable) -> None:
    answer = flowlm("completion", "bash")
    assert answer.status == 0
    found = dict(re.findall(r'^    "([^"]*)".*\) words="(.*)" ;;$', answer.out, re.M))
    recipes = {f"train {name}" for name in (*RECIPES, *CHAINS)}
    assert found.keys() == {*COMMANDS} - {"recipes"} | recipes | {"", "train --resume"}
    assert {"--steps", "--film", "--dtype"} <= {*found["sample"].split()}
    assert {"--port", "--queue"} <= {*found["serve"].split()}
    assert {"--train.steps", "--method.teacher"} <= {*found["train text-flow-map"].split()}
    assert "--method.teacher" not in found["train text-flow"].split()
    assert "--license" in found["publish"].split()
    listed = re.findall(r"^  ([a-z]+) ", flowlm("--help").out, re.M)
    assert {*listed} == {*COMMANDS} == {*found[""].split()} - {"--help", "--version"}


def test_a_shell_that_is_not_known_is_refused(flowlm: Callable) -> None:
    answer = flowlm("completion", "tcsh")
    assert answer.status == 2
    assert "bash" in answer.err
