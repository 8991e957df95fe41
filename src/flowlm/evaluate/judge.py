"""Judges: autoregressive models under which texts are scored, whoever wrote them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.types import Tokens


@dataclass(frozen=True, eq=False)
class Scored:
    """Texts as one judge reads them, in its own tokens."""

    nats: Float[Tensor, " n"]
    """Of each text: the sum of -log q(token | tokens before it) over the tokens that count."""
    tokens: Int[Tensor, " n"]
    """How many count."""
    bytes: Int[Tensor, " n"]
    """Of these tokens, in UTF-8."""
    ranks: Int[Tensor, " bins"]
    """How often a token that counts was of which rank under the judge (`ranks.rank_edges`)."""
    features: Float[Tensor, "n d"]
    """The judge's last hidden state, averaged over a text."""

    @staticmethod
    def joined(parts: list[Scored]) -> Scored:
        """Scores of texts that were read some at a time."""

        def all_of(name: str) -> Tensor:
            return torch.cat([vars(part)[name] for part in parts])

        ranks = torch.stack([part.ranks for part in parts]).sum(0)
        nats, tokens, size = all_of("nats"), all_of("tokens"), all_of("bytes")
        return Scored(nats, tokens, size, ranks, all_of("features"))


class Judge(ABC):
    """An autoregressive model that reads texts of one tokenizer."""

    name: str
    """A hub id, or the last part of a path: figures stand under it."""
    fingerprint: str
    """sha256, in hex, of its weights."""

    @property
    @abstractmethod
    def about(self) -> str:
        """The judge and how it reads, in a few words."""

    @abstractmethod
    def score(self, tokens: Tokens) -> Scored:
        """Read texts, (n, l) tokens of the writer."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A judge, and real text to compare with as it reads it."""

    judge: Judge
    held_out: Tokens | None

    @cached_property
    def real(self) -> Scored | None:
        """The real text, read once."""
        return None if self.held_out is None else self.judge.score(self.held_out)
