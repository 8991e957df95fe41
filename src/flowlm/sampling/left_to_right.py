"""Autoregressive sampling."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowlm import core
from flowlm.checks import require_fields
from flowlm.sampling.sampler import Frame, Sampler, require_draws

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class NextToken:
    """An autoregressive model, as its samplers ask it: the token after those that it has read."""

    predict: Callable[[core.Tokens], core.TokenDistribution]
    """Reads one new token a row, (b, 1), and remembers the ones before (a key-value cache)."""
    begin_id: int
    """The token that begins every sequence; its number is the size of the vocabulary."""
    whole: Callable[[core.Tokens], core.TokenDistribution]
    """Reads whole sequences (b, l), and answers at once for every token given those before it."""


class NextTokenSampler(Sampler, ABC):
    """A way to write with an autoregressive model."""


@dataclass(frozen=True)
class LeftToRight(NextTokenSampler):
    """One token an evaluation; given tokens are kept, and see only their left."""

    counts_steps: ClassVar[bool] = False

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the mass from which tokens are drawn (nucleus)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--sampler.")
        require_draws(self.temperature, self.top_p)

    def evaluations(self, steps: int, length: int) -> int:
        """One a token, whatever `steps` says."""
        return length

    def positions(self, length: int) -> int:
        """One: keys and values of those before are kept."""
        return 1

    def frames(
        self, denoiser: NextToken, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """The tokens after each evaluation, FREE where not yet written."""
        length = prompt.shape[1]
        tokens = prompt
        last = prompt.new_full((len(prompt), 1), denoiser.begin_id)
        for i, tau in enumerate(core.Uniform().grid(length, prompt.device)[:-1]):
            prediction = denoiser.predict(last)
            drawn = prediction.sample(rng, self.temperature, self.top_p)
            given = prompt[:, i : i + 1]
            last = drawn.where(given == core.FREE, given)
            tokens = tokens.clone()
            tokens[:, i : i + 1] = last
            yield Frame(tau.expand(len(tokens), 1), prediction, decided=tokens, prompt=prompt)

    def nll(
        self, denoiser: NextToken, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Exactly, a token at a time.

        None where tokens exist that are never drawn: of a nucleus, or the likeliest alone.
        """
        if self.top_p < 1 or self.temperature == 0:
            return None
        import torch  # not with the file: a recipe's options are shown without it

        last, paid = tokens.new_full((len(tokens), 1), denoiser.begin_id), []
        for own in tokens.split(1, 1):
            prediction = denoiser.predict(last).with_temperature(self.temperature)
            paid.append(prediction.nll(own))
            last = own
        return torch.cat(paid, 1)
