"""All inputs of `tests.bad_inputs`: none ends in a traceback, or without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_every_bad_input_ends_with_a_sentence() -> None:
    # In a process of its own: the types of calls are checked in this one.
    done = subprocess.run(
        [sys.executable, "-m", "tests.bad_inputs", "--json"], capture_output=True, text=True,
        timeout=300, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["faults"] == []
    assert told["inputs"] >= 300
    print(f"{told['inputs']} bad inputs, each ended with a sentence.")
