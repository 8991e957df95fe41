"""Where texts end that are rows of their own: at their first end, `stop`, or with their row."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from flowlm.core.types import Tokens


def ended(tokens: Tokens, stop: int | None) -> Tokens:
    """The same texts with `stop` in all places from the first one on: what is behind is no text.

    So `tokens != stop` are the places of text. Texts that are packed, without a `stop`, stay.
    """
    if stop is None:
        return tokens
    behind = (tokens == stop).cummax(1).values
    return tokens.masked_fill(behind, stop)


def count_to_stop(tokens: Tokens, stop: int) -> Int[Tensor, " n"]:
    """Tokens of each text with its end, where it has one: those that a likelihood is per."""
    text = (ended(tokens, stop) != stop).sum(1)
    return torch.clamp(text + 1, max=tokens.shape[1])
