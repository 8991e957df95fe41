"""The flow of an exactly known denoiser: orders of convergence, and where the flow ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from exact import Answers, counted, joint, travelled, variation
from torch import Tensor

from flowlm import core, sampling
from flowlm.core import Clock, Decoding, Dense, Language, OneHot, Streams, Uniform
from flowlm.methods.flow import Flow

CLOCKS = [Uniform(), Decoding(4)]


def exact_denoiser(language: Language, clock: Clock) -> Callable[[Tensor, Tensor], Dense]:
    return lambda x, tau: language.denoiser(x, clock.t(tau))


def last(items: Iterator) -> object:
    *_, item = items
    return item


def solved(solve: Callable, language: Language, clock: Clock, x: Tensor, steps: int) -> Tensor:
    """Where a sampler is after `steps` even steps of clock time that end at tau = 0.8."""
    until = torch.linspace(0, 0.8, steps + 1, dtype=torch.float64)
    grid = torch.cat((until, torch.ones(1, dtype=torch.float64)))
    frames = solve(exact_denoiser(language, clock), OneHot(language.vocab), clock, x, grid)
    return last(frames).x


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
@pytest.mark.parametrize(("solve", "order"), [(sampling.euler, 1), (sampling.heun, 2)])
def test_order_of_convergence(
    agreement: Language, clock: Clock, solve: Callable, order: int
) -> None:
    x = Streams.of(1, count=8).normal(3, 4, dtype=torch.float64)
    end = clock.t(torch.tensor([[0.8]], dtype=torch.float64))
    truth = travelled(agreement, x, torch.zeros(8, 1), end.expand(8, 1), 400)
    errors = [
        float((solved(solve, agreement, clock, x, n) - truth).square().mean().sqrt())
        for n in (24, 48, 96, 192)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(order, abs=0.15)
    assert orders[-2] == pytest.approx(order, abs=0.2)


def test_both_solvers_stop_before_the_end_and_answer_there(agreement: Language) -> None:
    clock, space = Decoding(4), OneHot(4)
    x = Streams.of(2, count=3).normal(3, 4)
    for solve, evaluations in ((sampling.euler, 5), (sampling.heun, 9)):
        seen: list[float] = []

        def denoise(x: Tensor, tau: Tensor, seen: list[float] = seen) -> Dense:
            seen.append(float(tau[0, 0]))
            return agreement.denoiser(x, clock.t(tau))

        frames = list(solve(denoise, space, clock, x, clock.grid(5)))
        assert len(frames) == 5
        assert len(seen) == evaluations
        assert max(seen) == pytest.approx(0.8)
        wanted = agreement.denoiser(frames[-1].x, clock.t(frames[-1].tau)).logp
        assert torch.equal(frames[-1].prediction.log_probs(), wanted)


def test_an_euler_step_is_x_plus_dt_times_the_velocity(agreement: Language) -> None:
    clock = Decoding(4)
    x = Streams.of(3, count=6).normal(3, 4, dtype=torch.float64)
    grid = torch.tensor([0.3, 0.45, 1.0], dtype=torch.float64)
    denoise = exact_denoiser(agreement, clock)
    first, second = sampling.euler(denoise, OneHot(4), clock, x, grid)
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


@pytest.mark.parametrize(("solver", "steps"), [("euler", 96), ("heun", 24)])
def test_sampling_with_the_exact_denoiser_writes_the_language(
    language: Language, solver: str, steps: int
) -> None:
    method = Flow(encoder="linear", solver=solver)
    clock = method.time(language.vocab)
    model = Answers(language.vocab, exact_denoiser(language, clock))
    n = 4000
    prompt = torch.full((n, language.length), core.FREE)
    tokens = last(method.sample(model, prompt, steps, Streams.of(5, count=n)))
    wanted = joint(language)
    found = counted(tokens, language.vocab) / n
    # Of independent draws: E|p_n - p| <= sqrt(p (1 - p) / n) for every sentence; twice that sum.
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * noise
    assert float(found[wanted == 0].sum()) <= 2e-3


def test_few_steps_write_worse(agreement: Language) -> None:
    """One step takes every word by itself, and so the count of steps matters."""
    method, n = Flow(encoder="linear"), 4000
    model = Answers(4, exact_denoiser(agreement, method.time(4)))
    prompt = torch.full((n, 3), core.FREE)
    far = [
        variation(
            counted(last(method.sample(model, prompt, steps, Streams.of(6, count=n))), 4) / n,
            joint(agreement),
        )
        for steps in (1, 4, 64)
    ]
    assert far[0] > far[1] > 2 * far[2]
    # One step knows nothing but the marginals, and takes the likeliest word of each.
    one = last(method.sample(model, prompt, 1, Streams.of(6, count=n)))
    assert torch.equal(one, agreement.marginals.argmax(-1).expand(n, 3))


def test_a_prompt_conditions_the_exact_flow(
    agreement: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """With the first word given, the rest is written from the conditional distribution."""
    method, n = Flow(encoder="linear"), 3000
    clock = method.time(4)

    def given(x: Tensor, tau: Tensor) -> Dense:
        # A time of 1 means a point mass, which the likelihood of a time just before 1 is too.
        return agreement.denoiser(x, clock.t(tau).clamp(max=0.96))

    prompt = torch.full((n, 3), core.FREE)
    prompt[:, 0] = 1
    tokens = last(method.sample(Answers(4, given), prompt, 64, Streams.of(7, count=n)))
    assert (tokens[:, 0] == 1).all()
    wanted = joint(agreement)[1]
    wanted = wanted / wanted.sum()
    found = counted(tokens, 4)[1] / n
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * noise
