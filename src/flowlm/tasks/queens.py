"""The n-queens task: n queens on a board of n times n, none of which attacks another.

Twelve queens have 14,200 solutions. So few can be listed: the exact posterior is one softmax over
the list, and all that is exact about a language is exact here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from flowlm.checks import whole
from flowlm.tasks.task import Part, Task, require_share

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from flowlm.core.oracle import Listed
    from flowlm.core.rng import Streams
    from flowlm.core.types import Tokens
    from flowlm.tasks.split import Split


@dataclass(frozen=True)
class Queens(Task):
    """Placements of queens: token i is the row of the queen in column i."""

    about: ClassVar[str] = "solutions of the queens puzzle"
    itself: ClassVar[str] = "All solutions"

    side: int = 12
    """Queens, and squares along a side of the board."""
    share: float = 0.5
    """Share of the solutions to learn from."""

    def require(self) -> None:
        """Refuse a board without two solutions, or with too many to list."""
        whole("--data.side", self.side, 4, 13)
        require_share(self.share)

    @property
    def length(self) -> int:
        """Columns."""
        return self.side

    @property
    def words(self) -> tuple[str, ...]:
        """Rows, counted from 1."""
        return tuple(str(row + 1) for row in range(self.side))

    @property
    def language(self) -> Listed:
        """All solutions, equally likely."""
        return _language(self.side)

    def sample(self, rng: Streams, part: Part) -> Tokens:
        """Solutions, evenly."""
        return self.language.sentences[self._split.draw(rng, part)]

    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether no queen attacks another."""
        return ~_attacked(tokens.cpu())

    def novel(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each is a solution that is held out."""
        from flowlm.tasks.split import numbered

        known = numbered(self.language.sentences, self.side)  # rising: they are listed in order
        return self._split.held_out(known, numbered(tokens.cpu(), self.side))

    @property
    def _split(self) -> Split:
        return _split(self.side, self.share)


def _attacked(tokens: Tokens) -> Bool[Tensor, " b"]:
    """Whether any two queens share a row or a diagonal."""
    import torch

    column = torch.arange(tokens.shape[1])
    apart = (column[:, None] - column).abs()
    rows = (tokens[:, :, None] - tokens[:, None]).abs()
    return (((rows == 0) | (rows == apart)) & (apart > 0)).any(2).any(1)


@cache
def _language(side: int) -> Listed:
    import torch

    from flowlm.core.oracle import Listed

    rows = torch.arange(side)
    placed = rows[:, None]
    for _ in range(1, side):
        longer = torch.cat(
            [placed.repeat_interleave(side, 0), rows.repeat(len(placed))[:, None]], 1
        )
        # The queens before do not attack each other: only the last can be wrong.
        back = torch.arange(longer.shape[1] - 1, 0, -1)
        apart = (longer[:, :-1] - longer[:, -1:]).abs()
        placed = longer[((apart != 0) & (apart != back)).all(1)]
    return Listed(side, side, placed)


@cache
def _split(side: int, share: float) -> Split:
    from flowlm.tasks.split import Split

    return Split(len(_language(side).sentences), share)
