"""A row of the likelihoods of held-out text: one model, its nats, and what they are."""

# No `from __future__ import annotations` here: it would hide which keys are required.
from typing import Literal, NotRequired, TypedDict


class HeldOut(TypedDict):
    """How likely a model finds text that it has not learnt from."""

    method: str
    nats: float
    """Per token."""
    error: float | None
    """Standard error of `nats`, over texts and noise; null where it cannot be told."""
    kind: Literal["exact", "upper bound"]
    of: str
    """The sampler whose law of texts it is about; "" where there is one law only."""
    texts: NotRequired[int]
    bits_per_byte: NotRequired[float | None]


def described(row: HeldOut) -> str:
    """Says what the nats are."""
    return f"{row['kind']}, of {row['of']}" if row["of"] else row["kind"]


def in_words(row: HeldOut) -> str:
    """A line for a console or a card."""
    spread = "" if row["error"] is None else f" ± {row['error']:.3f}"
    return f"{row['method']}: {row['nats']:.3f}{spread} nats per held-out token ({described(row)})"
