"""The last layer: features to a distribution over tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.prediction import HeadPrediction


class Head(nn.Module):
    """The last layer, zero at the start: no features speak, and its bias says what is likely.

    `side` and `fused` may be set from outside, as in HeadPrediction: they change no answer.
    """

    def __init__(self, width: int, vocab: int, cap: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab, width))
        self.bias = nn.Parameter(torch.zeros(vocab))
        self.cap = cap
        self.side: int | None = None
        self.fused = False

    @torch.no_grad()
    def divide_logits(self, temperature: float) -> None:
        """Answer from now on as before at this temperature, but for the cap.

        What is to be learnt from it starts at that size: methods refuse what is too cold for that.
        """
        self.weight.div_(temperature)
        self.bias.div_(temperature)

    def forward(
        self, features: Float[Tensor, "b l d"], evidence: Evidence | None = None
    ) -> HeadPrediction:
        """The distribution, nothing of which is computed yet."""
        return HeadPrediction(
            features, self.weight, self.bias, self.cap, self.side, self.fused, evidence
        )
