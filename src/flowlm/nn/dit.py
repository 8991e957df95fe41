"""The only trunk: a diffusion transformer that reads 0, 1 or 2 times (Peebles & Xie 2023, DiT)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from flowlm.chunked.moving import MovingPrediction
from flowlm.chunked.points import LazyPoint
from flowlm.core.distribution import TokenDistribution
from flowlm.core.rng import Streams
from flowlm.core.types import Point, Time
from flowlm.nn.attention import Cache, Rotary, SelfAttention, rotary_tables
from flowlm.nn.dropout import block_keys, dropped
from flowlm.nn.encoder import Encoder, Posterior, Seen
from flowlm.nn.forward_mode import ScaleApart
from flowlm.nn.head import Head
from flowlm.nn.local_conv import LocalConv
from flowlm.nn.size import Size


class TimeEmbedding(nn.Module):
    """256 sinusoids of tau in [0, 1], cosines first, through a two-layer network."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.inner = nn.Linear(frequencies, width)
        self.last = nn.Linear(width, width)
        self.waves = frequencies // 2

    def forward(self, tau: Time) -> Float[Tensor, "b #l c"]:
        """Embed clock times."""
        waves = sinusoids(tau, self.waves).to(self.inner.weight.dtype)
        return self.last(F.silu(self.inner(waves)))


def sinusoids(tau: Time, waves: int) -> Float[Tensor, "b #l f"]:
    """Cosines, then sines; tau is not scaled, so the slowest of them are nearly constant."""
    scale = torch.arange(waves, device=tau.device).float() / waves
    angle = tau[..., None].float() * torch.exp(-math.log(10_000) * scale)
    return torch.cat((angle.cos(), angle.sin()), -1)


class Block(nn.Module):
    """Attention and an MLP, each with a shift, scale and gate from the time (adaLN-zero)."""

    def __init__(self, size: Size, causal: bool) -> None:
        super().__init__()
        d = size.width
        self.norm1 = nn.LayerNorm(d, bias=False)
        self.attention = SelfAttention(d, size.heads, causal, size.attention_cap)
        self.norm2 = nn.LayerNorm(d, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d)
        )
        self.modulation = _zero(nn.Linear(size.condition, 6 * d))
        self.dropout = size.dropout

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        condition: Float[Tensor, "#b #n c"],
        rotary: Rotary | None,
        cache: Cache | None = None,
        block: int = 0,
        keys: Int[Tensor, "b 2"] | None = None,
        given: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """One block; `block` is its index in the cache. With `keys`, numbers are dropped."""
        modulation = spread(self.modulation(condition), given)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, -1)
        y = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        mixed = self.attention(y, rotary, cache, block)
        x = torch.addcmul(x, gate1, self._dropped(mixed, keys, 0))
        y = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self._dropped(self.mlp(y), keys, 1))

    def _dropped(self, x: Tensor, keys: Tensor | None, site: int) -> Tensor:
        return x if keys is None else dropped(x, keys[:, site], self.dropout)


class DiT(nn.Module):
    """Encoder, trunk and head: which tokens, given this point at these times.

    `times` is how many clock times it reads: 0 for the discrete baselines, 1 for a flow (when),
    2 for a flow map (from when, to when). The second embedding starts at zero, so that a flow map
    warm-started from a flow answers like it, whatever the target time.

    Where the rows are evidence (`Bayes`), a flow map learns by how much more than beta_s they
    count for a later t: in a jump from noise beta_0 is 0, yet the noise decides where it goes.

    `recompute` may be set from outside: then only every block's input is kept for the backward
    pass, which runs the block again (Chen et al. 2016). The gradients are the same bit for bit.
    `compiled` says that parts have been compiled, which forward mode cannot enter.
    """

    def __init__(
        self,
        size: Size,
        encoder: Encoder,
        vocab: int,
        length: int,
        times: int,
        causal: bool = False,
    ) -> None:
        super().__init__()
        size.require_reach(length)
        self.encoder = encoder
        self.near = LocalConv(size.width, size.reach, causal) if size.reach else None
        self.places = None
        if size.positions == "learned":
            self.places = nn.Parameter(torch.randn(length, size.width) / size.width**0.5)
        self.times = nn.ModuleList(TimeEmbedding(size.condition) for _ in range(times))
        self.blocks = nn.ModuleList(Block(size, causal) for _ in range(size.blocks))
        self.norm = nn.LayerNorm(size.width, bias=False)
        self.modulation = _zero(nn.Linear(size.condition, 2 * size.width))
        self.head = Head(size.width, vocab, size.output_cap)
        self.sharper = None
        if times == 2 and encoder.has_evidence:
            self.sharper = _zero(nn.Linear(size.condition, 1))
        self.size, self.vocab = size, vocab
        self.recompute = self.compiled = False
        if times == 2:
            _zero(self.times[1].get_submodule("last"))

    def forward(
        self, x: Seen, *taus: Time, cache: Cache | None = None, rng: Streams | None = None
    ) -> TokenDistribution:
        """The distribution of every token.

        x: a point of the encoder's space, tokens, or a distribution over them. taus: clock times,
        (b, 1) or (b, l), as many as the network reads. cache: for a causal trunk, x continues what
        the cache holds. rng: one stream a sequence; a network with dropout draws from it in
        training mode, and only then. Without it nothing is dropped.
        """
        assert len(taus) == len(self.times), f"{len(self.times)} times wanted, {len(taus)} given"
        first_time = taus[0] if taus else None
        y = self.encoder(x, first_time)
        condition, given = self._condition(y, *taus)
        evidence = self.encoder.evidence(x, first_time)
        if evidence is not None and self.sharper is not None:
            extra = spread(self.sharper(condition), given).squeeze(-1).float()
            evidence = evidence.with_extra_beta(extra)
        # Blocks may be stored in a narrower type than the encoder and all that reads times.
        y, condition = y.to(self.norm.weight.dtype), condition.to(self.norm.weight.dtype)
        return self.head(self.trunk(y, condition, given, cache, self._seeds(rng)), evidence)

    @torch.no_grad()
    def moving(
        self, x: Point, s: Time, t: Time, rates: tuple[Time, Time], dx: Point | None = None
    ) -> MovingPrediction:
        """The answer of a network of two times, and its derivative, by forward mode.

        `rates` are those of the two clock times. With dx the point moves at that rate, and its time
        with it. Forward mode goes through the trunk alone; nothing is dropped.
        """
        y, dy = (self.encoder(x, s), None) if dx is None else self.encoder.moving(x, s, dx)
        evidence, devidence = self.encoder.evidence(x, s), None
        if dx is not None:
            devidence = self.encoder.moving_evidence(x, s, dx)
        dual, apart = forward_ad.make_dual, forward_ad.unpack_dual
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        # Fused attention knows no forward mode; plain matrix products do.
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), ScaleApart(), eager:
            taus = [dual(tau, rate.to(tau.dtype)) for tau, rate in zip((s, t), rates)]
            condition, given = self._condition(y, *taus)
            if evidence is not None and self.sharper is not None:
                sharper = spread(self.sharper(condition), given)
                extra, dextra = apart(sharper.squeeze(-1).float())
                assert dextra is not None
                more = evidence.x * dextra[..., None]
                if devidence is not None and isinstance(dx, LazyPoint):
                    more = devidence + more + dx * extra[..., None]
                evidence, devidence = evidence.with_extra_beta(extra), more
            kind = self.norm.weight.dtype
            y = y if dy is None else dual(y, dy.to(y.dtype))
            features, dfeatures = apart(self.trunk(y.to(kind), condition.to(kind), given))
            assert dfeatures is not None
            return MovingPrediction(self.head(features, evidence), dfeatures, devidence)

    def trunk(
        self,
        y: Float[Tensor, "b l d"],
        condition: Float[Tensor, "#b #n c"],
        given: Bool[Tensor, "b l"] | None = None,
        cache: Cache | None = None,
        seeds: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Features of the encoder to features of the head: tensors to tensors.

        `condition` is the embedded times: of every sequence or token, or, where some tokens are
        given, of the others and of text (b, 2, c). `seeds`, one a sequence, are for dropout.
        """
        y, rotary = self.placed(y, cache)
        return self.mixed(y, condition, rotary, given, cache, seeds)

    def placed(
        self, y: Float[Tensor, "b l d"], cache: Cache | None = None
    ) -> tuple[Float[Tensor, "b l d"], Rotary | None]:
        """Features that know their neighbours and, if learned, their positions; else rotations."""
        if self.near is not None:
            y = self.near(y, cache)
        first = 0 if cache is None else cache.length
        if self.places is not None:
            return y + self.places[first : first + y.shape[1]], None
        per_head = self.size.width // self.size.heads
        return y, rotary_tables(y.shape[1], per_head, y.device, first)

    def mixed(
        self,
        y: Float[Tensor, "b l d"],
        condition: Float[Tensor, "#b #n c"],
        rotary: Rotary | None,
        given: Bool[Tensor, "b l"] | None = None,
        cache: Cache | None = None,
        seeds: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """All blocks, and the last modulation."""
        for i, block in enumerate(self.blocks):
            keys = None if seeds is None else block_keys(seeds, i)
            if self.recompute and torch.is_grad_enabled():
                y = checkpoint(
                    block, y, condition, rotary, None, i, keys, given, use_reentrant=False
                )
            else:
                y = block(y, condition, rotary, cache, i, keys, given)
        shift, scale = spread(self.modulation(condition), given).chunk(2, -1)
        return torch.addcmul(shift, self.norm(y), 1 + scale)

    def set_prior(self, counts: Int[Tensor, " v"]) -> None:
        """Before anything is learnt, expect each token as often as the training text has it.

        For networks with a `Posterior` encoder. Where rows are evidence (`Bayes`), the head expects
        the same, and the network begins as the exact denoiser of independent tokens.
        """
        assert isinstance(self.encoder, Posterior)
        self.encoder.set_prior(counts)
        if self.encoder.has_evidence:
            with torch.no_grad():
                self.head.bias.copy_(self.encoder.log_prior)

    def _seeds(self, rng: Streams | None) -> Int[Tensor, " b"] | None:
        if not self.training or self.size.dropout == 0 or rng is None:
            return None
        return rng.integers()

    def _condition(
        self, like: Tensor, *taus: Time
    ) -> tuple[Float[Tensor, "#b #n c"], Bool[Tensor, "b l"] | None]:
        """The embedded times, and which tokens are given, where the trunk is told so."""
        given = None
        if not taus:
            # Without a time the modulations are their biases: plain learned scales and gates.
            return like.new_zeros(1, 1, self.size.condition), given
        if self.encoder.tells_times and taus[0].shape[1] > 1:
            # Two times of a sequence instead of l: that of the tokens on their way, and 1.
            given = taus[0] == 1
            ends = [tau.amin(1, keepdim=True) for tau in taus]
            taus = tuple(torch.cat((tau, torch.ones_like(tau)), 1) for tau in ends)
        # Not torch.stack: one time may be per token while the other is per sequence.
        embedded = [embed(tau) for embed, tau in zip(self.times, taus)]
        return F.silu(reduce(torch.add, embedded)), given


def spread(
    numbers: Float[Tensor, "#b #n k"], given: Bool[Tensor, "b l"] | None
) -> Float[Tensor, "#b #l k"]:
    """Numbers of the two times of a sequence, for each of its tokens."""
    if given is None:
        return numbers
    return numbers[:, 1:].where(given[..., None], numbers[:, :1])


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
