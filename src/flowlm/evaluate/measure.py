"""A measure of generated texts, and what it measures. This file imports no torch by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from flowlm.core.types import Tokens
    from flowlm.evaluate.judge import Reader, Scored
    from flowlm.evaluate.real import RealText
    from flowlm.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Written:
    """Texts that one sampler has written, and who can judge them."""

    tokens: Tokens
    task: Task | None = None
    """The task that they are to be of, if they are of one."""
    reader: Reader | None = None
    """A judge that scores them."""
    real: RealText | None = None
    """Texts to compare with, where some are at hand."""
    bound: Tensor | None = None
    """Nats per token of each held-out text, under the sampler in its number of steps."""
    evaluations: int | None = None
    """Of the network, for a text."""
    seconds: float | None = None
    """For a text."""
    stop: int | None = None
    """The id at which texts end that are rows of their own: from there on there is nothing else
    (`evaluate.extent.ended`), and none of it is measured."""

    @cached_property
    def valid(self) -> Tensor | None:
        """Whether each text is one of the task's (n,), decided once."""
        return None if self.task is None else self.task.valid(self.tokens)

    @cached_property
    def scored(self) -> Scored | None:
        """The texts as the judge reads them, once."""
        return None if self.reader is None else self.reader.judge.score(self.tokens)

    @cached_property
    def energies(self) -> dict[str, tuple[float, float] | None]:
        """Energy distances to real text with their p-values, by kind of features."""
        if self.real is None:
            return {}
        return {kind: self.real.energy(self.tokens, kind) for kind in ("hand", "bigram")}


@dataclass(frozen=True, eq=False)
class Pooled:
    """A ratio of sums over texts: nats to tokens, say. Its figure is `of(sum top / sum bottom)`."""

    top: Tensor
    """(n,)"""
    bottom: Tensor
    """(n,)"""
    of: Callable[[Tensor], Tensor] = lambda ratio: ratio


if TYPE_CHECKING:
    Value = float | Tensor | Pooled
else:
    Value = Any
"""A number, or a value of each text (n,) whose mean it is, or a ratio of sums over texts."""

Form = Literal["share", "nats", "number", "count", "seconds"]
"""How a value is written."""

Best = Literal["high", "low", "near", "near or low"]
"""Where the best value lies: high, low, near that of real text; or low where that is not known."""


@dataclass(frozen=True)
class Measure:
    """One figure of a row."""

    key: str
    """In report.json."""
    heading: str
    unit: str
    form: Form
    definition: str
    """A sentence for readers. `{judge}` stands for who judges, `{aim}` for real text."""
    compute: Callable[[Written], Value | None]
    """None where it does not apply."""
    best: Best | None = None
    """None where no value is better than another."""
    brief: bool = True
    """Whether it has a column where there is little room: on the console and a card."""
    chart: str | None = None
    """The sentence below its chart over steps; None for no chart."""
    of_texts: bool = True
    """Whether it is of texts, real ones too; else it says what they cost, or how many they are."""

    def plain(self, value: float | None) -> str:
        """The value for a console or a card."""
        if value is None or math.isnan(value):
            return "-"
        match self.form:
            case "share":
                # What is above 0 never reads as 0.
                return format(value, ".2%" if 0 < value < 0.1 else ".1%")
            case "nats":
                return f"{round(value, 3) + 0.0:.3f}"  # no -0.000
            case "number":
                return f"{value:.2f}" if abs(value) >= 1 else f"{round(value, 3) + 0.0:.3f}"
            case "count":
                return f"{round(value):,}"
            case "seconds":
                return f"{1000 * value:.2f} ms"


def figure(value: Value) -> float:
    """The number that stands in a table."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Pooled):
        return float(value.of(value.top.double().sum() / value.bottom.double().sum()))
    return float(value.double().mean())


def drawn(value: Tensor | Pooled, draws: int = 1000) -> Tensor:
    """The figure of `draws` bootstrap draws of the texts, the same draws for as many texts."""
    import torch

    count = len(value.top) if isinstance(value, Pooled) else len(value)
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randint(count, (draws, count), generator=rng)
    if isinstance(value, Pooled):
        top, bottom = (part.double()[chosen].sum(1) for part in (value.top, value.bottom))
        return value.of(top / bottom)
    return value.double()[chosen].mean(1)


def interval(draws: Tensor) -> list[float]:
    """95 % interval of a figure: percentiles of its bootstrap draws."""
    import torch

    return torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
