"""How good texts are, by a judge that knows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.oracle import Language
from flowlm.core.types import Tokens

FLIP_PROBABILITY = 0.01
"""Chance that the judge mishears a word. It makes the likelihood of a wrong sentence finite: about
9 nats for a wrong word, and it costs the language's own sentences 0.01 nats a word."""

AT_ONCE = 128
"""Texts that are judged at once: a judge keeps a number for each of its states, or sentences."""


def noisy_channel_nll(language: Language, tokens: Tokens) -> Float[Tensor, " b"]:
    """Exact nats per token of each text under the language, heard with `FLIP_PROBABILITY`."""
    heard = [language.log_prob(part, FLIP_PROBABILITY) for part in tokens.split(AT_ONCE)]
    return -torch.cat(heard) / language.length
