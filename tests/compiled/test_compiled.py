"""Runs checks.py where types are not checked: the wrappers that check them cannot be compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLACES = (str(HERE.parent / "parity"), str(HERE.parent), *sys.path)
OPTIONS = ("--noconftest", "-q", "-x", "-rs", "-n", "0")


QUICK = "sentence"
"""The refusal without a compiler; whatever is compiled takes a minute."""


@pytest.mark.parametrize(
    "checks",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(f"not ({QUICK})", id="rest", marks=pytest.mark.slow),
    ],
)
def test_compiled_parts(checks: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "-k", checks, str(HERE / "checks.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PLACES)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
