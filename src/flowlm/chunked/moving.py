"""A prediction that moves: its rows, and how they change as time goes by, a strip at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flowlm.chunked.points import LazyPoint, patches
from flowlm.chunked.prediction import HeadPrediction
from flowlm.chunked.tiles import capped, through_cap
from flowlm.core.types import Patch, Probs


@dataclass(frozen=True, eq=False)
class MovingPrediction:
    """Rows p = softmax(z) of a head and their derivative, of which features alone are kept.

    The head is linear, so forward mode ends at the features: z' = y' W, through the cap, and what
    is added to z as evidence moves on its own.
    """

    prediction: HeadPrediction
    dfeatures: Float[Tensor, "b l d"]
    devidence: LazyPoint | None = None
    """The derivative of the evidence, nats per unit of time; None where it stays."""

    @torch.no_grad()
    def rows(self, patch: Patch) -> tuple[Probs, Probs]:
        """log p, and its derivative z' - <p, z'>, both (n, m, v)."""
        of = self.prediction
        logits = capped(F.linear(of.features[patch], of.weight), of.bias, of.cap)
        slope = through_cap(F.linear(self.dfeatures[patch], of.weight), logits, of.cap)
        if of.evidence is not None:
            logits = logits + of.evidence.rows(patch)
        if self.devidence is not None:
            slope = slope + self.devidence.write(patch)
        logp = logits.log_softmax(-1)
        return logp, slope - (logp.exp() * slope).sum(-1, keepdim=True)

    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """The derivative of p @ table."""
        shape = self.prediction.shape
        out = table.new_empty(*shape, table.shape[1])
        for patch in patches(torch.Size((*shape, len(table))), table.device.type):
            logp, slope = self.rows(patch)
            out[patch] = ((logp.exp() * slope) @ table.to(logp.dtype)).to(out.dtype)
        return out
