"""Cells of a benchmark: each in a process of its own, so that peaks of memory are its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.rivals import DEVICE, Case, rival, texts
from flowlm.machine.hardware import keep_memory
from flowlm.nn import Size
from flowlm.train import Plan, State, train

Numbers = dict[str, Any]


def in_a_process(module: str, cell: Numbers) -> Numbers:
    """What `python -m MODULE CELL` prints on its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(cell)], capture_output=True, text=True
    )
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def step_cell(cell: Numbers) -> Numbers:
    """Seconds of training steps and the peak of memory: of the process, or of CUDA's allocator."""
    repeats = cell.pop("repeats")
    threads = cell.pop("threads")
    torch.set_num_threads(threads)
    cell["size"] = Size(**cell["size"])
    case = Case(**cell)
    if case.keep and DEVICE == "cpu":
        keep_memory()
    model, loss = rival(case)
    # The first step is of two texts and makes the optimizer's state; memory that is kept takes a
    # few steps to settle. None of these is timed.
    early = 3 if case.keep else 1
    plan = Plan(steps=repeats + early, batch=case.batch, warmup=1, precision=case.precision)
    state = State(model, plan)
    few, many = texts(case, 2), texts(case)
    seconds = [s for _, s in timed_steps(state, loss, lambda n: few if n == 0 else many, plan)]
    return {"seconds": seconds[early:], "bytes": peak_bytes()}


def peak_bytes() -> int:
    """Most memory held so far: by CUDA's allocator, or by this process."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage: a child's maximum starts at that of the process which started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def timed_steps(state: Any, loss: Any, batches: Any, plan: Plan) -> Any:
    """Steps and how long each took, the device's work included."""
    began = time.perf_counter()
    for step in train(state, loss, batches, plan):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        yield step, time.perf_counter() - began
        began = time.perf_counter()


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, words to the left and numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
