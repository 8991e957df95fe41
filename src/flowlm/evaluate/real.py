"""Real text, with which what is generated is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from flowlm.core.types import Tokens
from flowlm.evaluate import energy
from flowlm.evaluate.ngrams import KnownText

FEWEST = 8
"""Texts of each set from which a distance is measured."""


@dataclass(frozen=True, eq=False)
class RealText:
    """Held-out texts, and the text that was learnt from."""

    held_out: Tokens
    """(m, l)"""
    known: KnownText | None = None
    """The training text; None where it is drawn anew and never comes again."""
    decode: Callable[[Sequence[int]], str] | None = None
    """Ids to text, for what is measured on words."""
    stop: int | None = None
    """The id at which texts end that are rows of their own."""

    def energy(self, tokens: Tokens, kind: str) -> tuple[float, float] | None:
        """Energy distance to the held-out texts and its p-value, on `hand` or `bigram` features.

        None of too few texts; of hand-made features of ids alone, or that are all the same in all
        held-out texts.
        """
        if min(len(tokens), len(self.held_out)) < FEWEST or tokens.shape[1] < 2:
            return None
        if kind == "bigram":
            x, y = energy.bigram_sketch(tokens, self.stop), self._sketch
        elif self.decode is None:
            return None
        else:
            features = energy.hand_features(self._read(tokens), self._frequent)
            x, y = energy.standardised(features, self._hand)
            if not y.shape[1]:
                return None
        return energy.energy_distance(x, y)

    @cached_property
    def _texts(self) -> list[str]:
        return self._read(self.held_out)

    @cached_property
    def _frequent(self) -> frozenset[str]:
        return energy.frequent_words(self._texts)

    @cached_property
    def _hand(self) -> Float[Tensor, "m 14"]:
        return energy.hand_features(self._texts, self._frequent)

    @cached_property
    def _sketch(self) -> Float[Tensor, "m 1024"]:
        return energy.bigram_sketch(self.held_out, self.stop)

    def _read(self, tokens: Tokens) -> list[str]:
        assert self.decode is not None
        return [self.decode(row) for row in tokens.tolist()]
