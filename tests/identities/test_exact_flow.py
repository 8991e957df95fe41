"""The flow of an exactly known denoiser: orders of convergence, and where the flow ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from exact import Answers, counted, joint, product_of_marginals, travelled, variation
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowlm import core
from flowlm.core import Clock, Decoding, Dense, Language, OneHot, Streams, Uniform
from flowlm.methods.flow import Flow
from flowlm.methods.input import LinearInput
from flowlm.sampling import Bridge, Denoiser, Euler, Frame, Heun, PointSampler
from writing import film

CLOCKS = [Uniform(), Decoding(4)]
WRITERS = [(Euler(), 96), (Heun(), 24), (Bridge("mean"), 64), (Bridge(), 64)]
"""Samplers, and the steps of each that write the language as its exact denoiser has it."""


def exact_denoiser(language: Language, clock: Clock) -> Callable[..., Dense]:
    return lambda x, tau, *_: language.denoiser(x, clock.t(tau))


def walk(
    sampler: PointSampler, denoise: Callable[..., Dense], clock: Clock, x: Tensor, grid: Tensor
) -> list[Frame]:
    denoiser = Denoiser(denoise, OneHot(x.shape[-1]), clock)
    return list(sampler.walk(denoiser, x, grid, Streams.of(0, count=len(x))))


def solved(
    sampler: PointSampler, language: Language, clock: Clock, x: Tensor, steps: int
) -> Tensor:
    """Where a sampler is after `steps` even steps of clock time that end at tau = 0.8."""
    until = torch.linspace(0, 0.8, steps + 1, dtype=torch.float64)
    grid = torch.cat((until, torch.ones(1, dtype=torch.float64)))
    return walk(sampler, exact_denoiser(language, clock), clock, x, grid)[-1].x


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize(("sampler", "order"), [(Euler(), 1), (Heun(), 2)], ids=str)
def test_order_of_convergence(
    agreement: Language, clock: Clock, sampler: PointSampler, order: int
) -> None:
    x = Streams.of(1, count=8).normal(3, 4, dtype=torch.float64)
    end = clock.t(torch.tensor([[0.8]], dtype=torch.float64))
    truth = travelled(agreement, x, torch.zeros(8, 1), end.expand(8, 1), 150)
    errors = [
        float((solved(sampler, agreement, clock, x, n) - truth).square().mean().sqrt())
        for n in (48, 96, 192)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(order, abs=0.15)
    assert orders[-2] == pytest.approx(order, abs=0.2)


def test_both_solvers_stop_before_the_end_and_answer_there(agreement: Language) -> None:
    clock = Decoding(4)
    x = Streams.of(2, count=3).normal(3, 4)
    for sampler in (Euler(), Heun()):
        seen: list[float] = []

        def denoise(x: Tensor, tau: Tensor, _: Tensor, seen: list[float] = seen) -> Dense:
            seen.append(float(tau[0, 0]))
            return agreement.denoiser(x, clock.t(tau))

        frames = walk(sampler, denoise, clock, x, clock.grid(5))
        assert len(frames) == 5
        assert len(seen) == sampler.evaluations(5, 3) == (9 if sampler == Heun() else 5)
        assert max(seen) == pytest.approx(0.8)
        wanted = agreement.denoiser(frames[-1].x, clock.t(frames[-1].tau)).logp
        assert torch.equal(frames[-1].prediction.log_probs(), wanted)


def test_an_euler_step_is_x_plus_dt_times_the_velocity(agreement: Language) -> None:
    clock = Decoding(4)
    x = Streams.of(3, count=6).normal(3, 4, dtype=torch.float64)
    grid = torch.tensor([0.3, 0.45, 1.0], dtype=torch.float64)
    denoise = exact_denoiser(agreement, clock)
    first, second = walk(Euler(), denoise, clock, x, grid)
    t, t_next = (clock.t(tau.expand(6, 1)) for tau in grid[:2])
    mean = first.prediction.log_probs().exp()
    by_hand = x + float(t_next[0] - t[0]) * (mean - x) / float(1 - t[0])
    assert torch.allclose(second.x, by_hand, rtol=0, atol=1e-14)
    assert torch.allclose(second.x, core.jump(x, mean, t, t_next), rtol=0, atol=1e-14)
    moved = x + (t_next - t)[..., None] * core.velocity(mean, x, t)
    assert torch.allclose(second.x, moved, rtol=0, atol=1e-14)


def test_velocity_is_the_mean_of_the_interpolants_slope() -> None:
    """d x_t / dt = x1 - x0, which is what (x1 - x_t) / (1 - t) says in terms of x_t."""
    rng = Streams.of(4, count=5)
    x0, x1 = rng.normal(3, 4, dtype=torch.float64), rng.normal(3, 4, dtype=torch.float64)
    t = rng.uniform(3, dtype=torch.float64)
    x = core.interpolate(x0, x1, t)
    assert torch.allclose(core.velocity(x1, x, t), x1 - x0, atol=1e-12)
    h = 1e-6
    slope = (core.interpolate(x0, x1, t + h) - x) / h
    assert torch.allclose(slope, x1 - x0, atol=1e-8)
    ends = (core.interpolate(x0, x1, torch.full((5, 1), float(k))) for k in (0, 1))
    for end, wanted in zip(ends, (x0, x1)):
        assert torch.equal(end, wanted)


@pytest.mark.parametrize(("sampler", "steps"), WRITERS, ids=str)
def test_sampling_with_the_exact_denoiser_writes_the_language(
    language: Language, sampler: PointSampler, steps: int
) -> None:
    method = Flow(input=LinearInput())
    clock = method.time(language.vocab)
    model = Answers(language.vocab, exact_denoiser(language, clock))
    n = 4000
    prompt = torch.full((n, language.length), core.FREE)
    tokens = film(method, model, prompt, steps, Streams.of(5, count=n), sampler)[-1]
    wanted = joint(language)
    found = counted(tokens, language.vocab) / n
    # Of independent draws: E|p_n - p| <= sqrt(p (1 - p) / n) for every sentence; twice that sum.
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * noise
    assert float(found[wanted == 0].sum()) <= 2e-3


def test_few_steps_write_worse(agreement: Language) -> None:
    """One step takes every word by itself, and so the count of steps matters."""
    method, n = Flow(input=LinearInput()), 4000
    model = Answers(4, exact_denoiser(agreement, method.time(4)))
    prompt = torch.full((n, 3), core.FREE)
    far = [
        variation(
            counted(film(method, model, prompt, steps, Streams.of(6, count=n))[-1], 4) / n,
            joint(agreement),
        )
        for steps in (1, 4, 64)
    ]
    assert far[0] > far[1] > 2 * far[2]
    # One step knows nothing but the marginals, and takes the likeliest word of each.
    one = film(method, model, prompt, 1, Streams.of(6, count=n))[-1]
    assert torch.equal(one, agreement.marginals.argmax(-1).expand(n, 3))


def test_a_prompt_conditions_the_exact_flow(
    agreement: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """With the first word given, the rest is written from the conditional distribution."""
    method, n = Flow(input=LinearInput()), 3000
    clock = method.time(4)

    def given(x: Tensor, tau: Tensor) -> Dense:
        # A time of 1 means a point mass, which the likelihood of a time just before 1 is too.
        return agreement.denoiser(x, clock.t(tau).clamp(max=0.96))

    prompt = torch.full((n, 3), core.FREE)
    prompt[:, 0] = 1
    tokens = film(method, Answers(4, given), prompt, 64, Streams.of(7, count=n))[-1]
    assert (tokens[:, 0] == 1).all()
    wanted = joint(agreement)[1]
    wanted = wanted / wanted.sum()
    found = counted(tokens, 4)[1] / n
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * noise


# --- one step, with its switches ----------------------------------------------------------------


@given(st.floats(0, 0.999), st.floats(0, 1), st.floats(0, 1))
def test_a_step_without_fresh_noise_is_the_jump(t: float, way: float, seed: float) -> None:
    rng = Streams.of(int(1000 * seed), count=2)
    x, end, noise = (rng.normal(3, 4, dtype=torch.float64) for _ in range(3))
    now = torch.full((2, 1), t, dtype=torch.float64)
    then = now + way * (1 - now)
    stepped = core.step(x, end, now, then, 1.0, noise)
    assert torch.allclose(stepped, core.jump(x, end, now, then), rtol=0, atol=1e-9)


@given(st.floats(0, 0.95), st.floats(0.001, 1))
def test_the_bridge_is_the_law_of_a_point_given_a_noisier_one_and_the_text(
    t: float, way: float
) -> None:
    """By Bayes: x_t = t e + (1 - t) z and x_s = s e + (1 - s) z' that is noised on to x_t.

    Noising on scales x_s by t / s and adds what is missing of the variance, for x_t / t is x_s / s
    plus independent noise. Conditioned on x_t that is a Gaussian with these coefficients.
    """
    now = torch.full((1, 1), t, dtype=torch.float64)
    then = now + way * (1 - now)
    s = float(then)
    kappa = core.bridge_kappa(now, then)
    unit = torch.eye(3, dtype=torch.float64)[:, None, None]
    keep, end, fresh = core.step(*unit[[0, 1]], now, then, kappa, unit[2])[0, 0].tolist()
    scale = t / s
    onward = (1 - t) ** 2 - (scale * (1 - s)) ** 2
    variance = (1 - s) ** 2 * onward / (1 - t) ** 2
    gain = scale * (1 - s) ** 2 / (1 - t) ** 2
    assert keep == pytest.approx(gain, abs=1e-9)
    assert end == pytest.approx(s - gain * t, abs=1e-9)
    assert fresh**2 == pytest.approx(variance, abs=1e-9)


def test_given_tokens_stay_whatever_the_step() -> None:
    rng = Streams.of(0, count=2)
    x, end, noise = (rng.normal(3, 4) for _ in range(3))
    now = torch.tensor([[0.2, 1.0, 0.9]]).expand(2, 3)
    then = torch.tensor([[0.5, 1.0, 1.0]]).expand(2, 3)
    for kappa in (0.0, 0.7, 1.0, core.bridge_kappa(now, then)):
        stepped = core.step(x, end, now, then, kappa, noise)
        assert torch.equal(stepped[:, 1], x[:, 1])
        assert torch.allclose(stepped[:, 2], end[:, 2], atol=1e-6)


@pytest.mark.parametrize("endpoint", ["token", "mean"])
def test_drawn_tokens_are_ahead_of_means_in_many_steps(agreement: Language, endpoint: str) -> None:
    """How far three sentences are off after 3 and after 24 bridges, with the exact denoiser."""
    method, n = Flow(input=LinearInput()), 6000
    model = Answers(4, exact_denoiser(agreement, method.time(4)))
    prompt = torch.full((n, 3), core.FREE)
    few, many = (
        variation(
            counted(
                film(method, model, prompt, steps, Streams.of(8, count=n), Bridge(endpoint))[-1], 4
            )
            / n,
            joint(agreement),
        )
        for steps in (3, 24)
    )
    assert many < few / 2


def test_one_bridge_to_tokens_keeps_every_marginal(
    agreement: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """One step draws every token from its own marginal: their product, exactly."""
    method, n = Flow(input=LinearInput()), 6000
    model = Answers(4, exact_denoiser(agreement, method.time(4)))
    prompt = torch.full((n, 3), core.FREE)
    (tokens,) = film(method, model, prompt, 1, Streams.of(9, count=n), Bridge())
    fits(counted(tokens, 4), product_of_marginals(joint(agreement)))
