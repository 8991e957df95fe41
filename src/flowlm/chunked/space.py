"""One-hot space whose points are sums that are not written out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowlm.chunked.logits import merge_logits
from flowlm.chunked.points import Clean, LazyPoint, Noise, Probabilities, Stored, TopK
from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.space import Space
from flowlm.core.types import Point, Tokens


@dataclass(frozen=True)
class LazyOneHot(Space):
    """Rows of R^v, as noise from a seed, tokens, and what predictions say."""

    vocab: int

    def noise(self, rng: Streams, length: int) -> LazyPoint:
        """N(0, I), as a seed per sequence."""
        # A copy, so that the sequences' own streams go on undisturbed.
        term = Noise(rng.fork_seeds(), rng.generators[0].clone_state())
        return LazyPoint.of(term, len(rng), length, self.vocab, device=rng.device)

    def clean(self, tokens: Tokens) -> LazyPoint:
        """One-hot rows, as the tokens."""
        return LazyPoint.of(Clean(tokens), *tokens.shape, self.vocab, device=tokens.device)

    def mean(self, prediction: TokenDistribution) -> LazyPoint:
        """The probabilities, as the prediction."""
        term, device = Probabilities(prediction), prediction.device
        return LazyPoint.of(term, *prediction.shape, self.vocab, device=device)

    def from_one_hot(self, rows: Float[Tensor, "b l v"]) -> LazyPoint:
        """The rows, which are kept."""
        return LazyPoint.of(Stored(rows), *rows.shape, device=rows.device)

    def compress(self, x: Point) -> LazyPoint:
        """Keep the largest entries of the sum of predictions, so that no step costs more.

        Logits of a linear head are kept as they are: their sum is one term. Noise of which
        re-noising has left nothing goes.
        """
        assert isinstance(x, LazyPoint)
        sums = tuple(pair for pair in x.terms if isinstance(pair[1], Probabilities | TopK))
        rest = tuple(
            (weight, term)
            for weight, term in x.terms
            if not isinstance(term, Probabilities | TopK) and bool(weight.any())
        )
        if not sums:
            return x
        kept = TopK.of(LazyPoint(x.shape, x.device, sums))
        once = torch.ones(1, 1, 1, device=x.device)
        return LazyPoint(x.shape, x.device, (*merge_logits(rest), (once, kept)))
