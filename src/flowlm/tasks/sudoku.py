"""The 6 x 6 Sudoku task: full grids with boxes of two rows and three columns.

There are 28,200,960 of them: the 39,168 whose first row is 1 2 3 4 5 6, times 720 ways to name the
digits. So they are drawn evenly, and a grid is held out together with all that differ from it by
the names of the digits alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar

from flowlm.tasks.task import Part, Task, require_share

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from flowlm.core.rng import Streams
    from flowlm.core.types import Tokens
    from flowlm.tasks.split import Split

HIGH, WIDE = 2, 3
SIDE = HIGH * WIDE


@dataclass(frozen=True)
class Sudoku(Task):
    """Grids of 36 digits, row by row."""

    about: ClassVar[str] = "6 x 6 Sudoku grids"
    itself: ClassVar[str] = "All grids"

    share: float = 0.5
    """Share of the grids to learn from."""

    def require(self) -> None:
        """Refuse a share that is none."""
        require_share(self.share)

    @property
    def length(self) -> int:
        """Cells."""
        return SIDE * SIDE

    @property
    def words(self) -> tuple[str, ...]:
        """Digits."""
        return tuple(str(digit + 1) for digit in range(SIDE))

    def sample(self, rng: Streams, part: Part) -> Tokens:
        """Grids, evenly: one with the first row in order, its digits then named at random."""
        grid = first_row_in_order(HIGH, WIDE)[self._split.draw(rng, part)]
        names = rng.uniform(SIDE).cpu().argsort(1)
        return names.gather(1, grid)

    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether every row, column and box has each digit."""
        import torch

        grid = tokens.cpu().unflatten(1, (SIDE, SIDE))
        boxes = grid.unflatten(2, (-1, WIDE)).unflatten(1, (-1, HIGH)).transpose(2, 3).flatten(3)
        units = torch.cat([grid, grid.mT, boxes.flatten(1, 2)], 1)
        return (units.sort(2).values == torch.arange(SIDE)).flatten(1).all(1)

    def novel(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each is a grid that is held out."""
        tokens = tokens.cpu()
        valid = self.valid(tokens)
        # The first row names the digits; of an invalid text the names mean nothing.
        grid = tokens[:, :SIDE].argsort(1).gather(1, tokens)
        known = _numbers(first_row_in_order(HIGH, WIDE))
        return valid & self._split.held_out(known, _numbers(grid))

    @property
    def solutions(self) -> int:
        """28,200,960."""
        return self._split.count * math.factorial(SIDE)

    @property
    def entropy(self) -> float:
        """Nats per token of a grid drawn evenly."""
        return math.log(self.solutions) / self.length

    @property
    def marginals(self) -> Float[Tensor, "l v"]:
        """Every digit is as likely as any other, everywhere."""
        import torch

        return torch.full((self.length, SIDE), 1 / SIDE, dtype=torch.float64)

    @property
    def marginals_valid(self) -> float:
        """Grids among all texts."""
        return self.solutions / SIDE**self.length

    @property
    def _split(self) -> Split:
        return _split(self.share)


@cache
def first_row_in_order(high: int, wide: int) -> Int[Tensor, "n l"]:
    """Every grid with boxes of `high` rows and `wide` columns whose first row is 0, 1, 2, ..."""
    import torch

    side = high * wide
    rows = torch.tensor(list(permutations(range(side))))
    column = (rows[:, None] == rows).any(2)
    digits = torch.nn.functional.one_hot(rows, side).bool()
    stacks = digits.unflatten(1, (-1, wide)).any(2).flatten(1).float()
    box = stacks @ stacks.T > 0
    chosen = torch.zeros(1, 1, dtype=torch.long)
    for below in range(1, side):
        free = torch.ones(len(chosen), len(rows), dtype=torch.bool)
        for above in range(below):
            free &= ~column[chosen[:, above]]
            if above // high == below // high:
                free &= ~box[chosen[:, above]]
        which, row = free.nonzero(as_tuple=True)
        chosen = torch.cat([chosen[which], row[:, None]], 1)
    return rows[chosen].flatten(1)


def _numbers(grid: Int[Tensor, "b l"]) -> Int[Tensor, " b"]:
    """The rows but the first and the last, which follow from the others, as one number."""
    from flowlm.tasks.split import numbered

    return numbered(grid[:, SIDE:-SIDE], SIDE)


@cache
def _split(share: float) -> Split:
    from flowlm.tasks.split import Split

    return Split(len(first_row_in_order(HIGH, WIDE)), share)
