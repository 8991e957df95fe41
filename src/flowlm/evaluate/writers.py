"""Writers without a model: controls that every measure must tell from text.

Each makes texts of the training text alone, in milliseconds, and fools some measure: repeated
frequent words score a low perplexity, words in any order the right entropy, a text said twice a
high MAUVE. A measure on which one of them beats a model says nothing of that model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from flowlm.core.types import Tokens

FREQUENT, PERIOD, PHRASES, PHRASE = 32, 64, 500, 4
RESAMPLED = 0.2

Writer = Callable[[Tokens, np.random.Generator], np.ndarray]


def unigram(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """Every token drawn by its frequency."""
    return rng.choice(texts.numpy().ravel(), tuple(texts.shape))


def frequent(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """The same, of the FREQUENT most frequent tokens alone."""
    ids, counts = np.unique(texts.numpy(), return_counts=True)
    top = np.argsort(-counts, kind="stable")[:FREQUENT]
    return rng.choice(ids[top], tuple(texts.shape), p=counts[top] / counts[top].sum())


def periodic(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """The PERIOD most frequent tokens in one order, again and again, begun anywhere."""
    ids, counts = np.unique(texts.numpy(), return_counts=True)
    cycle = ids[np.argsort(-counts, kind="stable")[:PERIOD]]
    first = rng.integers(len(cycle), size=(len(texts), 1))
    return cycle[(first + np.arange(texts.shape[1])) % len(cycle)]


def mirror(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """The first half of a text, twice."""
    length = texts.shape[1]
    half = texts.numpy()[:, : (length + 1) // 2]
    return np.concatenate([half, half], 1)[:, :length]


def phrases(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """The PHRASES most frequent stretches of PHRASE tokens, drawn at random."""
    width = min(PHRASE, texts.shape[1])
    bank, counts = np.unique(
        texts.unfold(1, width, 1).flatten(0, 1).numpy(), axis=0, return_counts=True
    )
    bank = bank[np.argsort(-counts, kind="stable")[:PHRASES]]
    need = -(-texts.shape[1] // width)
    drawn = bank[rng.integers(len(bank), size=(len(texts), need))]
    return drawn.reshape(len(texts), -1)[:, : texts.shape[1]]


def shuffled(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """The tokens of a text in any order."""
    return rng.permuted(texts.numpy(), axis=1)


def resampled(texts: Tokens, rng: np.random.Generator) -> np.ndarray:
    """A text in which the share RESAMPLED of the tokens is drawn anew by frequency."""
    hit = rng.random(tuple(texts.shape)) < RESAMPLED
    return np.where(hit, unigram(texts, rng), texts.numpy())


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


def controls(texts: Tokens, seed: int) -> dict[str, Tokens]:
    """As many texts by each of WRITERS as there are training texts (n, l)."""
    return {
        name: torch.from_numpy(write(texts, np.random.default_rng((seed, i))).astype(np.int64))
        for i, (name, write) in enumerate(WRITERS.items())
    }
