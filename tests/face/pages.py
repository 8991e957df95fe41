"""README and docs as readers find them: blocks of Python, command lines, options in the prose."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text("utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

RUNNERS = ("torchrun", "python", "sbatch")
"""Programs that start flowlm on behalf of somebody."""


def python_of(text: str) -> list[str]:
    """The blocks of Python of a page."""
    return [code for language, code in FENCED.findall(text) if language == "python"]


def spans_of(text: str) -> list[str]:
    """The code between single backquotes of a page."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def shell_of(text: str) -> list[str]:
    """The lines of a page that a reader may paste into a shell: fenced ones, indented ones."""
    fenced = "".join(code for language, code in FENCED.findall(text) if language != "python")
    indented = re.findall(r"^    (.*)$", FENCED.sub("", text), re.MULTILINE)
    return [*fenced.replace("\\\n", " ").splitlines(), *indented]


def programs_of(line: str) -> Iterator[list[str]]:
    """The programs of a line of shell with their words, without comments and redirections.

    Nothing where the line is no shell, such as an equation or a text that a model wrote.
    """
    plain = re.sub(r"\[(--[^\]]*)\]", r"\1", line)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return
    program: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("|&;<>"):
            yield program
            # A file that the output goes to is a program of one word, which nobody looks for.
            program = []
        else:
            program.append(word)


def flowlm_of(program: list[str]) -> list[str] | None:
    """The words behind `flowlm`, however it is started; None for another program."""
    if program[:1] == ["flowlm"]:
        return program[1:]
    if program[:1] and program[0] in RUNNERS:
        if "examples/slurm.sh" in program:
            return ["train", *program[program.index("examples/slurm.sh") + 1 :]]
        if ["-m", "flowlm"] in [program[i : i + 2] for i in range(len(program))]:
            return program[program.index("flowlm") + 1 :]
    return None
