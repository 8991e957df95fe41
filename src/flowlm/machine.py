"""What a run uses of the machine it is on: the device, CPU threads, and how memory is kept."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from flowlm.errors import Refusal

SMALL = 64
"""Up to this width a second CPU thread gains little, and is better spent on a second run
(docs/performance.md)."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(wanted: str) -> torch.device:
    """The device to use; a Refusal if the one asked for is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if not there[wanted]:
        raise Refusal(f"There is no {wanted} device here: leave --train.device out.")
    return torch.device(wanted)


def set_threads(wanted: int, width: int, processes: int = 1) -> int:
    """Set and return the number of CPU threads of each of `processes` on this machine.

    By default one for small models, else an equal share of all.
    """
    threads = wanted or (1 if width <= SMALL else max(1, (os.cpu_count() or 1) // processes))
    torch.set_num_threads(threads)
    return threads


def keep_memory() -> bool:
    """Let the C library keep what tensors free, for the next ones; whether it does (glibc only).

    By default every large tensor is mapped anew, and the kernel clears its pages one by one at
    first touch: the same buffers, at every training step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
