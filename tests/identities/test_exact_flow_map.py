"""The flow map of an exactly known flow, and the algebra of jumps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from exact import Answers, counted, inverted, joint, travelled, two_time, variation
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from flowlm import core
from flowlm.core import Clock, Decoding, Dense, Language, OneHot, Streams, Uniform, jump
from flowlm.core import semigroup_weight as weight
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import LinearInput
from flowlm.sampling import Denoiser, Euler, Jumps
from flowlm.sampling.jump import aim
from writing import film

UNIT = st.floats(0, 1, allow_subnormal=False)


def column(*values: float, rows: int = 1) -> list[Tensor]:
    return [torch.full((rows, 1), v, dtype=torch.float64) for v in values]


def noise(seed: int, *shape: int) -> Tensor:
    return Streams.of(seed, count=shape[0]).normal(*shape[1:], dtype=torch.float64)


# --- the algebra ------------------------------------------------------------------------------


@given(UNIT, UNIT, UNIT, st.integers(0, 1000))
def test_two_jumps_are_one_with_the_weighted_delta(a: float, b: float, c: float, seed: int) -> None:
    s, u, t = sorted((a, b, c))
    assume(t - s > 1e-6 and 1 - u > 1e-6)
    s, u, t = column(s, u, t)
    x, near, far = noise(seed, 3, 1, 2, 5)
    g = weight(s, u, t)
    assert 0 <= float(g) <= 1
    delta = g[..., None] * near + (1 - g[..., None]) * far
    twice = jump(jump(x, near, s, u), far, u, t)
    assert torch.allclose(jump(x, delta, s, t), twice, rtol=0, atol=1e-9)


@given(UNIT, UNIT, st.integers(0, 1000))
def test_a_jump_is_its_formula(a: float, b: float, seed: int) -> None:
    s, t = sorted((a, b))
    assume(1 - s > 1e-9)
    x, delta = noise(seed, 2, 1, 2, 3)
    by_hand = ((1 - t) * x + (t - s) * delta) / (1 - s)
    assert torch.allclose(jump(x, delta, *column(s, t)), by_hand, rtol=1e-12, atol=1e-12)


@given(UNIT, st.integers(0, 1000))
def test_a_jump_of_no_length_stays(s: float, seed: int) -> None:
    x, delta = noise(seed, 2, 2, 3, 4)
    for time in (s, 0.0, 1.0):
        assert torch.equal(jump(x, delta, *column(time, time, rows=2)), x)


def test_a_jump_to_text_is_delta() -> None:
    x, delta = noise(0, 2, 2, 3, 4)
    assert torch.allclose(jump(x, delta, *column(0.4, 1.0, rows=2)), delta, atol=1e-15)


def test_tokens_jump_by_their_own_times() -> None:
    x, delta = noise(1, 2, 1, 3, 4)
    s = torch.tensor([[0.1, 0.5, 1.0]], dtype=torch.float64)
    t = torch.tensor([[0.2, 0.5, 1.0]], dtype=torch.float64)
    moved = jump(x, delta, s, t)
    assert torch.equal(moved[:, 1:], x[:, 1:])
    assert torch.allclose(moved[:, :1], jump(x[:, :1], delta[:, :1], *column(0.1, 0.2)))


@given(st.floats(0, 0.99), st.floats(0, 0.99))
def test_semigroup_weight_at_the_ends(a: float, b: float) -> None:
    s, u = sorted((a, b))
    assume(u - s > 1e-6)
    assert float(weight(*column(s, s, u))) == 0
    assert float(weight(*column(s, u, u))) == pytest.approx(1, abs=1e-12)
    assert float(weight(*column(s, u, 1.0))) == 0


# --- the exact flow ---------------------------------------------------------------------------


def on_the_way(language: Language, seed: int, s: Tensor) -> Tensor:
    """Points of the flow's own distribution at times s."""
    rng = Streams.of(seed, count=len(s))
    clean = OneHot(language.vocab).clean(language.sample(rng)).double()
    x0 = rng.normal(language.length, language.vocab, dtype=torch.float64)
    return core.interpolate(x0, clean, s)


def times(*rows: tuple[float, ...], copies: int = 3) -> list[Tensor]:
    """Columns of times, one row a text."""
    every = torch.tensor(rows, dtype=torch.float64).repeat(copies, 1)
    return list(every.split(1, dim=1))


def test_the_two_time_denoiser_lies_on_the_simplex(language: Language) -> None:
    s, t = times((0.0, 0.3), (0.0, 0.9), (0.2, 0.6), (0.55, 0.8), (0.7, 0.95))
    x = on_the_way(language, 2, s)
    end = travelled(language, x, s, t, 300)
    rows = inverted(x, end, s, t)
    assert rows.min() >= -1e-10
    assert (rows.sum(-1) - 1).abs().max() <= 1e-10
    # It is an average of denoisers on the way, and not the one at either end.
    for one in (language.denoiser(x, s), language.denoiser(end, t)):
        assert (rows - one.logp.exp()).abs().mean() > 1e-3


def test_over_no_length_it_is_the_denoiser(language: Language) -> None:
    s, t = times((0.5, 0.5 + 1e-6), copies=6)
    x = on_the_way(language, 3, s)
    delta = two_time(language, x, s, t, 1)
    assert torch.allclose(delta, language.denoiser(x, s).logp.exp(), atol=1e-5)


def test_the_exact_map_is_a_semigroup(language: Language) -> None:
    s, u, t = times((0.0, 0.4, 0.8), (0.2, 0.3, 0.9), (0.5, 0.75, 0.76))
    x = on_the_way(language, 4, s)
    near = two_time(language, x, s, u, 150)
    far = two_time(language, travelled(language, x, s, u, 110), u, t, 170)
    whole = two_time(language, x, s, t, 190)
    g = weight(s, u, t)[..., None]
    assert (whole - (g * near + (1 - g) * far)).abs().max() <= 1e-5
    # Not so with the weights the other way round.
    assert (whole - ((1 - g) * near + g * far)).abs().max() > 1e-3


@pytest.mark.parametrize("clock", [Uniform(), Decoding(4)], ids=str)
def test_the_semigroup_target_of_the_exact_map_is_the_exact_map(
    agreement: Language, clock: Clock
) -> None:
    """Clock times in, t for the algebra: the target of delta_{s,t} is delta_{s,t}."""

    def denoise(x: Tensor, tau: Tensor, tau_next: Tensor) -> Dense:
        s, t = clock.t(tau), clock.t(tau_next)
        return Dense(two_time(agreement, x, s, t, 120).clamp(min=1e-300).log())

    three = core.Triple(*times((0.15, 0.5, 0.85), (0.3, 0.35, 0.6)))
    x = on_the_way(agreement, 5, clock.t(three.s))
    target = core.semigroup_target(denoise, denoise, OneHot(4), clock, x, three)
    rows = sum(w[..., None] * part.log_probs().exp() for w, part in target.parts)
    wanted = denoise(x, three.s, three.t)
    assert (rows - wanted.log_probs().exp()).abs().max() <= 1e-5
    # The cross-entropy is least, and is the entropy, at the target itself.
    least = wanted.cross_entropy(target)
    entropy = -torch.special.xlogy(rows, rows).sum(-1)
    assert torch.allclose(least, entropy, atol=1e-4)
    other = agreement.denoiser(x, clock.t(three.s)).cross_entropy(target)
    assert (other > least).all()


def exact_map(language: Language, clock: Clock) -> Callable[[Tensor, Tensor, Tensor], Dense]:
    def answer(x: Tensor, tau: Tensor, tau_next: Tensor) -> Dense:
        s, t = clock.t(tau).double(), clock.t(tau_next).double()
        if bool((t < 0.97).all()):
            return Dense(two_time(language, x, s, t, 16).clamp(min=1e-300).log())
        # From 0.97 on nothing is undecided: delta_{s,1} is where the flow arrives.
        arrived = torch.full_like(t, 0.97)
        return language.denoiser(travelled(language, x, s, arrived, 40), arrived)

    return answer


@pytest.mark.parametrize(("steps", "gamma"), [(1, 0.0), (2, 0.0), (3, 0.0), (3, 1.0)])
def test_the_exact_map_writes_the_language_in_any_number_of_jumps(
    agreement: Language, steps: int, gamma: float
) -> None:
    """Plain jumps compose to the flow; gamma = 1 goes to text and noises it anew, also exact."""
    method, n = FlowMap(input=LinearInput()), 2000
    model = Answers(4, exact_map(agreement, method.time(4)))
    prompt = torch.full((n, 3), core.FREE)
    tokens = film(method, model, prompt, steps, Streams.of(8, count=n), Jumps(gamma))[-1]
    wanted = joint(agreement)
    found = counted(tokens, 4) / n
    spread = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * spread
    assert float(found[wanted == 0].sum()) <= 2e-3


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("clock", ["uniform", "decoding"])
def test_losses_look_at_texts_as_noisy_as_their_time(
    agreement: Language, clock: str, taught: bool
) -> None:
    """Which points and times a network is asked about, in clock time."""
    asked: list[tuple[Tensor, ...]] = []

    def answer(x: Tensor, *taus: Tensor) -> Dense:
        asked.append((x, *taus))
        return Dense(torch.full_like(x, -math.log(4)))

    n, model = 4000, Answers(4, answer)
    tokens = agreement.sample(Streams.of(20, count=n))
    batch, rng = core.Batch(tokens, torch.ones(n, 3)), Streams.of(21, count=n)
    flow = Flow(input=LinearInput(), clock=clock)
    flow.loss(model, batch, rng)
    method = FlowMap(input=LinearInput(), clock=clock, teacher="runs/teacher" if taught else None)
    method.loss(model, batch, rng, model if taught else None)
    one, diagonal, *rest = asked
    near, far, own = rest[-3:]
    assert len(rest) == 3 + taught
    assert torch.equal(diagonal[1], diagonal[2])
    if taught:
        assert len(rest[0]) == 2
        assert all(torch.equal(a, b) for a, b in zip(rest[0], diagonal))
    assert torch.equal(near[0], own[0])
    assert torch.equal(near[1], own[1])
    assert torch.equal(near[2], far[1])
    assert torch.equal(far[2], own[2])
    time = method.time(4)
    for (x, tau, *_), texts in ((one, tokens), (diagonal, tokens[::2]), (own, tokens[1::2])):
        t = time.t(tau)
        clean = OneHot(4).clean(texts)
        noise = (x - t[..., None] * clean) / (1 - t[..., None])
        for part in (t[:, 0] < t.median(), t[:, 0] >= t.median()):
            draws = noise[part].numel()
            assert abs(float(noise[part].mean())) <= 4 / math.sqrt(draws)
            assert abs(float(noise[part].square().mean()) - 1) <= 4 * math.sqrt(2 / draws)
    # The far jump starts where the near one ends, with the near prediction (here: even).
    s, u = time.t(near[1]), time.t(near[2])
    assert torch.allclose(far[0], jump(near[0], torch.full_like(near[0], 0.25), s, u), atol=1e-6)


# --- re-noising -------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1))
def test_renoise_keeps_the_level(t: float, gamma: float) -> None:
    time = torch.tensor([[t]], dtype=torch.float64)
    kappa = math.sqrt(1 - gamma**2)
    there = aim(time, kappa)
    sigma = 1 - t
    assert t - 1e-12 <= float(there) <= 1
    # From pure noise, of which the step keeps what the jump leaves, and adds the rest anew.
    zero = torch.zeros(1, 1, dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)[:, None, None]
    old, text, fresh = core.step(*unit[[0, 1]], zero, time, kappa, unit[2])[0, 0].tolist()
    assert old == pytest.approx(float(1 - there), abs=1e-12)
    assert old**2 + fresh**2 == pytest.approx(sigma**2, abs=1e-12)
    assert text == pytest.approx(t, abs=1e-12)
    if gamma == 0:
        assert float(there) == pytest.approx(t, abs=1e-15)
        assert fresh == 0


@pytest.mark.parametrize("gamma", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("clock", [Uniform(), Decoding(4)], ids=str)
def test_a_renoised_text_has_the_level_of_its_time(clock: Clock, gamma: float) -> None:
    """If delta knows x1, then x_t is t x1 plus noise of deviation 1 - t, whatever gamma."""
    n, length, vocab = 4000, 3, 4
    tokens = torch.tensor([[0, 2, 1]]).expand(n, length)
    space = OneHot(vocab)
    known = Dense(torch.log(space.clean(tokens)))
    rng = Streams.of(9, count=n)
    x0 = space.noise(rng, length)
    grid = torch.tensor([0.0, 0.35, 0.6, 1.0])
    frames = list(Jumps(gamma).walk(Denoiser(lambda *_: known, space, clock), x0, grid, rng))
    draws = n * length * vocab
    for frame in frames[1:]:
        t = clock.t(frame.tau)
        sigma = float(1 - t[0])
        left = (frame.x - t[..., None] * space.clean(tokens)) / sigma
        assert abs(float(left.mean())) <= 4 / math.sqrt(draws)
        assert abs(float(left.square().mean()) - 1) <= 4 * math.sqrt(2 / draws)
    # Some of the noise is the old one: its share is sqrt(1 - gamma^2) after one re-noising.
    sigma = float(1 - clock.t(frames[1].tau)[0])
    kept = float((frames[1].x * x0).mean()) / sigma
    assert kept == pytest.approx(math.sqrt(1 - gamma**2), abs=4 / math.sqrt(draws) * 1.5)


def test_gamma_changes_nothing_at_one_step(agreement: Language) -> None:
    clock, space = Decoding(4), OneHot(4)
    x = Streams.of(10, count=4).normal(3, 4)
    answers = []
    for gamma in (0.0, 0.8, 1.0, None):
        rng = Streams.of(11, count=4)
        denoiser = Denoiser(exact_map(agreement, clock), space, clock)
        (frame,) = Jumps(gamma).walk(denoiser, x, clock.grid(1), rng)
        answers.append(frame.prediction.log_probs())
        assert torch.equal(rng.uniform(2), Streams.of(11, count=4).uniform(2)), "noise was drawn"
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(answers[0], answers[3])


def test_without_gamma_jumps_compose_to_the_flow(agreement: Language) -> None:
    clock, space = Uniform(), OneHot(4)
    x = Streams.of(12, count=5).normal(3, 4, dtype=torch.float64)
    grid = torch.tensor([0.0, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)

    def denoise(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        if float(t[0]) == 1:
            return agreement.denoiser(x, s)
        return Dense(two_time(agreement, x, s, t, 50).clamp(min=1e-300).log())

    denoiser = Denoiser(denoise, space, clock)
    frames = list(Jumps(gamma=0.0).walk(denoiser, x, grid, Streams.of(0, count=5)))
    for frame in frames[1:]:
        straight = travelled(agreement, x, torch.zeros(5, 1), frame.tau, 120)
        assert torch.allclose(frame.x, straight, atol=1e-7)


def test_a_frozen_denoiser_makes_jumps_euler_steps(agreement: Language) -> None:
    clock, space = Decoding(4), OneHot(4)
    x = Streams.of(13, count=5).normal(3, 4)
    grid = clock.grid(6)
    frozen = Denoiser(lambda x, tau, _: agreement.denoiser(x, clock.t(tau)), space, clock)
    euler, jumps = (
        way.walk(frozen, x, grid, Streams.of(0, count=5)) for way in (Euler(), Jumps(0.0))
    )
    for a, b in zip(euler, jumps, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.prediction.log_probs(), b.prediction.log_probs())


def test_no_jump_aims_past_the_latest_time(agreement: Language) -> None:
    asked: list[tuple[float, float]] = []

    def denoise(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        asked.append((float(s.max()), float(t.max())))
        return Dense(torch.full_like(x, -math.log(4)))

    denoiser = Denoiser(denoise, OneHot(4), Uniform())
    prompt = torch.tensor([[core.FREE, 2, core.FREE]])
    for _ in Jumps(gamma=0.0, latest=0.7).frames(denoiser, prompt, 4, Streams.of(1, count=1)):
        pass
    assert asked == [(1.0, 1.0)] * 4  # the given token stays at 1
    asked.clear()
    for _ in Jumps(gamma=0.0, latest=0.7).frames(
        denoiser, prompt * 0 - 1, 4, Streams.of(1, count=1)
    ):
        pass
    assert [round(t, 6) for _, t in asked] == [0.25, 0.5, 0.7, 0.75]
