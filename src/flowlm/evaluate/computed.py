"""Computation of the measures. Torch is imported inside: who reads a report does without."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowlm.evaluate.measure import Pooled, Written

if TYPE_CHECKING:
    from torch import Tensor

    from flowlm.evaluate.judge import Scored


def valid(written: Written) -> Tensor | None:
    """Whether each text is right, of a task."""
    return written.valid


def novel(written: Written) -> Tensor | None:
    """Whether each text is valid and held out, of a task that has parts."""
    return None if written.task is None else written.task.novel(written.tokens)


def coverage(written: Written) -> float | None:
    """Share of all solutions that are among the texts."""
    # Of more solutions than these a share of next to nothing would be reached, whoever writes.
    task, valid, most = written.task, written.valid, 100 * len(written.tokens)
    if task is None or valid is None or (solutions := task.solutions) > most:
        return None
    return len(written.tokens.cpu()[valid].unique(dim=0)) / solutions


def nll(written: Written) -> Tensor | Pooled | None:
    """Nats per token, exact or under the judge."""
    from flowlm.evaluate.quality import noisy_channel_nll

    if written.task is not None and written.task.language is not None:
        return noisy_channel_nll(written.task.language, written.tokens)
    return None if (read := written.scored) is None else Pooled(read.nats, read.tokens)


def perplexity(written: Written) -> Pooled | None:
    """e to the nats per token under the judge."""
    read = written.scored
    return None if read is None else Pooled(read.nats, read.tokens, lambda nats: nats.exp())


def bits_per_byte(written: Written) -> Pooled | None:
    """Of the texts under the judge."""
    read = written.scored
    return None if read is None else Pooled(read.nats / math.log(2), read.bytes)


def of_both(compute: Callable[[Scored, Scored], float | None]) -> Callable[[Written], Any]:
    """A measure of generated and real texts as the judge reads them."""

    def computed(written: Written) -> float | None:
        if written.reader is None or (real := written.reader.real) is None:
            return None
        return None if (own := written.scored) is None else compute(own, real)

    return computed


def ranks(own: Scored, real: Scored) -> float:
    """Divergence of two histograms of ranks."""
    from flowlm.evaluate.ranks import rank_chi2

    return rank_chi2(own.ranks, real.ranks)


def mauve(own: Scored, real: Scored) -> float | None:
    """MAUVE of the judge's features."""
    from flowlm.evaluate.mauve import mauve

    return mauve(own.features, real.features)


def precision(own: Scored, real: Scored) -> float | None:
    """Generated texts near real ones."""
    from flowlm.evaluate.neighbours import covered

    return covered(own.features, real.features)


def recall(own: Scored, real: Scored) -> float | None:
    """Real texts near generated ones."""
    from flowlm.evaluate.neighbours import covered

    return covered(real.features, own.features)


def entropies(written: Written) -> Tensor:
    """Sample entropy of each text."""
    from flowlm.evaluate.diversity import entropies

    return entropies(written.tokens, written.stop)


def corpus_entropy(written: Written) -> float:
    """Entropy of all tokens together."""
    from flowlm.evaluate.diversity import corpus_entropy

    return corpus_entropy(written.tokens, written.stop)


def unique(written: Written) -> float:
    """Share of different texts."""
    from flowlm.evaluate.diversity import unique_share

    return unique_share(written.tokens)


def zipf(written: Written) -> float | None:
    """Minus the slope of log frequency over log rank."""
    from flowlm.evaluate.diversity import zipf

    return zipf(written.tokens, stop=written.stop)


def where_known(values: Tensor) -> Tensor | Pooled | None:
    """The same values without those that are nan, of texts that are too short to have one."""
    known = ~values.isnan()
    if bool(known.all()):
        return values
    return Pooled(values.nan_to_num(), known.double()) if bool(known.any()) else None


def self_bleu(written: Written) -> Tensor | Pooled | None:
    """Of each text against others."""
    from flowlm.evaluate.ngrams import self_bleu

    if min(written.tokens.shape) < 4:
        return None
    return where_known(self_bleu(written.tokens, written.stop))


def longest(written: Written) -> float | None:
    """The longest stretch that stands in the training text."""
    known = None if written.real is None else written.real.known
    return None if known is None else known.longest_run(written.tokens)
