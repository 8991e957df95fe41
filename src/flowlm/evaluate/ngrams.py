"""N-grams of token ids: repetition within a text, overlap between texts, what is copied.

Of texts that are rows of their own (`evaluate/extent.py`), an n-gram with their end, `stop`, in it
is none; a text that is too short to have any has no value, nan.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64
from numpy.typing import NDArray
from torch import Tensor

from flowlm.core.types import Tokens

LENGTHS = (4, 8, 16, 32)
"""Of the n-grams whose novelty is measured."""

INDEXED = 2**23
"""Training tokens whose n-grams are known, at most: evenly spread stretches of a longer text."""

HYPOTHESES, REFERENCES = 256, 40
"""Texts whose BLEU is measured, and others that each is compared with, at most."""

_BASE = np.uint64(0x9E3779B97F4A7C15)


def repetition(tokens: Tokens, n: int, stop: int | None = None) -> Float[Tensor, " b"]:
    """Rep-n: 1 - different n-grams over all n-grams, of each text of n tokens at least."""
    grams, text = _hashes(tokens.numpy(), n), _of_text(tokens, n, stop)
    size = text.sum(1)
    # All that are none become one, which is not counted.
    grams[~text] = np.uint64(0)
    ordered = np.sort(grams, 1)
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1) - ~text.all(1)
    return torch.from_numpy(1 - _over(different, size))


def self_bleu(tokens: Tokens, stop: int | None = None) -> Float[Tensor, " n"]:
    """BLEU-4 of each text against others of the row, as a share: 1 where it is one of them.

    At most HYPOTHESES texts, each against the next REFERENCES ones (in a ring). Clipped n-gram
    precisions, n = 1..4, their geometric mean; no smoothing, and no brevity penalty, also where
    texts are not equally long. Two texts of four tokens at least.
    """
    count = len(tokens)
    others = min(REFERENCES, count - 1)
    score = np.zeros(min(HYPOTHESES, count))
    for n in range(1, 5):
        grams, text = _hashes(tokens.numpy(), n), _of_text(tokens, n, stop)
        _, ids = np.unique(grams, return_inverse=True)
        of_texts = np.arange(count)[:, None] * grams.size + ids.reshape(grams.shape)
        keys, counts = np.unique(of_texts[text], return_counts=True)
        owner, gram = np.divmod(keys, grams.size)
        mine = owner < len(score)
        owner, gram, own = owner[mine], gram[mine], counts[mine]
        most = np.zeros(len(own), dtype=np.int64)
        for step in range(1, others + 1):
            wanted = (owner + step) % count * grams.size + gram
            at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            most = np.maximum(most, np.where(keys[at] == wanted, counts[at], 0))
        clipped = np.bincount(owner, np.minimum(own, most), len(score))
        with np.errstate(divide="ignore"):
            score += np.log(_over(clipped, text[: len(score)].sum(1))) / 4
    return torch.from_numpy(np.exp(score))


class KnownText:
    """The n-grams of a training text, to tell what is new: 8 bytes a token and length."""

    def __init__(self, text: NDArray[np.integer], stop: int | None = None) -> None:
        self.text = _spread(np.asarray(text))
        self._stop = stop
        self._sorted: dict[int, UInt64[np.ndarray, " n"]] = {}

    def novelty(self, tokens: Tokens, n: int) -> Float[Tensor, " b"] | None:
        """Share of the n-grams of each text that the training text has not; None if it has none."""
        known = self._known(n)
        if known is None or tokens.shape[1] < n:
            return None
        new = ~_among(_hashes(tokens.numpy(), n), known)
        text = _of_text(tokens, n, self._stop)
        return torch.from_numpy(_over((new & text).sum(1), text.sum(1)))

    def longest_run(self, tokens: Tokens) -> int:
        """Tokens of the longest stretch of any text that the training text has word for word."""
        low, high = 0, min(tokens.shape[1], len(self.text))
        while low < high:
            n = (low + high + 1) // 2
            grams = np.unique(_hashes(tokens.numpy(), n)[_of_text(tokens, n, self._stop)])
            if bool(_among(_hashes(self.text[None], n)[0], grams).any()):
                low = n
            else:
                high = n - 1
        return low

    def _known(self, n: int) -> UInt64[np.ndarray, " n"] | None:
        if len(self.text) < n:
            return None
        if n not in self._sorted:
            self._sorted[n] = np.unique(_hashes(self.text[None], n)[0])
        return self._sorted[n]


def _of_text(tokens: Tokens, n: int, stop: int | None) -> Bool[np.ndarray, "b m"]:
    """Whether each n-gram of every row lies within its text."""
    last = tokens.numpy()[:, n - 1 :]
    return np.ones(last.shape, bool) if stop is None else last != stop


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """A share of each text; nan where the whole is nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _spread(text: NDArray[np.integer]) -> NDArray[np.integer]:
    """The text, or evenly spread stretches of it, INDEXED tokens in all."""
    if len(text) <= INDEXED:
        return text
    parts, each = 256, INDEXED // 256
    starts = np.linspace(0, len(text) - each, parts).astype(np.int64)
    return np.concatenate([text[first : first + each] for first in starts])


def _among(values: UInt64[np.ndarray, "..."], known: UInt64[np.ndarray, " n"]) -> np.ndarray:
    """Whether each value is in a sorted array."""
    if not len(known):
        return np.zeros(values.shape, bool)
    at = np.searchsorted(known, values).clip(max=len(known) - 1)
    return known[at] == values


def _hashes(tokens: np.ndarray, n: int) -> UInt64[np.ndarray, "b m"]:
    """A 64-bit polynomial hash of every n-gram of every row, (b, l - n + 1)."""
    ids = tokens.astype(np.uint64) + np.uint64(1)
    m = tokens.shape[1] - n + 1
    out = np.zeros((len(tokens), m), np.uint64)
    with np.errstate(over="ignore"):
        for k in range(n):
            out = out * _BASE + ids[:, k : k + m]
        # Mixed, so that the low bits of short n-grams are not their last token's alone.
        return (out ^ (out >> np.uint64(31))) * _BASE
