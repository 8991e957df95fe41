"""Features to a distribution over tokens, whose rows exist a strip or a tile at a time.

Rows of the softmax do not see each other and its sums can be kept up to date, so nothing here but
`log_probs` needs memory that grows with tokens times vocabulary (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.points import patches
from flowlm.chunked.strips import Rows, Strips
from flowlm.chunked.tiled import (
    Part,
    TiledCrossEntropy,
    TiledMean,
    TiledNll,
    argmax_tiles,
)
from flowlm.chunked.tiles import Logits, Tiling, capped, tile_side
from flowlm.core import distribution
from flowlm.core.distribution import Mixture, Reduction, Target, TokenDistribution
from flowlm.core.types import Patch


@dataclass(frozen=True, eq=False)
class HeadPrediction(TokenDistribution):
    """softmax(cap(y W^T + c) + evidence): features y (b, l, d), weight W (v, d), bias c (v,)."""

    features: Float[Tensor, "b l *copies d"]
    """With several rows a token (`Copies`) only `log_probs` and `reduce` by strips can be asked."""
    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, " v"]
    cap: float | None = None
    side: int | None = None
    """Rows and columns (positions, tokens of the vocabulary) of a tile; by default `tile_side`."""
    fused: bool = False
    """Whether the work on a tile between its matrix products is compiled."""
    evidence: Evidence | None = None
    """What is known of every token already; only without a cap."""
    normalised: bool = True
    """Whether rows are log-probabilities, or else the logits as they are (`unnormalised`)."""

    @property
    def shape(self) -> torch.Size:
        """Sequences and positions, (b, l)."""
        return self.features.shape[:2]

    @property
    def device(self) -> torch.device:
        """Device of features and head."""
        return self.features.device

    def log_probs(self, patch: Patch | None = None) -> Float[Tensor, "n m *copies v"]:
        """Log-probabilities, or logits where they stay unnormalised; at least float32."""
        b, l = self.shape  # noqa: E741
        patch = patch or (slice(0, b), slice(0, l))
        logits = capped(F.linear(self.features[patch], self.weight), self.bias, self.cap)
        if self.evidence is not None:
            logits = logits + self.evidence.rows(patch)
        return logits.log_softmax(-1) if self.normalised else logits

    def with_temperature(self, temperature: float) -> HeadPrediction:
        """cap(z) / T = cap' (z / T) with cap' = cap / T: no larger than the features.

        Below `COLDEST` a temperature counts as that.
        """
        if temperature == 1:
            return self
        temperature = max(temperature, COLDEST)
        cap = None if self.cap is None else self.cap / temperature
        features, bias = self.features / temperature, self.bias / temperature
        return replace(self, features=features, bias=bias, cap=cap)

    def reduce(self, f: Reduction, *operands: Any) -> Tensor:
        """Strip by strip, or by tiles where f is one that is asked often.

        Where all rows are no more than a tile, autograd's own way is as small and faster.
        """
        if self.features.shape[:-1].numel() * len(self.weight) <= self._tiling.side**2:
            b, l = self.shape  # noqa: E741
            return f(self.log_probs(), (slice(0, b), slice(0, l)), *operands)
        if not self.normalised:
            return self._reduce_strips(f, operands)
        match f:
            case distribution.row_nll:
                tokens = operands[0].flatten()
                return TiledNll.apply(*self._leaves(), tokens).unflatten(0, self.shape)
            case distribution.row_mean:
                return TiledMean.apply(*self._leaves(), *operands).unflatten(0, self.shape)
            case distribution.row_argmax:
                return argmax_tiles(Logits.of(*self._leaves())).unflatten(0, self.shape)
            case distribution.row_cross_entropy if (parts := self._parts(*operands)) is not None:
                return TiledCrossEntropy.apply(*self._leaves(), parts).unflatten(0, self.shape)
            case _:
                return self._reduce_strips(f, operands)

    def _reduce_strips(self, f: Reduction, operands: tuple[Any, ...]) -> Tensor:
        learnt = [x for x in operands if isinstance(x, Tensor) and x.requires_grad]
        assert not learnt, "no gradient flows into the operands of a reduction"
        beta = None if self.evidence is None else self.evidence.beta.expand(self.shape)
        copies = self.features.shape[2:-1].numel()
        shape, tiling = torch.Size((*self.shape, copies * len(self.weight))), self._tiling
        rows = Rows(
            tuple(patches(shape, self.device.type)),
            tiling.products, self._autocast, self.cap, tiling.x, self.normalised, f, operands,
        )  # fmt: skip
        return Strips.apply(self.features, self.weight, self.bias, beta, rows)

    @property
    def _autocast(self) -> bool:
        kind = self.device.type
        return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)

    @property
    def _tiling(self) -> Tiling:
        kind = self.device.type
        products = torch.get_autocast_dtype(kind) if self._autocast else self.features.dtype
        x = None if self.evidence is None else self.evidence.x
        return Tiling(products, self.cap, self.side or tile_side(kind), self.fused, x)

    def _leaves(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tiling]:
        beta = None
        if self.evidence is not None:
            beta = self.evidence.beta.expand(self.shape).flatten()
        return self.features.flatten(0, 1), self.weight, self.bias, beta, self._tiling

    @torch.no_grad()
    def _parts(self, target: Target) -> list[Part] | None:
        """The target in tiles; None where it has none, or not those of this head."""
        if not isinstance(target, Mixture):
            return None
        parts = []
        for share, part in target.parts:
            if not isinstance(part, HeadPrediction):
                return None
            if self.evidence is None and part.evidence is not None:
                return None
            parts.append((share.expand(self.shape).flatten(), Logits.of(*part._leaves())))
        return parts


def posterior(evidence: Evidence, log_prior: Float[Tensor, " v"]) -> HeadPrediction:
    """softmax(evidence + log prior): what rows alone say of their tokens, without a context."""
    features = log_prior.new_zeros(*evidence.x.shape[:2], 0)
    weight = log_prior.new_zeros(len(log_prior), 0)
    return HeadPrediction(features, weight, log_prior, evidence=evidence)


COLDEST = 1e-24
"""Logits over it stay within float32, and any two that float32 tells apart are far apart then: the
likeliest token of the context has all the mass."""
