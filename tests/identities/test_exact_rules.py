"""Distillation rules on an exactly known flow: their targets of the exact map are the exact map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from exact import travelled, two_time
from torch import Tensor

from flowlm import core
from flowlm.chunked import Extrapolated, OntoSimplex
from flowlm.core import Clock, Decoding, Dense, Language, OneHot, Streams, Uniform
from flowlm.errors import Refusal
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.rule import Map, TargetRule
from flowlm.methods.semigroup import Semigroup
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.sampling import Denoiser

RULES = {
    "semigroup": Semigroup(),
    "lagrangian": Lagrangian(form="signed"),
    "lagrangian, simplex": Lagrangian(),
    "lagrangian, logits": Lagrangian(form="logits"),
    "eulerian": Eulerian(),
    "eulerian, simplex": Eulerian(form="simplex"),
    "eulerian, raw": Eulerian(form="raw", latest=0.99),
    "eulerian, logits": Eulerian(form="logits", latest=0.99),
}
PAIRS = ((0.0, 0.4), (0.0, 0.65), (0.3, 0.6), (0.1, 0.15), (0.45, 0.68))
"""(s, t) before anything is certain: a finite difference of a certain row is noise."""
STEPS, H = 80, 1e-3


@dataclass(frozen=True)
class Moved:
    """Rows and their derivative, written out."""

    prediction: Dense
    slope: Tensor

    def rows(self, patch: core.Patch) -> tuple[Tensor, Tensor]:
        return self.prediction.log_probs(patch), self.slope[patch]


def exact(language: Language, clock: Clock, rated: bool = True) -> tuple[Map, Denoiser]:
    """The exact map, which differentiates by differences along what it is told, and the flow.

    Not `rated`, it takes the rates of clock times for 1: then a rule is right on a uniform clock.
    """

    def delta(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        # Below its end time has a logarithm. A given token does not move: it is itself.
        start, end = (clock.t(tau).clamp(max=0.999) for tau in (s, t))
        rows = two_time(language, x, start, end, STEPS)
        return rows.where(rows.isfinite(), x).clamp(min=1e-300)

    def moving(
        x: Tensor, s: Tensor, t: Tensor, rates: tuple[Tensor, Tensor], dx: Tensor | None = None
    ) -> Moved:
        ds, dt = rates if rated else (rate.sign() for rate in rates)
        along = torch.zeros_like(x) if dx is None else dx

        def at(h: float) -> Tensor:
            return delta(x + h * along, s + h * ds, t + h * dt)

        here = at(0.0)
        # Of fourth order: the steps must be wide where the clock's table is not smooth.
        difference = (8 * (at(H) - at(-H)) - (at(2 * H) - at(-2 * H))) / (12 * H)
        return Moved(Dense(here.log()), difference / here)

    def answer(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        return Dense(delta(x, s, t).log())

    def flow(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        return language.denoiser(x, clock.t(s))

    space = OneHot(language.vocab)
    return Map(answer, space, clock, moving), Denoiser(flow, space, clock)


def points(language: Language, clock: Clock, pairs: tuple[tuple[float, float], ...] = PAIRS):
    """Points of the flow's law at s, and clock times."""
    s, t = torch.tensor(pairs, dtype=torch.float64).repeat(3, 1).split(1, 1)
    rng = Streams.of(31, count=len(s))
    clean = OneHot(language.vocab).clean(language.sample(rng)).double()
    noise = rng.normal(language.length, language.vocab, dtype=torch.float64)
    # Off the very ends: a difference looks to both sides.
    s = s.clamp(min=4 * H)
    return core.interpolate(noise, clean, s), clock.tau(s), clock.tau(t)


def whole(x: Tensor) -> core.Patch:
    return slice(0, x.shape[0]), slice(0, x.shape[1])


def off_with_given(rule: TargetRule, language: Language, clock: Clock) -> float:
    """How far targets are off where one token of each text is given, and elsewhere is not."""
    student, flow = exact(language, clock)
    x, s, t = points(language, clock)
    given = torch.arange(language.length) == torch.arange(len(x))[:, None] % language.length
    clean = OneHot(language.vocab).clean(language.sample(Streams.of(31, count=len(x)))).double()
    x = clean.where(given[..., None], x)
    s, t = core.with_given(s, given), core.with_given(t, given)
    rows = rule.target(student, flow, x, s, t).probs(whole(x))[~given]
    wanted = student.two_time(x, s, t).log_probs().exp()[~given]
    assert rows.isfinite().all()
    return float((rows - wanted).abs().max())


def off(rule: TargetRule, language: Language, clock: Clock, rated: bool = True) -> float:
    student, flow = exact(language, clock, rated)
    x, s, t = points(language, clock)
    rows = rule.target(student, flow, x, s, t).probs(whole(x))
    assert torch.allclose(rows.sum(-1), torch.ones(()).double(), atol=1e-6)
    return float((rows - student.two_time(x, s, t).log_probs().exp()).abs().max())


@pytest.mark.parametrize("name", RULES)
def test_the_target_of_the_exact_map_is_the_exact_map(name: str, agreement: Language) -> None:
    loose = 100 if "logits" in name else 1  # a ratio of small numbers
    assert off(RULES[name], agreement, Uniform()) <= 1e-6 * loose
    # In clock times too, up to what a piecewise linear clock allows.
    assert off(RULES[name], agreement, Decoding(4)) <= 5e-4 * loose


@pytest.mark.parametrize("name", RULES)
def test_given_tokens_stand_still_and_the_others_move_on_as_the_exact_map_does(
    name: str, agreement: Language
) -> None:
    loose = 100 if "logits" in name else 1
    assert off_with_given(RULES[name], agreement, Uniform()) <= 1e-6 * loose
    assert off_with_given(RULES[name], agreement, Decoding(4)) <= 5e-4 * loose


@pytest.mark.parametrize("name", [name for name in RULES if name != "semigroup"])
def test_a_derivative_in_clock_time_needs_the_slope_of_the_clock(
    name: str, agreement: Language
) -> None:
    assert off(RULES[name], agreement, Decoding(4), rated=False) > 1e-2


@pytest.mark.parametrize("rule", [Lagrangian(form="signed"), Eulerian(), RULES["eulerian, raw"]])
def test_the_other_sign_is_wrong(rule: TargetRule, agreement: Language) -> None:
    clock = Uniform()
    student, flow = exact(agreement, clock)
    x, s, t = points(agreement, clock)
    target = rule.target(student, flow, x, s, t)
    assert isinstance(target, Extrapolated)
    rows = replace(target, factor=-target.factor).probs(whole(x))
    assert (rows - student.two_time(x, s, t).log_probs().exp()).abs().max() > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_at_the_exact_map_no_loss_has_a_gradient(name: str, agreement: Language) -> None:
    rule, clock = RULES[name], Uniform()
    student, flow = exact(agreement, clock)
    x, s, t = points(agreement, clock)
    target = rule.target(student, flow, x, s, t)

    def slope(rows: Tensor) -> float:
        logits = rows.detach().clone().requires_grad_()
        rule.error(Dense(logits.log_softmax(-1)), target).sum().backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    right = student.two_time(x, s, t).log_probs()
    assert slope(right) <= (1e-4 if "logits" in name else 2e-6)
    assert slope(right + torch.linspace(0, 1, 4, dtype=torch.float64)) > 1e-2


@pytest.mark.parametrize("end", ["start", "end"])
def test_a_teacher_leg_is_right_to_second_order(end: str, agreement: Language) -> None:
    clock = Uniform()
    errors = [off(TeacherLeg(end=end, leg=leg), agreement, clock) for leg in (0.2, 0.1, 0.05)]
    for long, short in pairwise(errors):
        assert 2.8 < long / short < 5.2


def test_at_the_end_of_time_the_damped_rule_has_a_target(agreement: Language) -> None:
    """T = delta + (1-s) D delta: at the exact map the derivative along the flow is 0."""
    clock = Uniform()
    x, s, _ = points(agreement, clock, ((0.1, 0.5), (0.5, 0.9)))
    arrived = torch.full_like(s, 0.97)
    end = travelled(agreement, x, s, arrived, 100)
    still = Moved(agreement.denoiser(end, arrived), torch.zeros_like(x))
    student, flow = exact(agreement, clock)
    student = replace(student, moving=lambda *_: still)
    rows = Eulerian().target(student, flow, x, s, torch.ones_like(s)).probs(whole(x))
    assert torch.allclose(rows, still.prediction.log_probs().exp())


@pytest.mark.parametrize("form", ["raw", "logits"])
def test_singular_forms_refuse_the_end_of_time(form: str) -> None:
    with pytest.raises(Refusal, match="latest"):
        Eulerian(form=form)
    Eulerian(form=form, latest=0.999)


@dataclass(frozen=True)
class Rows(core.Target):
    q: Tensor

    def probs(self, patch: core.Patch) -> Tensor:
        return self.q[patch]


def test_the_nearest_point_of_the_simplex() -> None:
    """Against bisection for the level h with sum max(q - h, 0) = 1."""
    q = torch.randn(5, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = q + (1 - q.sum(-1, keepdim=True)) / 9
    rows = OntoSimplex(Rows(q)).probs(whole(q))
    low, high = q.amin(-1, keepdim=True) - 1, q.amax(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        above = (q - middle).clamp(min=0).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    assert torch.allclose(rows, (q - low).clamp(min=0), atol=1e-12)
    inside = q.softmax(-1)
    assert torch.allclose(OntoSimplex(Rows(inside)).probs(whole(q)), inside, atol=1e-12)


WEIGHTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "even": lambda s, t, far: torch.ones_like(far),
    "length": lambda s, t, far: ((t - s) / (1 - s)).square().expand_as(far),
    "adaptive": lambda s, t, far: (1 + far) ** -0.5,
}


@pytest.mark.parametrize("weight", WEIGHTS)
def test_jumps_count_as_their_weight_says(weight: str, agreement: Language) -> None:
    clock, rng = Uniform(), Streams.of(7, count=6)
    tokens = agreement.sample(Streams.of(8, count=6))
    batch = core.Batch(tokens, torch.ones(tokens.shape))
    seen: list[tuple[Tensor, Tensor]] = []

    def answer(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        seen.append((s, t))
        return agreement.denoiser(x, s)

    student = Map(answer, OneHot(4), clock, lambda *_: pytest.fail("no derivative is needed"))
    rule = Semigroup(weight=weight)  # pyright: ignore[reportArgumentType]
    value = rule.loss(lambda rng: student, student, student, batch, rng).value
    plain = (
        Semigroup().loss(lambda rng: student, student, student, batch, Streams.of(7, count=6)).value
    )
    s, t = seen[2]
    rng = Streams.of(7, count=6)
    rule.times(rng)
    x = student.noisy(tokens, s, rng)
    target = rule.target(student, student, x, s, t)
    far = answer(x, s, t).squared_error(target)
    assert torch.allclose(value, plain * WEIGHTS[weight](s, t, far))
