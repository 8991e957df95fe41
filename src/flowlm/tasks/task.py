"""A task: texts of one length that a program writes and checks. This file imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from flowlm.errors import Refusal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from flowlm.core.oracle import Language
    from flowlm.core.rng import Streams
    from flowlm.core.types import Tokens
    from flowlm.data.tokenizer import Tokenizer

Part = Literal["all", "learnt", "held out"]
"""Which texts: all of a task, those to learn from, or the rest. A task may learn from all."""


@dataclass(frozen=True)
class Task(ABC):
    """Data of an experiment of which everything can be checked. A kind is a frozen dataclass."""

    about: ClassVar[str]
    """Its texts, in a few words."""
    itself: ClassVar[str]
    """The name of a perfect writer's texts in a table."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens in a text."""

    @property
    @abstractmethod
    def words(self) -> tuple[str, ...]:
        """How its tokens are written, in the order of their ids."""

    @abstractmethod
    def sample(self, rng: Streams, part: Part) -> Tokens:
        """Texts drawn evenly from a part, one for each stream, (b, l)."""

    @abstractmethod
    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each text is one of the task's: decided exactly."""

    def novel(self, tokens: Tokens) -> Bool[Tensor, " b"] | None:
        """Whether each text is valid and not to learn from; None where all are to learn from."""
        return None

    def groups(self, tokens: Tokens) -> tuple[tuple[str, ...], Int[Tensor, " b"]] | None:
        """Names of kinds of texts and the kind of each (-1 for none), where kinds differ."""
        return None

    @property
    def language(self) -> Language | None:
        """The exact law of all its texts, where it can be computed with."""
        return None

    def require(self) -> None:
        """Refuse settings that make no task."""

    # --- what follows; a task without a language states it ----------------------------------------

    @property
    def vocab(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.words)

    @property
    def entropy(self) -> float:
        """Entropy of its texts, nats per token."""
        return self._known.entropy

    @property
    def solutions(self) -> int:
        """How many texts there are."""
        known = self._known
        return round(float(known.log_total(known.nothing).exp()))

    @property
    def marginals(self) -> Float[Tensor, "l v"]:
        """Probability of each token at each position."""
        return self._known.marginals

    @property
    def marginals_valid(self) -> float:
        """Share of valid texts where every token is drawn from its own marginal, exactly."""
        known = self._known
        return float(known.log_total(known.marginals[None]).exp())

    def tokenizer(self) -> Tokenizer:
        """Its words, with a space between."""
        from flowlm.data.tokenizer import Tokenizer

        return Tokenizer.words(self.words)

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of its settings and of what it draws."""
        from flowlm.core.rng import Streams

        digest = sha256(repr((self, self.words)).encode())
        for part in ("learnt", "held out"):
            digest.update(self.sample(Streams.of(0, count=64), part).numpy().tobytes())
        return digest.hexdigest()

    @property
    def _known(self) -> Language:
        assert self.language is not None
        return self.language


def require_share(share: float) -> None:
    """Refuse a share of the solutions that leaves nothing to learn from, or nothing held out."""
    if not 0 < share < 1:
        raise Refusal(
            "--data.share is the share of the solutions to learn from: choose one between 0 and 1, "
            "such as 0.5."
        )
