"""The type in which a network is stored and multiplied."""

from __future__ import annotations

import torch

from flowlm.errors import Refusal
from flowlm.nn.dit import DiT

DTYPES = (torch.float32, torch.bfloat16)


def require_dtype(dtype: object) -> torch.dtype:
    """`dtype`, if a network can be sampled from in it."""
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        said = dtype if isinstance(dtype, str | torch.dtype) else type(dtype).__name__
        raise Refusal(f"There is no sampling in {said}: choose torch.float32 or torch.bfloat16.")
    return dtype


def require_device_kind(device: object) -> str | torch.device:
    """`device`, if it is a name or torch's own; whether it is there is for the machine to say."""
    if not isinstance(device, str | torch.device):
        raise Refusal(
            'The device must be a str such as "cpu" or "cuda:1", or a torch.device, and it is of '
            f"the type {type(device).__name__}."
        )
    return device


def narrowed(network: DiT, dtype: torch.dtype) -> DiT:
    """Blocks and head in `dtype`; the token table, where the state lives, and time in float32."""
    network.to(dtype)
    for part in network.modules():
        if isinstance(part, DiT):
            for kept in (part.encoder, part.times, part.sharper):
                if kept is not None:
                    kept.float()
    return network
