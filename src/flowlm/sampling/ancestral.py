"""Ancestral sampling of masked diffusion: unmasking step by step (Sahoo et al. 2024, MDLM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.masking import mask, reveal_probability
from flowlm.sampling.sampler import Frame, Sampler, require_draws

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MaskedDenoiser:
    """A masked diffusion model, as its samplers ask it: clean tokens, given those not masked."""

    predict: Callable[[core.Tokens], core.TokenDistribution]
    mask_id: int


@dataclass(frozen=True)
class Unmask(Sampler):
    """Reveal masked tokens on an even grid of t, each with probability (t' - t) / (1 - t).

    A token that is revealed stays. Tokens revealed in the same step are drawn independently of each
    other, which is what breaks texts of few steps.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the mass from which tokens are drawn (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def frames(
        self, denoiser: MaskedDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each step, FREE where still masked."""
        mask_id = denoiser.mask_id
        tokens = prompt.where(prompt != core.FREE, mask_id)
        t = core.Uniform().grid(steps, prompt.device)
        for i in range(steps):
            prediction = denoiser.predict(tokens)
            drawn = prediction.sample(rng, self.temperature, self.top_p)
            reveal = rng.uniform(tokens.shape[1]) < reveal_probability(t[i], t[i + 1])
            # Whatever rounding says, nothing stays masked after the last step.
            reveal = reveal | (i == steps - 1)
            tokens = drawn.where((tokens == mask_id) & reveal, tokens)
            decided = tokens.where(tokens != mask_id, core.FREE)
            yield Frame(t[i].expand(len(tokens), 1), prediction, decided=decided)

    def nll(
        self, denoiser: MaskedDenoiser, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Cost of the tokens that a step reveals, seen among those revealed before.

        None where tokens exist that are never drawn: of a nucleus, or the likeliest alone.
        """
        if self.top_p < 1 or self.temperature == 0:
            return None
        t = core.Uniform().grid(steps, tokens.device)
        total = t.new_zeros(tokens.shape)
        for i in range(steps):
            noisy = mask(tokens, t[i].expand(len(tokens), 1), denoiser.mask_id, rng)
            paid = denoiser.predict(noisy).with_temperature(self.temperature).nll(tokens)
            reveal = reveal_probability(t[i], t[i + 1])
            total = total + (reveal * paid).where(noisy == denoiser.mask_id, 0.0)
        return total
