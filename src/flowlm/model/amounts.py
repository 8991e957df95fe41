"""How many texts, in how many steps, from which seed: whole numbers that have an end."""

from __future__ import annotations

from flowlm.checks import whole

TEXTS = 2**32
"""The texts of a seed are told apart by 32 bits (core/rng.py)."""
STEPS = 2**16
"""Times are float32: in more steps, rounding one is more than a 256th of a step."""
SEED = 2**64 - 1
"""Seeds are hashed to 32 bits: none needs more than twice as many."""
BYTES = 2**63 - 1
"""A size of memory: as many as a machine can count."""


def amounts(n: object, steps: object, seed: object, first: object = 0) -> tuple[int, int, int, int]:
    """`n` texts from number `first` on, in `steps` steps, from `seed`: each within its bounds."""
    count = whole("The number of texts", n, 1, TEXTS)
    begin = whole("The number of the first text", first, 0, TEXTS - count)
    return (
        count,
        whole("The number of steps", steps, 1, STEPS),
        whole("The seed", seed, 0, SEED),
        begin,
    )
