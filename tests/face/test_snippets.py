"""The Python of README and docs: every block runs, or a reason stands here why it does not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pages import PAGES, python_of

import flowlm

BLOCKS = [(page, code) for page, text in PAGES.items() for code in python_of(text)]

ELSEWHERE = {
    ("docs/start.md", "hf:david3684/"): "needs the hub; tests/sharing/test_convert.py stands in",
    ("docs/checkpoints.md", "FLM.ckpt"): "needs a released file, a GPU, and points of the reader's",
    ("docs/fair-comparison.md", "def rounds"): "a pattern, whose recipes are the reader's",
    ("docs/serving.md", "openai.OpenAI"): "needs a server that runs, and a client",
}
"""Blocks that are not run here, by a part of them."""

OTHER_TESTS = {
    "docs/extending.md": "tests/extending/test_extending.py writes each to its file",
    "docs/onnx.md": "tests/page/test_onnx.py runs it on the files that it exports",
}

TINY = (
    '"train.batch": 2, "train.warmup": 1, "train.threads": 1, "data.length": 16, '
    '"size.blocks": 1, "size.width": 16, "size.heads": 2, "size.condition": 8'
)
SMALLER = {
    '"train.steps": 2000': f'"train.steps": 2, {TINY}',
    'load("runs/demo/flow-map")': 'load("demo")',
    'load("runs/earlier")': 'load("demo")',
    "steps=200, batch": "steps=2, batch",
    "% 50": "% 1",
    "sample(1000,": "sample(20,",
    "count=400": "count=4",
    "n=16": "n=2",
}
"""What stands in the docs, and what takes seconds."""


def left_out(page: str, code: str) -> bool:
    return page in OTHER_TESTS or any(page == of and part in code for of, part in ELSEWHERE)


@pytest.mark.parametrize(("page", "code"), BLOCKS, ids=lambda part: part[:30])
def test_what_code_imports_of_us_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowlm"):
            exec(compile(ast.Module([node], []), page, "exec"), {})


def test_what_is_left_out_is_there() -> None:
    for of, part in ELSEWHERE:
        assert len([page for page, code in BLOCKS if page == of and part in code]) == 1, (of, part)
    assert {*OTHER_TESTS} <= {page for page, _ in BLOCKS}


def test_what_is_made_smaller_is_there() -> None:
    run = "".join(code for page, code in BLOCKS if not left_out(page, code))
    assert [large for large in SMALLER if large not in run] == []


def trained_before(page: str) -> None:
    """What a page takes for granted: a text, and runs that its commands trained."""
    text = "".join(f"{word} went to the {word} and back.\n" for word in ("sea", "farm", "oven") * 9)
    Path("book.txt").write_text(text, encoding="utf-8")
    if page == "docs/gumbel.md":
        small = {"data.path": "book.txt", "train.steps": 2, **ast.literal_eval(f"{{{TINY}}}")}
        teacher = "runs/text-autoregressive"
        flowlm.fit("text-autoregressive", teacher, small)
        flowlm.fit("text-gumbel", "runs/text-gumbel", {**small, "method.teacher": teacher})


@pytest.mark.parametrize(
    "page", dict.fromkeys(page for page, code in BLOCKS if not left_out(page, code))
)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, in one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    trained_before(page)
    names: dict[str, object] = {}
    for number, (_, code) in enumerate(block for block in BLOCKS if block[0] == page):
        if not left_out(page, code):
            for large, small in SMALLER.items():
                code = code.replace(large, small)
            exec(compile(code, f"{page}, block {number + 1}", "exec"), names)


def test_the_loop_of_the_first_steps_trains(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (code for page, code in BLOCKS if page == "docs/start.md" and "in train(" in code)
    exec(code.replace("steps=200", "steps=2").replace("% 50", "% 1"), {})
    one, two, texts = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in (one, two)] == ["1", "2"]
    assert [len(text.split()) for text in ast.literal_eval(texts)] == [18] * 4


def test_the_arithmetic_of_a_plan_prints_what_stands_below_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = (code for page, code in BLOCKS if page == "docs/scaling.md")
    exec(code, {})
    assert f"```\n{capsys.readouterr().out}```" in PAGES["docs/scaling.md"]
