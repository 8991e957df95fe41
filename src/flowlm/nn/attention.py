"""One attention: the fused kernel, or the explicit one where logits are capped."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Heads = Float[Tensor, "b h l k"]

Rotary = tuple[Float[Tensor, "l k"], Float[Tensor, "l k"]]
"""Cosines and sines of the positions of all tokens."""


def attention(q: Heads, k: Tensor, v: Tensor, causal: bool, cap: float | None) -> Heads:
    """softmax(q k^T / sqrt(k)) v, with logits a replaced by cap tanh(a / cap) if there is a cap.

    With `causal` the last query stands at the last key, so a query sees the keys up to its own.
    """
    if q.shape[2] == 1:
        causal = False  # the last query alone sees every key
    if cap is None and (not causal or q.shape[2] == k.shape[2]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        logits = logits.masked_fill(~seen.tril(k.shape[2] - q.shape[2]), -torch.inf)
    return logits.float().softmax(-1).to(v.dtype) @ v


def rotate(x: Heads, cos: Float[Tensor, "l k"], sin: Float[Tensor, "l k"]) -> Heads:
    """Rotary position embedding, half-split: dimension j is paired with j + k/2."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


def rotary_frequencies(width: int, device: torch.device) -> Float[Tensor, " half"]:
    """10000^(-2j/k) for j = 0 ... k/2 - 1, k = `width` of a head: radians per position."""
    return 10000.0 ** -(torch.arange(0, width, 2, device=device).float() / width)


def rotary_tables(length: int, width: int, device: torch.device, first: int = 0) -> Rotary:
    """cos and sin of position / 10000^(2j/k), for positions `first ... first + length`."""
    positions = torch.arange(first, first + length, device=device).float()
    angle = positions[:, None] * rotary_frequencies(width, device)
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


class Cache:
    """Keys and values of the tokens read so far, block by block, for a causal trunk.

    The buffers double when they are full, so that a token costs no copy of those before it.
    """

    def __init__(self, blocks: int) -> None:
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * blocks
        self._read = [0] * blocks
        self.features: Tensor | None = None
        """Of the last few tokens, as the encoder gave them, where a trunk mixes neighbours."""

    @property
    def length(self) -> int:
        """How many tokens have been read."""
        return self._read[0]

    def extend(self, block: int, k: Heads, v: Heads) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens and return all of them."""
        start = self._read[block]
        stop = self._read[block] = start + k.shape[2]
        kept = self._kept[block]
        if kept is None or kept[0].shape[2] < stop:
            room = [x.new_empty(*x.shape[:2], max(2 * start, stop), x.shape[3]) for x in (k, v)]
            if kept is not None:
                for new, old in zip(room, kept):
                    new[:, :, :start] = old[:, :, :start]
            kept = self._kept[block] = (room[0], room[1])
        for buffer, fresh in zip(kept, (k, v)):
            buffer[:, :, start:stop] = fresh
        return kept[0][:, :, :stop], kept[1][:, :, :stop]


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases, its positions rotary or none."""

    def __init__(self, width: int, heads: int, causal: bool, cap: float | None) -> None:
        super().__init__()
        self.heads, self.causal, self.cap = heads, causal, cap
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # rows ordered (q | k | v, head, k)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        rotary: Rotary | None,
        cache: Cache | None = None,
        block: int = 0,
    ) -> Float[Tensor, "b l d"]:
        """Mix tokens; with a cache, `x` continues the tokens read before."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, *rotary).to(v.dtype), rotate(k, *rotary).to(v.dtype)
        if cache is not None:
            k, v = cache.extend(block, k, v)
        mixed = attention(q, k, v, self.causal, self.cap)
        return self.out(mixed.transpose(1, 2).reshape(b, n, d))
