"""Sampling with scores by the Tweedie step, of masked and of uniform-state diffusion (SEDD).

A score is the ratio of chances of two noisy texts that differ in one token (Lou et al. 2024, arXiv
2310.16834, the analytic sampler). It says how much of the noise came last, so a step divides that
out of the ratios, by the share e = a / c that is kept from time c down to a, and draws every token
from what is left, times its chance to become what it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from flowlm import chunked, core
from flowlm.checks import require_fields
from flowlm.sampling.masking import reveal_probability
from flowlm.sampling.replace import nucleus, replaced
from flowlm.sampling.sampler import Frame, Sampler, require_draws, with_prompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

FIRST = 1e-3
"""The time at which all is taken for noise that stands evenly: at 0 its scores say nothing."""


@dataclass(frozen=True, eq=False)
class ScoreDenoiser:
    """A model of scores, as its samplers ask it: the rows behind them, of tokens and a time."""

    predict: Callable[[core.Tokens, core.Time], core.TokenDistribution]
    vocab: int


@dataclass(frozen=True)
class Tweedie(Sampler):
    """Reveal masked tokens on an even grid of t, as surely as their scores add up.

    A mask becomes token w with probability s_w (c - a) / a. Where the scores sum to a / (1 - a), as
    exact ones do, that is the step of `Unmask`; they are free to sum to more, and reveal sooner.
    """

    temperature: float = 1.0
    """0 takes the likeliest token. How many are revealed is left to the scores."""
    top_p: float = 1.0
    """Share of the mass from which tokens are drawn (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def frames(
        self, denoiser: ScoreDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each step, FREE where still masked."""
        import torch

        tokens = prompt
        t = core.Uniform().grid(steps, prompt.device)
        for i in range(steps):
            tau = t[i].expand(len(tokens), 1)
            prediction = denoiser.predict(tokens.where(tokens != core.FREE, denoiser.vocab), tau)
            u = rng.uniform(tokens.shape[1], dtype=torch.float64)
            reveal = reveal_probability(t[i], t[i + 1])

            def drawn(
                logits: Tensor, patch: core.Patch, u: Tensor = u, reveal: Tensor = reveal
            ) -> Tensor:
                log_sums = logits - log(denoiser.vocab)
                return revealed(log_sums, reveal, u[patch], self.temperature, self.top_p)

            found = chunked.unnormalised(prediction).reduce(drawn)
            tokens = with_prompt(found, tokens)
            yield Frame(tau, prediction, decided=tokens, prompt=prompt)


def revealed(
    log_sums: Float[Tensor, "n m v"],
    reveal: Tensor,
    u: Float[Tensor, "n m"],
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Int[Tensor, "n m"]:
    """Draw what masks become by u in [0, 1): FREE up to 1 - reveal S, from there on the tokens.

    `log_sums` is log s - log(a / (1 - a)), the scores less what their sum is where they are exact;
    S is the sum of the exponentials. More than all cannot be revealed, and where `reveal` is 1, at
    the end, nothing may stay masked (float64).
    """
    import torch

    mass = (torch.logsumexp(log_sums.double(), -1) + reveal.double().log()).exp()
    mass = torch.where(reveal < 1, mass.clamp(max=1), 1.0)
    # What is left of u among the tokens, which have the last `mass` of [0, 1).
    rest = ((u - (1 - mass)) / mass.clamp(min=1e-300)).clamp(0, 1 - 2**-53)
    token = core.draw_tokens(log_sums, rest, temperature, top_p)
    return token.where(u >= 1 - mass, core.FREE)


@dataclass(frozen=True)
class TweedieUniform(Sampler):
    """Draw all tokens anew on an even grid of times, from the ratios of their noisy chances."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the predicted mass that counts (nucleus). Temperature and nucleus are of what the
    ratios say beyond even noise: the noise that a step leaves may still draw any token."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def frames(
        self, denoiser: ScoreDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each step."""
        import torch

        t = core.Uniform().grid(steps, prompt.device).double()
        tokens = replaced(prompt.clamp(min=0), t[0].expand(len(prompt), 1), denoiser.vocab, rng)
        tokens, t = with_prompt(tokens, prompt), t.clamp(min=FIRST)
        for i in range(steps):
            tau = t[i].float().expand(len(tokens), 1)
            prediction = denoiser.predict(tokens, tau)
            u = rng.uniform(tokens.shape[1], dtype=torch.float64)

            def drawn(
                logp: core.Probs, patch: core.Patch, z: Tensor = tokens, u: Tensor = u,
                a: Tensor = t[i], c: Tensor = t[i + 1],
            ) -> Tensor:  # fmt: skip
                p = sharper(logp.double().exp(), a, self.temperature, self.top_p)
                return core.draw_tokens(denoised(p, z[patch], a, c).log(), u[patch])

            tokens = with_prompt(prediction.reduce(drawn), prompt)
            yield Frame(tau, prediction, decided=tokens, prompt=prompt)


def denoised(
    p: Float[Tensor, "n m v"], z: Int[Tensor, "n m"], a: Tensor, c: Tensor
) -> Float[Tensor, "n m v"]:
    """Chances of the tokens at c, given those at a < c and the ratios p_w / p_z of noisy chances.

    (s_w / e - (1 - e) / (v e) sum s) (e 1(w = z) + (1 - e) / v) with s = p / p_z and e = a / c
    (SEDD, the Tweedie denoiser), normalised. Of p = a q + (1 - a) / v it is the posterior of
    `replace.transition` with q. Ratios that no law has would make the first factor negative; such
    tokens are not drawn.
    """
    e, z = a / c, z[..., None]
    even = (1 - e) / p.shape[-1]
    rows = (p - even).clamp(min=0)
    rows = (rows * even).scatter_add(-1, z, e * rows.gather(-1, z))
    return rows / rows.sum(-1, keepdim=True)


def sharper(
    p: Float[Tensor, "n m v"], a: Tensor, temperature: float, top_p: float
) -> Float[Tensor, "n m v"]:
    """Noisy chances a q + (1 - a) / v with q^(1/temperature) and its nucleus in the place of q."""
    import torch

    if temperature == 1 and top_p == 1:
        return p
    even = (1 - a) / p.shape[-1]
    if temperature == 0:
        q = torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
    else:
        known = (p - even).clamp(min=0).log()
        q = torch.softmax((known - known.amax(-1, keepdim=True)) / temperature, -1)
    return a * nucleus(q, top_p) + even
