"""Features to a distribution over tokens, whose rows exist a tile at a time.

Rows of the softmax do not see each other and its sums can be kept up to date, so nothing here but
`log_probs` needs memory that grows with tokens times words (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.points import LazyPoint
from flowlm.chunked.streamed import CrossEntropy, Expectation, Likelihood, Part, argmax_tiles
from flowlm.chunked.tiles import Logits, Tiling, capped, tile_side
from flowlm.core.distribution import Dense, Mixture, TokenDistribution, draw_tokens
from flowlm.core.rng import Streams
from flowlm.core.types import Patch, Probs, Tokens


@dataclass(frozen=True, eq=False)
class HeadPrediction(TokenDistribution):
    """softmax(cap(y W^T + c) + evidence): features y (b, l, d), weight W (v, d), bias c (v,)."""

    features: Float[Tensor, "b l d"]
    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, " v"]
    cap: float | None = None
    side: int | None = None
    """Tokens and words of a tile; by default 4 MiB of logits on a CPU and 64 MiB elsewhere."""
    fused: bool = False
    """Whether the work on a tile between its matrix products is compiled."""
    evidence: Evidence | None = None
    """What is known of every token already; only without a cap."""

    @property
    def shape(self) -> torch.Size:
        """Texts and places, (b, l)."""
        return self.features.shape[:2]

    @property
    def device(self) -> torch.device:
        """Where features and head are."""
        return self.features.device

    def log_probs(self) -> Probs:
        """All rows at once, (b, l, v), at least float32."""
        logits = capped(F.linear(self.features, self.weight), self.bias, self.cap)
        if self.evidence is not None:
            logits = logits + self.evidence.dense()
        return logits.log_softmax(-1)

    def __getitem__(self, patch: Patch) -> HeadPrediction:
        """Some of its texts, and some of their places."""
        evidence = None if self.evidence is None else self.evidence[patch]
        return replace(self, features=self.features[patch], evidence=evidence)

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

    def expect(self, table: Float[Tensor, "v d"]) -> Float[Tensor, "b l d"]:
        """p @ table."""
        if self._fits_one_tile():
            return Dense(self.log_probs()).expect(table)
        return self._shaped(Expectation.apply(*self._leaves(), table))

    def nll(self, tokens: Tokens) -> Float[Tensor, "b l"]:
        """-log p(token), nats."""
        if self._fits_one_tile():
            return Dense(self.log_probs()).nll(tokens)
        return self._shaped(Likelihood.apply(*self._leaves(), tokens.flatten()))

    def cross_entropy(self, target: Mixture) -> Float[Tensor, "b l"]:
        """-sum_v target(v) log p(v), nats; the target's rows exist a tile at a time as well."""
        parts = self._parts(target)
        if parts is None or self._fits_one_tile():
            return Dense(self.log_probs()).cross_entropy(target)
        return self._shaped(CrossEntropy.apply(*self._leaves(), parts))

    @torch.no_grad()
    def argmax(self) -> Tokens:
        """The likeliest token of every row."""
        return self._shaped(argmax_tiles(self._logits()))

    @torch.no_grad()
    def sample(self, rng: Streams, temperature: float = 1.0, top_p: float = 1.0) -> Tokens:
        """One token a row from p^(1/temperature) cut to its nucleus, in float64."""
        u = rng.uniform(self.features.shape[1], dtype=torch.float64).flatten()
        logits, words = self._logits(), slice(0, len(self.weight))
        # A nucleus needs whole rows: as many at a time as make four tiles, or as are written.
        at_once = max(1, 4 * logits.tiling.side**2 // len(self.weight))
        parts = (slice(i, i + at_once) for i in range(0, len(u), at_once))
        drawn = []
        for i in parts if self.evidence is None else logits.rows():
            rows = capped(logits.strip(i).products(words), self.bias, self.cap)
            drawn.append(draw_tokens(rows, u[i], temperature, top_p))
        return self._shaped(torch.cat(drawn))

    def _fits_one_tile(self) -> bool:
        """Where all logits are no more than a tile, autograd's own way is as small and faster."""
        return self.features.shape[:2].numel() * len(self.weight) <= self._tiling().side ** 2

    def _tiling(self) -> Tiling:
        kind = self.features.device.type
        lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        products = torch.get_autocast_dtype(kind) if lowered else self.features.dtype
        side = self.side or tile_side(kind)
        return Tiling(products, self.cap, side, self.fused)

    def _leaves(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, LazyPoint | None, Tiling]:
        beta, x = None, None
        if self.evidence is not None:
            x = self.evidence.x
            beta = self.evidence.beta.expand(self.shape).flatten()
        features = self.features.flatten(0, 1)
        return features, self.weight, self.bias, beta, x, self._tiling()

    def _logits(self) -> Logits:
        return Logits.of(*self._leaves())

    def _shaped(self, answer: Tensor) -> Tensor:
        return answer.unflatten(0, self.features.shape[:2])

    def _parts(self, target: Mixture) -> list[Part] | None:
        """The target in tiles; None if a part is not a head's, but rows already written out.

        Where a part alone has evidence, its strips are not those of this head: it is written out.
        """
        shape, parts = self.features.shape[:2], []
        with torch.no_grad():
            for share, part in target.parts:
                if not isinstance(part, HeadPrediction):
                    return None
                if self.evidence is None and part.evidence is not None:
                    return None
                parts.append((share.expand(shape).flatten(), part._logits()))
        return parts


COLDEST = 1e-24
"""Logits over it stay within float32, and any two that float32 tells apart are far apart then: the
likeliest token of the context has all the mass."""
