"""Whether a training step fits into a device's memory: a bound first, and a count where it is near.

The bound costs nothing. Counting takes seconds and is for what could come to nothing otherwise.
"""

from __future__ import annotations

import torch

from flowlm.experiment import Experiment
from flowlm.machine.hardware import memory_of
from flowlm.run.room import least_kept, least_state, require_batch, require_step
from flowlm.train import World

NEAR = 16
"""A step that takes less than a sixteenth of the memory at least is not counted any closer."""


def require_fitting(
    experiment: Experiment, vocab: int, length: int, device: torch.device, world: World
) -> None:
    """Refuse a run of which a step needs more memory than this process has on its device."""
    plan = experiment.train
    require_batch(experiment, world.size)
    there = memory_of(device)
    if there is None:
        return
    share = plan.shard or world.size
    state, kept = (
        least_state(experiment, vocab) // share,
        least_kept(experiment, length, world.size),
    )
    require_step(experiment, state, kept, there)
    # Of a compiled network less is kept than is counted.
    if NEAR * (state + kept) > there and not plan.compile:
        from flowlm.run.forecast import memory

        own = plan.batch // world.size
        held = memory(experiment, vocab, length, min(own, plan.micro_batch or own), world.size)
        require_step(
            experiment, held.total - held.activations - held.working, held.activations, there
        )
