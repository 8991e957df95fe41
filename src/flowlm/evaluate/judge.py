"""Judges: autoregressive models under which texts are scored, whoever wrote them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.types import Patch, Probs, Tokens

HEAD, TAIL = 25, 10
"""Bins of a histogram of ranks: one for each of the HEAD likeliest tokens, TAIL that grow by one
factor beyond."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Texts as one judge reads them, in its own tokens."""

    nats: Float[Tensor, " n"]
    """Of each text: the sum of -log q(token | tokens before it) over the tokens that count."""
    tokens: Int[Tensor, " n"]
    """How many count."""
    bytes: Int[Tensor, " n"]
    """Of each text in UTF-8."""
    ranks: Float[Tensor, " bins"]
    """How often the next token was of which rank under the judge (`histogram`)."""
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
    """As it was chosen; figures stand under it."""
    about: str
    """The judge in a sentence on a page or a card, without places of a machine."""
    fingerprint: str
    """sha256, in hex, of its weights."""

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


def row_rank(logp: Probs, patch: Patch, tokens: Tokens) -> Int[Tensor, "n m"]:
    """How many tokens are likelier than the one that stands there."""
    own = logp.gather(-1, tokens[patch][..., None])
    return (logp > own).sum(-1)


def histogram(ranks: Int[Tensor, " k"], vocab: int) -> Float[Tensor, " bins"]:
    """Ranks from 0 to `vocab` - 1, counted in HEAD bins of one rank each and TAIL wider ones."""
    edges = HEAD * (max(vocab, HEAD + 1) / HEAD) ** (torch.arange(1, TAIL) / TAIL)
    tail = torch.searchsorted(edges.to(ranks.device), ranks.float(), right=True)
    bins = torch.where(ranks < HEAD, ranks, HEAD + tail)
    return bins.bincount(minlength=HEAD + TAIL).double().cpu()


def rank_divergence(found: Float[Tensor, " bins"], real: Float[Tensor, " bins"]) -> float:
    """chi^2 = sum (p - q)^2 / q of two histograms of ranks, half a count added to every bin."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (found, real))
    return float(((p - q).square() / q).sum())
