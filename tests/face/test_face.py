"""The Python face: what cannot be answered is refused in one sentence, what can is answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from calls import BAD, GOOD

import flowlm

PLACES = (Path(flowlm.__file__).parents[1], Path(__file__).parents[1])
CALLS = Path(__file__).parent / "calls.py"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What every call came to, in a process where nothing else checks types."""
    done = subprocess.run(
        [sys.executable, CALLS],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PLACES))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", BAD)
def test_a_call_that_cannot_be_answered_is_refused(call: str, said: dict[str, list[str]]) -> None:
    kind, words = said[call]
    assert kind == "Refusal", words
    assert "\n" not in words
    assert words.endswith(".")
    assert not words.endswith("..")
    assert not re.search(r"[.!?] [A-Z]", words), words
    assert len(words) < 300 or "5,000 letters" in call


@pytest.mark.parametrize("call", GOOD)
def test_a_call_that_can_be_answered_is(call: str, said: dict[str, list[str]]) -> None:
    assert said[call] == ["answer", "True"]


def test_there_are_many_calls() -> None:
    assert len(BAD) > 180
