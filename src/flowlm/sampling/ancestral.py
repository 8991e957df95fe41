"""Ancestral sampling of masked diffusion: unmasking step by step (Sahoo et al. 2024, MDLM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.sampler import Frame, Sampler, require_draws


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
            reveal = rng.uniform(tokens.shape[1]) < core.reveal_probability(t[i], t[i + 1])
            # Whatever rounding says, nothing stays masked after the last step.
            reveal = reveal | (i == steps - 1)
            tokens = drawn.where((tokens == mask_id) & reveal, tokens)
            decided = tokens.where(tokens != mask_id, core.FREE)
            yield Frame(t[i].expand(len(tokens), 1), prediction, decided=decided)
