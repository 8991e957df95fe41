"""Masking, the corruption of masked diffusion (Sahoo et al. 2024, MDLM), in this library's time.

At t = 0 every token is masked and at t = 1 none is: a token is kept with probability t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowlm import core

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def mask(tokens: core.Tokens, t: core.Time, mask_id: int, rng: core.Streams) -> core.Tokens:
    """Each token kept with probability t, else replaced by `mask_id`."""
    kept = rng.uniform(tokens.shape[1]) < t
    return tokens.where(kept, mask_id)


def bound_weight(masked: Bool[Tensor, "b l"], t: core.Time) -> Float[Tensor, "b l"]:
    """Weight of a masked token's nll in the likelihood bound: 1 / (1 - t), 0 where not masked.

    With t uniform the expectation of sum_i weight_i nll_i bounds -log p(sequence) from above (MDLM,
    the continuous-time bound for the linear schedule), with equality for exact conditionals. At
    t = 1 nothing is masked.
    """
    import torch

    return torch.where(masked, 1 / (1 - t), 0.0)


def reveal_probability(t: Tensor, t_next: Tensor) -> Tensor:
    """Chance that a token masked at t is revealed on the way to t_next: (t' - t) / (1 - t).

    It is 1 from t = 1 on, where the formula has no value: what is left is revealed.
    """
    import torch

    return torch.where(t < 1, (t_next - t) / (1 - t), 1.0)
