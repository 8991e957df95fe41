"""Windows of a long row of tokens, as batches.

For training `Windows`: the global batch of a step is a pure function of (seed, step), and a process
cuts its own rows of it, so a run that is resumed, or spread over other machines, sees what an
uninterrupted one sees. For evaluation `sequential`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int, Integer
from numpy.lib.stride_tricks import sliding_window_view

from flowlm.core.types import Batch
from flowlm.errors import Refusal


def share(batch: int, rank: int, world: int) -> range:
    """The rows of a global batch of `batch` that process `rank` of `world` holds: consecutive ones.

    A Refusal unless every process gets equally many, at least one.
    """
    if not 0 <= rank < world:
        raise Refusal(f"There is no process {rank} of {world}: they count from 0.")
    if batch % world:
        raise Refusal(
            f"A batch of {batch} cannot be shared evenly by {world} processes: choose a multiple "
            f"of {world} as --train.batch."
        )
    rows = batch // world
    return range(rank * rows, (rank + 1) * rows)


@dataclass(frozen=True, eq=False)
class Windows:
    """Shuffled windows of `tokens` for training: `windows(step)` is a Batch of (rows, length).

    `tokens` is one row of ids (a memory-mapped file will do), `length` and `batch` count tokens
    in a window and windows in a global batch. Of that, process `rank` of `world` reads its `share`
    and nothing else. Every epoch cuts the row afresh, at an offset of its own,
    into `windows_per_epoch` windows that do not overlap, and visits each once, in an order of its
    own. A batch that crosses the end of an epoch goes on in the next one.

    If the text is in `rows` of `length` already, every epoch visits these; `pad` is an id in them
    that has no weight.

    A Refusal if `tokens` is shorter than one window, or the batch cannot be shared evenly.
    """

    tokens: Integer[np.ndarray, " n"]
    length: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1
    rows: bool = False
    pad: int | None = None

    def __post_init__(self) -> None:
        _check(self.tokens, self.length, self.batch)
        share(self.batch, self.rank, self.world)
        if self.seed < 0:
            raise Refusal(f"The seed of the data is {self.seed}: choose 0 or more.")

    @property
    def windows_per_epoch(self) -> int:
        """The same for every epoch, so that a step knows its epoch; at least one.

        It leaves room to begin at any of `length` places or more: every cut of the text comes up,
        and so does every token, the first and the last included. Rows need no such room.
        """
        if self.rows:
            return len(self.tokens) // self.length
        return max(1, (len(self.tokens) - self.length + 1) // self.length)

    def __call__(self, step: int) -> Batch:
        """This process's part of step 0, 1, 2, ...: tokens int64 and weights, (b, length)."""
        windows = self.windows_per_epoch
        offsets = 1 if self.rows else len(self.tokens) - windows * self.length + 1
        own = share(self.batch, self.rank, self.world)
        starts = np.empty(0, np.int64)
        while len(starts) < len(own):
            epoch, index = divmod(step * self.batch + own.start + len(starts), windows)
            offset, order = _epoch(self.seed, epoch, windows, offsets)
            chosen = order[index : index + len(own) - len(starts)]
            starts = np.append(starts, offset + chosen * self.length)
        return _cut(self.tokens, starts, self.length, self.pad)


def sequential(
    tokens: Integer[np.ndarray, " n"], length: int, batch: int, pad: int | None = None
) -> Iterator[Batch]:
    """Every window of `tokens` once and in order, for evaluation; the id `pad` has no weight.

    Batches of (batch, length); the last holds what is left and may be smaller. Tokens after the
    last whole window, fewer than `length`, are not part of any. Refuses what `Windows` refuses.
    """
    _check(tokens, length, batch)
    starts = np.arange(0, len(tokens) - length + 1, length)
    return (
        _cut(tokens, starts[first : first + batch], length, pad)
        for first in range(0, len(starts), batch)
    )


class Ahead:
    """Batches of which the next one is made while the last one is used.

    `ahead(step)` is `batches(step)`, at once if the step before was asked for last. With `pinned`
    a batch lies in page-locked memory, from which a copy to a GPU runs beside the GPU's work.
    """

    def __init__(self, batches: Callable[[int], Batch], pinned: bool) -> None:
        self._batches = batches
        self._pinned = pinned
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        if self._next is None or self._next[0] != step:
            self._next = step, self._thread.submit(self._made, step)
        batch = self._next[1].result()
        self._next = step + 1, self._thread.submit(self._made, step + 1)
        return batch

    def _made(self, step: int) -> Batch:
        batch = self._batches(step)
        if self._pinned:
            return Batch(batch.tokens.pin_memory(), batch.weight.pin_memory())
        return batch


@lru_cache(maxsize=2)  # the epoch of now, and the one that a batch may cross into
def _epoch(seed: int, epoch: int, windows: int, offsets: int) -> tuple[int, Int[np.ndarray, " w"]]:
    """Where an epoch begins to cut, in [0, offsets), and the order of its windows."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    offset = int(rng.integers(offsets))
    order = rng.permutation(windows)
    order.flags.writeable = False  # it is shared by everybody who asks
    return offset, order


def _cut(
    tokens: Integer[np.ndarray, " n"], starts: Int[np.ndarray, " b"], length: int, pad: int | None
) -> Batch:
    ids = sliding_window_view(tokens, length)[starts].astype(np.int64)
    weight = np.ones(ids.shape, np.float32) if pad is None else (ids != pad).astype(np.float32)
    return Batch(torch.from_numpy(ids), torch.from_numpy(weight))


def _check(tokens: Integer[np.ndarray, " n"], length: int, batch: int) -> None:
    if length < 1 or batch < 1:
        raise Refusal(
            f"Batches of {batch} x {length} tokens hold nothing: choose 1 or more of each."
        )
    if len(tokens) < length:
        raise Refusal(
            f"The text has {len(tokens):,} tokens and one window needs {length:,}: "
            "choose a shorter --data.length or give more text."
        )
