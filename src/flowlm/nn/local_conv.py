"""A short convolution over positions, before the first block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowlm.nn.attention import Cache


class LocalConv(nn.Module):
    """y_i + sum_k A_k y_(i+k), k from -reach to reach; up to 0 where a trunk is causal.

    Attention is even over all positions at the start, and in a denoiser that learns no more than
    single tokens it stays so for long: which position matters is learnt from what stands there, and
    what stands there from which position matters. A matrix for each distance breaks that circle
    (docs/encoders.md). Beyond the ends of a sequence there is nothing.
    """

    def __init__(self, width: int, reach: int, causal: bool) -> None:
        super().__init__()
        self.before, self.after = reach, 0 if causal else reach
        self.mix = nn.Conv1d(width, width, self.before + 1 + self.after, bias=False)

    def forward(
        self, y: Float[Tensor, "b l d"], cache: Cache | None = None
    ) -> Float[Tensor, "b l d"]:
        """With a cache (causal trunks only), y continues the features read before."""
        seen = F.pad(y, (0, 0, self.before, self.after))
        if cache is not None:
            if cache.features is not None:
                seen = torch.cat((cache.features, y), 1)
            cache.features = seen[:, seen.shape[1] - self.before :]
        return y + self.mix(seen.mT).mT
