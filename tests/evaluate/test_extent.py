"""Texts that are rows of their own: what follows their end changes no figure."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from flowlm.core import Batch
from flowlm.evaluate.diversity import corpus_entropy, distinct, entropies, zipf
from flowlm.evaluate.energy import bigram_sketch
from flowlm.evaluate.extent import count_to_stop, ended
from flowlm.evaluate.likelihood import mean_nll
from flowlm.evaluate.ngrams import KnownText, repetition, self_bleu
from flowlm.evaluate.writers import controls

END = 1
TEXTS = [[2, 3, 2, 3, 4], [5, 6, 7, 5, 6, 7, 5, 6], [4, 4, 4, 4], [2, 3, 4, 5, 6, 7]]
LENGTH = 8
ROWS = torch.tensor([text + [END] * (LENGTH - len(text)) for text in TEXTS])


def test_behind_the_end_there_is_nothing() -> None:
    noisy = ROWS.clone()
    noisy[0, 6:], noisy[2, 5] = torch.tensor([3, 2]), 7
    assert torch.equal(ended(noisy, END), ROWS)
    assert ended(noisy, None) is noisy
    assert count_to_stop(noisy, END).tolist() == [6, 8, 5, 7]


def grams(text: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def entropy(counts: Counter) -> float:
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values())


def test_entropies_are_of_the_text() -> None:
    by_hand = [entropy(Counter(text)) for text in TEXTS]
    assert entropies(ROWS, END).tolist() == pytest.approx(by_hand)
    together = Counter(word for text in TEXTS for word in text)
    assert corpus_entropy(ROWS, END) == pytest.approx(entropy(together))
    flat = torch.tensor([[w for text in TEXTS for w in text]])
    assert zipf(ROWS, stop=END) == pytest.approx(zipf(flat))
    empty = torch.full((1, LENGTH), END)
    assert entropies(empty, END).tolist() == [0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_grams_are_of_the_text(n: int) -> None:
    each = [grams(text, n) for text in TEXTS]
    every = [g for of in each for g in of]
    assert distinct(ROWS, n, END) == pytest.approx(len({*every}) / len(every))
    by_hand = [1 - len({*of}) / len(of) for of in each]
    assert repetition(ROWS, n, END).tolist() == pytest.approx(by_hand)
    for text, row in zip(TEXTS, ROWS):
        whole = torch.tensor([text])
        assert repetition(whole, n).tolist() == pytest.approx(
            repetition(row[None], n, END).tolist()
        )


def test_a_text_without_n_grams_has_no_value() -> None:
    assert repetition(ROWS, 6, END).isnan().tolist() == [True, False, True, False]
    assert math.isnan(distinct(ROWS[2:3], 5, END))


def test_overlap_and_novelty_are_of_the_text() -> None:
    twice = torch.cat([ROWS, ROWS])
    assert self_bleu(twice, END).tolist() == pytest.approx([1] * 8)
    # Padding is no overlap: of two texts that share nothing it is 0, however much of it there is.
    apart = torch.tensor([[2, 3, 4, 5, 1, 1, 1, 1], [6, 7, 8, 9, 1, 1, 1, 1]])
    assert self_bleu(apart, END).tolist() == [0, 0]
    known = KnownText(np.array([*TEXTS[3], END, *TEXTS[0], END]), END)
    novelty = known.novelty(ROWS, 2)
    assert novelty is not None
    seen = {*grams(TEXTS[3], 2), *grams(TEXTS[0], 2)}
    by_hand = [np.mean([g not in seen for g in grams(text, 2)]) for text in TEXTS]
    assert novelty.tolist() == pytest.approx(by_hand)
    assert known.longest_run(ROWS[3:]) == 6


def test_pairs_begin_in_the_text() -> None:
    longer = torch.cat([ROWS, torch.full((4, 5), END)], 1)
    assert torch.equal(bigram_sketch(longer, END)[1:], bigram_sketch(
        torch.cat([ROWS, torch.full((4, 1), END)], 1), END
    )[1:])  # fmt: skip
    assert float(bigram_sketch(torch.full((1, 9), END), END).abs().sum()) == 0


def test_nats_are_per_token_of_the_text_and_its_end() -> None:
    def nll(batch: Batch, rng) -> torch.Tensor:
        return torch.where(batch.tokens == END, 0.5, 2.0)

    found = mean_nll(nll, Batch(ROWS, torch.ones(ROWS.shape)), sizes=count_to_stop(ROWS, END))
    assert found is not None
    text, padding = sum(map(len, TEXTS)), ROWS.numel() - sum(map(len, TEXTS))
    assert found.mean == pytest.approx((2 * text + 0.5 * padding) / 26)


def test_writers_without_a_model_write_texts_as_long() -> None:
    sizes = sorted((ROWS != END).sum(1).tolist())
    for name, texts in controls(ROWS, 0, END).items():
        behind = (texts == END).cummax(1).values
        assert bool((texts[behind] == END).all()), name
        assert sorted((texts != END).sum(1).tolist()) == sizes, name
