"""What the two continuous methods share: a clock, an encoder and the space it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowlm import chunked, core, nn, sampling
from flowlm.errors import Refusal
from flowlm.methods.method import Method
from flowlm.nn.size import Size

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


PAPER = "https://arxiv.org/abs/2602.16813"

COLDEST = 1e-3
"""Of the temperatures of flows: a word that is 1 % likelier than another is certain there."""


def require_warmth(temperature: float) -> None:
    """Refuse a temperature at which logits are no longer numbers that a network can learn."""
    if not COLDEST <= temperature < float("inf"):
        raise Refusal(
            f"--method.temperature must be at least {COLDEST} and finite, not {temperature}."
        )


@dataclass(frozen=True)
class Continuous(Method, ABC):
    """A method whose state is a point of a Euclidean space."""

    encoder: Literal["projected", "linear", "posterior", "bayes"] = "projected"
    """projected and linear: the published x @ E, without or with the one-hot state; posterior: what
    each noisy row says of its token, without that state too; bayes: the same, and the row as
    evidence in the output, for text (docs/encoders.md)."""
    clock: Literal["decoding", "uniform"] = "decoding"
    """How time is spent: by decoding error (the paper), or uniformly."""

    def time(self, vocab: int) -> core.Clock:
        """The clock for a vocabulary."""
        return core.Decoding(vocab) if self.clock == "decoding" else core.Uniform()

    def space(self, model: nn.DiT) -> core.Space:
        """The space of the states that the model reads."""
        match self.encoder:
            case "projected":
                return model.encoder.derived(core.Projected)
            case "linear":
                return core.OneHot(model.vocab)
            case "posterior" | "bayes":
                return chunked.LazyOneHot(model.vocab)

    @property
    def in_strips(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the state is made of rows."""
        return self.encoder in ("posterior", "bayes")

    def require_size(self, size: Size) -> None:
        """Refuse a cap of what has no bound."""
        if self.encoder == "bayes" and size.output_cap is not None:
            raise Refusal(
                f"--size.output-cap {size.output_cap} does not go with --method.encoder bayes, "
                "whose evidence has no bound: give --size.output-cap None."
            )

    def shared(self) -> dict[str, object]:
        """The points of the student must be those that the teacher reads."""
        return {"--method.encoder": self.encoder, "--method.clock": self.clock}

    def build(self, size: Size, vocab: int, length: int) -> nn.DiT:
        """A new network."""
        self.require_size(size)
        match self.encoder:
            case "projected":
                encoder = nn.Projected(vocab, size.width)
            case "linear":
                encoder = nn.Linear(vocab, size.width)
            case "posterior":
                encoder = nn.Posterior(vocab, size.width, self.time(vocab).t)
            case "bayes":
                encoder = nn.Bayes(vocab, size.width, self.time(vocab).t)
        return nn.DiT(size, encoder, vocab, length, self.times)

    def prepare(self, network: nn.DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """The frequencies of tokens, where the encoder is a posterior."""
        if self.in_strips:
            network.set_prior(counts())

    def noisy(
        self, model: nn.DiT, tokens: core.Tokens, t: core.Time, rng: core.Streams
    ) -> core.Point:
        """x_t of the tokens, with fresh noise."""
        space = self.space(model)
        return core.interpolate(space.noise(rng, tokens.shape[1]), space.clean(tokens), t)

    @abstractmethod
    def denoise(self, model: nn.DiT, x: core.Point, tau: core.Time) -> core.TokenDistribution:
        """D_t at a point of clock time tau."""

    def cross_entropy_at(
        self, model: nn.DiT, batch: core.Batch, tau: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """-log D_t(x_t)[token], nats."""
        x = self.noisy(model, batch.tokens, self.time(model.vocab).t(tau), rng)
        return self.denoise(model, x, tau).nll(batch.tokens)

    def start(
        self, model: nn.DiT, prompt: core.Tokens, rng: core.Streams
    ) -> tuple[core.Point, Bool[Tensor, "b l"] | None]:
        """Noise with the given tokens at their place, and which tokens are given."""
        space = self.space(model)
        x = space.noise(rng, prompt.shape[1])
        pinned = prompt != core.FREE
        if not bool(pinned.any()):
            return x, None
        return space.clean(prompt.clamp(min=0)).where(pinned[..., None], x), pinned

    @abstractmethod
    def frames(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[sampling.Frame]:
        """Travel from noise to text; each frame has a point, its time and the prediction there."""

    def sample(
        self, model: nn.DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[core.Tokens]:
        """The likeliest tokens of every frame, with the given ones in their place."""
        for frame in self.frames(model, prompt, steps, rng):
            yield frame.prediction.argmax().where(prompt == core.FREE, prompt)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """None: the cross-entropy of a flow is not a bound on likelihood."""
        return None
