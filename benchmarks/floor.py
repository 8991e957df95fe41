"""The floor of a training step: its operations and bytes over measured rates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cells import median_seconds
from benchmarks.rivals import DEVICE, Case, rival, texts
from flowlm import core
from flowlm.run.footprint import Footprint


@dataclass(frozen=True)
class Rates:
    """What this machine does in a second."""

    operations: float
    """Of matrix products of 4,096 x 4,096 (a multiplication and an addition are two)."""
    bytes: float
    """Read and written by a copy of 1 GiB."""


def rates(precision: str) -> Rates:
    """Medians of five."""
    n = 4096
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    c, d = (torch.zeros(2**28, device=DEVICE) for _ in range(2))
    return Rates(
        2 * n**3 / median_seconds(lambda: a @ b, 5),
        8 * 2**28 / median_seconds(lambda: c.copy_(d), 5),
    )


@dataclass(frozen=True)
class Work:
    """What a step cannot do without."""

    operations: int
    """Three times the forward pass's: a backward pass has two products for each of its one."""
    bytes: int
    """Optimizer and average touched once; what the forward pass keeps, written and read."""


def useful(case: Case) -> Work:
    """Counted, not computed."""
    with fake_tensors(case.vocab):
        model, loss = rival(case)
        weights = sum(p.numel() for p in model.parameters())
        rng = core.Streams.of(0, count=case.batch)
        with Footprint(*model.parameters()) as kept, FlopCounterMode(display=False) as counted:
            before = kept.live
            paid = loss(model, texts(case), rng)
            activations = kept.live - before
    del paid
    # AdamW reads weight, gradient and two moments and writes three; the average reads and writes.
    return Work(3 * counted.get_total_flops(), 4 * weights * (7 + 3) + 2 * activations)


def seconds(work: Work, rates: Rates) -> float:
    """The time that the work takes at these rates, nothing overlapping."""
    return work.operations / rates.operations + work.bytes / rates.bytes


def fake_tensors(vocab: int) -> FakeTensorMode:
    """Tensors that are shapes alone; the clock's table is made before, with numbers."""
    core.Decoding(vocab).t(torch.zeros(1, 1))
    return FakeTensorMode(allow_non_fake_inputs=True)
