"""Uniform-state diffusion with an exact network: its bound, its transitions, where it ends."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from exact import counted, joint, product_of_marginals, variation
from torch import Tensor

from flowlm.core import FREE, Dense, Language, Streams
from flowlm.methods.uniform_state import bound_rate
from flowlm.sampling import Replace, UniformDenoiser
from flowlm.sampling.replace import replaced, transition


def evidence(language: Language, z: Tensor, a: Tensor) -> Tensor:
    """q(z_i | x_i): kept with probability a (b, 1)."""
    heard = torch.nn.functional.one_hot(z, language.vocab).double()
    return a.double()[..., None] * heard + (1 - a.double()[..., None]) / language.vocab


def others_say(language: Language) -> UniformDenoiser:
    """Every token from all others."""

    def predict(z: Tensor, a: Tensor) -> Dense:
        return Dense(language.leave_one_out(evidence(language, z, a.clamp(max=1 - 1e-9))).log())

    return UniformDenoiser(predict, language.vocab)


def all_say(language: Language) -> UniformDenoiser:
    """Every token from all, itself too: the posterior mean, which is the trap."""

    def predict(z: Tensor, a: Tensor) -> Dense:
        return Dense(language.posterior(evidence(language, z, a.clamp(max=1 - 1e-9))).log())

    return UniformDenoiser(predict, language.vocab)


def bound(denoiser: UniformDenoiser, language: Language) -> tuple[float, float]:
    """Mean and standard error over 3,000 texts, nats a sequence, at 16 times each."""
    n, draws = 3000, 16
    rng = Streams.of(3, count=n)
    tokens, first = language.sample(rng), rng.stratified().double()
    times = [(k + first) / draws for k in range(draws)]
    rates = [bound_rate(denoiser.predict, tokens, t, language.vocab, rng) for t in times]
    nats = torch.stack(rates).mean(0).sum(1)
    return float(nats.mean()), float(nats.std()) / n**0.5


def test_leaving_one_out_is_hearing_nothing_of_it(language: Language) -> None:
    rng = torch.Generator().manual_seed(0)
    heard = torch.rand(3, language.length, language.vocab, generator=rng, dtype=torch.float64)
    got = language.leave_one_out(heard)
    for i in range(language.length):
        deaf = heard.clone()
        deaf[:, i] = 1.0
        assert torch.allclose(got[:, i], language.posterior(deaf)[:, i], atol=1e-12)


def test_the_bound_is_the_entropy_where_others_speak(agreement: Language) -> None:
    mean, error = bound(others_say(agreement), agreement)
    entropy = agreement.length * agreement.entropy
    assert mean == pytest.approx(entropy, abs=3 * error + 2e-3)
    assert error < 0.05
    # Where a token has a say in itself, the bound is far above.
    wrong, error = bound(all_say(agreement), agreement)
    assert wrong > entropy + max(0.5, 5 * error)


def test_the_rate_is_the_published_one(agreement: Language) -> None:
    """-1/(v a) [v/xb_z - v/xb'_z - sum_j (xb_j/xb_z) log(xb'_z xb_j / (xb'_j xb_z))]."""
    v, n = agreement.vocab, 60
    rng = Streams.of(5, count=n)
    tokens, t = agreement.sample(rng), rng.uniform(1).double().clamp(0.05, 0.95)
    p = torch.rand(n, 3, v, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = p / p.sum(-1, keepdim=True)
    z = replaced(tokens, t, v, Streams.of(6, count=n))
    got = bound_rate(lambda *_: Dense(p.log()), tokens, t, v, Streams.of(6, count=n))
    a = t[..., None]
    clean, guess = torch.nn.functional.one_hot(tokens, v).double(), p
    x, y = (v * a * row + 1 - a for row in (clean, guess))
    x_z, y_z = (rows.gather(-1, z[..., None]) for rows in (x, y))
    total = (x / x_z * (y_z * x / (y * x_z)).log()).sum(-1)
    wanted = -(v / x_z - v / y_z).squeeze(-1) + total
    assert torch.allclose(got, wanted / (v * t), rtol=1e-9)
    assert bool((got >= -1e-12).all())


def test_a_step_is_the_exact_posterior_of_a_token(agreement: Language) -> None:
    """q(z_c | z_a, x) summed over the clean token that the others say."""
    v, a, c = agreement.vocab, torch.tensor(0.3).double(), torch.tensor(0.7).double()
    p = torch.rand(1, 1, v, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = p / p.sum()
    for z in range(v):
        wanted = torch.zeros(v, dtype=torch.float64)
        for x, middle in itertools.product(range(v), repeat=2):
            at_c = c * (middle == x) + (1 - c) / v
            onward = a / c * (z == middle) + (1 - a / c) / v
            wanted[middle] += p[0, 0, x] * at_c * onward
        got = transition(p, torch.tensor([[z]]), a, c)[0, 0]
        assert torch.allclose(got, wanted / wanted.sum(), atol=1e-14)
        assert float(got.sum()) == pytest.approx(1)


def far(denoiser: UniformDenoiser, language: Language, steps: int, way: Replace) -> float:
    n = 4000
    prompt = torch.full((n, language.length), FREE)
    *_, last = way.frames(denoiser, prompt, steps, Streams.of(4, count=n))
    return variation(counted(last.tokens(), language.vocab) / n, joint(language))


def test_many_steps_write_the_language_and_one_its_marginals(agreement: Language) -> None:
    exact = others_say(agreement)
    one, few, many = (far(exact, agreement, steps, Replace()) for steps in (1, 4, 64))
    alone = variation(product_of_marginals(joint(agreement)), joint(agreement))
    assert one == pytest.approx(alone, abs=0.03)
    assert one > few + 0.05 > many + 0.1
    assert many < 0.06
    assert far(all_say(agreement), agreement, 64, Replace()) > many + 0.1


def test_the_bound_in_steps_falls_to_the_entropy(agreement: Language) -> None:
    exact, n = others_say(agreement), 2000
    tokens = agreement.sample(Streams.of(8, 1, count=n))
    entropy = agreement.length * agreement.entropy
    costs = []
    for steps in (1, 4, 64):
        nats = Replace().nll(exact, tokens, steps, Streams.of(8, count=n)).double().sum(1)
        costs.append((float(nats.mean()), float(nats.std()) / n**0.5))
    marginal = agreement.marginals.clamp(min=1e-300)
    assert costs[0][0] == pytest.approx(float(-(marginal * marginal.log()).sum()), abs=0.05)
    assert costs[0][0] > costs[1][0] > costs[2][0]
    assert costs[2][0] == pytest.approx(entropy, abs=3 * costs[2][1] + 0.03)
    assert Replace(top_p=0.9).nll(exact, tokens, 2, Streams.of(8, count=n)) is None
    assert Replace(tail="network").nll(exact, tokens, 2, Streams.of(8, count=n)) is None


def test_greedy_tails_take_the_likeliest(agreement: Language) -> None:
    exact, n = others_say(agreement), 300
    prompt = torch.full((n, 3), FREE)
    ends = {}
    for tail in ("draw", "posterior", "network"):
        way = Replace(tail=tail)
        frames = list(way.frames(exact, prompt, 3, Streams.of(2, count=n)))
        assert len(frames) == way.evaluations(3, 3) == 3 + (tail == "network")
        ends[tail] = frames
    before = ends["posterior"][1].decided
    prediction = ends["posterior"][2].prediction
    a, c = (torch.tensor(x).double() for x in (2 / 3, 1.0))
    rows = transition(prediction.log_probs().exp(), before, a, c)
    assert torch.equal(ends["posterior"][-1].tokens(), rows.argmax(-1))
    assert torch.equal(ends["network"][2].decided, ends["draw"][2].decided)
    assert torch.equal(ends["network"][3].tokens(), ends["network"][3].prediction.argmax())
    assert math.isclose(float(ends["network"][3].tau[0]), 1 - 1e-5, rel_tol=1e-6)


def test_given_tokens_stay(agreement: Language) -> None:
    prompt = torch.full((50, 3), FREE)
    prompt[:, 0] = 1
    for frame in Replace().frames(others_say(agreement), prompt, 4, Streams.of(1, count=50)):
        assert bool((frame.tokens()[:, 0] == 1).all())
