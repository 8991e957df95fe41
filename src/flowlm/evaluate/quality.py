"""How good texts are, by a judge that knows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from flowlm.core.oracle import Language
from flowlm.core.types import Tokens

FLIP_PROBABILITY = 0.01
"""Chance that the judge mishears a word. It makes the likelihood of a wrong sentence finite: about
9 nats for a wrong word, and it costs the language's own sentences 0.01 nats a word."""


def noisy_channel_nll(language: Language, tokens: Tokens) -> Float[Tensor, " b"]:
    """Exact nats per token of each text under the language, heard with `FLIP_PROBABILITY`."""
    return -language.log_prob(tokens, FLIP_PROBABILITY) / language.length
