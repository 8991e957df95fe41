"""A trunk that also reads a number: it stands at the end of the text, as one more token."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.types import Time, Tokens
from flowlm.nn.dit import DiT, sinusoids
from flowlm.nn.encoder import Lookup
from flowlm.nn.size import Size

WAVES = 64
"""Cosines of the latent, and as many sines."""
TURNS = 1000
"""The fastest of them turns by so many radians while the latent goes from 0 to 1."""


class LatentEmbedding(nn.Module):
    """A token of a number in [0, 1): 128 sinusoids, 512 units, GELU (Di4C, arXiv 2410.08709).

    Nothing of it is zero at the start. Components of a mixture that are all alike are a saddle: the
    loss that is to part them is 0 there, and so is its gradient.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * WAVES, 512)
        self.last = nn.Linear(512, width)

    def forward(self, latent: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1 d"]:
        """The token."""
        waves = sinusoids(TURNS * latent, WAVES).to(self.inner.weight.dtype)
        return self.last(F.gelu(self.inner(waves)))


class LatentDiT(DiT):
    """One component of a mixture of products: p(x | z, lambda) = prod_i p_i(x_i | z, lambda).

    All tokens attend to the latent's one and it to them. It has no position, neither a rotary nor a
    learned one, is no neighbour to any token, and what becomes of it is dropped.
    """

    def __init__(self, size: Size, vocab: int, length: int) -> None:
        super().__init__(size, Lookup(vocab + 1, size.width), vocab, length, times=0)
        self.latent = LatentEmbedding(size.width)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tokens, latent: Time, rng: Streams | None = None
    ) -> TokenDistribution:
        """The distribution of every token of x (n, l), where each text has a latent (n, 1).

        rng, for dropout, has a stream a text. Of k copies of b texts, one after the other (k b, l),
        it has b, from which each copy draws.
        """
        kind = self.norm.weight.dtype
        y, rotary = self.placed(self.encoder(x, None).to(kind))
        y = torch.cat((y, self.latent(latent).to(kind)), 1)
        if rotary is not None:
            cos, sin = rotary
            # An angle of 0 turns nothing.
            rotary = F.pad(cos, (0, 0, 0, 1), value=1.0), F.pad(sin, (0, 0, 0, 1))
        condition, _ = self._condition(y)
        features = self.mixed(y, condition, rotary, seeds=self._copied_seeds(len(x), rng))
        return self.head(features[:, :-1])

    def _copied_seeds(self, count: int, rng: Streams | None) -> Int[Tensor, " n"] | None:
        copies = 0 if rng is None else count // len(rng)
        drawn = [seeds for _ in range(copies) if (seeds := self._seeds(rng)) is not None]
        return torch.cat(drawn) if drawn else None
