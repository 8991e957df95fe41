"""The exponential moving average of the weights, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowlm.train.parallel import ALONE, World


class Average:
    """A second set of weights that follows the first; these are the ones that are used.

    It is spread over the world as the weights are.
    """

    def __init__(self, model: nn.Module, decay: float, world: World = ALONE) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.named_parameters()}
        self._world = world

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights after step number `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [self._world.local_shard(average) for average in self.weights.values()]
        weights = [self._world.local_shard(weight) for weight in model.parameters()]
        share = 1 - decay
        torch._foreach_lerp_(averages, weights, share)  # pyright: ignore[reportPrivateImportUsage]

    def whole(self) -> dict[str, Tensor]:
        """All of it, on every process; the tensors may be the live ones."""
        return {name: self._world.full_tensor(weight) for name, weight in self.weights.items()}
