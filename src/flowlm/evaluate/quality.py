"""How good texts are, by a judge that knows."""

from __future__ import annotations

from flowlm.core.oracle import Language
from flowlm.core.types import Tokens

FLIP_PROBABILITY = 0.01
"""Chance that the judge mishears a word. It makes the likelihood of a wrong sentence finite: about
9 nats for a wrong word, and it costs the language's own sentences 0.01 nats a word."""


def valid_share(language: Language, tokens: Tokens) -> float:
    """Share of texts that are sentences of the language."""
    return float(language.valid(tokens).double().mean())


def noisy_channel_nll(language: Language, tokens: Tokens) -> float:
    """Exact nats per token of texts under the language, heard with `FLIP_PROBABILITY`."""
    return float(-language.log_prob(tokens, FLIP_PROBABILITY).mean()) / language.length
