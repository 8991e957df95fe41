"""Given text on the command line: kept in its place, as in Python, refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowlm import load

WAY = ("--steps", "4", "--seed", "3")


def texts(out: str) -> list[str]:
    return [line for line in out.splitlines() if len(line.split()) > 10]


def test_a_prompt_is_that_of_python(flowlm: Callable) -> None:
    answer = flowlm("sample", "demo", *WAY, "--num", "2", "--prompt", "these old")
    assert texts(answer.out) == load("demo").generate(2, 4, 3, prompt="these old")


def test_a_template_is_that_of_python(flowlm: Callable) -> None:
    template = "these [..] behind their [..3] then [..]"
    answer = flowlm("sample", "demo", *WAY, "--num", "2", "--infill", template)
    assert texts(answer.out) == load("demo").infill(template, 2, 4, 3)


def test_every_line_of_a_file_begins_texts_of_its_own(flowlm: Callable, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("these old\nthis new\n")
    answer = flowlm(
        "sample", "demo", *WAY, "--num", "2", "--prompts", tmp_path / "p.txt", "--length", "30"
    )
    prompts = ["these old", "these old", "this new", "this new"]
    assert texts(answer.out) == load("demo").generate(steps=4, seed=3, prompt=prompts, length=30)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "these", "--infill", "these [..]"), "two ways"),
        (("--prompt", ""), "The prompt is empty"),
        (("--prompt", "zebra"), "'zebra'"),
        (("--infill", "these"), "The template has no gap"),
        (("--prompts", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--prompts", "gap.txt"), "an empty line, number 2"),
        (("--prompts", "none.txt"), "no line"),
        (("--length", "0"), "--length must be a whole number"),
        (("--length", "30", "--film"), "leave --length out"),
    ],
)
def test_what_cannot_be_given_is_refused(
    words: tuple[str, ...],
    said: str,
    flowlm: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gap.txt").write_text("these\n\nthis\n")
    (tmp_path / "none.txt").write_text("")
    answer = flowlm("sample", "demo", *words)
    assert answer.status == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1
