"""The training loop: an iterator. Its caller owns what happens between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.errors import Refusal
from flowlm.train.ema import Average
from flowlm.train.parallel import ALONE, LossModule, World, micro_batches, shard_model
from flowlm.train.plan import Plan

Model = TypeVar("Model", bound=nn.Module)


class State(Generic[Model]):
    """State of training: weights, their average, the optimizer, and the step reached.

    Making it spreads the model over the world; `parts` are modules to gather one at a time, such
    as the blocks of a trunk.
    """

    def __init__(
        self, model: Model, plan: Plan, world: World = ALONE, parts: Sequence[nn.Module] = ()
    ) -> None:
        self.model, self.world = model, world
        self.loss_module = LossModule(model)
        shard_model(self.loss_module, parts, world)
        self.average = Average(model, plan.ema, world)
        self.optimizer = _optimizer(model, plan)
        self.step = 0
        device = next(model.parameters()).device
        # Kept on the device, so that watching for a bad loss costs no synchronisation.
        self._bad = torch.full((), -1, dtype=torch.long, device=device)

    def watch(self, value: Tensor) -> None:
        """Remember the first step whose loss or gradient was not finite."""
        first = (self._bad < 0) & ~value.isfinite()
        self._bad = torch.where(first, self.step, self._bad)

    def check(self, plan: Plan) -> None:
        """Stop if a loss was not finite, before anything made of it is saved (synchronises)."""
        if (step := int(self._bad)) >= 0:
            raise Refusal(
                f"The loss became non-finite at step {step + 1}, at learning rate "
                f"{learning_rate(plan, step):.2g}: try half of --train.lr {plan.lr:g}, a longer "
                "--train.warmup, or --train.precision float32."
            )


@dataclass(frozen=True)
class Step:
    """Result of one step. Tensors are still on the device: reading one synchronises."""

    number: int
    """Steps taken so far, this one included."""
    loss: Tensor
    """Nats per token, weighted."""
    norm: Tensor
    """Global gradient norm before clipping."""
    lr: float
    tokens: int
    seconds: float
    logs: Mapping[str, Tensor]


def train(
    state: State[Model],
    loss: Callable[[Model, Batch, Streams], Loss],
    batches: Callable[[int], Batch],
    plan: Plan,
) -> Iterator[Step]:
    """Take steps until the plan's number, yielding after each.

    `batches(step)` are this process's rows of the global batch, equally many everywhere. They and
    all randomness are pure functions of (seed, step), so a run that is stopped and resumed takes
    the same steps as one that is not: bit for bit on the CPU.
    """
    world = state.world
    state.model.train()
    while state.step < plan.steps:
        began = time.perf_counter()
        lr = learning_rate(plan, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        batch = batches(state.step)
        state.optimizer.zero_grad(set_to_none=True)
        value, norm, logs = _descend(state, loss, batch, plan)
        state.watch(value + norm)
        state.optimizer.step()
        state.average.update(state.model, state.step)
        state.step += 1
        seconds = time.perf_counter() - began
        tokens = batch.tokens.numel() * world.size
        yield Step(state.step, value, norm, lr, tokens, seconds, logs)


def _descend(
    state: State[Model], loss: Callable[[Model, Batch, Streams], Loss], batch: Batch, plan: Plan
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Leave clipped gradients in the weights; returns the global loss, gradient norm and logs.

    This is the one place where losses are reduced: their sum is differentiated, pass by pass, and
    divided by the weight of all passes and processes, which is known at the end.
    """
    world, rows = state.world, len(batch.tokens)
    device = next(state.model.parameters()).device
    lowered = plan.precision == "bfloat16"
    found, names = [], []
    for part in micro_batches(range(rows), plan.micro_batch):
        piece = Batch(
            batch.tokens[part].to(device, non_blocking=True),
            batch.weight[part].to(device, non_blocking=True),
        )
        rng = Streams.of(
            plan.seed, state.step, count=len(piece.tokens),
            first=world.rank * rows + part.start, total=world.size * rows, device=device,
        )  # fmt: skip
        with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
            value, weight, logs = state.loss_module(loss, piece, rng)
        value.backward()
        names = list(logs)
        found.append(torch.stack((value.detach(), weight, *chain(*logs.values()))))
    gradients = [world.local_shard(p.grad) for p in state.model.parameters() if p.grad is not None]
    # Shards add up to one gradient, and there are as many of those as copies of the state.
    square = nn.utils.get_total_norm(gradients).square() / world.replicas
    sums = world.sum(torch.cat((torch.stack(found).sum(0), square[None])))
    value, weight, *parts, square = sums.unbind()
    weight = weight.clamp(min=1e-9)
    norm = square.sqrt() / weight
    scale = (plan.clip / (norm + 1e-6)).clamp(max=1) / weight
    torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]
    means = (total / of.clamp(min=1e-9) for total, of in zip(parts[::2], parts[1::2]))
    return value / weight, norm, dict(zip(names, means))


def learning_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, constant, then linear to zero over the last share `decay` of the steps."""
    up = min(1.0, (step + 1) / max(1, plan.warmup))
    left = (plan.steps - step) / plan.steps
    return plan.lr * up * (min(1.0, left / plan.decay) if plan.decay > 0 else 1.0)


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    learnt = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in learnt if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, plan.lr, betas=(0.9, plan.beta2), eps=1e-8, fused=True)
