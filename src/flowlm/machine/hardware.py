"""Device, CPU threads and allocator settings."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import torch

from flowlm.errors import Notice, Refusal
from flowlm.machine.device import device_name
from flowlm.machine.limits import cores, memory
from flowlm.train.launch import ALONE, Launch

SMALL = 64
"""Up to this width a second CPU thread gains little, and is better spent on a second run
(docs/performance.md)."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(wanted: str | torch.device, float64: bool = False) -> torch.device:
    """The device of a name; auto is the fastest kind that is here. A Refusal if it is not there.

    With `float64`, auto takes none without these numbers, from which tokens are drawn: mps.
    """
    there = {
        "cuda": torch.cuda.device_count(), "mps": int(torch.mps.is_available()), "cpu": 1,
    }  # fmt: skip
    if wanted == "auto":
        kinds = [kind for kind, count in there.items() if count and not (float64 and kind == "mps")]
        return torch.device(kinds[0])
    device = torch.device(device_name(str(wanted)))
    if (device.index or 0) >= there[device.type]:
        found = " and ".join(kind for kind, count in there.items() if count)
        raise Refusal(
            f"There is no device {device} here, but {found}: choose one of them, or auto."
        )
    return device


def set_threads(wanted: int, width: int, launch: Launch = ALONE) -> int:
    """Set and return the number of CPU threads of each of the processes on this machine.

    More than the machine has processors would only crowd them: then it is that many, and a Notice
    says so.
    """
    there = os.cpu_count() or 1
    if wanted > there:
        warnings.warn(
            f"--train.threads {wanted:,} are more than this machine's {there:,} processors: "
            f"{there:,} are used.",
            Notice,
            stacklevel=2,
        )
    stated = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(wanted, there) or usual_threads(width, cores(), stated, launch)
    torch.set_num_threads(threads)
    return threads


def keep_to_cores() -> None:
    """Take no more CPU threads than this process may keep busy: torch knows no quota of a group."""
    torch.set_num_threads(min(torch.get_num_threads(), cores()))


def usual_threads(width: int, cores: int, stated: str, launch: Launch = ALONE) -> int:
    """Threads by default: one for small models, else an equal share of the cores.

    Never more than are `stated` in OMP_NUM_THREADS, if they are.
    """
    share = 1 if width <= SMALL else max(1, cores // launch.local_size)
    # A list is for nested loops. Where nobody has stated anything, torchrun states 1.
    first = stated.split(",")[0].strip()
    if not first.isdecimal() or int(first) < 1 or (launch.watched and first == "1"):
        return share
    return min(share, int(first))


def memory_of(device: torch.device) -> int | None:
    """Bytes that this process can hold on a device at most; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory()


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


def memory_held(device: torch.device) -> int:
    """Most bytes held so far: by tensors on CUDA, by the process on a CPU; on MPS held now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which on Linux begins with the peak of the process that started this one.
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@cache
def peak(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Operations a second of a large matrix product: the fastest of five, measured once a process.

    A multiplication and an addition are two operations. `threads` is how many a CPU has now.
    """
    side = 1024 if device.type == "cpu" else 8192
    # A generator of its own: measuring changes no number of the run. Not zeros, which draw less
    # power and are multiplied faster.
    own = torch.Generator(device).manual_seed(0)
    a = torch.randn(side, side, generator=own, device=device, dtype=dtype)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:])
