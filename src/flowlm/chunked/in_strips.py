"""Distributions whose rows are made of other predictions: reductions strip by strip."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from flowlm.chunked.points import patches
from flowlm.core.distribution import Reduction, TokenDistribution


class InStrips(TokenDistribution, ABC):
    """Rows that `log_probs` can make of any patch, and that are never all there. No gradient."""

    @torch.no_grad()
    def reduce(self, f: Reduction, *operands: Any) -> Tensor:
        """Strip by strip; no gradient flows."""
        vocab = self.log_probs((slice(0, 1), slice(0, 1))).shape[-1]
        answer = None
        for patch in patches(torch.Size((*self.shape, vocab)), self.device.type):
            value = f(self.log_probs(patch), patch, *operands)
            if answer is None:
                answer = value.new_empty(*self.shape, *value.shape[2:])
            answer[patch] = value
        assert answer is not None
        return answer
