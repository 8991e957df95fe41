"""Processes that train: met, on their device, listening to signals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from flowlm.machine.hardware import choose_device
from flowlm.machine.stopping import Stop, stoppable
from flowlm.train import World, init_world
from flowlm.train.plan import Plan


@dataclass(frozen=True)
class Started:
    """Processes that are ready to train, one run or several."""

    world: World
    device: torch.device
    stop: Stop
    """What signals have asked for since."""


@contextmanager
def started(plan: Plan) -> Iterator[Started]:
    """The processes of a plan; until the end of the body they are one world."""
    device = choose_device(plan.device)
    with stoppable() as stop, init_world(device, plan.shard) as world:
        yield Started(world, device, stop)
