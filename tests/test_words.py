"""The rules of the prose: how a docstring begins, and words that nobody else uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import flowlm

SOURCE = Path(flowlm.__file__).parent
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in SOURCE.rglob("*.py")
}

BANNED = {
    "absorb", "believe", "bent", "beside", "gathered", "imagined", "likeness", "nll_at",
    "Objective", "official", "settle", "slip", "tempered", "texts_at_once", "together",
}  # fmt: skip
"""Words of our own that once stood where the field has one (docs/glossary.md)."""


def docstrings() -> Iterator[tuple[str, str]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and (said := ast.get_docstring(node)):
                yield f"{name}:{node.body[0].lineno}", said


def test_a_docstring_begins_with_a_noun_or_an_imperative() -> None:
    """Not with a clause whose subject is to be guessed."""
    assert [place for place, said in docstrings() if said.split()[0] == "What"] == []


def test_a_docstring_begins_with_a_sentence_of_one_line() -> None:
    unended = [p for p, said in docstrings() if not said.splitlines()[0].endswith((".", ":", "!"))]
    assert unended == []


def test_names_are_words_of_the_field() -> None:
    used = [
        f"{place}: {name}"
        for place, tree in TREES.items()
        for node in ast.walk(tree)
        for name in (
            [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else [node.attr] if isinstance(node, ast.Attribute)
            else [node.arg] if isinstance(node, ast.arg)
            else []
        )
        if name in BANNED
    ]  # fmt: skip
    assert used == []
