"""Ancestral sampling of masked diffusion: unmasking step by step (Sahoo et al. 2024, MDLM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, pi
from typing import TYPE_CHECKING, Literal

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.masking import mask, reveal_probability
from flowlm.sampling.sampler import Frame, Sampler, require_draws

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MaskedDenoiser:
    """A masked diffusion model, as its samplers ask it: clean tokens, given those not masked."""

    predict: Callable[..., core.TokenDistribution]
    """Of tokens (b, l), and of a number (b, 1) for each of its latents."""
    mask_id: int
    latents: int = 0
    """Numbers in [0, 1) that it reads besides: a mixture over them, one component a text."""

    def answer(self, tokens: core.Tokens, rng: core.Streams) -> core.TokenDistribution:
        """One evaluation, with fresh latents for every text."""
        return self.predict(tokens, *(rng.uniform(1) for _ in range(self.latents)))


@dataclass(frozen=True)
class Unmask(Sampler):
    """Reveal masked tokens on a grid of t; a token that is revealed stays.

    In random order each is revealed with probability (t' - t) / (1 - t). In order of confidence or
    of entropy a step reveals a number of tokens that is fixed beforehand, the surest first: the
    share t' of a text's free tokens is revealed after it, rounded, and at least one more than
    before, so that no evaluation is wasted while any is left.

    Tokens revealed in the same step are drawn independently of each other (of a mixture: given its
    latent), which is what breaks texts of few steps. In as many steps as there are free tokens an
    order reveals one at a time, and an exact network then writes exactly its language.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the mass from which tokens are drawn (nucleus)."""
    order: Literal["random", "confidence", "entropy"] = "random"
    """Which tokens come first: any; those whose likeliest token has the largest probability; or
    those of the least entropy. Both are of the prediction before temperature and nucleus, and of a
    place, not of what is drawn there; of equal places the first in the text comes first."""
    grid: Literal["even", "cosine"] = "even"
    """Times after a share r of the steps: r, or 1 - cos(pi r / 2), which starts with few tokens
    (Chang et al. 2022, MaskGIT)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def times(self, steps: int, device: str | torch.device = "cpu") -> Float[Tensor, " n"]:
        """`steps` + 1 times from 0 to 1."""
        r = core.Uniform().grid(steps, device)
        # As 2 sin(x)^2 it does not cancel near 0; at 1 rounding would leave it just below.
        return r if self.grid == "even" else (2 * (r * pi / 4).sin().square()).where(r < 1, 1.0)

    def frames(
        self, denoiser: MaskedDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each step, FREE where still masked."""
        mask_id = denoiser.mask_id
        tokens = prompt.where(prompt != core.FREE, mask_id)
        free = (tokens == mask_id).sum(-1, keepdim=True)
        t = self.times(steps, prompt.device)
        for i in range(steps):
            masked = tokens == mask_id
            prediction = denoiser.answer(tokens, rng)
            drawn = prediction.sample(rng, self.temperature, self.top_p)
            if self.order == "random":
                reveal = rng.uniform(tokens.shape[1]) < reveal_probability(t[i], t[i + 1])
            else:
                count = masked.sum(-1, keepdim=True) - free + revealed_after(i + 1, t[i + 1], free)
                reveal = surest(prediction, masked, count, self.order)
            # Whatever rounding says, nothing stays masked after the last step.
            reveal = reveal | (i == steps - 1)
            tokens = drawn.where(masked & reveal, tokens)
            decided = tokens.where(tokens != mask_id, core.FREE)
            yield Frame(t[i].expand(len(tokens), 1), prediction, decided=decided, prompt=prompt)

    def nll(
        self, denoiser: MaskedDenoiser, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Cost of the tokens that a step reveals, seen among those revealed before.

        With a latent, the cost at one that is drawn: no less in the mean than that of the mixture.
        None where tokens exist that are never drawn: of a nucleus, or the likeliest alone. None
        with an order, too: the bound is a mean over random masks, and those that an order leaves
        are not random.
        """
        if self.top_p < 1 or self.temperature == 0 or self.order != "random":
            return None
        t = self.times(steps, tokens.device)
        total = t.new_zeros(tokens.shape)
        for i in range(steps):
            noisy = mask(tokens, t[i].expand(len(tokens), 1), denoiser.mask_id, rng)
            answer = denoiser.answer(noisy, rng).with_temperature(self.temperature)
            paid = answer.nll(tokens)
            reveal = reveal_probability(t[i], t[i + 1])
            total = total + (reveal * paid).where(noisy == denoiser.mask_id, 0.0)
        return total


def revealed_after(step: int, t: Tensor, free: Int[Tensor, "b 1"]) -> Int[Tensor, "b 1"]:
    """How many of its `free` tokens a text has after a step that ends at t, in an order."""
    return (free * t + 0.5).long().maximum(free.clamp(max=step))


def surest(
    prediction: core.TokenDistribution,
    masked: Bool[Tensor, "b l"],
    count: Int[Tensor, "b 1"],
    order: Literal["confidence", "entropy"],
) -> Bool[Tensor, "b l"]:
    """The `count` masked tokens of each text of which the prediction is surest."""
    score = prediction.reduce(_largest if order == "confidence" else _negative_entropy)
    ranked = score.masked_fill(~masked, -inf).argsort(dim=-1, descending=True, stable=True)
    return masked & (ranked.argsort(-1) < count)


def _largest(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
    """log max p."""
    return logp.amax(-1)


def _negative_entropy(logp: core.Probs, patch: core.Patch) -> Float[Tensor, "n m"]:
    """sum p log p, nats, where 0 log 0 = 0."""
    import torch

    return -torch.special.entr(logp.exp()).sum(-1)
