"""Orders: texts that somebody waits for, and what is told of them while they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flowlm.sampling.sampler import Sampler

ALTERNATIVES = 5
"""Likeliest tokens of a place that a film shows."""


@dataclass(frozen=True)
class Way:
    """How texts are written. Those of one way begin together as one batch."""

    sampler: Sampler
    steps: int
    prompted: bool
    """Whether some of their tokens are given."""
    filmed: bool
    """Whether every step is told of."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A text at a step, before the step is taken."""

    step: int
    tau: float
    """Clock time of what is not given."""
    tokens: list[int]
    """FREE where nothing is decided."""
    confidence: list[float]
    """Of each token that is shown; empty where the network answers for one place alone."""
    alternatives: list[list[tuple[int, float]]]
    """Likeliest tokens and their probabilities, at every place; empty as `confidence`."""


@dataclass(eq=False)
class Order:
    """Texts of one request: text i has the given tokens of row i and depends on (seed, i) alone."""

    way: Way
    seed: int
    given: Sequence[Sequence[int]]
    """FREE where the model writes; of its own length."""
    shot: Callable[[Shot], None]
    done: Callable[[list[list[int]] | None], None]
    """Called once: with the tokens of all texts, or with None if they could not be written."""
    cancelled: bool = False
    begun: int = 0
    """How many of its texts are being written, or are."""
    texts: dict[int, list[int]] = field(default_factory=dict)

    def finish(self, number: int, tokens: list[int]) -> None:
        """Text `number` is written."""
        self.texts[number] = tokens
        if len(self.texts) == len(self.given) and not self.cancelled:
            self.done([self.texts[i] for i in range(len(self.given))])

    def fail(self) -> None:
        """Its texts will not be written."""
        if not self.cancelled:
            self.cancelled = True
            self.done(None)


@dataclass(frozen=True, eq=False)
class Line:
    """One text of an order."""

    order: Order
    number: int
