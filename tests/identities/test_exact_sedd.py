"""Score entropy with exact scores: its bounds, its optima, its steps, and where these end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from exact import Answers, counted, joint, listed, product_of_marginals, variation
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowlm import chunked, core
from flowlm.core import FREE, Dense, Language, Streams
from flowlm.methods.masked import Masked
from flowlm.methods.sedd import HIGHEST, SEDD, SEDDUniform, excess, masked_rate, uniform_rate
from flowlm.methods.uniform_state import rate_of
from flowlm.sampling import (
    MaskedDenoiser,
    Replace,
    ScoreDenoiser,
    Tweedie,
    TweedieUniform,
    UniformDenoiser,
    Unmask,
)
from flowlm.sampling.masking import bound_weight, reveal_probability
from flowlm.sampling.replace import nucleus, replaced, transition
from flowlm.sampling.tweedie import denoised, revealed, sharper

V = 4


def rows(*shape: int, seed: int = 0) -> Tensor:
    """Distributions over words, (*shape, V)."""
    made = torch.rand(*shape, V, generator=torch.Generator().manual_seed(seed)).double() + 0.05
    return made / made.sum(-1, keepdim=True)


def scores(language: Language, extra: float = 0.0) -> ScoreDenoiser:
    """The exact ones of masks, whose sum is e^extra times too large.

    A network's logits z stand for s_w = a / (1 - a) e^z_w / v.
    """

    def predict(tokens: Tensor, t: Tensor) -> Dense:
        known = language.unmasker(tokens, language.vocab).logp
        known = known.nan_to_num(nan=-math.log(language.vocab), neginf=-torch.inf)
        return Dense(known + math.log(language.vocab) + extra)

    return ScoreDenoiser(predict, language.vocab)


def heard(language: Language, z: Tensor, a: Tensor) -> Tensor:
    """q(z_i | x_i) of uniform noise, a (b, 1)."""
    a = a.double().clamp(max=1 - 1e-9)[..., None]
    return a * torch.nn.functional.one_hot(z, language.vocab) + (1 - a) / language.vocab


def ratios(language: Language, all_say: bool = False) -> ScoreDenoiser:
    """Rows of uniform noise: the noisy token given all others; or, wrongly, from the mean."""

    def predict(z: Tensor, a: Tensor) -> Dense:
        ask = language.posterior if all_say else language.leave_one_out
        clean, a = ask(heard(language, z, a)), a.double()[..., None]
        return Dense((a * clean + (1 - a) / language.vocab).log())

    return ScoreDenoiser(predict, language.vocab)


# --- the losses are the published ones --------------------------------------------------------


def test_masks_pay_the_published_score_entropy() -> None:
    """(1 / a) [sum_w s_w - r log s_x + r (log r - 1)] with r = a / (1 - a)."""
    logits = torch.randn(5, 3, V, generator=torch.Generator().manual_seed(1)).double()
    tokens = torch.randint(V, (5, 3), generator=torch.Generator().manual_seed(2))
    a = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.99]).double()[:, None]
    r = a / (1 - a)
    s = r[..., None] * logits.exp() / V
    own = s.gather(-1, tokens[..., None]).squeeze(-1)
    wanted = (s.sum(-1) - r * own.log() + r * (r.log() - 1)) / a
    paid = masked_rate(Dense(logits), tokens, V)
    everywhere = torch.ones(5, 3, dtype=torch.bool)
    assert torch.allclose(paid * bound_weight(everywhere, a), wanted, rtol=1e-11)
    assert not torch.allclose(paid / a, wanted, rtol=0.1)
    # Published logits: log s = z - log(e^sigma - 1) - log v, where e^-sigma = a.
    sigma = -a.log()
    assert torch.allclose(s.log(), logits - torch.expm1(sigma).log()[..., None] - math.log(V))


def test_a_softmax_is_masked_diffusion_and_free_scores_pay_for_their_sum() -> None:
    p, tokens = rows(6, 3), torch.randint(V, (6, 3), generator=torch.Generator().manual_seed(3))
    nll = Dense(p.log()).nll(tokens)
    assert torch.allclose(masked_rate(Dense((V * p).log()), tokens, V), nll, atol=1e-12)
    for log_sum in (-1.0, 0.3, 2.0):
        free = masked_rate(Dense((V * p).log() + log_sum), tokens, V)
        extra = math.exp(log_sum) - 1 - log_sum
        assert torch.allclose(free, nll + extra, atol=1e-12)
        assert extra > 0.04


@pytest.mark.parametrize("equal", [True, False])
def test_uniform_noise_pays_the_published_score_entropy(equal: bool) -> None:
    """(1 / v a) sum_{w != z} s_w - r_w log s_w + r_w log r_w - r_w, r_w = q(w | x) / q(z | x)."""
    p = rows(40, 3)
    x = torch.randint(V, (40, 3), generator=torch.Generator().manual_seed(4))
    z = x if equal else (x + 1) % V
    a = torch.linspace(0.01, 0.99, 40).double()[:, None]
    q = a[..., None] * torch.nn.functional.one_hot(x, V) + (1 - a[..., None]) / V
    s, r = (of / of.gather(-1, z[..., None]) for of in (p, q))
    terms = s - r * s.log() + r * r.log() - r
    own = torch.nn.functional.one_hot(z, V).bool()
    wanted = terms.masked_fill(own, 0.0).sum(-1) / (V * a)
    found = uniform_rate(Dense(p.log()), x, z, a, V)
    assert torch.allclose(found, wanted, rtol=1e-10)
    swapped = (s - r * s.log() - r * r.log() - r).masked_fill(own, 0.0).sum(-1) / (V * a)
    assert not torch.allclose(found, swapped, rtol=0.1)


def test_ratios_of_a_clean_prediction_pay_the_bound_of_uniform_diffusion() -> None:
    p, n = rows(60, 3), 60
    x = torch.randint(V, (n, 3), generator=torch.Generator().manual_seed(5))
    a = torch.linspace(0.02, 0.98, n).double()[:, None]
    z = replaced(x, a, V, Streams.of(6, count=n))
    noisy = a[..., None] * p + (1 - a[..., None]) / V
    found = uniform_rate(Dense(noisy.log()), x, z, a, V)
    assert torch.allclose(found, rate_of(Dense(p.log()), x, z, a, V), rtol=1e-9)
    # The clean rows themselves are other scores.
    assert not torch.allclose(uniform_rate(Dense(p.log()), x, z, a, V), found, rtol=0.1)


# --- bounds -----------------------------------------------------------------------------------


def bound(language: Language, denoiser: ScoreDenoiser, words: tuple[int, ...]) -> float:
    """Of masks, in expectation: a sum over masks and quadrature over time, exact below degree l."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    times = torch.tensor((nodes + 1) / 2)[:, None]
    total = torch.zeros(len(nodes), dtype=torch.float64)
    tokens = torch.tensor([words])
    for hidden in itertools.product([False, True], repeat=len(words)):
        masked = torch.tensor([hidden])
        seen = denoiser.predict(tokens.masked_fill(masked, language.vocab), times[:1])
        paid = torch.where(masked, masked_rate(seen, tokens, language.vocab), 0.0)
        chance = torch.where(masked, 1 - times, times).prod(1)
        counts = bound_weight(masked.expand(len(nodes), -1), times)
        total = total + chance * (counts * paid).sum(1)
    return float(total @ torch.tensor(weights / 2))


def test_the_bound_of_exact_scores_is_the_likelihood(language: Language) -> None:
    for words, p in listed(language).items():
        assert bound(language, scores(language), words) == pytest.approx(-math.log(p), abs=1e-11)


@pytest.mark.parametrize("extra", [-0.5, 0.2])
def test_scores_of_another_sum_have_a_larger_bound(language: Language, extra: float) -> None:
    """Masked with probability 1 - a at weight 1 / (1 - a): a place pays for its sum once."""
    words, p = next(iter(listed(language).items()))
    more = len(words) * (math.exp(extra) - 1 - extra)
    found = bound(language, scores(language, extra), words)
    assert found == pytest.approx(-math.log(p) + more, abs=1e-10)
    assert more > 0.05


def test_nll_of_masks_is_the_bound_of_masked_diffusion(language: Language) -> None:
    """With the same times and masks, of a softmax; and an unbiased draw."""
    n = 20_000
    tokens, probabilities = language.support()
    text = tokens[int(probabilities.argmax())]
    batch = core.Batch(text.expand(n, -1), torch.ones(n, language.length))
    exact = scores(language).predict
    clean = Answers(language.vocab, lambda x: Dense(exact(x, x).logp.log_softmax(-1)))
    for draws in (1, 3):
        paid = SEDD().nll(Answers(language.vocab, exact), batch, Streams.of(1, count=n), draws)
        same = Masked().nll(clean, batch, Streams.of(1, count=n), draws)
        assert torch.allclose(paid, same, rtol=1e-9)
    nats = paid.sum(1)
    wanted = -math.log(float(probabilities.max()))
    assert abs(float(nats.mean()) - wanted) <= 4 * float(nats.std()) / math.sqrt(n)


def spent(denoiser: ScoreDenoiser, language: Language) -> tuple[float, float]:
    """The mean of `SEDDUniform.nll`, nats a text, and its standard error."""
    n = 3000
    batch = core.Batch(language.sample(Streams.of(3, 1, count=n)), torch.ones(n, language.length))
    model = Answers(language.vocab, denoiser.predict)
    nats = SEDDUniform().nll(model, batch, Streams.of(3, count=n), 16).sum(1).double()
    return float(nats.mean()), float(nats.std()) / n**0.5


def test_the_bound_of_exact_ratios_is_the_entropy(agreement: Language) -> None:
    mean, error = spent(ratios(agreement), agreement)
    entropy = agreement.length * agreement.entropy
    assert mean == pytest.approx(entropy, abs=3 * error + 1e-2)
    assert error < 0.05
    # Ratios of what all tokens say, the noisy one too, are no ratios of chances.
    wrong, error = spent(ratios(agreement, all_say=True), agreement)
    assert wrong > entropy + max(0.5, 5 * error)


# --- optima -----------------------------------------------------------------------------------


def noisy_chances(language: Language, a: float) -> tuple[Tensor, Tensor, Tensor]:
    """All sentences z (n, l), the law of texts, and q(z | x) (n, n) of uniform noise."""
    every = torch.tensor(list(itertools.product(range(language.vocab), repeat=language.length)))
    same = (every[:, None] == every[None]).double()
    return every, joint(language).flatten(), (a * same + (1 - a) / language.vocab).prod(-1)


@pytest.mark.parametrize("a", [0.2, 0.7])
def test_the_optimum_of_uniform_noise_is_the_true_ratio_of_marginals(
    agreement: Language, a: float
) -> None:
    """Every place of every noisy text: score entropy, averaged over texts, has its least there."""
    every, law, q = noisy_chances(agreement, a)
    time = torch.full((1, 1), a, dtype=torch.float64)
    n, length, v = len(every), agreement.length, agreement.vocab
    marginal = (law[:, None] * q).sum(0)
    # q(z with w in place i) / q(z).
    table = marginal.view([v] * length)
    true = torch.stack(
        [
            torch.stack([table.select(i, w).unsqueeze(i).expand_as(table) for w in range(v)], -1)
            for i in range(length)
        ],
        -2,
    ).flatten(0, length - 1)
    true = true / marginal[:, None, None]
    exact = ratios(agreement).predict(every, time.expand(n, 1)).logp
    own = exact.gather(-1, every[..., None])
    assert torch.allclose((exact - own).exp(), true, rtol=1e-9)

    def mean(logp: Tensor, level: float = a) -> Tensor:
        at = torch.full((n, 1), level, dtype=torch.float64)
        total = logp.new_zeros(())
        for x, p in zip(every, law):
            if p > 0:
                paid = uniform_rate(Dense(logp), x.expand(n, -1), every, at, v).sum(1)
                weight = p * (a * (every == x).double() + (1 - a) / v).prod(-1)
                total = total + (weight * paid).sum()
        return total

    free = exact.clone().requires_grad_()
    (slope,) = torch.autograd.grad(mean(free), free)
    assert float(slope.abs().max()) < 1e-10
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        moved = exact + 0.3 * torch.randn(exact.shape, generator=rng, dtype=torch.float64)
        assert mean(moved) > mean(exact) + 1e-3
    # With the ratios of another time it lies elsewhere.
    (slope,) = torch.autograd.grad(mean(free, a + 0.1), free)
    assert float(slope.abs().max()) > 1e-3


def test_the_optimum_of_masks_is_the_posterior_with_its_sum(language: Language) -> None:
    """Over texts that agree with what is not masked."""
    tokens, chances = language.support()
    context = tokens[0].clone()
    context[[0, -1]] = language.vocab
    fit = ((context == tokens) | (context == language.vocab)).all(1)
    tokens, chances = tokens[fit], chances[fit] / chances[fit].sum()
    exact = scores(language).predict(context[None], torch.zeros(1, 1)).logp

    def mean(logits: Tensor) -> Tensor:
        paid = masked_rate(Dense(logits.expand(len(tokens), -1, -1)), tokens, language.vocab)
        return (chances[:, None] * torch.where(context == language.vocab, paid, 0.0)).sum()

    free = exact.clamp(min=-60).requires_grad_()
    (slope,) = torch.autograd.grad(mean(free), free)
    assert float(slope.abs().max()) < 1e-12
    # The sum is learnt like the rest: any other, with the same softmax, is pushed back.
    for extra in (-0.5, 0.5):
        (slope,) = torch.autograd.grad(mean(free + extra), free)
        assert float(slope.sum()) * extra > 0.1


# --- steps ------------------------------------------------------------------------------------


def drawn(log_sums: Tensor, reveal: float, **options: float) -> Tensor:
    """Shares of the words and, last, of FREE, over an even grid of u."""
    n = 20_000
    u = (torch.arange(n).double() + 0.5)[None] / n
    reveal_ = torch.tensor(reveal, dtype=torch.float64)
    found = revealed(log_sums.expand(1, n, -1), reveal_, u, **options)[0]
    return torch.stack([(found == w).double().mean() for w in (*range(V), FREE)])


def test_a_step_of_masks_is_the_published_one_and_that_of_masked_diffusion() -> None:
    """p(w) = s_w (1 - e) / e with e = a / c, the rest stays masked."""
    a, c, p = 0.3, 0.55, rows(1)[0]
    e, r = a / c, a / (1 - a)
    reveal = float(reveal_probability(torch.tensor(a).double(), torch.tensor(c).double()))
    for total in (1.0, 0.6, 1.9):
        s = r * total * p
        wanted = torch.cat([s * (1 - e) / e, 1 - (s * (1 - e) / e).sum()[None]])
        assert torch.allclose(drawn((total * p).log(), reveal), wanted, atol=2e-4)
    # At a sum of 1 that is what MDLM does; beyond all, nothing is left to reveal.
    mdlm = torch.cat([reveal * p, torch.tensor([1 - reveal]).double()])
    assert torch.allclose(drawn(p.log(), reveal), mdlm, atol=2e-4)
    assert torch.allclose(drawn((9 * p).log(), reveal)[:-1], p, atol=2e-4)


def test_the_last_step_of_masks_leaves_none_and_settings_act_on_words() -> None:
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double()[0]
    for total in (0.01, 1.0, 50.0):
        assert torch.allclose(drawn((total * p).log(), 1.0)[:-1], p, atol=2e-4)
    cold = drawn((0.8 * p).log(), 0.5, temperature=0.0)
    assert torch.allclose(cold, torch.tensor([0, 0, 0, 0.4, 0.6]).double(), atol=2e-4)
    warm = drawn((0.8 * p).log(), 0.5, temperature=0.5)
    assert torch.allclose(warm[:-1], 0.4 * p**2 / (p**2).sum(), atol=2e-4)
    cut = drawn((0.8 * p).log(), 0.5, top_p=0.65)
    assert torch.allclose(cut[:-1], 0.4 * nucleus(p[None], 0.65)[0], atol=2e-4)
    assert float(cut[0]) == float(cut[1]) == 0


def test_a_step_of_uniform_noise_is_the_published_one_and_that_of_duo() -> None:
    """[s_w / e + (e - 1) / (v e) sum s] [e 1(w = z) + (1 - e) / v]."""
    p, z = rows(5, 2), torch.randint(V, (5, 2), generator=torch.Generator().manual_seed(1))
    for a, c in ((0.3, 0.55), (0.02, 0.5), (0.6, 1.0)):
        a, c = torch.tensor(a).double(), torch.tensor(c).double()
        noisy, e = a * p + (1 - a) / V, a / c
        s = noisy / noisy.gather(-1, z[..., None])
        kept = torch.nn.functional.one_hot(z, V)
        wanted = (s / e + (e - 1) / (V * e) * s.sum(-1, keepdim=True)) * (e * kept + (1 - e) / V)
        wanted = wanted / wanted.sum(-1, keepdim=True)
        found = denoised(noisy, z, a, c)
        assert torch.allclose(found, wanted, atol=1e-13)
        assert torch.allclose(found, transition(p, z, a, c), atol=1e-12)
    # Ratios of no law: what would be negative is not drawn.
    sharp = torch.tensor([[[0.97, 0.01, 0.01, 0.01]]]).double()
    half = torch.tensor([0.5, 0.75]).double()
    assert denoised(sharp, torch.tensor([[1]]), *half)[0, 0].tolist() == [1, 0, 0, 0]


def test_settings_of_uniform_noise_act_on_what_is_predicted() -> None:
    p, a = rows(3, 2), torch.tensor(0.4).double()
    noisy, even = a * p + (1 - a) / V, (1 - a) / V
    assert torch.equal(sharper(noisy, a, 1.0, 1.0), noisy)
    warm = sharper(noisy, a, 0.5, 1.0)
    assert torch.allclose(warm, a * p**2 / (p**2).sum(-1, keepdim=True) + even, atol=1e-12)
    cut = sharper(noisy, a, 1.0, 0.6)
    assert torch.allclose(cut, a * nucleus(p, 0.6) + even, atol=1e-12)
    cold = sharper(noisy, a, 0.0, 1.0)
    assert torch.allclose(cold, a * torch.nn.functional.one_hot(p.argmax(-1), V) + even)
    assert torch.allclose(sharper(noisy, a, 1e-6, 1.0), cold)


# --- texts ------------------------------------------------------------------------------------

WAYS = {"masks": (scores, Tweedie), "uniform": (ratios, TweedieUniform)}


def far(kind: str, language: Language, steps: int, **options: float) -> float:
    exact, way = WAYS[kind]
    prompt = torch.full((4000, language.length), FREE)
    *_, last = way().frames(exact(language, **options), prompt, steps, Streams.of(4, count=4000))
    return variation(counted(last.tokens(), language.vocab) / 4000, joint(language))


@pytest.mark.parametrize("kind", WAYS)
def test_many_steps_write_the_language_and_one_its_marginals(
    kind: str, agreement: Language
) -> None:
    one, few, many = (far(kind, agreement, steps) for steps in (1, 4, 64))
    alone = variation(product_of_marginals(joint(agreement)), joint(agreement))
    assert one == pytest.approx(alone, abs=0.03)
    assert one > few + 0.05 > many + 0.1
    assert many < 0.06


def test_wrong_scores_do_not_write_the_language(agreement: Language) -> None:
    assert far("uniform", agreement, 64, all_say=True) > 0.15
    # Sums far too large reveal at once what should wait for the rest.
    assert far("masks", agreement, 64, extra=4.0) > far("masks", agreement, 64) + 0.1


def test_scores_of_the_right_sum_write_as_masked_diffusion_does(agreement: Language) -> None:
    """And ratios of uniform noise as its transitions do: the laws of three steps agree."""
    n, prompt = 20_000, torch.full((20_000, agreement.length), FREE)
    exact = scores(agreement).predict
    clean = MaskedDenoiser(lambda x: Dense(exact(x, x).logp.log_softmax(-1)), agreement.vocab)
    *_, one = Tweedie().frames(scores(agreement), prompt, 3, Streams.of(1, count=n))
    *_, two = Unmask().frames(clean, prompt, 3, Streams.of(2, count=n))
    tables = [counted(last.tokens(), agreement.vocab) / n for last in (one, two)]
    assert variation(*tables) < 0.03
    said = UniformDenoiser(
        lambda z, a: Dense(agreement.leave_one_out(heard(agreement, z, a)).log()), agreement.vocab
    )
    *_, one = TweedieUniform().frames(ratios(agreement), prompt, 3, Streams.of(1, count=n))
    *_, two = Replace().frames(said, prompt, 3, Streams.of(2, count=n))
    tables = [counted(last.tokens(), agreement.vocab) / n for last in (one, two)]
    assert variation(*tables) < 0.03


@pytest.mark.parametrize("kind", WAYS)
def test_evaluations_are_steps_and_given_tokens_stay(kind: str, agreement: Language) -> None:
    exact, way = WAYS[kind]
    known, asked = exact(agreement), []

    def predict(tokens: Tensor, t: Tensor) -> Dense:
        asked.append(t)
        assert t.dtype == torch.float32
        assert t.shape == (50, 1)
        return known.predict(tokens, t)

    prompt = torch.full((50, agreement.length), FREE)
    prompt[:, 0] = 1
    denoiser, rng = ScoreDenoiser(predict, agreement.vocab), Streams.of(1, count=50)
    frames = list(way(temperature=0.7, top_p=0.9).frames(denoiser, prompt, 5, rng))
    assert len(asked) == len(frames) == way().evaluations(5, agreement.length) == 5
    assert all(bool((frame.tokens()[:, 0] == 1).all()) for frame in frames)
    assert bool((frames[-1].tokens() != FREE).all())
    assert float(asked[0].max()) == pytest.approx(0 if kind == "masks" else 1e-3)
    text = torch.zeros(50, agreement.length, dtype=torch.long)
    assert way().nll(denoiser, text, 5, Streams.of(1, count=50)) is None


# --- rows that stay unnormalised --------------------------------------------------------------


@pytest.mark.parametrize("cap", [None, 3.0])
def test_strips_of_logits_give_what_all_of_them_give(cap: float | None) -> None:
    """Value and gradients, through features, weight and bias."""
    rng = torch.Generator().manual_seed(0)
    shapes = ((6, 5, 8), (37, 8), (37,))
    leaves = [torch.randn(*shape, generator=rng).double().requires_grad_() for shape in shapes]
    tokens = torch.randint(37, (6, 5), generator=rng)
    head = chunked.HeadPrediction(*leaves, cap=cap, side=8)
    logits = leaves[0] @ leaves[1].mT + leaves[2]
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    found, wanted = masked_rate(head, tokens, 37), masked_rate(Dense(logits), tokens, 37)
    assert torch.allclose(found, wanted, rtol=1e-10)
    weight = torch.rand(6, 5, generator=rng).double()
    grads = [torch.autograd.grad((weight * of).sum(), leaves) for of in (found, wanted)]
    for one, two in zip(*grads, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)
    # A softmax would lose the sum.
    assert not torch.allclose(masked_rate(Dense(logits.log_softmax(-1)), tokens, 37), wanted)


@given(st.floats(-HIGHEST, 3 * HIGHEST), st.floats(-HIGHEST, 3 * HIGHEST))
def test_the_excess_is_convex_and_exact_below_its_highest(one: float, two: float) -> None:
    u = torch.tensor([one, two, (one + two) / 2], dtype=torch.float64)
    first, second, middle = excess(u).tolist()
    assert middle <= (first + second) / 2 + 1e-9 * (1 + abs(first) + abs(second))
    assert min(first, second) >= 0
    if one <= HIGHEST:
        assert first == pytest.approx(math.expm1(one) - one, rel=1e-9, abs=1e-12)
    else:
        assert first <= math.exp(one)


def test_scores_that_would_overflow_have_finite_losses_and_gradients() -> None:
    """In float32 e^89 is infinite."""
    tokens, z = torch.tensor([[0, 1]]), torch.tensor([[2, 1]])
    for high in (100.0, 3e4):
        free = torch.tensor([[[high, 0.0, -high], [0.0, -high, high]]], requires_grad=True)
        a = torch.full((1, 1), 0.5)
        for paid in (
            masked_rate(Dense(free), tokens, 3),
            uniform_rate(Dense(free.log_softmax(-1)), tokens, z, a, 3),
        ):
            (slope,) = torch.autograd.grad(paid.sum(), free)
            assert bool(paid.isfinite().all())
            assert bool(slope.isfinite().all())
            assert float(slope[0, 1, 2]) > 1e3  # what is far too likely is pushed down
