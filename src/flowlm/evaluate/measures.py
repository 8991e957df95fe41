"""The measures of generated texts: one list, which JSON, table, page, card and console read.

Add your own: `MEASURES["stop_words"] = Measure(...)`. This file imports no torch by itself: a
report is read and rendered without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from statistics import stdev
from typing import TYPE_CHECKING, Any

from flowlm.evaluate import computed
from flowlm.evaluate.measure import Measure as Measure
from flowlm.evaluate.measure import Pooled, Value, drawn, figure, interval
from flowlm.evaluate.measure import Written as Written

if TYPE_CHECKING:
    from torch import Tensor

    from flowlm.evaluate.judge import Reader

INTERVALS = "intervals"
"""The key of a row under which the 95 % intervals of its figures stand, by their keys."""


SPREAD = "spread"
"""The key of a row under which standard deviations over seeds stand, by the keys of figures."""

CHANCE = "Tokens drawn independently"
"""The name of the control of a task."""

JUDGES = "judges"
"""The key of a row under which the figures of further judges stand, by their names."""

JUDGED = ("nll", "perplexity", "bits_per_byte", "rank_chi2", "mauve", "precision", "recall")
"""Keys of the figures for which a judge reads."""

KINDS = "kinds"
"""The key of a row under which its texts stand by kind, where a task has kinds."""


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Standard deviations of figures over rows of one sampler and several seeds."""
    shared = [key for key in MEASURES if all(key in row for row in rows)]
    return {key: stdev(row[key] for row in rows) for key in shared if MEASURES[key].of_texts}


def figures(written: Written) -> dict[str, Any]:
    """Every measure that applies, by key, and 95 % intervals of those that are means over texts."""
    return summed(values(written))


def values(written: Written) -> dict[str, Value]:
    """Every measure that applies, by key."""
    found = {key: measure.compute(written) for key, measure in MEASURES.items()}
    return {key: value for key, value in found.items() if value is not None}


def summed(measured: Mapping[str, Value]) -> dict[str, Any]:
    """The figures of `values`."""
    found = {key: figure(value) for key, value in measured.items()}
    intervals: dict[str, list[float]] = {}
    for key, value in measured.items():
        if isinstance(value, int | float):
            continue
        if bool((draws := drawn(value)).isfinite().all()):
            intervals[key] = interval(draws)
    return found | ({INTERVALS: intervals} if intervals else {})


def others(written: Written, readers: Sequence[Reader]) -> dict[str, Any]:
    """The figures of further judges, by their names, as the entry of a row; nothing of none."""
    found: dict[str, dict[str, Any]] = {}
    for reader in readers:
        seen = replace(written, task=None, reader=reader)
        measured = {key: MEASURES[key].compute(seen) for key in JUDGED}
        found[reader.judge.name] = summed({k: v for k, v in measured.items() if v is not None})
    return {JUDGES: found} if found else {}


def present(rows: list[Mapping[str, Any]], brief: bool = False) -> list[Measure]:
    """The measures that some row has; only the brief ones if there is little room."""
    return [
        measure
        for key, measure in MEASURES.items()
        if (measure.brief or not brief) and any(row.get(key) is not None for row in rows)
    ]


def _repetition(n: int) -> Measure:
    def compute(written: Written) -> Tensor | Pooled | None:
        from flowlm.evaluate.ngrams import repetition

        if written.tokens.shape[1] < n:
            return None
        return computed.where_known(repetition(written.tokens, n, written.stop))

    return Measure(
        f"rep_{n}", f"Rep-{n}", "share", "share",
        f"Repetition within a text: 1 less the share of different {n}-grams among all of the text, "
        "averaged over texts.",
        compute, "near", brief=False,
    )  # fmt: skip


def _distinct(n: int) -> Measure:
    def compute(written: Written) -> float | None:
        from flowlm.evaluate.diversity import distinct

        if written.tokens.shape[1] < n:
            return None
        share = distinct(written.tokens, n, written.stop)
        return None if isnan(share) else share

    return Measure(
        f"distinct_{n}", f"Distinct-{n}", "share", "share",
        f"Different {n}-grams as a share of all {n}-grams of the row. It falls with the number of "
        "texts: compare rows of equally many.",
        compute, "near", brief=False,
    )  # fmt: skip


def _novelty(n: int) -> Measure:
    def compute(written: Written) -> Tensor | Pooled | None:
        known = None if written.real is None else written.real.known
        share = None if known is None else known.novelty(written.tokens, n)
        return None if share is None else computed.where_known(share)

    return Measure(
        f"novel_{n}", f"New {n}-grams", "share", "share",
        f"Share of a text's {n}-grams that the training text has not, averaged over texts. "
        "Held-out text says how many are usual: with fewer a model copies.",
        compute, "near", brief=False,
    )  # fmt: skip


def _energy(kind: str, heading: str, about: str) -> tuple[Measure, Measure]:
    def distance(written: Written) -> float | None:
        return None if (both := written.energies.get(kind)) is None else both[0]

    def p(written: Written) -> float | None:
        return None if (both := written.energies.get(kind)) is None else both[1]

    return (
        Measure(
            f"energy_{kind}", heading, "distance", "number",
            f"The energy distance to held-out text on {about}; 0 for texts of the same kind, and a "
            "little around it by chance.",
            distance, "low", brief=kind == "hand",
        ),
        Measure(
            f"energy_{kind}_p", f"{heading}, p", "chance", "number",
            "The chance of such a distance between two random halves of both sets of texts: small "
            "where they are told apart.",
            p, "high", brief=False,
        ),
    )  # fmt: skip


MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        Measure(
            "valid", "Valid", "share", "share",
            "The share of texts that are right: sentences of the language, solutions of the task. "
            "This is decided exactly, not by a model.",
            computed.valid, "high", chart="Valid texts, with 95 % intervals.",
        ),
        Measure(
            "novel", "Novel", "share", "share",
            "The share of texts that are valid and were not to learn from.",
            computed.novel, "high",
        ),
        Measure(
            "coverage", "Coverage", "share", "share",
            "Different valid texts as a share of all that there are. It grows with the number of "
            "texts: compare rows of equally many, real text among them.",
            computed.coverage, "high",
        ),
        Measure(
            "nll", "NLL", "nats/token", "nats",
            "The negative log-likelihood per token, in nats, of the generated texts under {judge}. "
            "It is not the likelihood of the trained model. What {aim} scores is the aim; less is "
            "not better but narrower.",
            computed.nll, "near or low", chart="NLL per token.",
        ),
        Measure(
            "perplexity", "Gen. PPL", "", "number",
            "Generative perplexity: e to the NLL of all tokens together. No entropy, no meaning: "
            "repeated text has a low one.",
            computed.perplexity, "near", brief=False,
        ),
        Measure(
            "bits_per_byte", "Bits/byte", "bits", "number",
            "The negative log-likelihood of the texts under {judge}, in bits per byte: judges of "
            "different tokenizers compare.",
            computed.bits_per_byte, "near", brief=False,
        ),
        Measure(
            "sample_entropy", "Entropy", "nats", "nats",
            "Sample entropy: the entropy, in nats, of the token frequencies within one text, "
            "averaged over texts. Repetition lowers it and buys a low NLL, so the two are one "
            "result: compare NLL at equal entropy.",
            computed.entropies, "near",
            chart="Sample entropy: a low NLL counts only where this stays up.",
        ),
        Measure(
            "unique", "Unique", "share", "share",
            "Different texts as a share of all texts of the row.", computed.unique, brief=False,
        ),
        Measure(
            "corpus_entropy", "Corpus entropy", "nats", "nats",
            "The entropy, in nats, of the token frequencies of all texts together. It is low where "
            "all texts say the same.",
            computed.corpus_entropy, "near", brief=False,
        ),
        *map(_repetition, (1, 2, 3, 4)),
        *map(_distinct, (1, 2, 3, 4)),
        Measure(
            "self_bleu", "Self-BLEU", "share", "share",
            "BLEU-4 of a text against other texts of the row, averaged over texts: high where they "
            "share their phrases. Blind to the order of words within a row of word salad.",
            computed.self_bleu, "near", brief=False,
        ),
        Measure(
            "zipf", "Zipf", "exponent", "number",
            "Minus the slope of log frequency over log rank of the most frequent tokens. Only "
            "a truncated vocabulary shows in it.",
            computed.zipf, "near", brief=False,
        ),
        *map(_novelty, (4, 8, 16, 32)),
        Measure(
            "longest_run", "Longest copy", "tokens", "count",
            "The longest stretch of any text that stands in the training text token for token.",
            computed.longest, brief=False,
        ),
        *_energy(
            "hand", "Energy", "fourteen figures of a text that need no model: lengths of words and "
            "sentences, repetition, kinds of words and signs",
        ),
        *_energy("bigram", "Energy of bigrams", "hashed counts of neighbouring tokens"),
        Measure(
            "rank_chi2", "Ranks", "distance", "number",
            "How differently from real text the ranks of the next tokens under the judge are "
            "spread: chi squared of two histograms, 0 where they are alike.",
            computed.of_both(computed.ranks), "low", brief=False,
        ),
        Measure(
            "mauve", "MAUVE", "area", "number",
            "How much generated and real texts overlap in clusters of the judge's features, from 0 "
            "to 1. It depends on the number of texts and on the judge: compare with real text.",
            computed.of_both(computed.mauve), "high", brief=False,
        ),
        Measure(
            "precision", "Precision", "share", "share",
            "The share of generated texts among the nearest neighbours of a real one, in the "
            "judge's features.",
            computed.of_both(computed.precision), "high", brief=False,
        ),
        Measure(
            "recall", "Recall", "share", "share",
            "The share of real texts among the nearest neighbours of a generated one, in the "
            "judge's features.",
            computed.of_both(computed.recall), "high", brief=False,
        ),
        Measure(
            "bound", "Held-out", "nats/token", "nats",
            "Nats per token of held-out text under the very sampler of the row: an upper bound on "
            "its negative log-likelihood in this number of steps, exact from left to right. "
            "Samplers without noise of their own have none.",
            lambda written: written.bound, "low", brief=False, of_texts=False,
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
