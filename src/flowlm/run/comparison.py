"""Texts to compare with in a report: real ones, and those of writers without a model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from flowlm.core.oracle import Language
from flowlm.core.rng import Streams
from flowlm.core.types import Batch, Tokens
from flowlm.data.language import demo_language
from flowlm.data.tokenizer import Tokenizer
from flowlm.evaluate.controls import draw_marginals, marginals_valid
from flowlm.evaluate.measures import MEASURES, Written, figures
from flowlm.evaluate.ngrams import KnownText
from flowlm.evaluate.real import RealText
from flowlm.evaluate.writers import controls
from flowlm.run.assess import Judge
from flowlm.run.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Comparison:
    """Held-out texts in two halves, one to compare with the other, and training texts."""

    real: RealText
    others: Int[Tensor, "m l"]
    """Held-out texts again: what a perfect model would write."""
    training: Int[Tensor, "k l"]
    """Training texts, of which the controls are made."""
    language: Language | None = None

    def reference(self, judge: Judge | None) -> dict[str, Any]:
        """Figures of real text beside other real text."""
        found = self._measured(self.others, judge)
        return found if self.language is None else {"entropy": self.language.entropy} | found

    def controls(self, judge: Judge | None, seed: int) -> list[dict[str, Any]]:
        """A row of figures for every control."""
        texts = controls(self.training, seed)
        rows = []
        if self.language is not None:
            drawn = draw_marginals(self.language, Streams.of(seed, 3, count=len(self.training)))
            exact = {"valid": marginals_valid(self.language)}
            found = self._measured(drawn, judge)
            found.get("intervals", {}).pop("valid", None)
            rows.append({"method": "Words drawn independently"} | found | exact)
        return rows + [
            {"method": name} | self._measured(tokens, judge) for name, tokens in texts.items()
        ]

    def _measured(self, tokens: Tokens, judge: Judge | None) -> dict[str, Any]:
        found = figures(Written(tokens, self.language, judge, self.real))
        return {k: v for k, v in found.items() if k not in MEASURES or MEASURES[k].of_texts}


def of_language(num: int, seed: int, tokenizer: Tokenizer) -> Comparison:
    """`num` sentences of the demo's language in each part."""
    language, _ = demo_language()
    others, held_out, training = (
        language.sample(Streams.of(seed, part, count=num)) for part in (2, 4, 5)
    )
    return Comparison(RealText(held_out, None, tokenizer.decode), others, training, language)


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
    known = None if inputs.text is None else KnownText(inputs.text)
    texts = torch.cat(training)[:num]
    if not len(texts):
        return None
    return Comparison(RealText(held_out, known, inputs.tokenizer.decode), others, texts)


def unfilled(texts: Batch) -> Tokens:
    """Those without filling."""
    return texts.tokens[(texts.weight > 0).all(1)]
