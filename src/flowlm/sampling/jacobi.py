"""Autoregressive sampling, all tokens at once: Jacobi sweeps with fixed Gumbel noise.

With noise g ~ Gumbel(0) that is drawn before, a text of an autoregressive model is a function of
it: y_i = argmax(z_i(y_<i) + T g_i), z the logits and T the temperature. A sweep y <- argmax(z(y) +
T g) is one pass over a whole text (Song et al. 2021; Santilli et al. 2023, with draws instead of
the likeliest tokens). After k sweeps at least the first k tokens are those of the function,
whatever the sweeps started with, and l of them write the text exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowlm import chunked, core
from flowlm.checks import require_fields
from flowlm.sampling.left_to_right import NextToken, NextTokenSampler
from flowlm.sampling.sampler import Frame, require_draws, with_prompt

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Jacobi(NextTokenSampler):
    """One sweep over all tokens a step; from as many steps as tokens on, the law of the model.

    Given tokens are kept, and see only their left, as from left to right. Sweeps stop after l, when
    nothing can change any more, and not before: texts that are done do not stop those that are not.
    `verify` tells when each is done.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, top_p=1.0)

    def evaluations(self, steps: int, length: int) -> int:
        """One a step, and no more than there are tokens."""
        return min(steps, length)

    def frames(
        self, denoiser: NextToken, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each sweep, of which the first k are exact after k."""
        noise = chunked.gumbel_noise(rng, prompt.shape[1], denoiser.begin_id)
        tokens = nothing_written(denoiser, prompt)
        count = self.evaluations(steps, prompt.shape[1])
        for tau in core.Uniform().grid(count, prompt.device)[:-1]:
            prediction = denoiser.whole(tokens)
            tokens = with_prompt(pick(prediction, noise, self.temperature), prompt)
            yield Frame(tau.expand(len(tokens), 1), prediction, decided=tokens, prompt=prompt)

    def nll(
        self, denoiser: NextToken, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Exactly, where the sweeps write exactly; the law of fewer is not known."""
        if steps < tokens.shape[1] or self.temperature == 0:
            return None
        return denoiser.whole(tokens).with_temperature(self.temperature).nll(tokens)


@dataclass(frozen=True, eq=False)
class Verified:
    """Texts that an autoregressive model writes, and how often it was asked."""

    tokens: core.Tokens
    passes: Int[Tensor, " b"]
    """Evaluations that each text took, the one that confirms it included."""


def verify(
    denoiser: NextToken,
    draft: core.Tokens,
    noise: chunked.LazyPoint,
    prompt: core.Tokens | None = None,
    temperature: float = 1.0,
) -> Verified:
    """The model's own texts with this noise, by sweeps that start with a draft, and their number.

    A pass judges all of a text: tokens up to the first that it changes, and that one, are the
    model's. A text is done when a pass leaves all but its last token; what comes after that leaves
    it too, so texts do not depend on those beside them. No draft is so bad that l passes do not do.
    """
    import torch  # not with the file: a recipe's options are shown without it

    tokens = with_prompt(draft, prompt)
    waiting = torch.ones(len(draft), dtype=torch.bool, device=draft.device)
    passes = waiting.new_zeros(len(draft), dtype=torch.long)
    for _ in range(draft.shape[1]):
        if not bool(waiting.any()):
            break
        passes += waiting
        after = with_prompt(pick(denoiser.whole(tokens), noise, temperature), prompt)
        waiting = waiting & (after != tokens)[:, :-1].any(1)
        tokens = after
    return Verified(tokens, passes)


def nothing_written(denoiser: NextToken, prompt: core.Tokens) -> core.Tokens:
    """The start of sweeps without a draft: the token that begins sequences, wherever it is free."""
    return prompt.where(prompt != core.FREE, denoiser.begin_id)


def pick(
    prediction: core.TokenDistribution, noise: chunked.LazyPoint, temperature: float
) -> core.Tokens:
    """argmax(z + T g) of every row: a draw from p^(1/T)."""
    import torch  # not with the file: a recipe's options are shown without it

    with torch.no_grad():
        return prediction.reduce(_picked, noise, temperature)


def _picked(
    logp: Float[Tensor, "n m v"], patch: core.Patch, noise: chunked.LazyPoint, temperature: float
) -> Int[Tensor, "n m"]:
    return (logp + temperature * noise.write(patch)).argmax(-1)
