"""Several processes as one: who takes part, and how a model is spread over them.

Every process holds its rows of the global batch and its shard of weights, gradients, moments and
averages (`fully_shard`). Alone, every function here gives back what it was given: there is one
training loop, and no machinery where there is nothing to spread.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.errors import Notice, Refusal, reason
from flowlm.train.launch import Launch, launched

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class World:
    """The processes that train together. By default this one, alone.

    What is exchanged about numbers on a device goes over its own network, the rest over the
    processors'. Every method must be called by all processes, in the same order.
    """

    rank: int = 0
    """Number of this process; process 0 writes and prints."""
    size: int = 1
    """How many there are."""
    local_size: int = 1
    """How many there are on this machine."""
    mesh: DeviceMesh | None = None
    """(replicate, shard) of the processes; None for one alone."""
    background_group: ProcessGroup | None = None
    """All processes once more, for a thread that works in the background."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def replicas(self) -> int:
        """How many copies of the state there are, each spread over the processes of a row."""
        return 1 if self.mesh is None else self.mesh.size(0)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.mesh is None:
            return flag
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over processes; `numbers` is overwritten."""
        if self.mesh is not None:
            distributed.all_reduce(numbers)
        return numbers

    def all_gather(self, value: Any) -> list[Any]:
        """Small values of every process, in the order of their ranks."""
        said = [value]
        if self.mesh is not None:
            said = [None] * self.size
            distributed.all_gather_object(said, value)
        return said

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """If a process refuses inside, all stop: process 0 says why, the others say nothing.

        Inside, no process may wait for another.
        """
        mine: Refusal | None = None
        try:
            yield
        except Refusal as refusal:
            mine = refusal
        for refusal in self.all_gather(mine):
            if refusal is not None:
                raise refusal if self.is_main else SystemExit(2)

    def share(self, count: int) -> range:
        """Which of `count` sequences this process takes: consecutive ones, and maybe none."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def local_shard(self, tensor: Tensor) -> Tensor:
        """This process's shard of a tensor that is spread, sharing its memory."""
        return tensor if self.mesh is None else cast("DTensor", tensor).to_local()

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """All of a tensor that is spread; it may share its memory."""
        return tensor if self.mesh is None else cast("DTensor", tensor).full_tensor()


ALONE = World()
"""One process."""


@contextmanager
def init_world(device: torch.device, shard: int = 0) -> Iterator[World]:
    """The processes that torchrun started; without torchrun, this one alone.

    `shard` of them share one copy of the state (0: all of them), and there are as many copies as
    that makes. A Refusal if they do not come out even.
    """
    launch = launched()
    size = launch.size
    if size == 1:
        if shard > 1:
            raise Refusal(
                f"This is one process, and --train.shard {shard} is for several: leave it out, or "
                "start with torchrun."
            )
        yield ALONE
        return
    shard = shard or size
    if size % shard:
        raise Refusal(
            f"{size} processes cannot form groups of --train.shard {shard}: choose a divisor."
        )
    if device.type == "mps":
        raise Refusal("An mps device takes one process: start without torchrun.")
    from torch.distributed.device_mesh import init_device_mesh

    if device.type == "cuda":
        _take_device(launch)
    _meet(launch, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        names = ("replicate", "shard")
        mesh = init_device_mesh(device.type, (size // shard, shard), mesh_dim_names=names)
        background_group = cast("ProcessGroup", distributed.new_group(backend="gloo"))
        yield World(distributed.get_rank(), size, launch.local_size, mesh, background_group)
    finally:
        distributed.destroy_process_group()


def _take_device(launch: Launch) -> None:
    wanted, there = max(launch.local_size, launch.local + 1), torch.cuda.device_count()
    if wanted > there:  # in every process alike, so that the first one says it
        raise Refusal(
            f"{wanted} processes on this machine need a CUDA device each, and there are {there}: "
            "start as many processes as there are devices."
        )
    torch.cuda.set_device(launch.local)


def _meet(launch: Launch, backend: str) -> None:
    """Wait for the other processes."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if not launch.watched:
        # Nobody may be coming: the environment can be what another program has left behind.
        warnings.warn(
            f"Waiting for {launch.size} processes at {address}, as WORLD_SIZE and MASTER_ADDR say.",
            Notice,
            stacklevel=2,
        )
    try:
        distributed.init_process_group(backend)
    except (distributed.DistError, ValueError) as error:
        raise Refusal(
            f"The {launch.size} processes could not meet at {address} ({reason(error)}): choose "
            "another --master-port of torchrun, or unset WORLD_SIZE to train in one process."
        ) from error


class LossModule(nn.Module):
    """All that is differentiated, as one module.

    `fully_shard` gathers a module's weights when its forward is called. Losses use the token table
    and the head outside the network's forward as well, so the root that is spread is the loss.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, loss: Callable[[Any, Batch, Streams], Loss], batch: Batch, rng: Streams
    ) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Weighted sum of the losses, sum of the weights, and the logs."""
        paid = loss(self.model, batch, rng)
        return (paid.value * paid.weight).sum(), paid.weight.sum(), dict(paid.logs)


def shard_model(loss_module: LossModule, parts: Sequence[nn.Module], world: World) -> None:
    """Spread the weights over the world, in place: each of `parts` is gathered on its own.

    Gradients are summed over processes, in the type of the weights.
    """
    if world.mesh is None:
        return
    from torch.distributed.fsdp import fully_shard

    for module in (*parts, loss_module):
        sharded = fully_shard(module, mesh=world.mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other


def micro_batches(rows: range, at_once: int) -> Iterator[slice]:
    """Consecutive sequences, `at_once` at a time (0: all)."""
    step = at_once or max(1, len(rows))
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))
