"""What the two continuous methods share: a clock, an encoder and the space it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from flowlm import chunked, core, nn
from flowlm.errors import Refusal
from flowlm.methods.method import Method
from flowlm.nn.size import Size
from flowlm.sampling.point import Denoiser, PointSampler
from flowlm.sampling.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


PAPER = "https://arxiv.org/abs/2602.16813"


@dataclass(frozen=True)
class Continuous(Method, ABC):
    """A method whose state is a point of a Euclidean space."""

    samplers: ClassVar[type[Sampler]] = PointSampler

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

    @abstractmethod
    def two_time(self, model: nn.DiT, rng: core.Streams | None = None) -> core.TwoTimeDenoiser:
        """delta_{s,t} of a network, at clock times; `rng` is for dropout in training."""

    def denoiser(self, model: nn.DiT, rng: core.Streams | None = None) -> Denoiser:
        """The network, its space and its clock."""
        return Denoiser(self.two_time(model, rng), self.space(model), self.time(model.vocab))

    def cross_entropy_at(
        self, model: nn.DiT, batch: core.Batch, tau: core.Time, rng: core.Streams
    ) -> Float[Tensor, "b l"]:
        """-log D_t(x_t)[token], nats."""
        denoiser = self.denoiser(model)
        x = denoiser.noisy(batch.tokens, tau, rng)
        return denoiser.at(x, tau).nll(batch.tokens)

    def nll(
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams
    ) -> Float[Tensor, "b l"] | None:
        """None: the cross-entropy of a flow is not a bound on likelihood."""
        return None
