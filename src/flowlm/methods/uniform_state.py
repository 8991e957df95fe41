"""Uniform-state diffusion (Schiff et al. 2024, UDLM), a baseline on the same trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from flowlm import core, nn
from flowlm.methods.method import Likelihood, Method
from flowlm.methods.strata import integral
from flowlm.nn.size import Size
from flowlm.sampling.replace import Replace, UniformDenoiser, replaced
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

EDGE = 1e-4
"""Times of the bound keep this far from 0 and 1, where its terms are differences of nothing."""


class UniformDiffusion(Method):
    """Uniform-state diffusion: its network and its samplers; methods differ in what they learn."""

    times: ClassVar[int] = 1
    samplers: ClassVar[type[Sampler]] = Replace

    def network(self, size: Size, vocab: int, length: int, teacher: nn.DiT | None = None) -> nn.DiT:
        """The trunk for replaced tokens; a student starts from its teacher's weights."""
        model = replaced_trunk(size, vocab, length)
        if teacher is not None:
            model.load_state_dict(teacher.state_dict())
        return model

    def denoiser(self, model: nn.DiT) -> UniformDenoiser:
        """The network."""
        return UniformDenoiser(model, model.vocab)

    def cross_entropy_at(
        self, model: nn.DiT, batch: core.Batch, tau: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """-log p of the clean tokens, nats, where a share tau is kept."""
        noisy = replaced(batch.tokens, tau, model.vocab, rng)
        return model(noisy, tau, rng=rng).nll(batch.tokens)


class BoundDiffusion(UniformDiffusion):
    """Uniform-state diffusion that is judged, and learns, by its likelihood bound."""

    likelihood: ClassVar[Likelihood] = "upper bound"

    def loss(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, teacher: nn.DiT | None = None
    ) -> core.Loss:
        """The likelihood bound at one stratified time per sequence."""
        return core.Loss(uniform_bound(model, batch, rng), batch.weight)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """An unbiased draw of the bound."""
        return uniform_bound(model, batch, rng, draws)


@dataclass(frozen=True)
class UniformState(BoundDiffusion):
    """Predict clean tokens from tokens of which some are drawn evenly from the vocabulary.

    The best network answers with what all *other* tokens say of a token: the likelihood bound is
    the entropy with that one, and above it with the posterior of the token given all.
    """

    label: ClassVar[str] = "Uniform-state diffusion"
    about: ClassVar[str] = "A uniform-state diffusion language model, a baseline."


def replaced_trunk(size: Size, vocab: int, length: int) -> nn.DiT:
    """A trunk over v tokens that reads the time, which replaced tokens do not show."""
    return nn.DiT(size, nn.Lookup(vocab, size.width), vocab, length, times=1)


def uniform_bound(
    model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
) -> Float[Tensor, "b l"]:
    """An unbiased draw of the likelihood bound, but for its EDGEs; nats."""
    predict = partial(model, rng=rng)

    def rate(t: core.Time) -> Float[Tensor, "b l"]:
        return bound_rate(predict, batch.tokens, t, model.vocab, rng)

    return integral(rate, rng, draws)


def bound_rate(
    predict: Callable[[core.Tokens, core.Time], core.TokenDistribution],
    tokens: core.Tokens,
    t: core.Time,
    vocab: int,
    rng: core.Streams,
) -> Float[Tensor, "b l"]:
    """Nats per token and unit of time that the bound pays at t, for freshly noised tokens."""
    a = t.clamp(EDGE, 1 - EDGE)
    z = replaced(tokens, a, vocab, rng)
    return rate_of(predict(z, a), tokens, z, a, vocab)


def rate_of(
    prediction: core.TokenDistribution,
    tokens: core.Tokens,
    z: core.Tokens,
    a: core.Time,
    vocab: int,
) -> Float[Tensor, "b l"]:
    """Nats per token and unit of a that the bound pays, (b, l) (UDLM, continuous time).

    With k = v a / (1 - a), r_j = log(1 + k p_j), L = log(1 + k), R = L where the noisy token z is
    the clean one x and 0 elsewhere, d = r_z - R:

        e^-R / (v a) { v / (1 - a) (e^-d - 1 + d) + (1 + k) L - k r_x - sum_j r_j }

    The published form with the logarithms of 1 - a taken out, which cancel. Only three numbers of a
    row are needed.
    """
    import torch

    k = vocab * a / (1 - a)
    whole = k.expand(tokens.shape)

    def three(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m 3"]:
        r = torch.log1p(whole[patch][..., None] * logp.exp())
        chosen = [r.gather(-1, of[patch][..., None]) for of in (tokens, z)]
        return torch.cat([*chosen, r.sum(-1, keepdim=True)], -1)

    r_x, r_z, total = prediction.reduce(three).unbind(-1)
    level = torch.log1p(k)
    kept = torch.where(z == tokens, level, 0.0)
    d = r_z - kept
    drift = vocab / (1 - a) * (torch.expm1(-d) + d)
    return torch.exp(-kept) / (vocab * a) * (drift + (1 + k) * level - k * r_x - total)
