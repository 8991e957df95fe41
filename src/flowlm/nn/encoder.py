"""From what a network reads to features: points of a space, or tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.moving import MovingPrediction
from flowlm.chunked.points import TOP_K, LazyPoint
from flowlm.chunked.prediction import posterior
from flowlm.core.distribution import TokenDistribution
from flowlm.core.flow import beta, beta_slope
from flowlm.core.types import Point, Tokens

Made = TypeVar("Made")
Seen = Point | Tokens | TokenDistribution
"""What a network reads."""


class Encoder(nn.Module, ABC):
    """The token table E (v, d), and features (b, l, d) of an input."""

    has_evidence: ClassVar[bool] = False
    """Whether `evidence` is not None."""
    in_strips: ClassVar[bool] = False
    """Whether it reads rows of the vocabulary's size a strip at a time."""
    tells_times: ClassVar[bool] = False
    """Whether features say how sure a row is: then the trunk need not know the time of each."""

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab, width) / width**0.5)
        self._derived: tuple[object, object] | None = None

    def derived(self, make: Callable[[Tensor], Made]) -> Made:
        """`make(table)`, remembered while the table is frozen.

        A table that learns is not watched: fused optimizers change it without leaving a mark.
        """
        if self.table.requires_grad:
            return make(self.table)
        # A frozen table still changes when weights are loaded into it (_version counts), when it
        # moves to another device or dtype, and when it is the table of a copy of this encoder.
        table = self.table
        state = (make, id(table), table.device, table.dtype, table._version)
        if self._derived is None or self._derived[0] != state:
            self._derived = (state, make(self.table))
        return cast(Made, self._derived[1])

    @abstractmethod
    def forward(self, x: Seen, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """Features of the input x at clock time tau (None where the input has no time)."""

    def evidence(self, x: Seen, tau: Tensor | None) -> Evidence | None:
        """Evidence of x itself for its tokens; None leaves that to the network."""
        return None

    def moving(self, x: Any, tau: Tensor, dx: Any) -> tuple[Tensor, Tensor]:
        """Features, and their derivative in t while the point moves at dx: of a linear encoder."""
        return self(x, tau), self(dx, tau)

    def moving_evidence(self, x: Any, tau: Tensor, dx: Any) -> LazyPoint | None:
        """The derivative of the evidence in t, nats."""
        return None

    def state_bytes(self) -> int:
        """Bytes of a sampler's state and its old and new means, per position; an upper bound."""
        return 32 * self.table.shape[1]

    def leave_out(self) -> bool:
        """Keep out of a compiled graph what cannot be in it; whether there is any."""
        return False


class Lookup(Encoder):
    """E[token], for networks that read tokens, or are taught with what is nearly a token."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tokens | TokenDistribution, tau: Tensor | None
    ) -> Float[Tensor, "b l d"]:
        """Rows of the table; their mean where x is a distribution over tokens."""
        return F.embedding(x, self.table) if isinstance(x, Tensor) else x.expect(self.table)


class Linear(Encoder):
    """x @ E on one-hot-space points: the published encoder as published."""

    def state_bytes(self) -> int:
        """The state is (b, l, v)."""
        return 32 * len(self.table)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, tau: Tensor | None
    ) -> Float[Tensor, "b l d"]:
        """The noisy rows through the table."""
        return x @ self.table


class Projected(Encoder):
    """The same encoder for points that already are x @ E: no vocabulary-sized state exists."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, tau: Tensor | None
    ) -> Float[Tensor, "b l d"]:
        """The point itself."""
        return x


class Posterior(Encoder):
    """The posterior of each row's token, given the noisy row alone.

    A row (1 - t) z + t e_w has likelihood proportional to exp(beta x_w), beta_t = t / (1 - t)^2, so
    p = softmax(beta x + log prior) is the exact posterior of its token among tokens of the
    frequencies `prior`. Read are the mean p @ E, whose length says how sure the row is, and its
    deviation from what is known without the row, normalised: where t is small p is nearly the
    prior, and the deviation is a linear view of the row, at full size (docs/encoders.md).

    At t = 0 the posterior forgets the noise, which is all that a one-step map has to go by; so beta
    never falls below `MIN_BETA`.

    `apart` calls what must not be compiled; `leave_out` sets it. Compiled, the clock's table
    would be made anew at every call, and the loop over rows has no fixed length.
    """

    def __init__(self, vocab: int, width: int, t_of_tau: Callable[[Tensor], Tensor]) -> None:
        super().__init__(vocab, width)
        self.log_prior = nn.Parameter(torch.full((vocab,), -math.log(vocab)), requires_grad=False)
        self.t_of_tau = t_of_tau
        self.apart: Callable[..., Any] = _called

    in_strips: ClassVar[bool] = True
    tells_times: ClassVar[bool] = True

    def state_bytes(self) -> int:
        """Seeds, and what is kept of predictions."""
        return 24 * min(TOP_K, len(self.table))

    def leave_out(self) -> bool:
        """The rows, whose number of strips is not fixed."""
        # Not by a decorator, which would import the compiler (seconds) with the class.
        self.apart = torch.compiler.disable(self.apart)
        return True

    def set_prior(self, counts: Int[Tensor, " v"]) -> None:
        """Make the frequencies of the tokens in a text the prior; each token counts once more."""
        share = (counts.double() + 1) / (counts.sum() + len(counts))
        with torch.no_grad():
            self.log_prior.copy_(share.log())

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Point, tau: Tensor | None
    ) -> Float[Tensor, "b l d"]:
        """sqrt(d) p @ E + normalised((p - prior) @ E).

        p = softmax(max(beta, MIN_BETA) x + log prior). Where a row is certain both views are of one
        size.
        """
        assert tau is not None, "the posterior of a noisy row depends on its time"
        assert isinstance(x, LazyPoint), "points are those of chunked.LazyOneHot"
        return self.apart(self._views, x, tau)

    def _views(self, x: LazyPoint, tau: Tensor) -> Float[Tensor, "b l d"]:
        return self.views(self._floored(x, tau))

    def _floored(self, x: LazyPoint, tau: Tensor) -> Evidence:
        return Evidence(x, beta(self.t_of_tau(tau)).clamp(min=MIN_BETA))

    def views(self, evidence: Evidence) -> Float[Tensor, "b l d"]:
        """The mean and the deviation of p = softmax(evidence + log prior)."""
        return self.views_of(posterior(evidence, self.log_prior).expect(self.table))

    def views_of(self, mean: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Both views, from the mean p @ E."""
        deviation = mean - self.log_prior.exp() @ self.table
        width = self.table.shape[1]
        return width**0.5 * mean + F.rms_norm(deviation, (width,))

    def moving(self, x: LazyPoint, tau: Tensor, dx: LazyPoint) -> tuple[Tensor, Tensor]:
        """The views, and their derivative in t: p' = p (q - <p, q>), q = beta' x + beta dx.

        Where beta is at its floor beta' is 0.
        """
        t, evidence = self.t_of_tau(tau), self._floored(x, tau)
        slope = beta_slope(t) * (beta(t) > MIN_BETA)
        q = x * slope[..., None] + dx * evidence.beta[..., None]
        rows = posterior(evidence, self.log_prior)
        changed = MovingPrediction(rows, torch.zeros_like(rows.features), q).expect(self.table)
        with forward_ad.dual_level():
            mean = forward_ad.make_dual(rows.expect(self.table), changed)
            views, dviews = forward_ad.unpack_dual(self.views_of(mean))
            assert dviews is not None
            return views, dviews


class Bayes(Posterior):
    """The same views; and the rows are evidence for the head.

    So the network need not learn to read its rows back through d numbers: what is left to it is
    the context (chunked/evidence.py). On text it writes better; in a small language of strict
    agreement, where rows had better be overruled, `Posterior` does (docs/encoders.md).
    """

    has_evidence: ClassVar[bool] = True

    def evidence(self, x: Point, tau: Tensor | None) -> Evidence:  # pyright: ignore[reportIncompatibleMethodOverride]
        """beta x, without a floor: at t = 0 a row says nothing of its token."""
        assert tau is not None, "what a noisy row says depends on its time"
        assert isinstance(x, LazyPoint), "points are those of chunked.LazyOneHot"
        return self.apart(self._evidence, x, tau)

    def _evidence(self, x: LazyPoint, tau: Tensor) -> Evidence:
        return Evidence(x, beta(self.t_of_tau(tau)))

    def moving_evidence(self, x: LazyPoint, tau: Tensor, dx: LazyPoint) -> LazyPoint:
        """beta' x + beta dx."""
        t = self.t_of_tau(tau)
        return x * beta_slope(t)[..., None] + dx * beta(t)[..., None]


def _called(part: Callable[..., Made], *given: Tensor | LazyPoint) -> Made:
    return part(*given)


MIN_BETA = 3.0
"""Least beta: reached at t = 0.57, where a large vocabulary's tau is still below 0.003."""
