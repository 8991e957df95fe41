"""The measures of generated texts: one list, which JSON, table, page, card and console read.

Add your own: `MEASURES["distinct_2"] = Measure(...)`. This file imports no torch by itself: a
report is read and rendered without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from flowlm.core.oracle import Language
    from flowlm.core.types import Tokens


@dataclass(frozen=True, eq=False)
class Written:
    """Texts that one sampler has written, and who can judge them."""

    tokens: Tokens
    language: Language | None = None
    """The language that they are to be of, where it is known exactly."""
    judge: Callable[[Tokens], float] | None = None
    """Nats per token of texts, by a model that has exact likelihoods."""
    evaluations: int | None = None
    """Of the network, for a text."""
    seconds: float | None = None
    """For a text."""


Form = Literal["share", "nats", "count", "seconds"]
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
    compute: Callable[[Written], float | None]
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
            case "count":
                return f"{round(value):,}"
            case "seconds":
                return f"{1000 * value:.2f} ms"


def figures(written: Written) -> dict[str, float]:
    """Every measure that applies, by key."""
    found = {key: measure.compute(written) for key, measure in MEASURES.items()}
    return {key: value for key, value in found.items() if value is not None}


def present(rows: list[Mapping[str, Any]], brief: bool = False) -> list[Measure]:
    """The measures that some row has; only the brief ones if there is little room."""
    return [
        measure
        for key, measure in MEASURES.items()
        if (measure.brief or not brief) and any(row.get(key) is not None for row in rows)
    ]


# What computes imports torch: inside, so that whoever reads a report does without.


def _valid(written: Written) -> float | None:
    from flowlm.evaluate.quality import valid_share

    return None if written.language is None else valid_share(written.language, written.tokens)


def _nll(written: Written) -> float | None:
    from flowlm.evaluate.quality import noisy_channel_nll

    if written.language is not None:
        return noisy_channel_nll(written.language, written.tokens)
    return None if written.judge is None else written.judge(written.tokens)


def _sample_entropy(written: Written) -> float:
    from flowlm.evaluate.diversity import sample_entropy

    return sample_entropy(written.tokens)


def _unique(written: Written) -> float:
    from flowlm.evaluate.diversity import unique_share

    return unique_share(written.tokens)


MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure(
            "valid", "Valid", "share", "share",
            "The share of texts that are sentences of the language, that is, to which it gives a "
            "positive probability. This is decided exactly, not by a model.",
            _valid, "high", chart="Valid texts, with 95 % intervals.",
        ),
        Measure(
            "nll", "NLL", "nats/token", "nats",
            "The negative log-likelihood per token, in nats, of the generated texts under {judge}. "
            "It is not the likelihood of the trained model. What {aim} scores is the aim; less is "
            "not better but narrower.",
            _nll, "near or low", chart="NLL per token.",
        ),
        Measure(
            "sample_entropy", "Entropy", "nats", "nats",
            "Sample entropy: the entropy, in nats, of the token frequencies within one text, "
            "averaged over texts. Repetition lowers it and buys a low NLL, so the two are one "
            "result: compare NLL at equal entropy.",
            _sample_entropy, "near",
            chart="Sample entropy: a low NLL counts only where this stays up.",
        ),
        Measure(
            "unique", "Unique", "share", "share",
            "Different texts as a share of all texts of the row.", _unique,
        ),
        Measure(
            "evaluations", "Evaluations", "per text", "count",
            "The forward passes of the network that one text costs.",
            lambda written: written.evaluations, brief=False, of_texts=False,
        ),
        Measure(
            "seconds", "Time", "per text", "seconds",
            "Wall-clock time of sampling, per text: that of a batch over its texts, the median of "
            "the batches of a row, after a warm-up.",
            lambda written: written.seconds, of_texts=False,
        ),
        Measure(
            "samples", "Texts", "judged", "count", "How many texts a row judges.",
            lambda written: len(written.tokens), brief=False, of_texts=False,
        ),
    )
}  # fmt: skip
"""By key, in the order in which they are shown."""
