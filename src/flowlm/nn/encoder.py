"""From what a network reads to features: points of a space, or tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Made = TypeVar("Made")


class Encoder(nn.Module, ABC):
    """Holds the token table E (v, d) and turns an input into features (b, l, d)."""

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
    def forward(self, x: Tensor, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """Features of the input x at clock time tau (None where the input has no time)."""


class Lookup(Encoder):
    """E[token], for networks that read tokens."""

    def forward(self, x: Tensor, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """Rows of the table."""
        return F.embedding(x, self.table)


class Linear(Encoder):
    """x @ E on one-hot-space points: the published encoder as published."""

    def forward(self, x: Tensor, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """The noisy rows through the table."""
        return x @ self.table


class Projected(Encoder):
    """The same encoder for points that already are x @ E: no vocabulary-sized state exists."""

    def forward(self, x: Tensor, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """The point itself."""
        return x


class Posterior(Encoder):
    """What each noisy row alone says of its token, plus a linear view of the row.

    softmax(beta x) with beta_t = t / (1 - t)^2 is the exact posterior of a token given its own
    row under a uniform prior. At t = 0 it is uniform and forgets the noise, which is all that a
    one-step map has to go by; so beta never falls below `floor`, and a normalised linear view is
    added at half weight, so that neither view drowns the other (method notes, section 8).
    """

    def __init__(
        self, vocab: int, width: int, t_of_tau: Callable[[Tensor], Tensor], floor: float = 3.0
    ) -> None:
        super().__init__(vocab, width)
        self.linear = nn.Linear(vocab, width, bias=False)
        self.t_of_tau, self.floor = t_of_tau, floor

    def forward(self, x: Tensor, tau: Tensor | None) -> Float[Tensor, "b l d"]:
        """softmax(max(beta_t, floor) x) @ E + normalised(x @ A) / 2."""
        assert tau is not None, "the posterior of a noisy row depends on its time"
        t = self.t_of_tau(tau)
        # Past beta = 1e4 the posterior is a point mass; the bound keeps t = 1 finite.
        beta = (t / (1 - t).square()).nan_to_num(posinf=1e4).clamp(self.floor, 1e4)
        posterior = (beta[..., None] * x).softmax(-1)
        linear = self.linear(x)
        return posterior @ self.table + 0.5 * F.rms_norm(linear, linear.shape[-1:])
