"""The common half of flows and flow maps: a clock, and an input with its space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from flowlm import core, nn
from flowlm.methods.bound import likelihood_bound
from flowlm.methods.input import Input, ProjectedInput
from flowlm.methods.method import Likelihood, Method
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

    likelihood: ClassVar[Likelihood] = "upper bound"
    likelihood_of: ClassVar[str] = "the stochastic sampler (Bridge) in the limit of many steps"
    samplers: ClassVar[type[Sampler]] = PointSampler

    input: Input = field(default_factory=ProjectedInput)
    """What the network reads: projected and linear are the published x @ E, without or with the
    one-hot state; posterior and bayes are for rows (docs/encoders.md)."""
    clock: Literal["decoding", "uniform"] = "decoding"
    """How time is spent: by decoding error (the paper), or uniformly."""

    def time(self, vocab: int) -> core.Clock:
        """The clock for a vocabulary."""
        return core.Decoding(vocab) if self.clock == "decoding" else core.Uniform()

    def space(self, model: nn.DiT) -> core.Space:
        """The space of the states that the model reads."""
        return self.input.space(model)

    @property
    def in_strips(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the state is made of rows."""
        return self.input.in_strips

    def require_size(self, size: Size) -> None:
        """Refuse what the input cannot have."""
        self.input.require_size(size)

    def shared(self) -> dict[str, object]:
        """The points of the student must be those that the teacher reads."""
        return {"--method.input": self.input, "--method.clock": self.clock}

    def build(self, size: Size, vocab: int, length: int) -> nn.DiT:
        """A new network."""
        self.require_size(size)
        encoder = self.input.encoder(vocab, size.width, self.time(vocab))
        return nn.DiT(size, encoder, vocab, length, self.times)

    def prepare(self, network: nn.DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """The frequencies of tokens, where the input wants them; a teacher's network has them."""
        if self.teacher is None:
            self.input.prepare(network, counts)

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
        self, model: nn.DiT, batch: core.Batch, rng: core.Streams, draws: int = 1
    ) -> Float[Tensor, "b l"]:
        """An unbiased draw of the bound on the likelihood of D_t (`methods.bound`)."""
        return likelihood_bound(self.denoiser(model), batch.tokens, rng, draws)
