"""From Gumbel noise to features: the noise with which a text is to be drawn."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.points import LazyPoint
from flowlm.core.types import Point
from flowlm.nn.encoder import Posterior


class Gumbel(Posterior):
    """The views of a posterior whose rows are Gumbel noise g, without a time; g is evidence too.

    A token of frequencies `prior` would be drawn as argmax(log prior + g), of which
    p = softmax(log prior + g) is the soft form: read are its mean and deviation. In the output g
    has its part as it has in the draw argmax(z + g), so that the network learns the logits z alone.
    Its weight there is learnt, 1 at the start: the text is a function of the noise, and the surer a
    network is of its z, the larger all of z + g may be.
    """

    has_evidence: ClassVar[bool] = True

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__(vocab, width, torch.zeros_like)
        self.log_weight = nn.Parameter(torch.zeros(1))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Point, tau: Tensor | None
    ) -> Float[Tensor, "b l d"]:
        """sqrt(d) p @ E + normalised((p - prior) @ E), p = softmax(g + log prior)."""
        assert isinstance(x, LazyPoint), "noise is that of chunked.gumbel_noise"
        return self.apart(self._noise_views, x)

    def _noise_views(self, x: LazyPoint) -> Float[Tensor, "b l d"]:
        return self.views(Evidence(x, self.log_prior.new_ones(1, 1)))

    def evidence(self, x: Point, tau: Tensor | None) -> Evidence:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The noise, at the weight that is learnt."""
        assert isinstance(x, LazyPoint), "noise is that of chunked.gumbel_noise"
        return self.apart(self._noise_evidence, x)

    def _noise_evidence(self, x: LazyPoint) -> Evidence:
        return Evidence(x, self.log_weight.exp()[None])
