"""One small run of two processes: started, killed without warning, and held against another."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STEPS = 60
WORDS = ("the", "a", "old", "small", "river", "house", "sings", "waits", "near", "under", "moon")
OPTIONS = [
    "--data.length", "32", "--size.blocks", "2", "--size.width", "64", "--size.heads", "2",
    "--size.condition", "16", "--size.dropout", "0.1", "--train.batch", "16",
    "--train.steps", str(STEPS), "--train.log-every", "1", "--train.save-every", "5",
    "--train.validate-every", "15", "--train.device", "cpu", "--train.threads", "1",
]  # fmt: skip
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MEASURED = ("seconds", "tokens_per_second", "share_of_peak", "memory_bytes")


class TooLate(Exception):
    """The run ended before its moment came."""


class Training:
    """torchrun with two processes; what they print goes to a file beside the run directory."""

    def __init__(self, out: Path, options: list[str]) -> None:
        self.out = out
        self.paper = out.with_name(out.name + ".txt")
        with self.paper.open("w") as paper:
            self._launcher = subprocess.Popen(
                [*LAUNCH, "-m", "flowlm", "train", *options],
                stdout=paper,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._launcher.poll() is not None

    def processes(self) -> list[int]:
        """The launcher and everything it has started: its workers are in sessions of their own."""
        return [self._launcher.pid, *_descendants(self._launcher.pid)]

    def kill(self, processes: list[int]) -> None:
        """SIGKILL to all of them; returns when the last is gone."""
        for pid in processes:
            _kill(pid)
        self._launcher.wait()
        while set(processes) & set(_alive()):
            time.sleep(0.01)

    def end(self) -> None:
        """Wait for the end; an error with what was printed if it is not a good one."""
        if self._launcher.wait(timeout=900) != 0:
            raise RuntimeError(self.paper.read_text()[-4000:])


@contextmanager
def training(out: Path, text: Path | None) -> Iterator[Training]:
    """Begin a run of `text`, or resume the one in `out`; nothing of it lives on afterwards."""
    begin = ["text-flow-map", "--data.path", str(text), "--out", str(out), *OPTIONS]
    run = Training(out, ["--resume", str(out)] if text is None else begin)
    try:
        yield run
    finally:
        if not run.over:
            run.kill(run.processes())


def write_text(path: Path) -> None:
    """400 sentences of eight words."""
    rng = random.Random(0)
    path.write_text("".join(" ".join(rng.choices(WORDS, k=8)) + ".\n" for _ in range(400)))


def wait_for_step(run: Training, step: int) -> None:
    """Returns when metrics.jsonl has the record of a step."""
    file = run.out / "metrics.jsonl"
    while not file.exists() or last_step(run.out) < step:
        _still(run)
        time.sleep(0.005)


def wait_for_save(run: Training) -> None:
    """Returns when a checkpoint is being written."""
    while not partial(run.out):
        _still(run)
        time.sleep(0.001)


def last_step(out: Path) -> int:
    """The newest step that metrics.jsonl has a whole record of; 0 if none."""
    lines = (out / "metrics.jsonl").read_text().split("\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def partial(out: Path) -> dict[str, list[str]]:
    """Checkpoints that are incomplete, by name, with the files that are there."""
    found = {}
    for path in (out / "checkpoints").glob(".partial-*"):
        try:
            found[path.name] = sorted(file.name for file in path.iterdir())
        except FileNotFoundError:  # it has got its name meanwhile
            continue
    return found


def whole(out: Path) -> list[int]:
    """Steps of the complete checkpoints, oldest first."""
    return sorted(int(p.name.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*"))


def resumed_from(said: str) -> int:
    """The step before the first that a run without a terminal tells of."""
    first = re.search(rf"step (\d+)/{STEPS}", said)
    return STEPS if first is None else int(first[1]) - 1


def differences(one: Path, two: Path) -> list[str]:
    """What of two ended runs is not the same, bit for bit; times and memory are not compared."""
    import torch

    found = []
    if (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes():
        found.append("model.safetensors")
    if records(one) != records(two):
        found.append("metrics.jsonl")
    texts = [{f.name: f.read_text() for f in (r / "samples").iterdir()} for r in (one, two)]
    if texts[0] != texts[1]:
        found.append("samples")
    if whole(one) != whole(two):
        found.append(f"checkpoints {whole(one)} and {whole(two)}")
    left, right = stored(one), stored(two)
    if left.keys() != right.keys():
        found.append("names in the checkpoint")
    found += [n for n in left if n in right and not torch.equal(left[n], right[n])]
    found += [f"left behind: {p.relative_to(two)}" for p in two.rglob("*partial*")]
    return found


def records(out: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock or a scale has measured."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(n).items() if k not in MEASURED} for n in lines]


def stored(out: Path) -> dict[str, Any]:
    """The last checkpoint: step, weights, averages and moments, by name."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        dcp_to_torch_save(out / "checkpoints" / f"step-{STEPS:08d}", file)
        content = torch.load(file, weights_only=True)
    moments = content["optimizer"]["state"]
    flat = {f"optimizer.{n}.{k}": m for n, of in moments.items() for k, m in of.items()}
    for part in ("model", "average"):
        flat |= {f"{part}.{name}": weight for name, weight in content[part].items()}
    return flat | {"step": torch.tensor(content["step"])}


def _still(run: Training) -> None:
    if run.over:
        raise TooLate(run.paper.read_text()[-4000:])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _processes() -> list[list[str]]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    return [line.split() for line in listing.stdout.splitlines()]


def _descendants(pid: int) -> list[int]:
    children = [int(own) for own, parent, _ in _processes() if int(parent) == pid]
    return [p for child in children for p in (child, *_descendants(child))]


def _alive() -> list[int]:
    return [int(own) for own, _, state in _processes() if not state.startswith("Z")]
