"""Texts to compare with in a report: real ones, and those of writers without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Tokens
from flowlm.evaluate.controls import draw_marginals
from flowlm.evaluate.judge import Reader
from flowlm.evaluate.measures import CHANCE, MEASURES, Written, figures, others
from flowlm.evaluate.ngrams import KnownText
from flowlm.evaluate.real import RealText
from flowlm.evaluate.writers import controls
from flowlm.run.inputs import Inputs
from flowlm.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Comparison:
    """Held-out texts in two halves, one to compare with the other, and training texts."""

    real: RealText
    others: Int[Tensor, "m l"]
    """Held-out texts again: what a perfect model would write."""
    training: Int[Tensor, "k l"]
    """Training texts, of which the controls are made."""
    task: Task | None = None

    def reference(self, readers: Sequence[Reader]) -> dict[str, Any]:
        """Figures of real text beside other real text."""
        found = self._measured(self.others, readers)
        if self.task is None:
            return {"method": "Real text"} | found
        return {"method": self.task.itself, "entropy": self.task.entropy} | found

    def controls(self, readers: Sequence[Reader], seed: int) -> list[dict[str, Any]]:
        """A row of figures for every control."""
        texts = controls(self.training, seed, self.real.stop)
        rows = []
        if self.task is not None:
            drawn = draw_marginals(self.task, Streams.of(seed, 3, count=len(self.training)))
            exact = {"valid": self.task.marginals_valid}
            found = self._measured(drawn, readers[:1])
            found.get("intervals", {}).pop("valid", None)
            rows.append({"method": CHANCE} | found | exact)
        return rows + [
            {"method": name} | self._measured(tokens, readers[:1]) for name, tokens in texts.items()
        ]

    def _measured(self, tokens: Tokens, readers: Sequence[Reader]) -> dict[str, Any]:
        written = Written(
            tokens, self.task, next(iter(readers), None), self.real, stop=self.real.stop
        )
        found = figures(written) | others(written, readers[1:])
        return {k: v for k, v in found.items() if k not in MEASURES or MEASURES[k].of_texts}


def of_task(task: Task, num: int, seed: int) -> Comparison:
    """`num` texts of a task in each part."""
    others, held_out = (task.sample(Streams.of(seed, k, count=num), "all") for k in (2, 4))
    training = task.sample(Streams.of(seed, 5, count=num), "learnt")
    return Comparison(RealText(held_out, None, task.tokenizer().decode), others, training, task)


def of_text(inputs: Inputs, num: int) -> Comparison | None:
    """Held-out and training texts, `num` in each part where there are as many; None of too few."""
    whole = unfilled(inputs.valid)
    held_out, others = whole[0::2][:num], whole[1::2][:num]
    if not len(others):
        return None
    training: list[Tokens] = []
    for step in count():
        batch = inputs.batches(step)
        training.append(batch.tokens[(batch.weight > 0).all(1)])
        if sum(map(len, training)) >= num or step >= num:
            break
    stop = inputs.tokenizer.stop
    known = None if inputs.text is None else KnownText(inputs.text, stop)
    texts = torch.cat(training)[:num]
    if not len(texts):
        return None
    return Comparison(RealText(held_out, known, inputs.tokenizer.decode, stop), others, texts)


def unfilled(texts: Batch) -> Tokens:
    """Those without filling."""
    return texts.tokens[(texts.weight > 0).all(1)]
