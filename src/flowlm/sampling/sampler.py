"""Samplers are values: a way to write, its settings, and what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from flowlm import core
from flowlm.errors import Refusal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """A moment between noise and text."""

    tau: core.Time
    """Its time, by the clock of what is sampled."""
    prediction: core.TokenDistribution
    """What the network answers then, at all positions or at the one that is written next."""
    x: core.Point | None = None
    """The point where a flow is; None where tokens travel."""
    decided: Int[Tensor, "b l"] | None = None
    """Tokens, FREE where nothing is decided; None where the likeliest ones are read off."""
    prompt: Int[Tensor, "b l"] | None = None
    """Tokens that are given, FREE elsewhere; they stand in `decided` already."""

    def tokens(self) -> core.Tokens:
        """The text as it stands, (b, l); of the last frame, what is written."""
        if self.decided is not None:
            return self.decided
        return with_prompt(self.prediction.argmax(), self.prompt)

    def confidence(self) -> Float[Tensor, "b l"] | None:
        """Probability that the prediction gives to each token of `tokens()`.

        Where nothing is decided, that of the likeliest one; 1 at given tokens. None where the
        network answers for one position alone.
        """
        tokens = self.tokens()
        if self.prediction.shape != tokens.shape:
            return None
        likeliest = self.prediction.argmax()
        found = (-self.prediction.nll(likeliest.where(tokens < 0, tokens))).exp()
        return found if self.prompt is None else found.masked_fill(self.prompt >= 0, 1.0)


class Sampler(ABC):
    """A way to write with a trained network. A frozen dataclass: its fields are its settings.

    These files import no torch by themselves: experiments hold samplers, and help comes at once.
    """

    counts_steps: ClassVar[bool] = True
    """Whether the steps that are asked for change what is written."""
    all_steps: ClassVar[Literal["full", 1]] = "full"
    """Where they do not: whether it takes as many as a text has tokens, or one."""

    general: ClassVar[bool] = True
    """Whether it writes with all methods of its kind of sampler, not with one of them alone."""

    @property
    def draws(self) -> bool:
        """Whether it draws tokens, for which whole rows of probabilities exist in float64."""
        return True

    def evaluations(self, steps: int, length: int) -> int:
        """How often the network is evaluated to write `length` tokens in `steps` steps."""
        return steps

    def positions(self, length: int) -> int:
        """Positions of a sequence that the network reads in one evaluation."""
        return length

    @abstractmethod
    def frames(
        self, denoiser: Any, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[Frame]:
        """Write texts in `steps` steps; the tokens of the last frame are the answer.

        `denoiser` is what the method of the network gives this kind of sampler to ask. `prompt`
        (b, l) holds given tokens, FREE where the sampler writes; `rng` has one stream a sequence.
        """

    def nll(
        self, denoiser: Any, tokens: core.Tokens, steps: int, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """Nats per token whose sum bounds -log p(sequence) under this sampler in `steps` steps.

        An unbiased draw of the bound, from `steps` evaluations. None where the sampler has no
        likelihood: what travels without noise of its own, or ends at the likeliest tokens.
        """
        return None


def prompt_or_none(prompt: core.Tokens) -> core.Tokens | None:
    """The prompt; None where it gives no token."""
    return prompt if bool((prompt != core.FREE).any()) else None


def with_prompt(tokens: core.Tokens, prompt: Int[Tensor, "b l"] | None) -> core.Tokens:
    """The tokens, with the given ones of a prompt in their place."""
    return tokens if prompt is None else tokens.where(prompt == core.FREE, prompt)


def require_draws(temperature: float, top_p: float) -> None:
    """Refuse settings of draws that are none: 0 takes the likeliest token."""
    if not 0 <= temperature < float("inf"):
        raise Refusal(f"--sampler.temperature must be 0 or more, not {temperature}.")
    require_top_p(top_p)


def require_top_p(top_p: float) -> None:
    """Refuse a nucleus of no mass, or of more than all of it."""
    if not 0 < top_p <= 1:
        raise Refusal(f"--sampler.top-p must lie above 0 and up to 1, not {top_p}.")
