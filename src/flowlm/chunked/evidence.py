"""Evidence: the log-likelihoods that a noisy row itself gives to every token."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flowlm.chunked.points import LazyPoint
from flowlm.core.types import Patch


@dataclass(frozen=True, eq=False)
class Evidence:
    """beta * x, nats (b, l, v), not written out.

    The noise of one row says nothing of another, so by Bayes' rule
    D_t(x)(w) ~ exp(beta_t x_w) p(w | the other rows): a denoiser's logits are the evidence of the
    row itself, which is known, and the context, which has to be learnt.
    """

    x: LazyPoint
    beta: Float[Tensor, "#b #l"]

    def with_extra_beta(self, extra: Float[Tensor, "#b #l"]) -> Evidence:
        """The same rows with `extra` added to beta."""
        return Evidence(self.x, self.beta + extra)

    def rows(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """A patch of it, written now."""
        return self.beta.expand(self.x.shape[:2])[patch][..., None] * self.x.write(patch)
