"""Masked diffusion with the exact unmasker: its likelihood bound, and what unmasking writes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import Answers, counted, joint, listed, product_of_marginals, variation
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowlm import core
from flowlm.core import Dense, Language, Streams
from flowlm.methods.masked import Masked
from flowlm.sampling import LeftToRight, NextToken
from flowlm.sampling.masking import bound_weight, mask, reveal_probability
from writing import film

Predictor = Callable[[Tensor], Dense]


def unmasker(language: Language) -> Predictor:
    """The exact one; uniform where the given words belong to no sentence."""

    def predict(tokens: Tensor) -> Dense:
        rows = language.unmasker(tokens, language.vocab).logp
        return Dense(rows.nan_to_num(nan=-math.log(language.vocab), neginf=-torch.inf))

    return predict


def marginals(language: Language) -> Predictor:
    """Blind to the words that are given."""
    return lambda tokens: Dense(language.marginals.log().expand(len(tokens), -1, -1))


def bound(language: Language, predict: Predictor, words: tuple[int, ...]) -> float:
    """The bound in expectation: a sum over masks and Gauss-Legendre quadrature over time.

    The integrand is a polynomial in t of degree below l, for which the quadrature is exact.
    """
    length = len(words)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    times = torch.tensor((nodes + 1) / 2)[:, None]
    total = torch.zeros(len(nodes), dtype=torch.float64)
    for hidden in itertools.product([False, True], repeat=length):
        masked = torch.tensor([hidden])
        tokens = torch.tensor([words])
        nll = predict(tokens.masked_fill(masked, language.vocab)).nll(tokens)
        chance = torch.where(masked, 1 - times, times).prod(1)
        counts = bound_weight(masked.expand(len(nodes), -1), times)
        total = total + chance * (counts * torch.where(masked, nll, 0.0)).sum(1)
    return float(total @ torch.tensor(weights / 2))


def test_the_bound_of_the_exact_unmasker_is_the_likelihood(language: Language) -> None:
    for words, p in listed(language).items():
        assert bound(language, unmasker(language), words) == pytest.approx(-math.log(p), abs=1e-11)


def test_the_bound_of_any_other_predictor_is_larger(language: Language) -> None:
    table = joint(language)
    entropy = -float(torch.special.xlogy(table, table).sum())
    known = listed(language)
    blind = sum(p * bound(language, marginals(language), words) for words, p in known.items())
    # Blind prediction pays the entropies of the marginals, which exceed that of the sentence.
    rows = language.marginals
    assert blind == pytest.approx(-float(torch.special.xlogy(rows, rows).sum()), abs=1e-10)
    assert blind > entropy + 0.05

    def tempered(tokens: Tensor) -> Dense:
        return Dense((0.5 * unmasker(language)(tokens).logp).log_softmax(-1))

    wrong = sum(p * bound(language, tempered, words) for words, p in known.items())
    assert wrong > entropy + 0.01


def test_nll_is_an_unbiased_draw_of_the_bound(language: Language) -> None:
    """Masked.nll itself: its draws of times and masks, and its weights."""
    n = 40_000
    tokens, probabilities = language.support()
    row = int(probabilities.argsort()[len(tokens) // 2])
    for predict in (unmasker(language), marginals(language)):
        model = Answers(language.vocab, predict)
        batch = core.Batch(tokens[row].expand(n, -1), torch.ones(n, language.length))
        paid = Masked().nll(model, batch, Streams.of(1, count=n)).sum(1)
        wanted = bound(language, predict, tuple(tokens[row].tolist()))
        assert abs(float(paid.mean()) - wanted) <= 4 * float(paid.std()) / math.sqrt(n)
        assert float(paid.std()) / math.sqrt(n) < 0.05 * wanted


def test_a_token_is_kept_with_the_chance_of_its_time() -> None:
    n = 20_000
    tokens = torch.arange(4).expand(n, 4)
    t = torch.tensor([[0.0, 0.25, 0.8, 1.0]]).expand(n, 4)
    noisy = mask(tokens, t, 9, Streams.of(2, count=n))
    assert ((noisy == tokens) | (noisy == 9)).all()
    kept = (noisy == tokens).double().mean(0)
    assert kept[0] == 0
    assert kept[3] == 1
    assert (kept[1:3] - t[0, 1:3]).abs().max() <= 4 * 0.5 / math.sqrt(n)


@given(st.lists(st.floats(0, 0.99), min_size=2, max_size=6, unique=True))
def test_reveal_probabilities_compose(times: list[float]) -> None:
    """Staying masked all the way has the chance (1 - t_n) / (1 - t_0)."""
    t = torch.tensor(sorted(times), dtype=torch.float64)[:, None]
    stays = 1 - reveal_probability(t[:-1], t[1:])
    assert float(stays.prod()) == pytest.approx(float((1 - t[-1]) / (1 - t[0])), rel=1e-9)
    assert float(reveal_probability(t[-1:], torch.ones(1, 1))) == 1


def written(language: Language, predict: Predictor, steps: int) -> Tensor:
    """The exact distribution of unmasked sentences: a Markov chain over half-masked ones."""
    v, length = language.vocab, language.length
    states = torch.tensor(list(itertools.product(range(v + 1), repeat=length)))
    rows = predict(states).log_probs().exp()
    masked = states == v
    now = torch.zeros(len(states), dtype=torch.float64)
    now[-1] = 1.0
    for i in range(steps):
        reveal = 1 / (steps - i)
        onward = torch.ones(len(states), 1, dtype=torch.float64)
        for place in range(length):
            shown = torch.zeros(len(states), v + 1, dtype=torch.float64)
            shown[:, :v] = reveal * rows[:, place]
            shown[:, v] = 1 - reveal
            stays = torch.nn.functional.one_hot(states[:, place], v + 1).double()
            move = torch.where(masked[:, place, None], shown, stays)
            onward = (onward[:, :, None] * move[:, None, :]).flatten(1)
        now = now @ onward
    return now.view([v + 1] * length)[(slice(v),) * length]


def test_one_step_is_exactly_as_far_off_as_the_product_of_marginals(
    language: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    seen: list[Dense] = []

    def watched(tokens: Tensor) -> Dense:
        seen.append(unmasker(language)(tokens))
        return seen[-1]

    n = 6000
    prompt = torch.full((n, language.length), core.FREE)
    model = Answers(language.vocab, watched)
    (tokens,) = film(Masked(), model, prompt, 1, Streams.of(3, count=n))
    assert len(seen) == 1
    rows = seen[0].log_probs()[0].exp()
    one_step = torch.ones([], dtype=torch.float64)
    for row in rows:
        one_step = one_step[..., None] * row
    assert torch.allclose(one_step, product_of_marginals(joint(language)), atol=1e-12)
    assert torch.allclose(one_step, written(language, unmasker(language), 1), atol=1e-12)
    far = variation(one_step, joint(language))
    assert far > 0.1
    assert far == pytest.approx(
        variation(product_of_marginals(joint(language)), joint(language)), abs=1e-12
    )
    fits(counted(tokens, language.vocab), one_step)


@pytest.mark.parametrize("steps", [2, 5])
def test_some_steps_write_what_the_chain_says(
    language: Language, steps: int, fits: Callable[[Tensor, Tensor], None]
) -> None:
    n = 6000
    prompt = torch.full((n, language.length), core.FREE)
    model = Answers(language.vocab, unmasker(language))
    tokens = film(Masked(), model, prompt, steps, Streams.of(4, count=n))[-1]
    fits(counted(tokens, language.vocab), written(language, unmasker(language), steps))


def test_many_steps_write_the_language(language: Language) -> None:
    far = [
        variation(written(language, unmasker(language), steps), joint(language))
        for steps in (1, 4, 16, 64, 256)
    ]
    assert all(b < 0.5 * a for a, b in itertools.pairwise(far))
    assert far[-1] < 0.01
    n = 4000
    prompt = torch.full((n, language.length), core.FREE)
    model = Answers(language.vocab, unmasker(language))
    tokens = film(Masked(), model, prompt, 64, Streams.of(5, count=n))[-1]
    wanted = joint(language)
    found = counted(tokens, language.vocab) / n
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * noise + far[3]


def test_left_to_right_with_the_exact_next_word_writes_the_language(
    language: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    n = 6000
    read: list[Tensor] = []

    def predict(token: Tensor) -> Dense:
        read.append(token)
        so_far = torch.cat([*read[1:], torch.zeros(n, language.length, dtype=torch.long)], 1)
        return language.next_token(so_far[:, : language.length], len(read) - 1)

    prompt = torch.full((n, language.length), core.FREE)
    following = NextToken(predict, language.vocab, predict)
    *_, last = LeftToRight().frames(following, prompt, 1, Streams.of(6, count=n))
    tokens = last.tokens()
    assert (read[0] == language.vocab).all()
    assert len(read) == language.length
    fits(counted(tokens, language.vocab), joint(language))
