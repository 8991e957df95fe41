"""The suite of measures of text: against closed forms, naive definitions and sacrebleu."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from flowlm.evaluate import energy, ngrams
from flowlm.evaluate.diversity import corpus_entropy, zipf
from flowlm.evaluate.measure import drawn, interval
from flowlm.evaluate.measures import Written, figures
from flowlm.evaluate.ngrams import KnownText, repetition, self_bleu
from flowlm.evaluate.real import RealText
from flowlm.evaluate.report import render
from flowlm.evaluate.writers import WRITERS, controls


def texts(count: int, length: int, vocab: int, seed: int = 0) -> torch.Tensor:
    """Tokens with frequencies like those of text."""
    weights = 1 / torch.arange(1, vocab + 1.0)
    rng = torch.Generator().manual_seed(seed)
    return torch.multinomial(weights, count * length, True, generator=rng).view(count, length)


def grams(row: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


# --- n-grams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_repetition_by_counting(n: int) -> None:
    tokens = texts(20, 30, 12)
    wanted = [1 - len({*grams(row, n)}) / (31 - n) for row in tokens.tolist()]
    assert torch.allclose(repetition(tokens, n), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("count", [3, 60])
def test_self_bleu_is_that_of_sacrebleu(count: int) -> None:
    tokens = texts(count, 24, 8)
    metric = BLEU(tokenize="none", smooth_method="none", effective_order=False, force=True)
    words = [" ".join(map(str, row)) for row in tokens.tolist()]
    others = min(ngrams.REFERENCES, count - 1)
    wanted = [
        metric.sentence_score(text, [words[(i + k) % count] for k in range(1, others + 1)]).score
        for i, text in enumerate(words)
    ]
    assert self_bleu(tokens).numpy() == pytest.approx(np.array(wanted) / 100, abs=1e-9)


def test_a_text_that_is_there_twice_has_self_bleu_1() -> None:
    one = texts(1, 20, 50)
    assert torch.equal(self_bleu(one.repeat(3, 1)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("n", ngrams.LENGTHS)
def test_novelty_by_looking(n: int) -> None:
    training, tokens = texts(1, 3000, 30, 1)[0], texts(10, 60, 30, 2)
    tokens[3, 5:50] = training[100:145]
    known = {*grams(training.tolist(), n)}
    wanted = [
        sum(gram not in known for gram in grams(row, n)) / (61 - n) for row in tokens.tolist()
    ]
    found = KnownText(training.numpy()).novelty(tokens, n)
    assert found is not None
    assert found.tolist() == pytest.approx(wanted)


def test_the_longest_copy_is_found() -> None:
    training, tokens = texts(1, 2000, 3000, 1)[0], texts(6, 40, 3000, 2) + 5000
    known = KnownText(training.numpy())
    assert known.longest_run(tokens) == 0
    for length in (1, 7, 23, 40):
        tokens[2, :length] = training[300 : 300 + length]
        assert known.longest_run(tokens) == length


def test_a_long_text_is_known_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "INDEXED", 256 * 8)
    text = np.arange(100_000)
    known = KnownText(text).text
    assert len(known) == 256 * 8
    assert (known[0], known[-1]) == (0, 99_999)
    assert (np.diff(known.reshape(256, 8)) == 1).all()


# --- diversity ------------------------------------------------------------------------------------


def test_corpus_entropy_sees_that_all_texts_are_one() -> None:
    tokens = torch.arange(8).repeat(5, 1)
    assert corpus_entropy(tokens) == pytest.approx(math.log(8))
    apart = torch.arange(40).view(5, 8)
    assert corpus_entropy(apart) == pytest.approx(math.log(40))
    counts = Counter(texts(5, 50, 20).flatten().tolist())
    wanted = -sum(c / 250 * math.log(c / 250) for c in counts.values())
    assert corpus_entropy(texts(5, 50, 20)) == pytest.approx(wanted)


def test_zipf_of_a_power_law_is_its_exponent() -> None:
    counts = (1e6 / np.arange(1, 201.0) ** 0.8).round().astype(int)
    tokens = torch.from_numpy(np.repeat(np.arange(200), counts))[None]
    assert zipf(tokens) == pytest.approx(0.8, abs=1e-3)
    assert zipf(torch.zeros(2, 3).long()) is None


# --- energy ---------------------------------------------------------------------------------------


def test_the_energy_distance_of_two_normals() -> None:
    """E|Z| of N(m, 2) is 2/sqrt(pi) exp(-m^2/4) + m (2 Phi(m/sqrt 2) - 1)."""
    rng = torch.Generator().manual_seed(3)
    n, m = 4000, 1.3
    x = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    y = torch.randn(n, 1, generator=rng, dtype=torch.float64) + m

    def mean(shift: float) -> float:
        tail = math.erf(shift / 2)
        return 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * tail

    wanted = 2 * mean(m) - 2 * mean(0)
    assert energy.energy_distance(x, y)[0] == pytest.approx(wanted, abs=0.06)
    alike, _ = energy.energy_distance(x[: n // 2], x[n // 2 :])
    assert abs(alike) < 0.01


def test_the_energy_distance_by_its_definition() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)

    def mean(pairs) -> float:
        return float(torch.stack([(a - b).norm() for a, b in pairs]).mean())

    across = mean(itertools.product(x, y))
    within = (mean(itertools.combinations(z, 2)) for z in (x, y))
    assert energy.energy_distance(x, y)[0] == pytest.approx(2 * across - sum(within))


def test_p_is_even_for_texts_of_one_kind_and_small_for_two() -> None:
    found = []
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 30, 4, generator=rng)
        found.append(energy.energy_distance(x, y)[1])
    assert 0.25 < np.mean(found) < 0.75
    assert min(found) < 0.3 < 0.7 < max(found)
    assert energy.energy_distance(x, y + 2)[1] == pytest.approx(1 / (energy.PERMUTATIONS + 1))


def test_a_sketch_counts_pairs_in_their_order() -> None:
    tokens = texts(4, 30, 100)
    sketch = energy.bigram_sketch(tokens)
    assert torch.equal(sketch.abs().sum(1) <= 29, torch.ones(4, dtype=torch.bool))
    assert not torch.equal(sketch, energy.bigram_sketch(tokens.flip(1)))
    one = energy.bigram_sketch(torch.tensor([[3, 9]]))
    assert one.abs().sum() == 1


def test_features_of_a_sentence_by_hand() -> None:
    text = "The cat, the old cat sat. And 7 dogs dogs ran!"
    (found,) = energy.hand_features([text], frozenset({"the", "cat"})).tolist()
    words = [
        "The",
        "cat",
        ",",
        "the",
        "old",
        "cat",
        "sat",
        ".",
        "And",
        "7",
        "dogs",
        "dogs",
        "ran",
        "!",
    ]
    sizes = np.array([len(w) for w in words])
    n = len(words)
    assert found[:2] == pytest.approx([sizes.mean(), sizes.std()])
    assert found[2] == pytest.approx(len({w.lower() for w in words}) / n)
    stops, links, signs, commas, ends, single, digits = 2, 1, 3, 1, 1, 4, 1
    wanted = np.array([stops, links, signs, commas, ends, single, digits]) / n
    assert found[3:10] == pytest.approx(wanted)
    assert found[10:12] == pytest.approx([np.mean([8, 6, 0]), np.std([8, 6, 0])])
    assert found[12:] == pytest.approx([1 / n, (n - 4) / n])
    assert energy.hand_features([""], frozenset()).tolist() == [[0.0] * 14]


# --- controls -------------------------------------------------------------------------------------


def test_controls_are_what_they_say() -> None:
    training = texts(200, 24, 300)
    made = controls(training, 0)
    assert made.keys() == WRITERS.keys()
    for tokens in made.values():
        assert tokens.shape == training.shape
        assert {*tokens.flatten().tolist()} <= {*training.flatten().tolist()}
    unigram, frequent, periodic, mirror, phrases, shuffled, resampled = made.values()
    assert len(frequent.unique()) == 32
    assert torch.equal(mirror[:, :12], mirror[:, 12:])
    assert torch.equal(mirror[:, :12], training[:, :12])
    assert torch.equal(shuffled.sort(1).values, training.sort(1).values)
    assert not torch.equal(shuffled, training)
    changed = float((resampled != training).double().mean())
    assert 0.12 < changed < 0.2
    following = {(a, b) for row in periodic.tolist() for a, b in itertools.pairwise(row)}
    assert len(following) == 64
    bank = {tuple(part) for row in phrases.view(-1, 4).tolist() for part in [row]}
    assert bank <= {tuple(gram) for row in training.tolist() for gram in grams(row, 4)}
    assert len(unigram.unique(dim=0)) == 200


def test_every_control_is_caught_without_a_model() -> None:
    """By what needs no network: texts in which words follow by rule, unlike any control's."""
    rng = np.random.default_rng(0)
    follows = rng.integers(0, 400, (400, 3))

    def written(seed: int, count: int = 300) -> torch.Tensor:
        own = np.random.default_rng(seed)
        rows = np.zeros((count, 48), int)
        rows[:, 0] = own.integers(0, 400, count)
        for i in range(1, 48):
            pick = np.minimum(own.geometric(0.5, count) - 1, 2)
            rows[:, i] = follows[rows[:, i - 1], pick]
        return torch.from_numpy(rows)

    training = written(1, 2000)
    known = KnownText(training.flatten().numpy())
    real = RealText(written(2), known, lambda ids: " ".join(f"w{i}" for i in ids))
    keys = ("energy_hand", "energy_bigram", "rep_2", "self_bleu", "novel_4", "distinct_2")

    def far(tokens: torch.Tensor) -> dict[str, float]:
        found = figures(Written(tokens, real=real))
        return {key: abs(found[key] - base[key]) for key in keys}

    base = figures(Written(real.held_out, real=real))
    others = [far(written(seed)) for seed in (3, 4, 5)]
    usual = {key: max(other[key] for other in others) for key in keys}
    for name, tokens in controls(training[:300], 0).items():
        caught = [key for key, value in far(tokens).items() if value > 3 * usual[key]]
        assert caught, name


# --- intervals and the page -----------------------------------------------------------------------


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        low, high = interval(drawn(torch.randn(60, generator=rng), draws=200))
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_figure_that_a_control_reaches_is_grey() -> None:
    rows = [
        {"method": "FLM", "steps": 1, "rep_2": 0.30, "energy_hand": 2.0},
        {"method": "FLM", "steps": 2, "rep_2": 0.05, "energy_hand": 0.5},
    ]
    page = render(
        {
            "title": "T",
            "summary": "S.",
            "rows": rows,
            "judge": "J",
            "reference": {"rep_2": 0.02, "energy_hand": 0.0},
            "controls": [{"method": "C", "rep_2": 0.0, "energy_hand": 1.0}],
        }
    )
    assert page.count('class="grey"') == 3  # both of Rep-2, and the far one of energy
    assert "a writer without a model" in page
