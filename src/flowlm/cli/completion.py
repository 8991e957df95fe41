"""The command `flowlm completion`: a script with which a shell completes commands and options.

The scripts hold all words, so that no key press starts Python. The words of a command are read off
its own help.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from flowlm.recipes import CHAINS, RECIPES

SHELLS = ("bash", "zsh", "fish")
PATTERN = '"{0}"|"{0} "*'
"""Words alone, and with others behind them, as bash and zsh match them."""


@dataclass(frozen=True)
class Completion:
    """Print a script with which a shell completes commands, recipes and options.

    Write it where the shell looks: ~/.local/share/bash-completion/completions/flowlm, a file
    _flowlm in a directory of zsh's fpath, or ~/.config/fish/completions/flowlm.fish.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Whose script."""


def script(shell: str, commands: Sequence[str], run: Callable[[str, Sequence[str]], int]) -> str:
    """The script of a shell for commands that `run` runs, each with its words."""
    return _SCRIPTS[shell](_words(commands, run))


def _words(
    commands: Sequence[str], run: Callable[[str, Sequence[str]], int]
) -> Mapping[str, list[str]]:
    """Words that may follow, by the words before them: the longest of these that fits counts."""
    found: dict[str, list[str]] = {}
    for recipe in (*RECIPES, *CHAINS):
        found[f"train {recipe}"] = _options("train", [recipe], run)
    found["train --resume"] = _options("train", ["--resume"], run)
    found["train"] = [*RECIPES, *CHAINS, "--config", "--resume"]
    for command in commands:
        if command not in ("recipes", "train", "completion"):
            found[command] = _options(command, [], run)
    found["completion"] = list(SHELLS)
    return found | {"": [*commands, "--help", "--version"]}


def _options(
    command: str, before: Sequence[str], run: Callable[[str, Sequence[str]], int]
) -> list[str]:
    """The options that the help of a command lists, each at the beginning of a line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        run(command, [*before, "--help"])
    return sorted({"--help", *re.findall(r"^\W*(--[a-z][\w.-]*)", said.getvalue(), re.MULTILINE)})


def _bash(words: Mapping[str, list[str]]) -> str:
    cases = _cases('    {}) words="{}" ;;\n', PATTERN, words)
    return (
        '_flowlm() {\n  local words=""\n  case "${COMP_WORDS[*]:1:COMP_CWORD-1}" in\n'
        f'{cases}  esac\n  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))\n'
        "}\ncomplete -o default -F _flowlm flowlm\n"
    )


def _zsh(words: Mapping[str, list[str]]) -> str:
    cases = _cases("    {}) found=({}) ;;\n", PATTERN, words)
    return (
        '#compdef flowlm\n_flowlm() {\n  local -a found\n  case "${(j: :)words[2,CURRENT-1]}" in\n'
        f"{cases}  esac\n  compadd -- $found || _files\n}}\n"
        "# As a file of the fpath it is run to complete; from a start-up file it is only known.\n"
        'if [ "$funcstack[1]" = "_flowlm" ]; then _flowlm; else compdef _flowlm flowlm; fi\n'
    )


def _fish(words: Mapping[str, list[str]]) -> str:
    cases = _cases("    case {}\n      printf '%s\\n' {}\n", "'{0}' '{0} *'", words)
    return (
        "function __flowlm_words\n  set -l before (commandline -opc)\n"
        f'  switch (string join -- " " $before[2..-1])\n{cases}  end\nend\n'
        "complete -c flowlm -a '(__flowlm_words)'\n"
    )


def _cases(case: str, pattern: str, words: Mapping[str, list[str]]) -> str:
    """A case for every entry, in a shell's own writing: of a pattern and the words it leads to."""
    return "".join(
        case.format(pattern.format(before) if before else '""', " ".join(after))
        for before, after in words.items()
    )


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
