"""Samplers of the discrete baselines: unmasking step by step, and left to right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from flowlm.core.corruption import reveal_probability
from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Tokens


def unmask(
    predict: Callable[[Tokens], TokenDistribution],
    prompt: Tokens,
    mask_id: int,
    steps: int,
    rng: Streams,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Iterator[Tokens]:
    """Ancestral sampling of masked diffusion on an even grid of t (MDLM).

    A masked token is revealed with probability (t' - t) / (1 - t) and then stays; tokens revealed
    in the same step are drawn independently of each other, which is what breaks few-step samples.
    Yields the tokens after each step, FREE where still masked.
    """
    tokens = prompt.where(prompt != FREE, mask_id)
    t = torch.linspace(0, 1, steps + 1, device=prompt.device)
    for i in range(steps):
        drawn = predict(tokens).sample(rng, temperature, top_p)
        reveal = rng.uniform(tokens.shape[1]) < reveal_probability(t[i], t[i + 1])
        reveal = reveal | torch.tensor(i == steps - 1, device=prompt.device)
        tokens = torch.where((tokens == mask_id) & reveal, drawn, tokens)
        yield tokens.where(tokens != mask_id, FREE)


def autoregress(
    predict: Callable[[Tokens], TokenDistribution],
    prompt: Tokens,
    begin_id: int,
    rng: Streams,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Iterator[Tokens]:
    """Left to right, one evaluation a token; given tokens are kept, and see only their left.

    `predict` reads one new token a row, (b, 1), and remembers the ones before (a key-value cache).
    Yields the tokens after each step, FREE where not yet written.
    """
    tokens = prompt.clone()
    last = torch.full_like(tokens[:, :1], begin_id)
    for i in range(tokens.shape[1]):
        drawn = predict(last).sample(rng, temperature, top_p)
        last = torch.where(prompt[:, i : i + 1] == FREE, drawn, prompt[:, i : i + 1])
        tokens = torch.cat((tokens[:, :i], last, tokens[:, i + 1 :]), 1)
        yield tokens
