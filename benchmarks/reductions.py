"""Reductions of the head's rows: by square tiles, and strip by strip as any other.

    python -m benchmarks.reductions

At the published size of a training step's head, forward and backward, on one thread. Times are CPU
time of the process, the two ways in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from flowlm.chunked import HeadPrediction
from flowlm.core import Mixture
from flowlm.core.distribution import Reduction, row_cross_entropy, row_nll

BATCH, LENGTH, VOCAB, WIDTH, REPEATS = 32, 128, 30_522, 768, 5


def head() -> HeadPrediction:
    features = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)
    weight = nn.Parameter(torch.randn(VOCAB, WIDTH) / WIDTH**0.5)
    return HeadPrediction(features, weight, nn.Parameter(torch.zeros(VOCAB)))


def unnamed(f: Reduction) -> Reduction:
    """The same function, which the head does not know by name."""
    return lambda logp, patch, operand: f(logp, patch, operand)


def seconds(p: HeadPrediction, f: Reduction, operand: Tensor | Mixture, lowered: bool) -> float:
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16) if lowered else nullcontext():
        value = p.reduce(f, operand)
    value.mean().backward()
    return time.process_time() - began


def main() -> None:
    torch.set_num_threads(1)
    p, tokens = head(), torch.randint(VOCAB, (BATCH, LENGTH))
    share = torch.rand(BATCH, 1)
    soft = share * head().probs() + (1 - share) * head().probs()
    cases: dict[str, tuple[Callable[..., Tensor], Tensor | Mixture]] = {
        "nll": (row_nll, tokens),
        "cross-entropy with two parts": (row_cross_entropy, soft),
    }
    for name, (f, operand) in cases.items():
        for lowered in (False, True):
            pairs = [
                [seconds(p, way, operand, lowered) for way in (f, unnamed(f))]
                for _ in range(REPEATS + 1)
            ][1:]
            tiles, strips = map(statistics.median, zip(*pairs))
            precision = "bfloat16" if lowered else "float32"
            print(
                f"{name}, {precision}: {tiles:.2f} s, strips {strips / tiles:.2f} times", flush=True
            )


if __name__ == "__main__":
    main()
