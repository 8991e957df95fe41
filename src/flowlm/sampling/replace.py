"""Ancestral sampling of uniform-state diffusion: all tokens may change in every step.

A token is kept with probability a and else drawn evenly from the vocabulary; a is this library's
time, 0 for noise and 1 for text (Schiff et al. 2024, UDLM; Sahoo et al. 2025, Duo).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.sampler import Frame, Sampler, require_draws, with_prompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

LATE = 1 - 1e-5
"""The time at which the network is asked for the likeliest text."""


@dataclass(frozen=True, eq=False)
class UniformDenoiser:
    """A uniform-state model, as its samplers ask it: clean tokens, given noisy ones and a time."""

    predict: Callable[[core.Tokens, core.Time], core.TokenDistribution]
    vocab: int


def replaced(tokens: core.Tokens, t: core.Time, vocab: int, rng: core.Streams) -> core.Tokens:
    """Each token kept with probability t, else drawn evenly from the vocabulary."""
    length = tokens.shape[1]
    other = (rng.uniform(length) * vocab).long().clamp(max=vocab - 1)
    return tokens.where(rng.uniform(length) < t, other)


def transition(
    p: Float[Tensor, "n m v"], z: Int[Tensor, "n m"], a: Tensor, c: Tensor
) -> Float[Tensor, "n m v"]:
    """Chances of the tokens at c, given those at a < c and clean tokens drawn from p.

    [v a p * z + (a/c - a) z + (c - a) p + (1 - a/c)(1 - c)/v] / [v a p_z + 1 - a]: the posterior
    q(z_c | z_a, x), with p in the place of a one-hot x (Duo). It is the exact one of a single token
    where p is what all other tokens say of it.
    """
    vocab, z = p.shape[-1], z[..., None]
    own = p.gather(-1, z)
    rows = (c - a) * p + (1 - a / c) * (1 - c) / vocab
    rows = rows.scatter_add(-1, z, vocab * a * own + (a / c - a))
    return rows / (vocab * a * own + 1 - a)


def nucleus(p: Float[Tensor, "n m v"], top_p: float) -> Float[Tensor, "n m v"]:
    """The fewest likeliest tokens whose mass reaches `top_p`, as a distribution."""
    if top_p == 1:
        return p
    kept = core.nucleus(p, top_p)
    return kept / kept.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Replace(Sampler):
    """Draw all tokens anew on an even grid of times, from what they are and what is predicted.

    A token that was wrong can become right later; tokens of one step are drawn independently.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the predicted mass that counts (nucleus). Temperature and nucleus are of what is
    predicted: the noise that a step leaves may still draw any token."""
    tail: Literal["draw", "posterior", "network"] = "draw"
    """The last step: a draw; the likeliest token of its posterior; or one evaluation more, the
    likeliest token of the network (the greedy tail of the paper, and of the released code)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def evaluations(self, steps: int, length: int) -> int:
        """One a step, and one for the network's own answer."""
        return steps + (self.tail == "network")

    def frames(
        self, denoiser: UniformDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each step."""
        import torch

        t = core.Uniform().grid(steps, prompt.device)
        tokens = replaced(prompt.clamp(min=0), t[0].expand(len(prompt), 1), denoiser.vocab, rng)
        tokens = with_prompt(tokens, prompt)
        for i in range(steps):
            tau = t[i].expand(len(tokens), 1)
            prediction = denoiser.predict(tokens, tau)
            u = rng.uniform(tokens.shape[1], dtype=torch.float64)
            last = i == steps - 1 and self.tail == "posterior"

            def drawn(
                logp: core.Probs, patch: core.Patch, z: Tensor = tokens, u: Tensor = u,
                a: Tensor = t[i], c: Tensor = t[i + 1], warmth: float = 0.0 if last else 1.0,
            ) -> Tensor:  # fmt: skip
                p = nucleus(logp.double().exp(), self.top_p)
                rows = transition(p, z[patch], a.double(), c.double())
                return core.draw_tokens(rows.log(), u[patch], warmth)

            tempered = prediction.with_temperature(self.temperature)
            tokens = with_prompt(tempered.reduce(drawn), prompt)
            yield Frame(tau, prediction, decided=tokens, prompt=prompt)
        if self.tail == "network":
            tau = torch.full((len(tokens), 1), LATE, device=tokens.device)
            prediction = denoiser.predict(tokens, tau)
            decided = with_prompt(prediction.argmax(), prompt)
            yield Frame(tau, prediction, decided=decided, prompt=prompt)

    def nll(
        self, denoiser: UniformDenoiser, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """The divergence of every step from that to the tokens themselves; of the last its draw.

        None where tokens exist that are never drawn.
        """
        import torch

        if self.top_p < 1 or self.temperature == 0 or self.tail != "draw":
            return None
        t = core.Uniform().grid(steps, tokens.device)
        total = t.new_zeros(tokens.shape)
        for i in range(steps):
            tau = t[i].expand(len(tokens), 1)
            noisy = replaced(tokens, tau, denoiser.vocab, rng)

            def divergence(
                logp: core.Probs, patch: core.Patch, z: Tensor = noisy, a: Tensor = t[i],
                c: Tensor = t[i + 1],
            ) -> Tensor:  # fmt: skip
                clean = torch.nn.functional.one_hot(tokens[patch], denoiser.vocab).double()
                a, c = a.double(), c.double()
                q = transition(clean, z[patch], a, c)
                p = transition(logp.double().exp(), z[patch], a, c)
                return (torch.special.xlogy(q, q) - torch.special.xlogy(q, p)).sum(-1)

            tempered = denoiser.predict(noisy, tau).with_temperature(self.temperature)
            total = total + tempered.reduce(divergence).to(total.dtype)
        return total
