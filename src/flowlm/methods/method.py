"""The seam between mathematics and machinery: what every method answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from flowlm import core
from flowlm.nn.size import Size

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from flowlm.nn import DiT


class Method(ABC):
    """A way to model text. A frozen dataclass: its fields are its configuration.

    This file and its siblings import no torch by themselves, so that the command line can show a
    recipe's options at once.
    """

    label: ClassVar[str]
    """Its name in tables, plots and cards."""
    about: ClassVar[str]
    """What it is, in a sentence of Markdown, for a card."""
    likelihood: ClassVar[Literal["exact", "upper bound"] | None]
    """What `nll` is; None where it is None."""
    counts_steps: ClassVar[bool] = True
    """Whether the steps that are asked for change what is written; else they are its tokens."""

    def evaluations(self, steps: int, length: int) -> int:
        """How often the network is evaluated to write a text of `length` tokens in `steps`."""
        return steps

    @abstractmethod
    def network(self, size: Size, vocab: int, length: int, teacher: DiT | None = None) -> DiT:
        """A new network, started from the teacher's weights where the method distils one."""

    @abstractmethod
    def loss(
        self, model: DiT, batch: core.Batch, rng: core.Streams, teacher: DiT | None = None
    ) -> core.Loss:
        """What the model pays for a batch, token by token. `rng` has one stream per text."""

    @abstractmethod
    def sample(
        self, model: DiT, prompt: core.Tokens, steps: int, rng: core.Streams
    ) -> Iterator[core.Tokens]:
        """Write texts in `steps` steps; the last item is the answer.

        `prompt` (b, l) holds given tokens and FREE elsewhere. The items before the last are the
        film; they hold FREE where nothing is decided yet.
        """

    @abstractmethod
    def nll(self, model: DiT, batch: core.Batch, rng: core.Streams) -> Float[Tensor, "b l"] | None:
        """Nats per token whose sum bounds -log p(text) from above; None where no bound is known."""
