"""Which methods can be guided, and a weaker network of the same weights."""

from __future__ import annotations

import copy
from dataclasses import replace

from flowlm import nn
from flowlm.errors import Refusal
from flowlm.methods.continuous import Continuous
from flowlm.methods.method import Method
from flowlm.sampling.point import PointSampler


def guidable(method: Method) -> Continuous:
    """The method, whose answers are rows on the simplex at any time; a Refusal for another."""
    if not isinstance(method, Continuous) or method.samplers is not PointSampler:
        raise Refusal(f"{method.label} has no guidance: a flow or a flow map has.")
    return method


def with_dropout(network: nn.DiT, share: float) -> nn.DiT:
    """The same weights, not copied, in a network that drops a share of what its blocks add."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise Refusal("The dropout of the weak network must lie above 0 and below 1, such as 0.1.")
    tensors = (*network.parameters(), *network.buffers())
    weak = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    weak.size = replace(network.size, dropout=float(share))
    for block in weak.blocks:
        assert isinstance(block, nn.Block)
        block.dropout = float(share)
    return weak.train()
