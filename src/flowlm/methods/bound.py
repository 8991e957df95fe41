"""A bound on the likelihood of a flow: squared errors over the signal-to-noise ratio.

A noisy text x_t, divided by 1 - t, is a Gaussian channel y = sqrt(S) x1 + z of signal-to-noise
ratio S = (t / (1-t))^2. For the exact denoiser -log p(x) = 1/2 int_0^inf E |x - D(y_S)|^2 dS (the
pointwise relation of information and squared error; for discrete x, arXiv 2302.03792). For any
other one the integral up to S*, and the cross-entropy of the tokens there, bound -log q(x) from
above, where q is the law of texts that the stochastic sampler (`sampling.Bridge`) writes in the
limit of many steps, with a token draw at S* (Girsanov). The excess over the entropy is, in the
mean, 1/2 int E |D* - D|^2 dS for the exact D*. The flow's ordinary differential equation and a map
in few jumps have other laws, of which this says nothing.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

from flowlm import core
from flowlm.sampling.point import Denoiser

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

UNDECODED = 2e-4
"""Chance at S*, at most, that a noisy row's own entries leave its token open."""


def likelihood_bound(
    denoiser: Denoiser, tokens: core.Tokens, rng: core.Streams, draws: int
) -> Float[Tensor, "b l"]:
    """An unbiased draw of the bound, nats per token, from `draws` + 1 evaluations of the network.

    With S = S* u^2, nodes lie densely at 0, where most is learnt of a token:
    1/2 int_0^S* |x - D|^2 dS = S* int_0^1 u |x - D|^2 du. The times of a sequence are one in each
    of `draws` equal parts of u, all at the same distance from its ends: even over a sequence, and
    over the global batch. Of a prediction only D[token] and sum D^2 are needed, so that no row of
    it is kept.
    """
    most, first = largest_lift(denoiser.space.vocab), rng.stratified()

    def prediction(lift: Float[Tensor, "b 1"]) -> core.TokenDistribution:
        """D of the tokens noised afresh to S = lift^2."""
        tau = denoiser.clock.tau(lift / (1 + lift))
        return denoiser.at(denoiser.noisy(tokens, tau, rng), tau)

    total = prediction(first.new_full(first.shape, most)).nll(tokens)
    for k in range(draws):
        u = (k + first) / draws
        total = total + most**2 * u / draws * prediction(most * u).squared_error(tokens)
    return total


def largest_lift(vocab: int) -> float:
    """sqrt(S*): there (v-1) Phi(-sqrt(S*/2)), which bounds the decoding error, is `UNDECODED`."""
    return -(2**0.5) * NormalDist().inv_cdf(UNDECODED / max(1, vocab - 1))
