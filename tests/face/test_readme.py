"""The code of the README and the docs: its imports are there, and its loop runs."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (page.name, code)
    for page in PAGES
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
]


@pytest.mark.parametrize(("page", "code"), BLOCKS, ids=lambda part: part[:30])
def test_what_code_imports_of_us_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowlm"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_loop_of_the_readme_trains(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (code for page, code in BLOCKS if page == "README.md" and "in train(" in code)
    exec(code.replace("steps=200", "steps=2").replace("% 50", "% 1"), {})
    one, two, texts = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in (one, two)] == ["1", "2"]
    assert [len(text.split()) for text in ast.literal_eval(texts)] == [18] * 4


def test_the_prompts_of_the_docs_are_written() -> None:
    codes = [code for page, code in BLOCKS if page == "prompts.md"]
    exec("".join(codes).replace("count=400", "count=4"), {})
