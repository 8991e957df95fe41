"""Texts longer than a network reads at once, in windows of which each begins in the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowlm.core.types import FREE, Tokens
from flowlm.errors import Refusal


@dataclass(frozen=True)
class Windows:
    """Windows of `length` tokens on a longer text.

    Of a window the first half stands already, and the network writes the rest. Windows lie at the
    same places in every text, so that a text does not depend on those beside it: one that is given
    whole is passed over.
    """

    length: int
    begin: int | None = None
    """The id at the first place of every window, where the model has learnt one."""
    end: int | None = None
    """The id at the last place; what a window has there is no part of the text."""

    def __post_init__(self) -> None:
        """Refuse windows without text."""
        if self.room < 2:
            raise Refusal(
                f"This model reads {self.length} tokens at once, too few to go on from: ask for "
                "texts of its own length."
            )

    @property
    def room(self) -> int:
        """Tokens of a window that are text."""
        return self.length - (self.begin is not None) - (self.end is not None)

    @property
    def stride(self) -> int:
        """Tokens that a window adds to those before it."""
        return self.room - self.room // 2

    def fill(self, given: Tokens, write: Callable[[Tokens, int], Tokens]) -> Tokens:
        """Texts (b, L) from given tokens, FREE elsewhere.

        `write` fills a window (b, l), and is told its number, from 0.
        """
        text = given.clone()
        head = int(self.begin is not None)
        number, first = 0, head
        while True:
            # The first window has its first token from the text: the prompt's, or the model's own.
            part = slice(first - head if number == 0 else first, first + self.room)
            own = text[:, part]
            if bool((own == FREE).any()):
                window = own.new_full((len(own), self.length), FREE)
                if self.begin is not None:
                    window[:, 0] = self.begin
                start = 0 if number == 0 else head
                window[:, start : start + own.shape[1]] = own
                text[:, part] = write(window, number)[:, start : start + own.shape[1]].to(own)
            if first + self.room >= text.shape[1]:
                return text
            number, first = number + 1, first + self.stride
