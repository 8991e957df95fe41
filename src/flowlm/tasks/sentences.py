"""A language as a task: its sentences are drawn anew by their probability, all to learn from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowlm.tasks.task import Part, Task

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from flowlm.core.oracle import Language
    from flowlm.core.rng import Streams
    from flowlm.core.types import Tokens


@dataclass(frozen=True)
class Sentences(Task):
    """Sentences of a language of which everything is known."""

    @property
    @abstractmethod
    def language(self) -> Language:
        """The language."""

    @property
    def length(self) -> int:
        """Words of a sentence."""
        return self.language.length

    def sample(self, rng: Streams, part: Part) -> Tokens:
        """Sentences by their probability, whatever the part."""
        return self.language.sample(rng)

    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether the language gives each sentence a positive probability."""
        return self.language.valid(tokens)
