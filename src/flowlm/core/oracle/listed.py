"""A language as the list of its sentences: a posterior is one softmax over the list."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.oracle.language import Language
from flowlm.core.rng import Streams
from flowlm.core.types import Probs, Tokens

AT_ONCE = 2**24
"""Pairs of a row of evidence and a sentence that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Listed(Language):
    """Equally likely sentences, each listed once."""

    vocab: int
    length: int
    sentences: Int[Tensor, "n l"]

    def log_evidence(self, evidence: Probs) -> Float[Tensor, " b"]:
        """See `Language`."""
        return self.log_total(evidence) - math.log(len(self.sentences))

    def log_total(self, evidence: Probs) -> Float[Tensor, " b"]:
        """See `Language`."""
        return torch.cat([self._joint(part).logsumexp(1) for part in self._parts(evidence.log())])

    def log_posterior(self, log_evidence: Probs) -> Probs:
        """See `Language`."""
        rows = [self._joint(part).softmax(1) @ self._one_hot for part in self._parts(log_evidence)]
        return torch.cat(rows).unflatten(1, (self.length, self.vocab)).log()

    def sample(self, rng: Streams) -> Tokens:
        """See `Language`."""
        u = rng.uniform(dtype=torch.float64).cpu()
        return self.sentences[(u * len(self.sentences)).long()]

    def support(self, most: int = 100_000) -> tuple[Tokens, Float[Tensor, " n"]]:
        """See `Language`."""
        count = len(self.sentences)
        if count > most:
            raise ValueError(f"the language has more than {most} sentences; sample it instead")
        return self.sentences, torch.full((count,), 1 / count, dtype=torch.float64)

    @cached_property
    def entropy(self) -> float:
        """See `Language`."""
        return math.log(len(self.sentences)) / self.length

    def _parts(self, log_evidence: Probs) -> tuple[Probs, ...]:
        return log_evidence.double().split(max(1, AT_ONCE // len(self.sentences)))

    def _joint(self, log_evidence: Probs) -> Float[Tensor, "b n"]:
        """Log of the product of evidence along each sentence."""
        rows = torch.zeros(len(log_evidence), len(self.sentences), dtype=torch.float64)
        for i in range(self.length):
            rows += log_evidence[:, i, self.sentences[:, i]]
        return rows

    @cached_property
    def _one_hot(self) -> Float[Tensor, "n lv"]:
        places = torch.nn.functional.one_hot(self.sentences, self.vocab)
        return places.flatten(1).double()
