"""Texts of a task that are drawn while a run learns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Tokens
from flowlm.data.loader import share
from flowlm.tasks.task import Task

AHEAD = 32
"""Batches drawn at once: a task's law costs nearly as much for one batch as for many."""


@dataclass(frozen=True)
class Drawn:
    """Fresh texts of a task as batches: a pure function of (seed, step).

    Process `rank` of `world` holds its `share` of the global batch. It draws the others' as well:
    every text has a stream of its own, but drawing many costs little more than drawing few.
    """

    task: Task
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        share(self.batch, self.rank, self.world)

    def __call__(self, step: int) -> Batch:
        """The rows of a step, of the part to learn from; each is drawn anew."""
        block, place = divmod(step, AHEAD)
        tokens = _drawn(self.task, self.batch * AHEAD, self.seed, block)
        rows = share(self.batch, self.rank, self.world)
        first = place * self.batch
        tokens = tokens[first + rows.start : first + rows.stop]
        return Batch(tokens, torch.ones(tokens.shape))


@lru_cache(maxsize=2)
def _drawn(task: Task, count: int, seed: int, block: int) -> Tokens:
    # The third word keeps these streams apart from the noise of a step of the same number.
    return task.sample(Streams.of(seed, block, 1, count=count), "learnt")
