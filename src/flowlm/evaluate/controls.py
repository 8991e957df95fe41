"""Controls, which give numbers a meaning: the language itself, and a writer without a model."""

from __future__ import annotations

import torch

from flowlm.core.oracle import Language
from flowlm.core.rng import Streams
from flowlm.core.types import Tokens


def marginals_valid(language: Language) -> float:
    """Exact share of valid sentences when every word is drawn from its own marginal.

    The sum over sentences of the product of marginals: the language's automaton, each arc weighing
    1, with the marginals as evidence.
    """
    if not language.deterministic:
        raise ValueError("an ambiguous automaton counts a sentence once for every path")
    counting = Language(
        language.vocab,
        language.length,
        language.source,
        language.token,
        language.target,
        torch.ones_like(language.chance),
        language.final,
    )
    return float(counting.log_weight(language.marginals[None]).exp())


def draw_marginals(language: Language, rng: Streams) -> Tokens:
    """Texts whose words are drawn independently of each other, each from its exact marginal."""
    u = rng.uniform(language.length, 1, dtype=torch.float64)
    cumulative = language.marginals.cumsum(-1).expand(len(rng), -1, -1).contiguous()
    drawn = torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True)
    return drawn.squeeze(-1).clamp(max=language.vocab - 1)
