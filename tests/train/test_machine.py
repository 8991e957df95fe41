"""What a run uses of its machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from flowlm.machine.hardware import keep_memory
kept = keep_memory() if sys.argv[1] == "kept" else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):  # the C library first sets aside a few slivers left by aligning
    torch.ones(2**24)
before = faults()
for _ in range(5):
    torch.ones(2**24)
print(kept, faults() - before)
"""
PAGES = 5 * 4 * 2**24 // 4096


def run(how: str) -> tuple[str, int]:
    """Whether memory is kept, and how many pages are taken to make 64 MiB five times over."""
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems decides")
def test_kept_memory_is_not_taken_again() -> None:
    kept, faults = run("kept")
    if kept == "False":
        pytest.skip("not the GNU C library")
    assert faults < PAGES / 20
    assert run("default")[1] > PAGES / 2, "without it, every page is taken anew"
