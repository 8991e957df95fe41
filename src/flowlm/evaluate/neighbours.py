"""Precision and recall of generated texts by nearest neighbours (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.evaluate.mauve import FEWEST

NEIGHBOURS = 5


def covered(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float | None:
    """Share of x that lies in the ball around some y that reaches its NEIGHBOURS-th neighbour.

    Precision where y is real, recall where x is. None of fewer than FEWEST texts.
    """
    if min(len(x), len(y)) < FEWEST:
        return None
    x, y = (torch.nn.functional.normalize(z.double()) for z in (x, y))
    # Exact differences: a text has to have distance 0 to itself.
    exact = "donot_use_mm_for_euclid_dist"
    # The nearest to a text is the text itself.
    reach = torch.cdist(y, y, compute_mode=exact).kthvalue(NEIGHBOURS + 1, 1).values
    return float((torch.cdist(x, y, compute_mode=exact) <= reach).any(1).double().mean())
