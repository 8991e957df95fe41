"""The oracle against lists of all sentences, Bayes' rule and counting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import bayes, counted, joint, listed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowlm.core import Automaton, Language, Streams


def all_sentences(language: Language) -> Tensor:
    return torch.tensor(list(itertools.product(range(language.vocab), repeat=language.length)))


def conditionals(table: Tensor, evidence: Tensor) -> Tensor:
    """Posterior of every word from the joint table and evidence (l, v)."""
    length = table.dim()
    for i in range(length):
        table = table * evidence[i].view([-1 if j == i else 1 for j in range(length)])
    table = table / table.sum()
    return torch.stack([table.sum([j for j in range(length) if j != i]) for i in range(length)])


def test_log_probabilities_of_all_sentences(language: Language) -> None:
    wanted = joint(language).flatten()
    got = language.log_prob(all_sentences(language)).exp()
    assert torch.allclose(got, wanted, rtol=1e-12, atol=0)
    assert len(listed(language)) < language.vocab**language.length


def test_support_lists_every_sentence_once(language: Language) -> None:
    tokens, probabilities = language.support()
    known = listed(language)
    got = dict(zip(map(tuple, tokens.tolist()), probabilities.tolist()))
    assert len(got) == len(tokens)
    assert got == pytest.approx(known, rel=1e-12)


def test_support_refuses_to_list_too_many(agreement: Language) -> None:
    with pytest.raises(ValueError, match="more than 3"):
        agreement.support(most=3)


def test_validity(language: Language) -> None:
    assert torch.equal(language.valid(all_sentences(language)), joint(language).flatten() > 0)


def test_entropy(language: Language, ambiguous: Language) -> None:
    if torch.equal(language.chance, ambiguous.chance):
        assert not language.deterministic
        with pytest.raises(ValueError, match="ambiguous"):
            _ = language.entropy
        return
    assert language.deterministic
    wanted = -sum(p * math.log(p) for p in listed(language).values()) / language.length
    assert language.entropy == pytest.approx(wanted, rel=1e-12)


def test_an_ambiguous_sentence_counts_all_its_paths(ambiguous: Language) -> None:
    arcs = list(zip(ambiguous.source.tolist(), ambiguous.token.tolist()))
    assert len(set(arcs)) < len(arcs)
    # 0 2 0 is read along 0 -> 1 -> 2 -> 0 and 0 -> 2 -> 2 -> 0, and along no other path.
    total = torch.exp(ambiguous._log_weight)
    wanted = (1.0 * 0.3 * 0.7 + 0.5 * 1.2 * 0.7) / total
    assert ambiguous.log_prob(torch.tensor([[0, 2, 0]])).exp() == pytest.approx(float(wanted))


def test_marginals(language: Language) -> None:
    table = joint(language)
    wanted = conditionals(table, torch.ones(language.length, language.vocab))
    assert torch.allclose(language.marginals, wanted, rtol=1e-12, atol=1e-15)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), sharpness=st.floats(0.1, 8.0))
def test_posterior_under_random_evidence(language: Language, seed: int, sharpness: float) -> None:
    shape = (3, language.length, language.vocab)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    evidence = torch.exp(sharpness * noise)
    wanted = torch.stack([conditionals(joint(language), row) for row in evidence])
    got = language.posterior(evidence)
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-13)
    lengths = [-1 if j == i else 1 for i in range(language.length) for j in range(language.length)]
    for b in range(3):
        table = joint(language)
        for i in range(language.length):
            axes = lengths[i * language.length : (i + 1) * language.length]
            table = table * evidence[b, i].view(axes)
        assert float(language.log_evidence(evidence)[b]) == pytest.approx(math.log(table.sum()))


@pytest.mark.parametrize("latest", [0.5, 0.9])
def test_denoiser_is_bayes_rule_on_noisy_sentences(language: Language, latest: float) -> None:
    """Points where the flow goes: sentences of the language with the noise of their time."""
    n = 24
    rng = Streams.of(7, count=n)
    tokens = language.sample(rng)
    t = latest * rng.uniform(language.length, dtype=torch.float64)
    t[0] = 0.0
    clean = torch.nn.functional.one_hot(tokens, language.vocab).double()
    noise = rng.normal(language.length, language.vocab, dtype=torch.float64)
    x = (1 - t)[..., None] * noise + t[..., None] * clean
    got = language.denoiser(x, t).logp.exp()
    assert np.abs(got.numpy() - bayes(language, x.numpy(), t.numpy())).max() < 1e-12
    together = language.denoiser(x, t[:, :1]).logp.exp()
    one_time = t[:, :1].expand(-1, language.length)
    assert np.abs(together.numpy() - bayes(language, x.numpy(), one_time.numpy())).max() < 1e-12


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), t=st.floats(0.0, 0.995))
@example(seed=0, t=0.985)
def test_denoiser_is_bayes_rule_at_any_point(language: Language, seed: int, t: float) -> None:
    """Also where no sentence explains every row, as between the steps of a coarse sampler."""
    rng = torch.Generator().manual_seed(seed)
    shape = (2, language.length, language.vocab)
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    times = torch.full((2, 1), t, dtype=torch.float64)
    got = language.denoiser(x, times).logp.exp()
    wanted = bayes(language, x.numpy(), times.expand(-1, language.length).numpy())
    assert np.abs(got.numpy() - wanted).max() < 1e-9


def test_denoiser_takes_a_token_of_time_one_as_given(language: Language) -> None:
    """A prompt is tokens whose time is 1."""
    rng = Streams.of(8, count=12)
    tokens = language.sample(rng)
    given_ = torch.tensor([True] + [False] * (language.length - 1)).expand_as(tokens)
    t = torch.where(given_, 1.0, 0.3).double()
    clean = torch.nn.functional.one_hot(tokens, language.vocab).double()
    noise = rng.normal(language.length, language.vocab, dtype=torch.float64)
    x = (1 - t)[..., None] * noise + t[..., None] * clean
    got = language.denoiser(x, t).logp.exp()
    evidence = torch.exp(0.3 / 0.7**2 * x)
    evidence = torch.where(given_[..., None], clean, evidence)
    wanted = torch.stack([conditionals(joint(language), row) for row in evidence])
    assert torch.allclose(got, wanted, atol=1e-12)


def test_denoiser_at_the_ends(language: Language) -> None:
    x = torch.randn(5, language.length, language.vocab, dtype=torch.float64)
    at_noise = language.denoiser(x, torch.zeros(5, 1)).logp.exp()
    assert torch.allclose(at_noise, language.marginals.expand_as(at_noise), atol=1e-14)
    tokens, _ = language.support()
    clean = torch.nn.functional.one_hot(tokens, language.vocab).double()
    late = torch.full((len(tokens), 1), 0.97, dtype=torch.float64)
    assert torch.allclose(language.denoiser(clean, late).logp.exp(), clean, atol=1e-12)


def test_samples_occur_as_often_as_they_should(
    language: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    tokens = language.sample(Streams.of(11, count=6000))
    fits(counted(tokens, language.vocab), joint(language))


def test_a_sample_does_not_depend_on_its_batch(language: Language) -> None:
    together = language.sample(Streams.of(5, count=9))
    alone = language.sample(Streams.of(5, count=1, first=6))
    assert torch.equal(together[6:7], alone)


@pytest.mark.parametrize("flip", [1e-3, 0.1, 0.9])
def test_a_bad_line(language: Language, flip: float) -> None:
    heard = all_sentences(language)
    got = language.log_prob(heard, flip=flip).exp()
    assert float(got.sum()) == pytest.approx(1, abs=1e-12)
    wanted = torch.zeros_like(got)
    for words, p in listed(language).items():
        same = (heard == torch.tensor(words)).double()
        wanted += p * ((1 - flip) * same + flip / language.vocab).prod(1)
    assert torch.allclose(got, wanted, rtol=1e-11, atol=0)
    lost = torch.log(joint(language).flatten()) - language.log_prob(heard, flip=flip)
    assert lost.max() <= -language.length * math.log1p(-flip) + 1e-12


def test_unmasker_is_conditioning(language: Language) -> None:
    tokens, _ = language.support()
    mask_id = language.vocab
    for hidden in itertools.product([False, True], repeat=language.length):
        partly = tokens.masked_fill(torch.tensor(hidden), mask_id)
        got = language.unmasker(partly, mask_id).logp.exp()
        evidence = torch.nn.functional.one_hot(tokens, language.vocab).double()
        evidence[:, list(hidden)] = 1.0
        wanted = torch.stack([conditionals(joint(language), row) for row in evidence])
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("flip", [1e-3, 0.2])
def test_unmasker_of_words_that_are_only_heard(language: Language, flip: float) -> None:
    """Words that belong to no sentence have a posterior too, once they may have been misheard."""
    heard = all_sentences(language)
    heard[::3, 0] = language.vocab
    got = language.unmasker(heard, language.vocab, flip=flip).logp.exp()
    same = torch.nn.functional.one_hot(heard, language.vocab + 1)[..., :-1].double()
    evidence = (1 - flip) * same + flip / language.vocab
    evidence[::3, 0] = 1.0
    wanted = torch.stack([conditionals(joint(language), row) for row in evidence])
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-13)


def test_next_word_is_conditioning_on_the_left(language: Language) -> None:
    tokens, _ = language.support()
    table = joint(language)
    for place in range(language.length):
        got = language.next_token(tokens, place).logp.exp()
        assert got.shape == (len(tokens), 1, language.vocab)
        left = table
        for _ in range(place + 1, language.length):
            left = left.sum(-1)
        for row, words in zip(got[:, 0], tokens.tolist()):
            wanted = left[tuple(words[:place])]
            assert torch.allclose(row, wanted / wanted.sum(), rtol=1e-12, atol=1e-15)


def test_chain_rule(language: Language) -> None:
    tokens, probabilities = language.support()
    chained = sum(
        -language.next_token(tokens, i).nll(tokens[:, i : i + 1])[:, 0]
        for i in range(language.length)
    )
    assert torch.allclose(chained, probabilities.log(), rtol=1e-12)


def test_weights_must_be_positive(agreement: Language) -> None:
    parts = (agreement.source, agreement.token, agreement.target)
    with pytest.raises(ValueError, match="positive"):
        Automaton(4, 3, *parts, agreement.chance - 0.25, agreement.final)
