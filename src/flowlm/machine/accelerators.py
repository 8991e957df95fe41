"""Accelerators to plan for: by name, this machine, or a speed that is given."""

from __future__ import annotations

from dataclasses import dataclass

from flowlm.errors import Refusal
from flowlm.train.plan import Plan

TERA, GIGA = 1e12, 10**9

KNOWN = {
    "a100": (312 * TERA, 80 * GIGA),  # A100 80 GB SXM
    "l40s": (362 * TERA, 48 * GIGA),
    "h100": (989 * TERA, 80 * GIGA),  # H100 SXM
    "h200": (989 * TERA, 141 * GIGA),  # H200 SXM
    "b200": (2250 * TERA, 180 * GIGA),  # HGX B200, each GPU
    "mi300x": (1307 * TERA, 192 * GIGA),
    "rtx3090": (71 * TERA, 24 * GIGA),
    "rtx4090": (165.2 * TERA, 24 * GIGA),
    "rtx5090": (209.5 * TERA, 32 * GIGA),
}
"""Operations a second of dense bfloat16 matrix products that add up in float32, and bytes of
memory, from the makers' data sheets (which put twice the operations where they count the zeros of
2:4 sparsity or, for GeForce cards, sums in float16)."""

HERE = "here"
"""The name of this machine."""

ASSUMED_MFU = 0.4
"""Share of a peak that is assumed to be reached in useful operations."""


@dataclass(frozen=True)
class Accelerator:
    """Speed and memory of one device."""

    name: str
    speed: float
    """Useful operations a second."""
    reached: str
    """Where the speed comes from, in words."""
    memory: int | None
    """Bytes; None where nobody knows."""


def accelerator(name: str, plan: Plan, width: int) -> Accelerator:
    """The accelerator of a name in KNOWN, this machine, or one that reaches so many TFLOP/s.

    This machine is measured as `plan` would use it for a network of `width`.
    """
    if name == HERE:
        return _here(plan, width)
    if name in KNOWN:
        peak, memory = KNOWN[name]
        share = f"{100 * ASSUMED_MFU:.0f} % of its {peak / TERA:,.0f}"
        said = f"{name} at {share} (dense bfloat16; the share is assumed)"
        return Accelerator(name, ASSUMED_MFU * peak, said, memory)
    try:
        speed = float(name) * TERA
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise Refusal(
            f"--accelerator {name} is neither {HERE}, one of {', '.join(KNOWN)}, nor a number of "
            "TFLOP/s that are reached."
        )
    return Accelerator("", speed, f"{speed / TERA:,.0f} (given)", None)


def _here(plan: Plan, width: int) -> Accelerator:
    import torch

    from flowlm.machine.hardware import choose_device, memory_of, peak, set_threads

    device = choose_device(plan.device)
    threads = set_threads(plan.threads, width)
    best = peak(device, torch.bfloat16 if plan.precision == "bfloat16" else torch.float32, threads)
    said = (
        f"this machine ({device}) at {100 * ASSUMED_MFU:.0f} % of its {best / TERA:.3g} ("
        f"{plan.precision}, measured now; the share is assumed)"
    )
    return Accelerator("this machine", ASSUMED_MFU * best, said, memory_of(device))
