"""Logits of a head themselves: as rows for a reduction, and as terms of a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flowlm.chunked.points import Term, Weight
from flowlm.chunked.prediction import HeadPrediction
from flowlm.core.distribution import TokenDistribution
from flowlm.core.types import Patch


def centred(logits: Float[Tensor, "*rows v"]) -> Float[Tensor, "*rows v"]:
    """Each row less its mean: it sums to 0, and a constant of a row (a normaliser) falls out."""
    return logits - logits.mean(-1, keepdim=True)


def unnormalised(prediction: TokenDistribution) -> TokenDistribution:
    """A prediction whose rows are the logits of its head, for what a softmax leaves out: their sum.

    Only `reduce` and `log_probs` are meant then. `Dense` rows are what was put into them.
    """
    if isinstance(prediction, HeadPrediction):
        return replace(prediction, normalised=False)
    return prediction


@dataclass(frozen=True, eq=False)
class CentredLogits(Term):
    """Rows y W^T + a c, each less its mean: linear in y and a, so that they add up to one."""

    features: Float[Tensor, "b l d"]
    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, " v"]
    share: Weight
    """a: how often the bias c counts."""

    @staticmethod
    def of(prediction: TokenDistribution) -> CentredLogits:
        """The logits of a head without cap and evidence."""
        assert isinstance(prediction, HeadPrediction), "logits come from a head"
        assert prediction.cap is None, "a linear head"
        assert prediction.evidence is None, "a linear head"
        once = torch.ones(1, 1, 1, device=prediction.device)
        return CentredLogits(prediction.features, prediction.weight, prediction.bias, once)

    @torch.no_grad()
    def add(self, total: Float[Tensor, "n m v"], weight: Weight, patch: Patch) -> None:
        """Make the logits of these rows again."""
        share = self.share.expand(*self.features.shape[:2], 1)[patch]
        # Summed in float32, multiplied in the precision of the head, like all logits.
        products = F.linear(self.features[patch].to(self.weight.dtype), self.weight)
        total.addcmul_(centred(products.to(total.dtype) + share * self.bias), weight)


def merge_logits(terms: Sequence[tuple[Weight, Term]]) -> tuple[tuple[Weight, Term], ...]:
    """The same sum with all `CentredLogits` of one head as one term: no step makes it longer."""
    linear = [(w, term) for w, term in terms if isinstance(term, CentredLogits)]
    if len(linear) < 2:
        return tuple(terms)
    first = linear[0][1]
    assert all(term.weight is first.weight for _, term in linear), "logits of one head"
    features, share = first.features.new_zeros(()), first.share.new_zeros(())
    for weight, term in linear:
        features, share = features + weight * term.features, share + weight * term.share
    once = torch.ones(1, 1, 1, device=features.device)
    merged = CentredLogits(features, first.weight, first.bias, share)
    return *(pair for pair in terms if not isinstance(pair[1], CentredLogits)), (once, merged)
