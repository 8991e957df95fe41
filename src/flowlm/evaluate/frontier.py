"""The frontier of quality against diversity: what a sampler reaches as one of its knobs is turned.

A low NLL is bought with entropy, so two models compare at equal entropy. A point is (sample
entropy, NLL), both in nats. This file imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

BELOW, ABOVE = 0.3, 0.1
"""Nats around the entropy of real text within which areas are measured."""

VALUES: dict[str, tuple[float, ...]] = {
    "temperature": (0.4, 0.55, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2),
    "gamma": (0.0, 0.4, 0.6, 0.8, 0.9, 1.0),
    "top_p": (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0),
}
"""Knobs of samplers, and the values to which they are turned."""


class Reached(NamedTuple):
    """A point of a frontier."""

    entropy: float
    nll: float


def pareto(points: Sequence[Reached]) -> list[Reached]:
    """Those that no other beats in both: more entropy and a lower NLL; by entropy."""
    kept: list[Reached] = []
    for point in sorted(set(points), key=lambda p: (-p.entropy, p.nll)):
        if not kept or point.nll < kept[-1].nll:
            kept.append(point)
    return kept[::-1]


def interpolated(entropy: float, points: Sequence[Reached]) -> float | None:
    """NLL at an entropy, linear between the points on both sides; None outside: no extrapolation.

    NLL is the logarithm of perplexity.
    """
    known = pareto(points)
    for left, right in pairwise(known):
        if left.entropy <= entropy <= right.entropy:
            share = (entropy - left.entropy) / (right.entropy - left.entropy)
            return left.nll + share * (right.nll - left.nll)
    return next((p.nll for p in known if p.entropy == entropy), None)


def nearest(entropy: float, points: Sequence[Reached]) -> Reached:
    """The point whose entropy is nearest."""
    return min(pareto(points), key=lambda p: abs(p.entropy - entropy))


def area(real: Reached, points: Sequence[Reached]) -> tuple[float | None, float]:
    """Mean of NLL less that of real text over entropies around its own, and the share reached.

    (1/|W|) int_W (NLL(H) - NLL_real) dH over the reached part of W = [H - BELOW, H + ABOVE], in
    nats per token; exact for the piecewise linear frontier. None if nothing of W is reached.
    """
    low, high = real.entropy - BELOW, real.entropy + ABOVE
    total = reached = 0.0
    for left, right in pairwise(pareto(points)):
        a, b = max(low, left.entropy), min(high, right.entropy)
        if b <= a:
            continue
        ends = [interpolated(h, (left, right)) for h in (a, b)]
        mean = sum(end for end in ends if end is not None) / 2
        total += (b - a) * (mean - real.nll)
        reached += b - a
    return (total / reached if reached else None), reached / (high - low)


def summed(
    method: str, steps: Any, knob: str, rows: Sequence[Mapping[str, Any]], real: Mapping[str, Any]
) -> dict[str, Any]:
    """The entry of a report: all points, and what they say at the entropy of real text."""
    points = [Reached(row["sample_entropy"], row["nll"]) for row in rows]
    entry: dict[str, Any] = {
        "method": method,
        "steps": steps,
        "knob": knob,
        "points": [
            {"value": row["value"], "sample_entropy": p.entropy, "nll": p.nll}
            for row, p in zip(rows, points)
        ],
    }
    if "sample_entropy" in real and "nll" in real:
        aim = Reached(real["sample_entropy"], real["nll"])
        entry["nll_at_real"] = interpolated(aim.entropy, points)
        entry["nearest"] = list(nearest(aim.entropy, points))
        entry["area"], entry["reached"] = area(aim, points)
    return entry
