"""Texts of an autoregressive model by a map's drafts, by sweeps alone, and from left to right.

python -m benchmarks.drafting [--out runs] [--num 1000] [--set=--train.steps=20]

Trains demo-autoregressive and demo-gumbel where they are not there yet (minutes on two cores). The
texts of drafts and of sweeps are checked to be the same; those from left to right, drawn with other
numbers, have the same law. `--set` passes an option on to both trainings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import flowlm
from benchmarks.cells import Numbers, table
from benchmarks.provenance import write_result
from flowlm.chunked import gumbel_noise
from flowlm.core import FREE, Streams
from flowlm.model.drafting import drafted
from flowlm.model.language_model import LanguageModel
from flowlm.sampling.jacobi import Verified, nothing_written, verify
from flowlm.tasks.generated import Generated

SEED, BATCHES = 0, (1, 64)


def main() -> None:
    """Print a table, write benchmarks/results/drafting.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    chosen = parser.parse_args()
    teacher_run, map_run = chosen.out / "demo-autoregressive", chosen.out / "demo-gumbel"
    trained(teacher_run, chosen.set)
    trained(map_run, ["--method.teacher", str(teacher_run), *chosen.set])
    torch.set_num_threads(1)  # so small a network is no faster with more
    teacher, drafter = flowlm.load(teacher_run, "cpu"), flowlm.load(map_run, "cpu")
    rows = compared(drafter, teacher, chosen.num)
    heads = ["texts by", "at once", "passes a text", "most", "ms a text", "valid"]
    print(table(heads, [shown(row) for row in rows]))
    command = f"python -m benchmarks.drafting {' '.join(sys.argv[1:])}".strip()
    write_result("drafting", {"command": command, "texts": chosen.num, "rows": rows})


def trained(run: Path, options: list[str]) -> None:
    """Train a recipe of the run's name; what is there goes on or is kept."""
    words = ["--resume", run] if (run / "checkpoints").exists() else [run.name, "--out", run]
    more = [] if "--resume" in words else options
    subprocess.run(
        [sys.executable, "-m", "flowlm", "train", *map(str, (*words, *more))], check=True
    )


def compared(drafter: LanguageModel, teacher: LanguageModel, num: int) -> list[Numbers]:
    """A row for every way to write, at each number of texts at once."""
    rows = []
    for size in BATCHES:
        # One by one it takes a few texts to know the time of one.
        texts = num if size > 1 else min(num, 50)
        ways: dict[str, Callable[[int, int], Verified]] = {
            "drafts": lambda n, seed: drafted(drafter, teacher, n, seed),
            "sweeps": lambda n, seed: swept(teacher, n, seed),
            "left to right": lambda n, seed: one_by_one(teacher, n, seed),
        }
        found = {name: timed(way, texts, size) for name, way in ways.items()}
        assert torch.equal(found["drafts"][0].tokens, found["sweeps"][0].tokens), "lossless"
        for name, (written, seconds) in found.items():
            valid = Generated().valid(written.tokens).double().mean()
            rows.append({"way": name, "at_once": size, "texts": texts, "valid": float(valid)})
            rows[-1] |= {
                "passes": float(written.passes.double().mean()),
                "most": int(written.passes.max()),
                "seconds": seconds / texts,
            }
    return rows


def timed(way: Callable[[int, int], Verified], texts: int, size: int) -> tuple[Verified, float]:
    """All texts, in batches of a size with a seed each, and the seconds of it."""
    way(size, SEED)  # what a first time costs is no part of it
    began, parts = time.perf_counter(), []
    for k, first in enumerate(range(0, texts, size)):
        parts.append(way(min(size, texts - first), SEED + k))
    seconds = time.perf_counter() - began
    tokens, passes = zip(*((part.tokens, part.passes) for part in parts))
    return Verified(torch.cat(tokens), torch.cat(passes)), seconds


@torch.no_grad()
def swept(teacher: LanguageModel, n: int, seed: int) -> Verified:
    """The same texts without a draft."""
    denoiser = teacher.experiment.method.denoiser(teacher.network)
    noise = gumbel_noise(Streams.of(seed, count=n), teacher.length, teacher.network.vocab)
    start = nothing_written(denoiser, torch.full((n, teacher.length), FREE))
    return verify(denoiser, start, noise)


def one_by_one(teacher: LanguageModel, n: int, seed: int) -> Verified:
    """With a key-value cache: as many passes as tokens, each of one token a text."""
    tokens = teacher.sample(n, seed=seed)
    return Verified(tokens, torch.full((n,), teacher.length))


def shown(row: Numbers) -> list[str]:
    """Cells of a row."""
    return [
        row["way"], str(row["at_once"]), f"{row['passes']:.2f}", str(row["most"]),
        f"{1000 * row['seconds']:.2f}", f"{row['valid']:.1%}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
