"""SEDD: diffusion with free scores, learnt by score entropy (Lou et al. 2024, 2310.16834).

A score is the chance of a noisy text with token w in one place over that of the text itself. A
network that estimates it by s pays the score entropy s - r log s + r (log r - 1) for every w, r
the ratio given the clean text, and pays least at its mean, the ratio of marginals. With
u = log s - log r that is r (e^u - 1 - u).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.methods.method import Likelihood, Method
from flowlm.methods.strata import integral
from flowlm.methods.uniform_state import replaced_trunk
from flowlm.nn.size import Size
from flowlm.sampling.masking import bound_weight, mask
from flowlm.sampling.replace import replaced
from flowlm.sampling.sampler import Sampler
from flowlm.sampling.tweedie import ScoreDenoiser, Tweedie, TweedieUniform

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PAPER = "https://arxiv.org/abs/2310.16834"
EDGE = 1e-3
"""Times of uniform noise keep this far from 0 and 1, as published."""
HIGHEST = 20.0
"""Largest u whose exponential is taken; what lies above it costs as its tangent does."""


class ScoreEntropy(Method):
    """Learning of scores; methods differ in what noise is and in how scores are read off rows."""

    likelihood: ClassVar[Likelihood] = "upper bound"
    times: ClassVar[int] = 1

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """The likelihood bound at one stratified time per sequence."""
        return core.Loss(self.nll(model, batch, rng), batch.weight)

    def denoiser(self, model: nn.DiT) -> ScoreDenoiser:
        """The network."""
        return ScoreDenoiser(model, model.vocab)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """An unbiased draw of the bound."""
        return integral(lambda t: self.rate(model, batch.tokens, t, rng), rng, draws)

    @abstractmethod
    def rate(
        self, model: nn.DiT, tokens: core.Tokens, t: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """Nats per token and unit of time that the bound pays at t, for freshly noised tokens."""


@dataclass(frozen=True)
class SEDD(ScoreEntropy):
    """Estimate how much likelier a mask is to be each token than to be a mask.

    The logits z of the head, unnormalised, are the scores: s_w = a / (1 - a) e^z_w / v, a the share
    of tokens kept. Exact ones sum to a / (1 - a). A network whose scores do is masked diffusion;
    this one has to learn their sum, and pays (S - 1 - log S) / (1 - a) for a sum S times that.
    """

    label: ClassVar[str] = "SEDD"
    about: ClassVar[str] = (
        f"A score entropy discrete diffusion model over masks, a baseline ([paper]({PAPER}))."
    )
    samplers: ClassVar[type[Sampler]] = Tweedie

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """A trunk over v + 1 tokens, the last one the mask, that reads the time."""
        return nn.DiT(size, nn.Lookup(vocab + 1, size.width), vocab, length, times=1)

    def rate(
        self, model: nn.DiT, tokens: core.Tokens, t: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """The share of a text that is masked pays, over that share."""
        noisy = mask(tokens, t, model.vocab, rng)
        paid = masked_rate(model(noisy, t, rng=rng), tokens, model.vocab)
        return paid * bound_weight(noisy == model.vocab, t)


@dataclass(frozen=True)
class SEDDUniform(ScoreEntropy):
    """Estimate how likely each token is in the place of a noisy one, in evenly noised text.

    The rows p of the network give the scores p_w / p_z, z the token that stands there: any v - 1
    positive numbers. Exact rows are the law of the noisy token given all others.
    """

    label: ClassVar[str] = "SEDD, uniform"
    about: ClassVar[str] = (
        "A score entropy discrete diffusion model over uniform noise, a baseline "
        f"([paper]({PAPER}))."
    )
    samplers: ClassVar[type[Sampler]] = TweedieUniform

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """The trunk of uniform-state diffusion."""
        return replaced_trunk(size, vocab, length)

    def rate(
        self, model: nn.DiT, tokens: core.Tokens, t: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """The bound's own, but for its EDGEs, where it is that of the nearest time."""
        a = t.clamp(EDGE, 1 - EDGE)
        z = replaced(tokens, a, model.vocab, rng)
        return uniform_rate(model(z, a, rng=rng), tokens, z, a, model.vocab)


def masked_rate(
    prediction: core.TokenDistribution, tokens: core.Tokens, vocab: int
) -> Float[Tensor, "b l"]:
    """(1 - a) times the nats that a mask pays for its scores per unit of a, (b, l).

    The published (1 / a) [sum_w s_w - r log s_x + r (log r - 1)] with r = a / (1 - a) and
    s = r e^u: its factor r is common to all, and (sum_w e^u_w - 1 - u_x) / (1 - a) is left.
    """

    def of_rows(logits: Tensor, patch: core.Patch) -> Float[Tensor, "n m"]:
        u = logits - log(vocab)
        own = u.gather(-1, tokens[patch][..., None]).squeeze(-1)
        # Not through `excess`: many terms are small, and 1 + expm1 would round them away.
        over = (u - HIGHEST).clamp(min=0)
        return (u.clamp(max=HIGHEST).exp() * (1 + over)).sum(-1) - 1 - own

    return chunked.unnormalised(prediction).reduce(of_rows)


def uniform_rate(
    prediction: core.TokenDistribution,
    tokens: core.Tokens,
    z: core.Tokens,
    a: core.Time,
    vocab: int,
) -> Float[Tensor, "b l"]:
    """Nats per token and unit of a that scores of uniform noise pay, (b, l).

    1 / (v a) sum over w of s_w - r_w log s_w + r_w (log r_w - 1), s_w = p_w / p_z and r_w the ratio
    given the clean x: log r_w = L [1(w = x) - 1(z = x)], L = log(1 + v a / (1 - a)). In w = z both
    are 1, which costs nothing.
    """
    import torch

    level = torch.log1p(vocab * a / (1 - a)).expand(tokens.shape)

    def of_rows(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
        at, x, own = (of[patch][..., None] for of in (level, tokens, z))
        at = at.to(logp.dtype)
        log_r = torch.zeros_like(logp).scatter(-1, x, at) - torch.where(x == own, at, 0.0)
        log_s = logp - logp.gather(-1, own)
        return (log_r.exp() * excess(log_s - log_r)).sum(-1)

    return prediction.reduce(of_rows) / (vocab * a)


def excess(u: Tensor) -> Tensor:
    """e^u - 1 - u, from HIGHEST on its tangent: convex and least at 0 still, and finite.

    Only there, where scores are e^20 times too large, is what is paid below the bound.
    """
    import torch

    over = (u - HIGHEST).clamp(min=0)
    return torch.expm1(u.clamp(max=HIGHEST)) + exp(HIGHEST) * over - u
