"""Version 1 on an exactly known flow: what a residual is, what its two losses have for least."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exact import counted, inverted, joint, travelled, two_time, variation
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.chunked import HeadPrediction, LazyOneHot, ResidualPrediction, centred
from flowlm.core import Decoding, Dense, Language, OneHot, Projected, Streams
from flowlm.methods import residual_map
from flowlm.methods.flow import Flow
from flowlm.methods.input import LinearInput
from flowlm.methods.residual_map import ResidualMap, draw_jumps, jump_error, residual_weight
from flowlm.methods.residual_student import ResidualStudent, landing_error
from flowlm.sampling import ResidualDenoiser, ResidualJumps

FINE = 150
SIZE = nn.Size(blocks=1, width=8, heads=2, condition=4, dropout=0.0, attention_cap=None)


def columns(*rows: tuple[float, ...], copies: int = 4) -> list[Tensor]:
    """Columns of times, one row a text."""
    every = torch.tensor(rows, dtype=torch.float64).repeat(copies, 1)
    return list(every.split(1, dim=1))


def on_the_way(language: Language, seed: int, s: Tensor) -> Tensor:
    rng = Streams.of(seed, count=len(s))
    clean = OneHot(language.vocab).clean(language.sample(rng)).double()
    x0 = rng.normal(language.length, language.vocab, dtype=torch.float64)
    return core.interpolate(x0, clean, s)


def exact_residual(language: Language, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """g of X = x + (t-s) v_s + (t-s)^2/2 g, from the end of the exact flow."""
    way = (t - s)[..., None]
    v = (language.denoiser(x, s).logp.exp() - x) / (1 - s)[..., None]
    return 2 * (travelled(language, x, s, t, FINE) - x - way * v) / way**2


def wavy(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Any function of a point and two times whose rows sum to 0."""
    return centred(torch.sin(3 * x) + (2 * s - t)[..., None] * torch.cos(x * 5))


def denoiser_of(
    language: Language, clock: core.Clock, g: object, space: core.Space | None = None
) -> ResidualDenoiser:
    """The exact flow and a residual, as functions of clock times."""

    def flow(x: Tensor, tau: Tensor) -> Dense:
        return language.denoiser(x, clock.t(tau))

    def denoise(x: Tensor, tau: Tensor, then: Tensor) -> ResidualPrediction:
        s, t = clock.t(tau), clock.t(then)
        residual = Dense(g(x, s, t))
        k = residual_map.residual_weight(s, t)
        return ResidualPrediction(flow(x, tau), residual, k, language.vocab)

    return ResidualDenoiser(denoise, space or OneHot(language.vocab), clock, flow)


# --- what a residual is -----------------------------------------------------------------------


def test_the_exact_residual_makes_the_exact_two_time_denoiser(language: Language) -> None:
    s, t = columns((0.0, 0.3), (0.0, 0.9), (0.2, 0.6), (0.55, 0.8), (0.7, 0.95))
    x = on_the_way(language, 1, s)
    g = exact_residual(language, x, s, t)
    assert g.sum(-1).abs().max() <= 1e-7
    made = ResidualPrediction(
        language.denoiser(x, s), Dense(g), residual_weight(s, t), language.vocab
    )
    exact = two_time(language, x, s, t, FINE)
    assert (made.rows() - exact).abs().max() <= 1e-8
    # It is more than the flow's own line, and half of it is too little.
    for wrong in (0.0, 0.5):
        off = replace(made, k=wrong * made.k).rows() - exact
        assert off.abs().mean() > 1e-2


def test_over_no_length_the_residual_is_the_denoisers_change_along_the_flow(
    agreement: Language,
) -> None:
    s = columns((0.2,), (0.5,), (0.7,))[0]
    x = on_the_way(agreement, 2, s)

    def apart(h: float) -> float:
        t, near = s + h, s + 1e-4
        end = travelled(agreement, x, s, near, 4)
        change = agreement.denoiser(end, near).logp.exp() - agreement.denoiser(x, s).logp.exp()
        slope = change / 1e-4 / (1 - s)[..., None]
        return float((exact_residual(agreement, x, s, t) - slope).abs().max())

    large, small = apart(0.01), apart(0.005)
    assert small < 0.3
    assert small == pytest.approx(large / 2, rel=0.25)


@pytest.mark.parametrize("vocab", [7, 300])
def test_a_residual_prediction_is_the_same_point_in_every_space(vocab: int) -> None:
    torch.manual_seed(0)
    base = HeadPrediction(torch.randn(3, 5, 8), torch.randn(vocab, 8), torch.randn(vocab), side=4)
    head = torch.randn(vocab, 8), torch.randn(vocab)
    residual = HeadPrediction(torch.randn(3, 5, 8), *head, side=4)
    k = torch.rand(3, 1)
    made = ResidualPrediction(base, residual, k, vocab)
    g = centred(residual.features @ head[0].mT + head[1])
    rows = base.log_probs().exp() + k[..., None] * g
    assert torch.allclose(made.rows(), rows, atol=1e-5)
    assert torch.allclose(made.rows().sum(-1), torch.ones(3, 5), atol=1e-3)
    table = torch.randn(vocab, 6)
    assert torch.allclose(made.point(OneHot(vocab)), rows, atol=1e-5)
    assert torch.allclose(made.point(Projected(table)), rows @ table, atol=1e-3)
    assert torch.allclose(made.point(LazyOneHot(vocab)).dense(), rows, atol=1e-5)
    # As a distribution: the positive part, with the same likeliest token.
    kept = rows.clamp(min=0)
    wanted = kept / kept.sum(-1, keepdim=True)
    assert (rows < 0).any()
    assert torch.allclose(made.log_probs().exp(), wanted, atol=1e-5)
    assert torch.equal(made.argmax(), rows.argmax(-1))


@torch.no_grad()
def test_logits_of_many_steps_are_one_term() -> None:
    """Carried on or not, a state is the same, and its terms are no more after ten steps than after
    two."""
    torch.manual_seed(0)
    vocab, space = 40, LazyOneHot(40)
    head = torch.randn(vocab, 8), torch.randn(vocab)
    x = whole = space.noise(Streams.of(0, count=2), 3)
    sizes = []
    for i in range(10):
        base = HeadPrediction(torch.randn(2, 3, 8), *head)
        residual = HeadPrediction(torch.randn(2, 3, 8), *head)
        k = torch.rand(2, 3)
        delta = ResidualPrediction(base, residual, k, vocab).point(space)
        s, t = torch.full((2, 1), i / 10), torch.full((2, 1), (i + 1) / 10)
        x, whole = space.compress(core.jump(x, delta, s, t)), core.jump(whole, delta, s, t)
        sizes.append(len(x.terms))
    assert sizes[-2] == sizes[1] == 3
    assert sizes[-1] == 2, "nothing is left of the noise"
    assert len(whole.terms) > 20 - 1
    assert torch.allclose(x.dense(), whole.dense(), atol=1e-4)


# --- the first stage --------------------------------------------------------------------------


def triple(clock: core.Clock) -> tuple[core.Triple, list[Tensor]]:
    times = core.Triple(*columns((0.0, 0.45, 0.9), (0.2, 0.3, 0.6), (0.5, 0.7, 0.9)))
    return times, [clock.t(tau) for tau in times]


def test_the_first_loss_is_least_at_the_exact_residual(
    agreement: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Decoding(4)
    times, (s, _, t) = triple(clock)
    x = on_the_way(agreement, 3, s)

    def error(g: Tensor) -> Tensor:
        denoiser = denoiser_of(agreement, clock, lambda x, s, t: exact_residual(agreement, x, s, t))
        return jump_error(denoiser, Dense(g), x, times)

    g = exact_residual(agreement, x, s, t).requires_grad_()
    found = error(g)
    assert found.max() <= 1e-9
    found.sum().backward()
    assert g.grad.abs().max() <= 1e-4
    assert error(0 * g.detach()).mean() > 1e-2
    # A quarter in the place of the half.
    monkeypatch.setattr(residual_map, "residual_weight", lambda s, t: (t - s) * (1 - s) / 4)
    assert error(g.detach()).mean() > 1e-3


def test_the_first_loss_is_the_published_one_for_any_residual(agreement: Language) -> None:
    """Velocities as in the paper's first version, and D_s + (t-s)(1-s)/2 g against x + (1-s) v."""
    clock = Decoding(4)
    times, (s, u, t) = triple(clock)
    x = on_the_way(agreement, 4, s)
    g = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = centred(g)

    def v(x: Tensor, s: Tensor) -> Tensor:
        return (agreement.denoiser(x, s).logp.exp() - x) / (1 - s)[..., None]

    a, b, c = ((u - s)[..., None], (t - u)[..., None], (t - s)[..., None])
    first = v(x, s) + a / 2 * wavy(x, s, u)
    end = x + a * first
    second = v(end, u) + b / 2 * wavy(end, u, t)
    target = x + (1 - s)[..., None] * (a * first + b * second) / c
    own = agreement.denoiser(x, s).logp.exp() + c * (1 - s)[..., None] / 2 * g
    wanted = (target - own).square().sum(-1)
    found = jump_error(denoiser_of(agreement, clock, wavy), Dense(g), x, times)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)
    # The target leaves the simplex, which no cross-entropy could learn.
    assert (target < -0.05).any()


def test_the_first_loss_by_strips_is_the_dense_one() -> None:
    """Value and gradients in features, weight and bias, at more rows than one strip has."""
    torch.manual_seed(0)
    b, length, d, vocab = 6, 700, 4, 1003
    part = torch.randn(b, length, d), torch.randn(vocab, d) / 4, torch.randn(vocab)
    space, times = OneHot(vocab), core.Triple(*(torch.rand(b, 1) for _ in range(3)))
    times = core.Triple(*torch.cat(times, 1).sort(1).values.split(1, 1))
    clock = core.Uniform()

    def denoise(x: Tensor, s: Tensor, t: Tensor) -> ResidualPrediction:
        y = torch.randn(b, length, d, generator=torch.Generator().manual_seed(1))
        base = HeadPrediction(y, part[1], part[2], cap=3.0)
        return ResidualPrediction(
            base, HeadPrediction(-y, part[1], part[2]), residual_weight(s, t), vocab
        )

    denoiser = ResidualDenoiser(denoise, space, clock, lambda x, s: denoise(x, s, s).base)
    x, found = torch.randn(b, length, vocab), []
    for dense in (False, True):
        leaves = [p.clone().requires_grad_() for p in part]
        residual = HeadPrediction(*leaves)
        if dense:
            residual = Dense(torch.nn.functional.linear(leaves[0], *leaves[1:]))
        value = jump_error(denoiser, residual, x, times)
        (value * torch.linspace(0, 1, length)).sum().backward()
        found.append((value.detach(), *(p.grad for p in leaves)))
    for strips, plain in zip(*found, strict=True):
        assert torch.allclose(strips, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def learner(language: Language) -> tuple[ResidualMap, nn.ResidualDiT, core.Batch]:
    torch.manual_seed(0)
    flow = Flow(input=LinearInput()).network(SIZE, 4, 3)
    torch.nn.init.normal_(flow.head.weight)
    method = ResidualMap(input=LinearInput(), teacher="runs/flow")
    tokens = language.sample(Streams.of(1, count=64))
    return method, method.network(SIZE, 4, 3, flow), core.Batch(tokens, torch.ones(64, 3))


def test_the_learned_weight_starts_at_zero_and_learns_the_logarithm(agreement: Language) -> None:
    method, model, batch = learner(agreement)
    assert not model.time_weight(torch.rand(9, 1)).any()
    loss = method.loss(model, batch, Streams.of(2, count=64))
    raw, weight = loss.logs["jump"]
    assert torch.allclose(loss.value.detach().sum(), raw)
    for w in (0.0, 0.7):
        model.zero_grad()
        torch.nn.init.constant_(model.time_weight.last.bias, w)
        method.loss(model, batch, Streams.of(2, count=64)).value.sum().backward()
        slope = float(weight - torch.exp(torch.tensor(-w)) * raw)
        assert float(model.time_weight.last.bias.grad) == pytest.approx(slope, rel=1e-4)
    # Where w = log L the loss no longer wants another one.
    model.zero_grad()
    torch.nn.init.constant_(model.time_weight.last.bias, float((raw / weight).log()))
    method.loss(model, batch, Streams.of(2, count=64)).value.sum().backward()
    assert abs(float(model.time_weight.last.bias.grad)) <= 1e-3 * float(weight)


def test_it_starts_as_its_flow_and_the_flow_stays(agreement: Language) -> None:
    method, model, batch = learner(agreement)
    x, s, t = torch.randn(5, 3, 4), torch.full((5, 1), 0.2), torch.full((5, 1), 0.7)
    delta = method.denoiser(model).two_time(x, s, t)
    assert torch.allclose(delta.rows(), model.flow(x, s).log_probs().exp(), atol=1e-6)
    before = {name: w.clone() for name, w in model.flow.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        method.loss(model, batch, Streams.of(step, count=64)).value.mean().backward()
        optimizer.step()
    assert all(torch.equal(w, before[name]) for name, w in model.flow.state_dict().items())
    assert not torch.allclose(
        method.denoiser(model).two_time(x, s, t).rows(), delta.rows(), atol=1e-4
    )
    # On the diagonal it is the flow, whatever the residual.
    assert torch.equal(method.denoiser(model).at(x, s).log_probs(), model.flow(x, s).log_probs())


def test_a_flow_at_a_temperature_is_stored_as_one() -> None:
    """Also with a cap, and after it has been stored and read."""
    torch.manual_seed(0)
    flow = Flow(input=LinearInput()).network(SIZE, 4, 3)
    torch.nn.init.normal_(flow.head.weight, std=20)
    method = ResidualMap(input=LinearInput(), teacher="runs/flow", teacher_temperature=0.6)
    model, again = method.network(SIZE, 4, 3, flow), method.network(SIZE, 4, 3)
    again.load_state_dict(model.state_dict())
    x, s = torch.randn(5, 3, 4), torch.full((5, 1), 0.4)
    wanted = flow(x, s).with_temperature(0.6).log_probs()
    for one in (model, again):
        assert torch.allclose(one.flow(x, s).log_probs(), wanted, atol=1e-4)


# --- its sampler ------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_is_its_formula(agreement: Language, steps: int) -> None:
    """X + dt v + dt^2/2 g, and the largest entries of the last X; g = 0 is an Euler step."""
    clock = Decoding(4)
    prompt = torch.full((50, 3), core.FREE)
    for g in (wavy, lambda x, s, t: torch.zeros_like(x)):
        denoiser = denoiser_of(agreement, clock, g)
        frames = list(ResidualJumps().frames(denoiser, prompt, steps, Streams.of(5, count=50)))
        x, grid = frames[0].x.double(), clock.t(clock.grid(steps)[None])[0].double()
        for i in range(steps):
            s, t = grid[i].expand(50, 1), grid[i + 1].expand(50, 1)
            way = (t - s)[..., None]
            v = (agreement.denoiser(x, s).logp.exp() - x) / (1 - s)[..., None]
            x = x + way * v + way**2 / 2 * g(x, s, t)
        assert (frames[-1].tokens() == x.argmax(-1)).float().mean() > 0.99
    if steps == 1:
        alone = agreement.denoiser(frames[0].x, torch.zeros(50, 1)).argmax()
        assert torch.equal(frames[-1].tokens(), alone)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2])
def test_the_exact_residual_writes_the_language(agreement: Language, steps: int) -> None:
    clock, n = Decoding(4), 2000

    def g(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        # From 0.97 on nothing is undecided: the rest of the way is a straight line.
        t = t.double().clamp(max=0.97)
        end = travelled(agreement, x, s, t, 40)
        arrived = agreement.denoiser(end, t).logp.exp()
        delta = arrived if bool((t == 0.97).all()) else inverted(x, end, s, t)
        to = torch.where(t == 0.97, 1.0, t)
        return (delta - agreement.denoiser(x, s).logp.exp()) / residual_weight(s, to)[..., None]

    prompt = torch.full((n, 3), core.FREE)
    rng = Streams.of(8, count=n)
    *_, last = ResidualJumps().frames(denoiser_of(agreement, clock, g), prompt, steps, rng)
    wanted, found = joint(agreement), counted(last.tokens(), 4) / n
    spread = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert variation(found, wanted) <= 2 * spread
    assert float(found[wanted == 0].sum()) <= 2e-3


# --- the second stage -------------------------------------------------------------------------


def test_the_second_loss_is_zero_at_the_exact_denoiser(agreement: Language) -> None:
    s, t = columns((0.0, 0.3), (0.1, 0.9), (0.55, 0.8))
    x = on_the_way(agreement, 6, s)
    delta = ResidualPrediction(
        agreement.denoiser(x, s),
        Dense(exact_residual(agreement, x, s, t)),
        residual_weight(s, t),
        4,
    )
    logits = two_time(agreement, x, s, t, FINE).clamp(min=1e-12).log().requires_grad_()
    loss = landing_error(Dense(logits.log_softmax(-1)), delta, s, t)
    assert loss.max() <= 1e-9
    loss.sum().backward()
    assert logits.grad.abs().max() <= 1e-5
    assert landing_error(agreement.denoiser(x, s), delta, s, t).mean() > 1e-3


def test_the_second_loss_is_how_far_apart_two_jumps_end(agreement: Language) -> None:
    s, t = columns((0.0, 1.0), (0.1, 0.4), (0.55, 0.56), (0.3, 0.3))
    x = on_the_way(agreement, 7, s)
    delta = ResidualPrediction(
        agreement.denoiser(x, s), Dense(wavy(x, s, t)), residual_weight(s, t), 4
    )
    student = Dense(torch.cos(x * 2).log_softmax(-1))
    ends = [core.jump(x, rows, s, t) for rows in (delta.rows(), student.logp.exp())]
    wanted = (ends[0] - ends[1]).square().sum(-1)
    assert torch.allclose(landing_error(student, delta, s, t), wanted, rtol=1e-9, atol=1e-15)


def test_a_student_starts_as_the_flow_of_its_map(agreement: Language) -> None:
    _, model, batch = learner(agreement)
    method = ResidualStudent(input=LinearInput(), teacher="runs/residual")
    student = method.network(SIZE, 4, 3, model)
    x, s, t = torch.randn(5, 3, 4), torch.full((5, 1), 0.2), torch.full((5, 1), 0.7)
    assert torch.equal(student(x, s, t).log_probs(), model.flow(x, s).log_probs())
    # So is the map at its start, and there is nothing to learn.
    assert method.loss(student, batch, Streams.of(3, count=64), model).value.max() <= 1e-9


# --- times ------------------------------------------------------------------------------------


def test_jumps_are_drawn_by_the_published_law() -> None:
    n = 20_000
    s, u, t = draw_jumps(Streams.of(0, count=n), 1 / 64)
    whole = (s == 0) & (t == 1)
    assert float(whole.float().mean()) == pytest.approx(1 / 64, abs=0.004)
    assert torch.allclose(u, (s + t) / 2)
    assert ((s >= 0) & (s < t) & (t <= 1)).all()
    d, share = (t - s)[~whole], (s / (1 - (t - s)))[~whole]
    levels = torch.linspace(0.1, 0.9, 9)
    for numbers in (d, share):
        assert torch.allclose(numbers.quantile(levels), levels, atol=0.02)
    assert not (draw_jumps(Streams.of(0, count=n), 0.0)[2] == 1).all()


def test_terms_of_other_heads_are_refused() -> None:
    heads = [
        HeadPrediction(torch.randn(1, 1, 2), torch.randn(3, 2), torch.zeros(3)) for _ in range(2)
    ]
    one, other = map(chunked.CentredLogits.of, heads)
    space, once = LazyOneHot(3), torch.ones(1, 1, 1)
    x = space.clean(torch.zeros(1, 1, dtype=torch.long)) + space.mean(Dense(torch.zeros(1, 1, 3)))
    both = replace(x, terms=(*x.terms, (once, one), (once, other)))
    with pytest.raises(AssertionError, match="one head"):
        space.compress(both)
