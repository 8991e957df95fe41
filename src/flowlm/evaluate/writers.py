"""Writers without a model: controls that every measure must tell from text.

Each makes texts of the training text alone, in milliseconds, and fools some measure: repeated
frequent words score a low perplexity, words in any order the right entropy, a text said twice a
high MAUVE. A measure on which one of them beats a model says nothing of that model.

Of texts that are rows of their own each keeps its length: only what is text is counted and drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool
from numpy.lib.stride_tricks import sliding_window_view

from flowlm.core.types import Tokens

FREQUENT, PERIOD, PHRASES, PHRASE = 32, 64, 500, 4
RESAMPLED = 0.2

Text = Bool[np.ndarray, "n l"]
"""Whether each place of a row is text."""

Writer = Callable[[np.ndarray, Text, np.random.Generator], np.ndarray]


def unigram(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """Every token drawn by its frequency."""
    return rng.choice(texts[text], texts.shape)


def frequent(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """The same, of the FREQUENT most frequent tokens alone."""
    ids, counts = np.unique(texts[text], return_counts=True)
    top = np.argsort(-counts, kind="stable")[:FREQUENT]
    return rng.choice(ids[top], texts.shape, p=counts[top] / counts[top].sum())


def periodic(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """The PERIOD most frequent tokens in one order, again and again, begun anywhere."""
    ids, counts = np.unique(texts[text], return_counts=True)
    cycle = ids[np.argsort(-counts, kind="stable")[:PERIOD]]
    first = rng.integers(len(cycle), size=(len(texts), 1))
    return cycle[(first + np.arange(texts.shape[1])) % len(cycle)]


def mirror(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """The first half of a text, twice."""
    half = np.maximum(1, (text.sum(1, keepdims=True) + 1) // 2)
    return np.take_along_axis(texts, np.arange(texts.shape[1]) % half, 1)


def phrases(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """The PHRASES most frequent stretches of PHRASE tokens, drawn at random."""
    width = min(PHRASE, int(text.sum(1).max()))
    stretches = sliding_window_view(texts, width, 1)[text[:, width - 1 :]]
    bank, counts = np.unique(stretches, axis=0, return_counts=True)
    bank = bank[np.argsort(-counts, kind="stable")[:PHRASES]]
    need = -(-texts.shape[1] // width)
    drawn = bank[rng.integers(len(bank), size=(len(texts), need))]
    return drawn.reshape(len(texts), -1)[:, : texts.shape[1]]


def shuffled(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """The tokens of a text in any order."""
    order = np.where(text, rng.random(texts.shape), 1.0).argsort(1, kind="stable")
    return np.take_along_axis(texts, order, 1)


def resampled(texts: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """A text in which the share RESAMPLED of the tokens is drawn anew by frequency."""
    hit = rng.random(texts.shape) < RESAMPLED
    return np.where(hit, unigram(texts, text, rng), texts)


WRITERS: dict[str, Writer] = {
    "Tokens by frequency": unigram,
    f"The {FREQUENT} most frequent tokens": frequent,
    f"{PERIOD} tokens in a cycle": periodic,
    "Half a text, twice": mirror,
    f"{PHRASES} phrases at random": phrases,
    "Tokens of a text, shuffled": shuffled,
    "A fifth of the tokens resampled": resampled,
}
"""By name."""


def controls(texts: Tokens, seed: int, stop: int | None = None) -> dict[str, Tokens]:
    """As many texts by each of WRITERS as there are training texts (n, l).

    `stop` is the end of texts that are rows of their own; one of them at least has a token.
    """
    rows = texts.numpy()
    text = np.ones(rows.shape, bool) if stop is None else rows != stop
    made = {
        name: write(rows, text, np.random.default_rng((seed, i)))
        for i, (name, write) in enumerate(WRITERS.items())
    }
    return {
        name: torch.from_numpy(np.where(text, tokens, rows).astype(np.int64))
        for name, tokens in made.items()
    }
