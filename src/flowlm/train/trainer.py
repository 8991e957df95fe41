"""The training loop: an iterator. Its caller owns what happens between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Loss
from flowlm.errors import Refusal
from flowlm.train.ema import Average
from flowlm.train.plan import Plan

Model = TypeVar("Model", bound=nn.Module)


class State(Generic[Model]):
    """What training changes: weights, their average, the optimizer, and the step reached."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model = model
        self.average = Average(model, plan.ema)
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
    """What one step did. Tensors are still on the device: reading one synchronises."""

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

    `batches(step)` and all randomness are pure functions of (seed, step), so a run that is
    stopped and resumed takes the same steps as one that is not: bit for bit on the CPU.
    """
    device = next(state.model.parameters()).device
    lowered = plan.precision == "bfloat16"
    state.model.train()
    while state.step < plan.steps:
        began = time.perf_counter()
        lr = learning_rate(plan, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        batch = batches(state.step)
        batch = Batch(
            batch.tokens.to(device, non_blocking=True), batch.weight.to(device, non_blocking=True)
        )
        rng = Streams.of(plan.seed, state.step, count=len(batch.tokens), device=device)
        torch.manual_seed(plan.seed * 2**32 + state.step)  # dropout draws from torch's own stream
        with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
            paid = loss(state.model, batch, rng)
        value = reduce(paid)
        state.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip)
        state.watch(value.detach() + norm)
        state.optimizer.step()
        state.average.update(state.model, state.step)
        state.step += 1
        seconds = time.perf_counter() - began
        yield Step(state.step, value.detach(), norm, lr, batch.tokens.numel(), seconds, paid.logs)


def reduce(loss: Loss) -> Tensor:
    """Nats per token by the global weight: the one place where losses are reduced."""
    return (loss.value * loss.weight).sum() / loss.weight.sum().clamp(min=1e-9)


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
