"""The control of a task: a writer without a model that knows how often each token stands where."""

from __future__ import annotations

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import Tokens
from flowlm.tasks.task import Task


def draw_marginals(task: Task, rng: Streams) -> Tokens:
    """Texts whose tokens are drawn independently of each other, each from its exact marginal."""
    u = rng.uniform(task.length, 1, dtype=torch.float64)
    cumulative = task.marginals.cumsum(-1).expand(len(rng), -1, -1).contiguous()
    drawn = torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True)
    return drawn.squeeze(-1).clamp(max=task.vocab - 1)
