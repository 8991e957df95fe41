"""Dropout that belongs to a sequence: its draws are a hash, not a stream.

Whether a number is dropped is a function of (seed of the sequence, block, site, position, channel).
So it does not depend on the batch, the pass or the process that a sequence is in, recomputing a
block drops the same numbers again, and compiled code does what plain code does.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SITES = 2
"""Sites in a block where numbers are dropped: after attention and after the MLP."""

_GOLDEN = -1640531527  # 2^32 / golden ratio: multiples of it are spread evenly


def block_keys(seeds: Int[Tensor, " b"], block: int) -> Int[Tensor, "b s"]:
    """A key for every sequence and site of a block, from one 32-bit seed a sequence."""
    sites = torch.arange(block * SITES, (block + 1) * SITES, device=seeds.device)
    return _mixed(seeds[:, None] + sites.to(torch.int32) * _GOLDEN)


def dropped(x: Float[Tensor, "b l d"], key: Int[Tensor, " b"], p: float) -> Float[Tensor, "b l d"]:
    """x with a share p set to zero and the rest scaled up, so that its mean stays."""
    # What 16 bits can say, and scaled by just that, so that the mean stays exactly.
    share = min(round(p * 2**16), 2**16 - 1) / 2**16
    return x * kept(key, x.shape[1], x.shape[2], share) * (1 / (1 - share))


def kept(key: Int[Tensor, " b"], length: int, width: int, share: float) -> Bool[Tensor, "b l d"]:
    """True with probability 1 - share; `share` is a multiple of 2^-16.

    A hash of 32 bits decides for two channels, by its upper and by its lower half.
    """
    device = key.device
    positions = torch.arange(length, dtype=torch.int32, device=device) * _GOLDEN
    channels = torch.arange((width + 1) // 2, dtype=torch.int32, device=device)
    rows = _mixed(key[:, None] + positions)
    hashed = _product(rows[..., None] ^ _mixed(channels + 1))
    edge = round(share * 2**16 - 2**15) << 16
    return torch.cat((hashed >= edge, hashed << 16 >= edge), -1)[..., :width]


def _mixed(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """A one-to-one hash of 32 bits (multiplications of Wellons 2018, "lowbias32")."""
    x = _product(x)
    return x ^ (x >> 16 & 0xFFFF)


def _product(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    x = x * 0x7FEB352D
    # Numbers are signed, so a shift to the right drags the sign along: the mask removes it.
    x ^= x >> 15 & 0x1FFFF
    x *= -0x7B935975
    return x
