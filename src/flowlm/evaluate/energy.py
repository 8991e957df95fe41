"""The energy distance of two sets of texts, on features that need no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.core.types import Tokens

BUCKETS = 1024
"""Of the hashed bigram counts."""

PERMUTATIONS = 500
"""Of the test that two sets are alike."""

FREQUENT = 200
"""Words of the reference that are not rare: so few that other real text has them as often."""

# fmt: off
STOP = frozenset((
    "a", "an", "the", "of", "in", "on", "at", "to", "for", "from", "by", "with", "as", "is", "are",
    "was", "were", "be", "been", "it", "its", "he", "she", "they", "his", "her", "their", "we", "i",
    "you", "not", "that", "this", "these", "those", "which", "who", "or",
))
CONNECTIVES = frozenset((
    "and", "but", "so", "because", "although", "while", "if", "when", "then", "however",
    "therefore", "since", "after", "before",
))
# fmt: on
_PIECES = re.compile(r"\w+|[^\w\s]")
_STOPS = frozenset(".!?")


def energy_distance(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], seed: int = 0
) -> tuple[float, float]:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, without the pairs of a text with itself (unbiased).

    And p, the chance of one as large between random halves of both sets together.
    """
    rng = np.random.default_rng(seed)
    both = torch.cat([x, y]).double()
    orders = [np.arange(len(both))]
    orders += [rng.permutation(len(both)) for _ in range(PERMUTATIONS)]
    found = _statistics(torch.cdist(both, both), len(x), torch.from_numpy(np.stack(orders)))
    return float(found[0]), float((found >= found[0]).double().mean())


def _statistics(d: Tensor, n: int, orders: Tensor) -> Float[Tensor, " k"]:
    """The distance if the first n of every order were x."""
    m = len(d) - n
    inside = torch.zeros(len(orders), len(d), dtype=d.dtype)
    inside.scatter_(1, orders[:, :n], 1.0)
    rows = inside @ d
    within = (rows * inside).sum(1)
    across = (rows * (1 - inside)).sum(1)
    rest = d.sum() - within - 2 * across
    return 2 * across / (n * m) - within / (n * (n - 1)) - rest / (m * (m - 1))


def bigram_sketch(tokens: Tokens, stop: int | None = None) -> Float[Tensor, "n 1024"]:
    """Counts of neighbouring pairs, hashed with a sign into BUCKETS; `stop` begins none."""
    pairs = tokens[:, :-1] * 0x9E3779B1 + tokens[:, 1:] * 0x85EBCA6B
    pairs = (pairs ^ (pairs >> 29)) * 0xBF58476D
    pairs = pairs ^ (pairs >> 32)
    sign = 1.0 - 2.0 * ((pairs >> 20) & 1).double()
    if stop is not None:
        sign = sign * (tokens[:, :-1] != stop)
    counts = torch.zeros(len(tokens), BUCKETS, dtype=torch.float64)
    return counts.scatter_add_(1, pairs & (BUCKETS - 1), sign)


def frequent_words(texts: Sequence[str]) -> frozenset[str]:
    """The FREQUENT most frequent words and signs."""
    counts = Counter(piece for text in texts for piece in _PIECES.findall(text.lower()))
    return frozenset(word for word, _ in counts.most_common(FREQUENT))


def hand_features(texts: Sequence[str], frequent: frozenset[str]) -> Float[Tensor, "n 14"]:
    """Fourteen figures a text: lengths, repetition, kinds of words and signs, sentences."""
    return torch.tensor([_figures(text, frequent) for text in texts], dtype=torch.float64)


def _figures(text: str, frequent: frozenset[str]) -> list[float]:
    pieces = _PIECES.findall(text)
    if not pieces:
        return [0.0] * 14
    low = [piece.lower() for piece in pieces]
    sizes = np.array([len(piece) for piece in pieces], float)
    ends = [i for i, piece in enumerate(pieces) if piece in _STOPS]
    spans = np.diff(np.array([-1, *ends, len(pieces) - 1], float))

    def share(flags: Sequence[bool]) -> float:
        return sum(flags) / len(pieces)

    return [
        sizes.mean(),
        sizes.std(),
        len(set(low)) / len(low),
        share([word in STOP for word in low]),
        share([word in CONNECTIVES for word in low]),
        share([not word[0].isalnum() for word in low]),
        share([word == "," for word in low]),
        share([word == "." for word in low]),
        share([len(word) == 1 for word in low]),
        share([word[0].isdigit() for word in low]),
        spans.mean(),
        spans.std(),
        share([a == b for a, b in pairwise(low)]),
        share([word not in frequent for word in low]),
    ]


def standardised(
    x: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]]:
    """Both in units of the reference's spread; a feature without any is left out."""
    spread = reference.std(0)
    alive = spread > 1e-9
    centre = reference[:, alive].mean(0)
    return tuple((z[:, alive] - centre) / spread[alive] for z in (x, reference))  # pyright: ignore[reportReturnType]
