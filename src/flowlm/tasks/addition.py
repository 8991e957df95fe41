"""The addition task: strings such as 123+456=0579, which are to be true.

Both numbers are free, and the sum follows from both: tokens that are drawn without each other give
a true one once in ten thousand times. The longer a carry runs, the more tokens decide one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from flowlm.checks import whole
from flowlm.tasks.task import Part, Task, require_share

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    from flowlm.core.oracle import Automaton
    from flowlm.core.rng import Streams
    from flowlm.core.types import Tokens
    from flowlm.tasks.split import Split

WORDS = (*map(str, range(10)), "+", "=")
PLUS, EQUALS = WORDS.index("+"), WORDS.index("=")


@dataclass(frozen=True)
class Addition(Task):
    """Sums of two numbers without leading zeros, the sum with one digit more."""

    about: ClassVar[str] = "sums"
    itself: ClassVar[str] = "All sums"

    digits: int = 3
    """Of both numbers."""
    share: float = 0.9
    """Share of the pairs of numbers to learn from."""

    def require(self) -> None:
        """Refuse numbers that are too long to be listed."""
        whole("--data.digits", self.digits, 1, 3)
        require_share(self.share)

    @property
    def words(self) -> tuple[str, ...]:
        """Digits and signs."""
        return WORDS

    @property
    def length(self) -> int:
        """Tokens of a string."""
        return 3 * self.digits + 3

    @property
    def language(self) -> Automaton:
        """All true strings, equally likely."""
        return _language(self.digits)

    def sample(self, rng: Streams, part: Part) -> Tokens:
        """True strings, evenly."""
        return self.written(self._split.draw(rng, part))

    def written(self, pair: Int[Tensor, " b"]) -> Tokens:
        """The string of each pair of numbers, which are counted from 0."""
        import torch

        first, second = pair // self._numbers + self._least, pair % self._numbers + self._least
        plus = torch.full((len(pair), 1), PLUS)
        equals = torch.full((len(pair), 1), EQUALS)
        parts = [_spelt(first, self.digits), plus, _spelt(second, self.digits), equals]
        return torch.cat([*parts, _spelt(first + second, self.digits + 1)], 1)

    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each is a string of the task that is true."""
        pair = self._pair(tokens)
        return (pair >= 0) & (self.written(pair.clamp(min=0)) == tokens.cpu()).all(1)

    def novel(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each is a true string whose pair of numbers is held out."""
        return self.valid(tokens) & ~self._split.learnt[self._pair(tokens).clamp(min=0)]

    def groups(self, tokens: Tokens) -> tuple[tuple[str, ...], Int[Tensor, " b"]]:
        """By the longest run of carries that the two numbers make, whatever stands for the sum."""
        import torch

        n = self.digits
        first, second = tokens[:, :n].cpu(), tokens[:, n + 1 : 2 * n + 1].cpu()
        carry = run = longest = torch.zeros(len(tokens), dtype=torch.long)
        for place in reversed(range(n)):
            carry = (first[:, place] + second[:, place] + carry > 9).long()
            run = (run + 1) * carry
            longest = torch.maximum(longest, run)
        names = ("no carry", *(f"carries in a row: {k}" for k in range(1, n + 1)))
        return names, longest.where(self._pair(tokens) >= 0, -1)

    def _pair(self, tokens: Tokens) -> Int[Tensor, " b"]:
        """Which pair of numbers each string adds; -1 where it does not name two."""
        from flowlm.tasks.split import numbered

        n, least = self.digits, self._least
        tokens = tokens.cpu()
        digits = tokens[:, :n], tokens[:, n + 1 : 2 * n + 1]
        first, second = (numbered(part, 10) for part in digits)
        pair = (first - least) * self._numbers + second - least
        spelt = (digits[0] < 10).all(1) & (digits[1] < 10).all(1)
        return pair.where(spelt & (first >= least) & (second >= least), -1)

    @property
    def _least(self) -> int:
        return 10 ** (self.digits - 1)

    @property
    def _numbers(self) -> int:
        return 9 * self._least

    @property
    def _split(self) -> Split:
        return _split(self._numbers**2, self.share)


def _spelt(number: Int[Tensor, " b"], digits: int) -> Int[Tensor, "b d"]:
    import torch

    return number[:, None] // 10 ** torch.arange(digits - 1, -1, -1) % 10


@cache
def _language(digits: int) -> Automaton:
    """Reads the numbers from the left and remembers what their sum must still become."""
    import torch

    from flowlm.data.language import Slot, compiled

    def number(place: int) -> Slot:
        weight = 10 ** (digits - 1 - place)
        choices = range(0 if place else 1, 10)
        return lambda memory: [(str(d), (memory[0] + d * weight,)) for d in choices]

    def total(place: int) -> Slot:
        weight = 10 ** (digits - place)
        return lambda memory: [(str(memory[0] // weight), (memory[0] % weight,))]

    def sign(word: str) -> Slot:
        return lambda memory: [(word, memory)]

    numbers = [number(place) for place in range(digits)]
    slots = [*numbers, sign("+"), *numbers, sign("="), *map(total, range(digits + 1))]
    language, words = compiled(slots, (0,))
    ids = torch.tensor([WORDS.index(word) for word in words])
    return replace(language, token=ids[language.token])


@cache
def _split(count: int, share: float) -> Split:
    from flowlm.tasks.split import Split

    return Split(count, share)
