"""What is measured, against definitions written out naively; and the demo's language itself."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlm.core import Batch, Language, Streams
from flowlm.data import language as module
from flowlm.data.language import demo_language
from flowlm.evaluate.controls import draw_marginals
from flowlm.evaluate.diversity import distinct, sample_entropy, unique_share
from flowlm.evaluate.judge import Judge, Reader, Scored
from flowlm.evaluate.likelihood import mean_nll
from flowlm.evaluate.measures import MEASURES, Written, figures, present
from flowlm.evaluate.ngrams import KnownText
from flowlm.evaluate.quality import FLIP_PROBABILITY, noisy_channel_nll
from flowlm.evaluate.real import RealText
from flowlm.evaluate.report import render
from flowlm.tasks.drawn import Drawn
from flowlm.tasks.generated import Generated
from writing import Spoken

TOKENS = st.tuples(st.integers(1, 6), st.integers(3, 12)).flatmap(
    lambda shape: arrays.arrays(np.int64, shape, elements=st.integers(0, 4))
)

# --- diversity ----------------------------------------------------------------------------------


@given(TOKENS)
def test_sample_entropy_is_that_of_token_frequencies_in_a_text(tokens: np.ndarray) -> None:
    def entropy(row: list[int]) -> float:
        shares = [count / len(row) for count in Counter(row).values()]
        return -sum(share * math.log(share) for share in shares)

    expected = sum(entropy(row) for row in tokens.tolist()) / len(tokens)
    assert sample_entropy(torch.from_numpy(tokens)) == pytest.approx(expected, abs=1e-12)


@given(TOKENS)
def test_unique_share_counts_different_texts(tokens: np.ndarray) -> None:
    expected = len({tuple(row) for row in tokens.tolist()}) / len(tokens)
    assert unique_share(torch.from_numpy(tokens)) == expected


@given(TOKENS, st.integers(1, 3))
def test_distinct_counts_different_runs_of_words(tokens: np.ndarray, n: int) -> None:
    grams = [tuple(row[i : i + n]) for row in tokens.tolist() for i in range(len(row) - n + 1)]
    assert distinct(torch.from_numpy(tokens), n) == len(set(grams)) / len(grams)


def test_diversity_at_its_ends() -> None:
    same, different = torch.full((5, 8), 3), torch.arange(40).reshape(5, 8)
    assert (sample_entropy(same), unique_share(same), distinct(same, 2)) == (0, 0.2, 1 / 35)
    assert sample_entropy(different) == pytest.approx(math.log(8))
    assert (unique_share(different), distinct(different, 2)) == (1, 1)


# --- controls -----------------------------------------------------------------------------------


def by_enumeration(language: Language) -> float:
    """The chance of a valid sentence when each word has its own marginal, counted out."""
    sentences, chances = language.support()
    marginals = torch.zeros(language.length, language.vocab, dtype=torch.float64)
    for words, chance in zip(sentences.tolist(), chances.tolist()):
        for place, word in enumerate(words):
            marginals[place, word] += chance
    valid = {tuple(words) for words in sentences.tolist()}
    every = itertools.product(range(language.vocab), repeat=language.length)
    return sum(
        math.prod(float(marginals[place, word]) for place, word in enumerate(words))
        for words in every
        if words in valid
    )


def test_marginals_valid_is_the_sum_over_sentences(agreement: Language) -> None:
    expected = by_enumeration(agreement)
    assert 0.1 < expected < 0.9
    assert Spoken(agreement).marginals_valid == pytest.approx(expected, rel=1e-12)


def test_marginals_valid_is_what_independent_words_achieve(agreement: Language) -> None:
    n = 20_000
    drawn = draw_marginals(Spoken(agreement), Streams.of(0, count=n))
    share, expected = (
        float(agreement.valid(drawn).double().mean()),
        Spoken(agreement).marginals_valid,
    )
    assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n))


def test_marginals_of_an_ambiguous_automaton_are_refused(ambiguous: Language) -> None:
    with pytest.raises(ValueError, match="path"):
        _ = Spoken(ambiguous).marginals_valid


def test_words_are_drawn_from_their_marginals(
    language: Language, fits: Callable[[torch.Tensor, torch.Tensor], None]
) -> None:
    drawn = draw_marginals(Spoken(language), Streams.of(1, count=5000))
    sentences, chances = language.support()
    for place in range(language.length):
        marginal = torch.zeros(language.vocab, dtype=torch.float64)
        marginal.index_add_(0, sentences[:, place], chances)
        fits(torch.bincount(drawn[:, place], minlength=language.vocab), marginal)
    pairs = torch.bincount(drawn[:, 0] * language.vocab + drawn[:, -1], minlength=language.vocab**2)
    first = torch.bincount(drawn[:, 0], minlength=language.vocab) / 5000
    last = torch.bincount(drawn[:, -1], minlength=language.vocab) / 5000
    expected = torch.outer(first, last).flatten()
    assert (pairs / 5000 - expected).abs().max() < 0.03


# --- quality ------------------------------------------------------------------------------------


def test_a_share_of_texts_is_valid(agreement: Language) -> None:
    sentences, _ = agreement.support()
    wrong = torch.tensor([[3, 3, 3], [0, 0, 0]])
    texts = torch.cat((sentences, wrong))
    known = {tuple(words) for words in sentences.tolist()}
    assert not any(tuple(words) in known for words in wrong.tolist())
    assert float(agreement.valid(texts).double().mean()) == len(sentences) / len(texts)


def test_heard_nll_by_enumeration(agreement: Language) -> None:
    sentences, chances = agreement.support()
    vocab, length = agreement.vocab, agreement.length
    for heard in itertools.islice(itertools.product(range(vocab), repeat=length), 0, None, 7):
        p = 0.0
        for words, chance in zip(sentences.tolist(), chances.tolist()):
            hits = [
                (1 - FLIP_PROBABILITY) * (a == b) + FLIP_PROBABILITY / vocab
                for a, b in zip(words, heard)
            ]
            p += chance * math.prod(hits)
        assert noisy_channel_nll(agreement, torch.tensor([heard])) == pytest.approx(
            -math.log(p) / length
        )


def test_the_languages_own_sentences_cost_about_its_entropy() -> None:
    language, _ = demo_language()
    tokens = language.sample(Streams.of(3, count=2000))
    each = -language.log_prob(tokens, FLIP_PROBABILITY) / language.length
    error = 5 * float(each.std()) / math.sqrt(len(each))
    mean = float(noisy_channel_nll(language, tokens).mean())
    assert mean == pytest.approx(float(each.mean()))
    assert (
        language.entropy - error
        <= mean
        <= language.entropy - math.log(1 - FLIP_PROBABILITY) + error
    )
    assert error < 0.02 * language.entropy


def test_the_bounds_of_what_own_sentences_cost_hold_exactly(agreement: Language) -> None:
    sentences, chances = agreement.support()
    expected = (
        -float((chances * agreement.log_prob(sentences, FLIP_PROBABILITY)).sum()) / agreement.length
    )
    assert agreement.entropy < expected < agreement.entropy - math.log(1 - FLIP_PROBABILITY)
    entropy = -float((chances * chances.log()).sum()) / agreement.length
    assert agreement.entropy == pytest.approx(entropy)


# --- likelihood ---------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 10))
def test_mean_nll_weighs_tokens_not_batches(count: int, length: int, at_once: int) -> None:
    torch.manual_seed(count)
    texts = Batch(torch.arange(count * length).view(count, length), torch.rand(count, length) + 0.1)
    values = torch.randn(count * length)
    wanted = (values[texts.tokens].double() * texts.weight).sum() / texts.weight.double().sum()
    mean = mean_nll(lambda batch, rng: values[batch.tokens], texts, at_once=at_once)
    assert mean is not None
    assert mean.mean == pytest.approx(float(wanted), abs=1e-6)


def test_mean_nll_ignores_tokens_without_weight() -> None:
    texts = Batch(torch.zeros(1, 3).long(), torch.tensor([[1.0, 0.0, 1.0]]))
    assert mean_nll(lambda batch, rng: torch.tensor([[1.0, 100.0, 2.0]]), texts)[0] == 1.5


def test_mean_nll_draws_from_the_seed_and_the_place_of_a_text() -> None:
    """How many texts are read at once changes neither their noise nor their strata."""
    texts = Batch(torch.zeros(7, 3).long(), torch.ones(7, 3))

    def drawn(seed: int, at_once: int) -> torch.Tensor:
        parts: list[torch.Tensor] = []

        def nll(batch: Batch, rng: Streams) -> torch.Tensor:
            parts.append(torch.cat((rng.stratified(), rng.uniform(2)), 1))
            return parts[-1]

        mean = mean_nll(nll, texts, seed, at_once)
        assert [len(part) for part in parts[:-1]] == [at_once] * (len(parts) - 1)
        whole = torch.cat(parts)
        assert mean is not None
        assert mean.mean == pytest.approx(float(whole.double().mean()), rel=1e-6)
        return whole

    for at_once in (1, 2, 3, 7):
        assert torch.equal(drawn(7, at_once), drawn(7, 99))
    strata = (drawn(7, 2)[:, 0] * 7).floor()
    assert torch.equal(strata, torch.arange(7.0))
    assert not torch.equal(drawn(8, 2), drawn(7, 2))
    assert len(drawn(7, 2).unique(dim=0)) == 7


def test_mean_nll_is_none_without_a_bound_and_takes_no_gradient() -> None:
    batch = Batch(torch.zeros(1, 3).long(), torch.ones(1, 3))
    assert mean_nll(lambda batch, rng: None, batch) is None
    weight = torch.ones(1, 3, requires_grad=True)
    kept: list[torch.Tensor] = []

    def nll(batch: Batch, rng: Streams) -> torch.Tensor:
        kept.append(weight * 2)
        return kept[0]

    found = mean_nll(nll, batch)
    assert found is not None
    assert found.mean == 2
    assert not kept[0].requires_grad


# --- the demo's language ------------------------------------------------------------------------

# Written down a second time, in another way: a pattern for every topic and number.
TOPICS = (
    "sailor steer boat harbour wait rope",
    "farmer pull plough field work horse",
    "baker knead dough oven sing spoon",
    "pupil read book school learn pencil",
)
LOOK, OFTEN = "old|new|fine|good", "often|never|always|still"


def pattern(topic: str, plural: bool) -> str:
    """The sentences of one topic and number, as alternatives at each of the 18 places."""
    actor, act, thing, place, rest, tool = topic.split()
    first, pronoun, own = ("these", "they", "their") if plural else ("this", "it", "its")
    actor, act, rest = (actor + "s", act, rest) if plural else (actor, act + "s", rest + "s")
    return " ".join(
        f"(?:{choice})"
        for choice in (
            first, LOOK, actor, OFTEN, act, "the|that|one", LOOK, thing,
            "near|behind|beside", own, place,
            "and|then|so", pronoun, OFTEN, rest, "with|for", own, tool,
        )
    )  # fmt: skip


PATTERNS = [pattern(topic, plural) for topic in TOPICS for plural in (False, True)]


def parses(sentence: str) -> bool:
    """Whether a sentence is one of the language."""
    return any(re.fullmatch(pattern, sentence) for pattern in PATTERNS)


def test_the_demos_language_is_deterministic() -> None:
    language, words = demo_language()
    assert language.deterministic
    assert (language.length, language.vocab) == (18, len(words))
    assert list(words) == sorted(set(words))


def test_the_demos_sentences_agree_and_keep_to_their_topic() -> None:
    language, words = demo_language()
    drawn = language.sample(Streams.of(0, count=2000))
    texts = [" ".join(words[token] for token in row) for row in drawn.tolist()]
    assert [text for text in texts if not parses(text)] == []
    assert len({word for text in texts for word in text.split()}) == language.vocab


def test_the_demos_language_has_every_sentence_that_parses() -> None:
    language, words = demo_language()
    ids = {word: i for i, word in enumerate(words)}
    rng, sentences, count = random.Random(0), [], 0
    for choices in PATTERNS:
        places = [place.split("|") for place in re.findall(r"\(\?:(.*?)\)", choices)]
        count += math.prod(len(place) for place in places)
        sentences += [[rng.choice(place) for place in places] for _ in range(100)]
    assert all(parses(" ".join(sentence)) for sentence in sentences)
    tokens = torch.tensor([[ids[word] for word in sentence] for sentence in sentences])
    assert bool(language.valid(tokens).all())
    # As many as there are: so the language holds these and no others.
    assert Generated().solutions == count


def test_a_word_changed_is_valid_only_if_it_parses() -> None:
    language, words = demo_language()
    rng = random.Random(1)
    rows = language.sample(Streams.of(4, count=300))
    for row in rows:
        row[rng.randrange(18)] = rng.randrange(language.vocab)
    texts = [" ".join(words[token] for token in row) for row in rows.tolist()]
    assert language.valid(rows).tolist() == [parses(text) for text in texts]
    assert 0 < sum(parses(text) for text in texts) < 300


def test_the_example_of_the_demos_language_is_one_of_its_sentences() -> None:
    (example,) = re.findall(r"for example: (.*?)\.", " ".join((module.__doc__ or "").split()))
    assert parses(example)


def test_words_without_each_other_are_almost_never_a_sentence() -> None:
    assert 0 < Generated().marginals_valid < 1e-4


def test_the_demos_entropy_is_what_sentences_cost() -> None:
    language, _ = demo_language()
    each = -language.log_prob(language.sample(Streams.of(5, count=2000))) / 18
    error = 5 * float(each.std()) / math.sqrt(2000)
    # Every sentence is equally likely: the spread is rounding alone.
    assert language.entropy == pytest.approx(float(each.mean()), abs=error + 1e-12)


@pytest.mark.parametrize("steps", [[0, 1, 2, 31, 32, 33, 1000], [1000, 33, 2, 0, 32, 1, 31]])
def test_batches_of_sentences_depend_on_seed_and_step_alone(steps: list[int]) -> None:
    language, _ = demo_language()
    inorder = {step: Drawn(Generated(), 4, 3)(step) for step in sorted(steps)}
    again = Drawn(Generated(), 4, 3)
    for step in steps:
        batch = again(step)
        assert torch.equal(batch.tokens, inorder[step].tokens)
        assert torch.equal(batch.weight, torch.ones(4, 18))
        assert bool(language.valid(batch.tokens).all())
    every = torch.cat([batch.tokens for batch in inorder.values()])
    assert len(every.unique(dim=0)) == len(every)
    assert not torch.equal(Drawn(Generated(), 4, 2)(0).tokens, inorder[0].tokens)


# --- the list of measures -------------------------------------------------------------------------


def test_every_measure_can_be_shown_and_explained() -> None:
    """On a report that has them all: a column, a definition, a value on the console and a card."""
    rows = [
        {"method": "FLM", "steps": n, **{key: 0.5 * n for key in MEASURES}, "samples": 8 * n}
        for n in (1, 2)
    ]
    page = render({"title": "All", "summary": "Said.", "rows": rows})
    for key, measure in MEASURES.items():
        assert measure.key == key
        assert measure.heading in page
        assert measure.definition.format(judge="J", aim="A").endswith(".")
        assert measure.plain(0.5) != measure.plain(1.0) != measure.plain(None) == "-"
        assert (measure.chart is not None) <= measure.of_texts
    assert [measure.key for measure in present(rows)] == [*MEASURES]
    assert {m.key for m in present(rows, brief=True)} < {*MEASURES}


class Nine(Judge):
    """Every token costs nine nats, every text has five bytes."""

    name, about, fingerprint = "nine", "nine", "nine"

    def score(self, tokens: torch.Tensor) -> Scored:
        n, length = tokens.shape
        counts = torch.full((n,), length)
        return Scored(
            9.0 * counts, counts, torch.full((n,), 5), torch.zeros(35, dtype=torch.long),
            torch.zeros(n, 2),
        )  # fmt: skip


def test_only_what_applies_is_measured(agreement: Language) -> None:
    tokens = agreement.sample(Streams.of(2, count=9))
    plain = figures(Written(tokens))
    alone = {"sample_entropy", "corpus_entropy", "unique", "samples", "zipf"}
    # Three tokens make no BLEU-4.
    grams = {f"{name}_{n}" for name in ("rep", "distinct") for n in (1, 2, 3)}
    assert plain.keys() - {"intervals"} == alone | grams
    known = figures(Written(tokens, Spoken(agreement), seconds=0.5, evaluations=3))
    assert known.keys() - plain.keys() == {"valid", "coverage", "nll", "seconds", "evaluations"}
    assert known["valid"] == 1
    assert known["intervals"]["valid"] == [1, 1]
    assert (known["seconds"], known["evaluations"], known["samples"]) == (0.5, 3, 9)
    judged = figures(Written(tokens, reader=Reader(Nine(), None)))
    assert judged["nll"] == 9
    assert judged["perplexity"] == pytest.approx(math.exp(9))
    assert judged["bits_per_byte"] == pytest.approx(9 * 3 / (5 * math.log(2)))
    assert judged.keys() - plain.keys() == {"nll", "perplexity", "bits_per_byte"}
    training = np.arange(100) % 4
    held_out = agreement.sample(Streams.of(3, count=9))
    real = RealText(held_out, KnownText(training), lambda ids: " ".join("x" * (i + 1) for i in ids))
    compared = figures(Written(tokens, Spoken(agreement), None, real)).keys() - known.keys()
    assert compared == {
        "longest_run", *(f"energy_{k}{p}" for k in ("hand", "bigram") for p in ("", "_p"))
    }  # fmt: skip
