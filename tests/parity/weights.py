"""Networks whose every parameter carries something, those that start at zero too."""

from __future__ import annotations

import torch

from flowlm import nn


def scattered(model: nn.DiT, seed: int = 0, scale: float = 0.3) -> nn.DiT:
    """Draw every parameter anew, scales of norms around 1, and switch dropout off."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            middle = 1.0 if "norm" in name else 0.0
            p.copy_(middle + scale * torch.randn(p.shape, generator=rng))
    return model.eval()
