"""A frozen flow and the network of its residual, as one network."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowlm.core.types import Time
from flowlm.nn.dit import DiT, sinusoids
from flowlm.nn.encoder import Encoder
from flowlm.nn.size import Size


class TimeWeight(nn.Module):
    """A number for every clock time, learnt, 0 at the start: 256 sinusoids, 128 units, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(256, 128)
        self.last = nn.Linear(128, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, tau: Time) -> Float[Tensor, "b #l"]:
        """The number."""
        waves = sinusoids(tau, 128).to(self.inner.weight.dtype)
        number = self.last(F.gelu(self.inner(waves))).squeeze(-1)
        return number.to(torch.promote_types(number.dtype, torch.float32))


class ResidualDiT(DiT):
    """A network of two times whose logits, without a cap, are a residual; and the flow beneath it.

    The flow's weights are stored with it and never learn. Its answers take part in no gradient.
    """

    def __init__(self, flow: DiT, size: Size, encoder: Encoder, vocab: int, length: int) -> None:
        super().__init__(replace(size, output_cap=None), encoder, vocab, length, times=2)
        self.flow = flow.requires_grad_(False)
        self.time_weight = TimeWeight()
