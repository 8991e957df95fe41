"""Functions that run in several processes at once, joined as torchrun joins them."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing


def on(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returned in each of `world` processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(
            _process, (world, _free_port(), Path(folder), function, arguments), nprocs=world
        )
        files = [Path(folder) / str(rank) for rank in range(world)]
        return [torch.load(file, weights_only=False) for file in files]


def _process(
    rank: int, world: int, port: int, folder: Path, function: Callable[..., Any], arguments: Any
) -> None:
    join(rank, world, port)
    torch.save(function(*arguments), folder / str(rank))


def join(rank: int, world: int, port: int) -> None:
    """Say what torchrun says to process `rank`."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)


def join_anew() -> None:
    """Say it again: the place where processes met is not free at once."""
    os.environ["MASTER_PORT"] = str(int(os.environ.get("MASTER_PORT", "0")) + 1)


def _free_port() -> int:
    """One below those that connections take for themselves, as are the next ones."""
    while True:
        with socket.socket() as finder, suppress(OSError):
            finder.bind(("127.0.0.1", random.SystemRandom().randrange(15000, 30000, 10)))
            return finder.getsockname()[1]
