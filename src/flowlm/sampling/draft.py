"""Writing in one evaluation from the Gumbel noise with which an autoregressive model would draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from flowlm import chunked, core
from flowlm.sampling.sampler import Frame, Sampler


@dataclass(frozen=True, eq=False)
class GumbelDenoiser:
    """A map from Gumbel noise to text, as its sampler asks it."""

    predict: Callable[[chunked.LazyPoint], core.TokenDistribution]
    """Reads rows of noise, (b, l, v)."""
    vocab: int


@dataclass(frozen=True)
class Draft(Sampler):
    """The likeliest tokens, all at once. Given tokens are put in their place, and not read.

    The randomness is in the noise alone, and the text may stand as it is, or be the draft of the
    autoregressive model whose noise it is (`jacobi.verify`).
    """

    counts_steps: ClassVar[bool] = False
    all_steps: ClassVar[Literal["full", 1]] = 1

    @property
    def draws(self) -> bool:
        """No token is drawn."""
        return False

    def evaluations(self, steps: int, length: int) -> int:
        """One, whatever `steps` says."""
        return 1

    def frames(
        self, denoiser: GumbelDenoiser, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The one answer to fresh noise."""
        noise = chunked.gumbel_noise(rng, prompt.shape[1], denoiser.vocab)
        tau = core.Uniform().grid(1, prompt.device)[0]
        yield Frame(tau.expand(len(prompt), 1), denoiser.predict(noise), prompt=prompt)
