"""Inputs: what the network of a flow reads, and the space in which its points live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowlm import chunked, core, nn
from flowlm.errors import Refusal
from flowlm.nn.size import Size

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


class Input(ABC):
    """A space and the encoder that reads it. A frozen dataclass: its fields are its settings."""

    in_strips: ClassVar[bool] = False
    """Whether numbers per position and token exist a strip at a time before the head."""
    of_table: ClassVar[bool] = False
    """Whether points are made of the token table: then a student keeps that of its teacher."""

    @abstractmethod
    def space(self, network: nn.DiT) -> core.Space:
        """The space of the points that the network reads."""

    @abstractmethod
    def encoder(self, vocab: int, width: int, clock: core.Clock) -> nn.Encoder:
        """A new encoder of points, to features (b, l, width)."""

    def require_size(self, size: Size) -> None:
        """Refuse a size that this input cannot have."""

    def prepare(self, network: nn.DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """Put in place what the network knows before training, from the counts of tokens."""


@dataclass(frozen=True)
class ProjectedInput(Input):
    """x @ E as published, and the state carried as x @ E: no number per token of the vocabulary."""

    of_table: ClassVar[bool] = True

    def space(self, network: nn.DiT) -> core.Space:
        """The image of one-hot space under the network's table."""
        return network.encoder.derived(core.Projected)

    def encoder(self, vocab: int, width: int, clock: core.Clock) -> nn.Encoder:
        """The point itself."""
        return nn.Projected(vocab, width)


@dataclass(frozen=True)
class LinearInput(Input):
    """x @ E as published, with the one-hot state x (b, l, v) itself: for reference."""

    def space(self, network: nn.DiT) -> core.Space:
        """One-hot space, written out."""
        return core.OneHot(network.vocab)

    def encoder(self, vocab: int, width: int, clock: core.Clock) -> nn.Encoder:
        """x @ E."""
        return nn.Linear(vocab, width)


@dataclass(frozen=True)
class PosteriorInput(Input):
    """The posterior of each noisy row's token, without a state per token of the vocabulary."""

    in_strips: ClassVar[bool] = True

    def space(self, network: nn.DiT) -> core.Space:
        """One-hot space, a strip at a time."""
        return chunked.LazyOneHot(network.vocab)

    def encoder(self, vocab: int, width: int, clock: core.Clock) -> nn.Encoder:
        """Two views of the posterior."""
        return nn.Posterior(vocab, width, clock.t)

    def prepare(self, network: nn.DiT, counts: Callable[[], Int[Tensor, " v"]]) -> None:
        """The frequencies of tokens are the prior."""
        network.set_prior(counts())


@dataclass(frozen=True)
class BayesInput(PosteriorInput):
    """The same, and the row as evidence in the output: for text (docs/encoders.md)."""

    def encoder(self, vocab: int, width: int, clock: core.Clock) -> nn.Encoder:
        """The same views, and evidence."""
        return nn.Bayes(vocab, width, clock.t)

    def require_size(self, size: Size) -> None:
        """Refuse a cap: evidence has no bound."""
        if size.output_cap is not None:
            raise Refusal(
                f"--size.output-cap {size.output_cap} does not go with --method.input bayes, "
                "whose evidence has no bound: give --size.output-cap None."
            )
