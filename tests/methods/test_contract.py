"""One contract that every method keeps, on a language of six sentences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.core import Language, Streams
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import METHODS, RULES, SAMPLERS, Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.by_length import ByLength
from flowlm.methods.continuous import Continuous
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum, Duo
from flowlm.methods.eulerian import Eulerian
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput, ProjectedInput
from flowlm.methods.lagrangian import Lagrangian
from flowlm.methods.masked import Masked, MaskedDiffusion
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.shares import parted
from flowlm.methods.teacher_leg import TeacherLeg
from flowlm.methods.uniform_state import UniformDiffusion, UniformState, rate_of
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import (
    Bridge,
    Draft,
    Euler,
    Heun,
    Jacobi,
    Jumps,
    LeftToRight,
    Refine,
    Replace,
    ResidualJumps,
    Sampler,
    Tweedie,
    TweedieUniform,
    Unmask,
)
from flowlm.sampling.replace import replaced
from writing import film

SIZE = nn.Size(
    blocks=2,
    width=16,
    heads=2,
    condition=8,
    dropout=0.0,
    attention_cap=None,
    positions="learned",
    reach=1,
)
RUN = "runs/teacher"
CASES = {
    "flow, projected": Flow(),
    "flow, linear": Flow(input=LinearInput()),
    "flow, posterior": Flow(input=PosteriorInput()),
    "flow, bayes": Flow(input=BayesInput()),
    "flow, uniform clock": Flow(clock="uniform"),
    "map of itself": FlowMap(),
    "map of itself, posterior": FlowMap(input=PosteriorInput()),
    "map of itself, bayes": FlowMap(input=BayesInput()),
    "map, projected": FlowMap(teacher=RUN),
    "map, linear": FlowMap(input=LinearInput(), teacher=RUN),
    "map, posterior": FlowMap(input=PosteriorInput(), teacher=RUN),
    "map, bayes": FlowMap(input=BayesInput(), teacher=RUN, teacher_temperature=0.8),
    "map, projected, lagrangian": FlowMap(teacher=RUN, rule=Lagrangian()),
    "map, bayes, eulerian": FlowMap(input=BayesInput(), teacher=RUN, rule=Eulerian(boundary=0.25)),
    "map, linear, raw": FlowMap(
        input=LinearInput(), teacher=RUN, rule=Eulerian(form="raw", latest=0.99)
    ),
    "map, posterior, leg": FlowMap(
        input=PosteriorInput(), teacher=RUN, rule=TeacherLeg(weight="adaptive"), diagonal=0.25
    ),
    "map of itself, by length": FlowMap(input=PosteriorInput(), rule=ByLength(), diagonal=0.75),
    "masked": Masked(),
    "sdtt": SDTT(teacher=RUN, dt=1 / 4),
    "di4c": Di4C(teacher=RUN, latents=4, delta=0.25, alpha=1.0),
    "sdtt, forward": SDTT(teacher=RUN, dt=1 / 5, substeps=4, divergence="forward"),
    "uniform": UniformState(),
    "curriculum": Curriculum(),
    "duo": Duo(teacher=RUN),
    "dcd": DCD(teacher=RUN, delta=0.25),
    "dcd, forward": DCD(teacher=RUN, delta=0.25, divergence="forward"),
    "sedd": SEDD(),
    "sedd, uniform": SEDDUniform(),
    "autoregressive": Autoregressive(),
    "gumbel": GumbelMap(teacher=RUN),
    "gumbel, causal": GumbelMap(teacher=RUN, causal=True),
    "residual, projected": ResidualMap(teacher=RUN),
    "residual, linear": ResidualMap(input=LinearInput(), teacher=RUN),
    "residual, posterior": ResidualMap(input=PosteriorInput(), teacher=RUN),
    "residual, bayes": ResidualMap(input=BayesInput(), teacher=RUN, teacher_temperature=0.8),
    "student, projected": ResidualStudent(teacher=RUN),
    "student, linear": ResidualStudent(input=LinearInput(), teacher=RUN),
    "student, posterior": ResidualStudent(input=PosteriorInput(), teacher=RUN),
    "student, bayes": ResidualStudent(input=BayesInput(), teacher=RUN),
}
TAILED = Replace(temperature=0.8, top_p=0.95)
WRITERS: list[tuple[str, Sampler]] = [
    ("flow, projected", Euler()),
    ("flow, linear", Euler(temperature=0.5)),
    ("flow, posterior", Euler()),
    ("flow, bayes", Euler(temperature=0.5)),
    ("flow, uniform clock", Heun()),
    ("flow, bayes", Heun(temperature=0.7)),
    ("flow, projected", Bridge()),
    ("flow, linear", Bridge("mean")),
    ("flow, posterior", Bridge(temperature=0.7, top_p=0.9)),
    ("flow, bayes", Bridge("mean", temperature=0.7)),
    ("flow, bayes", Bridge(churn=2.0, temperature=0.7, cools="row")),
    ("flow, posterior", Jumps(gamma=1.0)),
    ("flow, bayes", Jumps(temperature=0.7, cools="row")),
    ("map of itself", Jumps()),
    ("map of itself, posterior", Jumps(gamma=0.7)),
    ("map of itself, bayes", Jumps(gamma=0.7)),
    ("map, projected", Jumps(gamma=0.8)),
    ("map, linear", Jumps()),
    ("map, posterior", Euler()),
    ("map, bayes", Bridge()),
    ("map, bayes", Jumps()),
    ("map, projected", Jumps(temperature=0.8)),
    ("map, posterior", Refine()),
    ("flow, bayes", Refine(certainty=0.9)),
    ("masked", Unmask()),
    ("masked", Unmask(temperature=0.8, top_p=0.95)),
    ("masked", Unmask(order="confidence")),
    ("masked", Unmask(order="entropy", grid="cosine")),
    ("sdtt", Unmask()),
    ("di4c", Unmask()),
    ("di4c", Unmask(temperature=0.8, order="entropy")),
    ("uniform", Replace()),
    ("uniform", replace(TAILED, tail="network")),
    ("uniform", replace(TAILED, tail="posterior")),
    ("dcd", Replace()),
    ("sedd", Tweedie()),
    ("sedd", Tweedie(temperature=0.8, top_p=0.95)),
    ("sedd, uniform", TweedieUniform()),
    ("sedd, uniform", TweedieUniform(temperature=0.8, top_p=0.95)),
    ("autoregressive", LeftToRight()),
    ("autoregressive", LeftToRight(temperature=0.9, top_p=0.95)),
    ("autoregressive", Jacobi()),
    ("autoregressive", Jacobi(temperature=0.9)),
    ("gumbel", Draft()),
    ("residual, projected", ResidualJumps()),
    ("residual, linear", ResidualJumps()),
    ("residual, posterior", ResidualJumps()),
    ("residual, bayes", ResidualJumps()),
    ("student, projected", Jumps()),
    ("student, posterior", Jumps(gamma=0.7)),
]
"""Methods with a sampler each."""
STEPS = 60


@dataclass(frozen=True)
class Learner:
    """A method with a network, a teacher where it has one, and which parameters it has moved."""

    method: Method
    network: nn.DiT
    teacher: nn.DiT | None
    touched: frozenset[str]


@dataclass(frozen=True)
class Writer:
    """A trained learner, and how it writes."""

    learner: Learner
    sampler: Sampler

    def film(self, prompt: Tensor, steps: int, rng: Streams) -> list[Tensor]:
        learner = self.learner
        return film(learner.method, learner.network, prompt, steps, rng, self.sampler)


def batch_of(language: Language, *seed: int, count: int) -> core.Batch:
    tokens = language.sample(Streams.of(*seed, 1, count=count))
    return core.Batch(tokens, torch.ones(tokens.shape))


def size_for(method: Method) -> nn.Size:
    """What a row says of its token has no bound, so there is no cap with it."""
    evidence = isinstance(method, Continuous) and method.input == BayesInput()
    return replace(SIZE, output_cap=None) if evidence else SIZE


def started(method: Method, language: Language, steps: int = STEPS) -> Learner:
    """The method before its first step, with a trained teacher if it distils."""
    teacher = None
    if method.teacher is not None:
        theirs, lesson = method.like_teacher(), steps
        if isinstance(method, Duo):
            # It pays the bound that its teacher has paid: a curriculum that has just begun leaves
            # it something to learn.
            theirs, lesson = Curriculum(), steps // 10
        teacher = trained(theirs, language, lesson).network
    torch.manual_seed(0)
    network = method.network(size_for(method), language.vocab, language.length, teacher)
    return Learner(method, network, teacher, frozenset())


@cache
def trained(method: Method, language: Language, steps: int = STEPS) -> Learner:
    start = started(method, language, steps)
    network, touched = start.network, set()
    learnt = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=1e-2)
    for step in range(steps):
        if steps > STEPS:
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        batch = batch_of(language, step, count=32)
        loss = method.loss(network, batch, Streams.of(step, 2, count=32), start.teacher)
        value = (loss.value * loss.weight).sum() / loss.weight.sum()
        optimizer.zero_grad()
        value.backward()
        touched |= {k for k, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return Learner(method, network.eval(), start.teacher, frozenset(touched))


@pytest.fixture(params=CASES)
def method(request: pytest.FixtureRequest) -> Method:
    return CASES[request.param]


@pytest.fixture
def learner(method: Method, agreement: Language) -> Learner:
    return trained(method, agreement)


@pytest.fixture(params=WRITERS, ids=str)
def writer(request: pytest.FixtureRequest, agreement: Language) -> Writer:
    name, sampler = request.param
    return Writer(trained(CASES[name], agreement), sampler)


def free(count: int, length: int = 3) -> Tensor:
    return torch.full((count, length), core.FREE)


def test_every_method_is_here() -> None:
    assert {type(m) for m in CASES.values()} == {*METHODS.values()}
    assert {type(m.rule) for m in CASES.values() if isinstance(m, FlowMap)} == {*RULES.values()}


def test_every_sampler_is_here() -> None:
    """With each of the methods that it writes with."""
    pairs = {(type(CASES[name]), type(sampler)) for name, sampler in WRITERS}
    assert {kind for _, kind in pairs} == {*SAMPLERS.values()}


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_loss_is_a_value_and_a_weight_for_every_token(
    method: Method, agreement: Language, count: int
) -> None:
    start = started(method, agreement)
    batch = batch_of(agreement, 1, count=count)
    weight = torch.arange(1.0, 1 + 3 * count).view(count, 3)
    batch = replace(batch, weight=weight)
    loss = method.loss(start.network, batch, Streams.of(1, count=count), start.teacher)
    assert loss.value.shape == loss.weight.shape
    assert loss.value.isfinite().all()
    # A cross-entropy with a target of both signs has no lower bound of 0.
    signed = isinstance(method, FlowMap) and isinstance(method.rule, Eulerian | ByLength)
    # So have correlations, and divergences that rounding takes below it.
    signed = signed or isinstance(method, Di4C)
    assert signed or (loss.value >= 0).all()
    if isinstance(method, SDTT):
        # What is not masked has nothing to learn, and is not averaged over.
        assert torch.equal(loss.weight, weight.where(loss.weight > 0, 0.0))
        return
    counted = loss.weight[loss.weight.any(1)]
    assert sorted(map(tuple, counted.tolist())) == sorted(map(tuple, weight.tolist()))
    # A part without a sequence is one that counts nothing.
    empty = len(loss.weight) - count
    assert empty == 0 if not isinstance(method, FlowMap) else 0 <= empty <= 2
    assert not loss.weight.requires_grad
    for parts in loss.logs.values():
        assert all(part.shape == () and part.isfinite() for part in parts)
        assert not any(part.requires_grad for part in parts)


@torch.no_grad()
def test_a_loss_does_not_depend_on_how_a_batch_is_split(
    learner: Learner, agreement: Language
) -> None:
    """Into passes of any size: sums and logs are those of the whole batch."""
    batch = batch_of(agreement, 2, count=7)
    batch = replace(batch, weight=torch.arange(21.0).view(7, 3))

    def sums(*sizes: int) -> dict[str, Tensor]:
        found, first = dict[str, Tensor](), 0
        for size in sizes:
            rng = Streams.of(2, count=size, first=first, total=7)
            part = core.Batch(batch.tokens[first:][:size], batch.weight[first:][:size])
            loss = learner.method.loss(learner.network, part, rng, learner.teacher)
            paid = {"": ((loss.value * loss.weight).sum(), loss.weight.sum()), **loss.logs}
            for name, parts in paid.items():
                found[name] = found.get(name, 0.0) + torch.stack(parts)
            first += size
        assert first == 7
        return found

    whole = sums(7)
    for split in ((4, 3), (3, 4), (1, 2, 1, 3), (1,) * 7):
        assert {k: v.tolist() for k, v in sums(*split).items()} == {
            k: pytest.approx(v.tolist(), rel=1e-5) for k, v in whole.items()
        }


def test_a_text_of_no_weight_costs_nothing(learner: Learner, agreement: Language) -> None:
    """Values and weights belong to the same texts, and texts do not meet in a batch."""
    batch = batch_of(agreement, 2, count=6)

    def reduced(batch: core.Batch) -> float:
        rng = Streams.of(2, count=6)
        loss = learner.method.loss(learner.network, batch, rng, learner.teacher)
        return float((loss.value * loss.weight).sum().detach())

    whole, felt = reduced(batch), 0
    for i in range(6):
        weight = batch.weight.clone()
        weight[i] = 0
        other = batch.tokens.clone()
        other[i] = (other[i] + 1) % 4
        without = reduced(core.Batch(batch.tokens, weight))
        assert reduced(core.Batch(other, weight)) == pytest.approx(without, rel=1e-5)
        felt += reduced(core.Batch(other, batch.weight)) != pytest.approx(whole, rel=1e-5)
    # With its weight a text counts, unless its time hides it: pure noise, or nothing masked.
    # DCD's times are even in log-SNR: more of them are noisy.
    assert felt >= (2 if isinstance(learner.method, DCD) else 3)


def test_a_loss_is_a_function_of_its_streams(learner: Learner, agreement: Language) -> None:
    batch = batch_of(agreement, 3, count=6)

    def value(seed: int) -> Tensor:
        rng = Streams.of(seed, count=6)
        return learner.method.loss(learner.network, batch, rng, learner.teacher).value

    assert torch.equal(value(3), value(3))
    exact = isinstance(learner.method, Autoregressive)
    assert torch.equal(value(3), value(4)) == exact


def test_at_the_start_every_token_is_as_likely(method: Method, agreement: Language) -> None:
    """The head is zero: the loss is log v, for the discrete bound times its weights.

    Where the rows are evidence it is what they leave open. Who learns from a teacher begins with
    its answers.
    """
    if isinstance(method, ResidualMap | ResidualStudent):
        start = started(method, agreement)
        x = method.space(start.network).noise(Streams.of(4, count=8), 3)
        s, t = torch.full((8, 1), 0.2), torch.full((8, 1), 0.9)
        flow = start.teacher.flow if isinstance(method, ResidualStudent) else start.network.flow
        found = method.denoiser(start.network).two_time(x, s, t).log_probs().exp()
        assert torch.allclose(found, flow(x, s).log_probs().exp(), atol=1e-5)
        return
    if isinstance(method, FlowMap) and method.teacher is not None:
        start = started(method, agreement)
        batch = batch_of(agreement, 4, count=8)
        loss = method.loss(start.network, batch, Streams.of(4, count=8), start.teacher)
        # Its diagonal part pays the entropy of its teacher, whose answers it starts with.
        (part, rng), _ = parted(batch, Streams.of(4, count=8), method.diagonal)
        clock = method.time(4)
        tau = clock.draw(rng)
        x = method.denoiser(start.network).noisy(part.tokens, tau, rng)
        rows = start.teacher(x, tau).with_temperature(method.teacher_temperature).log_probs()
        entropy = -(rows.exp() * rows).sum(-1)
        assert torch.allclose(loss.value[: len(entropy)], entropy, atol=1e-5)
        return
    if isinstance(method, GumbelMap):
        start, batch = started(method, agreement), batch_of(agreement, 4, count=500)
        value = method.loss(start.network, batch, Streams.of(4, count=500), start.teacher).value
        rows = Autoregressive().next_tokens(start.teacher, batch.tokens)
        g = chunked.gumbel_posterior(Streams.of(4, count=500), batch.tokens, rows, 4).dense()
        assert torch.allclose(value, core.Dense(g.log_softmax(-1)).nll(batch.tokens), atol=1e-5)
        return
    if isinstance(method, Duo | DCD | SDTT):
        start, batch = started(method, agreement), batch_of(agreement, 4, count=8)
        rows = [
            of(batch.tokens, *[torch.full((8, 1), 0.5)] * method.times).log_probs()
            for of in (start.network.eval(), start.teacher)
        ]
        assert torch.equal(*rows)
        return
    if isinstance(method, Di4C):
        start, hidden = started(method, agreement), torch.full((1, 3), 4)
        found = start.network.eval()(hidden, torch.zeros(1, 1)).log_probs().exp().detach()
        theirs = start.teacher(hidden).log_probs().exp().detach()
        # A token that is new to them takes a quarter of the attention of three.
        assert 0 < float((found - theirs).abs().sum(-1).max()) / 2 < 0.25
        return
    network, batch = started(method, agreement).network, batch_of(agreement, 4, count=500)
    value = method.loss(network, batch, Streams.of(4, count=500)).value.detach()
    if has_evidence(method):
        x, tau, wanted = what_rows_say(method, network, batch, 4)
        found = method.denoiser(network).at(x, tau).nll(batch.tokens)
        assert torch.allclose(found, wanted, atol=1e-5)
        assert float(value.mean()) < math.log(4) - 0.2
    elif isinstance(method, Masked | SEDD):
        masked = value > 0
        assert (value[masked] >= math.log(4) - 1e-6).all()
        assert float(value.sum()) / 1500 == pytest.approx(math.log(4), rel=0.15)
    elif isinstance(method, Curriculum):
        # What the bound asks of an even row, at even shares between its ends.
        a = 0.05 + 0.9 * Streams.of(5, count=500).stratified()
        z = replaced(batch.tokens, a, 4, Streams.of(6, count=500))
        even = core.Dense(torch.zeros(500, 3, 4).log_softmax(-1))
        wanted = 0.9 * float(rate_of(even, batch.tokens, z, a, 4).mean())
        assert float(value.mean()) == pytest.approx(wanted, rel=0.15)
        assert wanted < math.log(4)
    elif isinstance(method, SEDDUniform):
        # Ratios of 1 say neither what should stand there nor that a clean token does.
        a = (torch.arange(1000).double() + 0.5) / 1000
        level = torch.log1p(4 * a / (1 - a))
        same, r = a + (1 - a) / 4, level.exp()
        paid = same * 3 * (1 - (1 + level) / r) + (1 - same) * (1 - r + level * r)
        assert float(value.mean()) == pytest.approx(float((paid / (4 * a)).mean()), rel=0.15)
    elif isinstance(method, UniformState):
        # At a time it may pay more or less; over all times, log v.
        assert float(value.mean()) == pytest.approx(math.log(4), rel=0.15)
    else:
        assert torch.allclose(value, torch.tensor(math.log(4)), atol=1e-6)


def test_learning_reaches_every_parameter(learner: Learner) -> None:
    """Also past the head and the gates, which start at zero and hold the rest back at first."""
    trainable = {k for k, p in learner.network.named_parameters() if p.requires_grad}
    frozen = {k for k, p in learner.network.named_parameters() if not p.requires_grad}
    # Without a time the modulations are their biases alone.
    timeless = {k for k in trainable if k.endswith("modulation.weight")}
    out_of_reach = (
        timeless
        if isinstance(learner.method, MaskedDiffusion | Autoregressive | GumbelMap)
        else set()
    )
    assert learner.touched == trainable - out_of_reach
    continuous = isinstance(learner.method, Continuous) and learner.teacher is not None
    shares = continuous and learner.method.input == ProjectedInput()
    reads = "encoder.log_prior" in dict(learner.network.named_parameters())
    held = {k for k, _ in learner.network.named_parameters() if k.startswith("flow.")}
    assert bool(held) == isinstance(learner.method, ResidualMap)
    own = {"encoder.table"} if shares else {"encoder.log_prior"} if reads else set()
    assert frozen == own | held


def has_evidence(method: Method) -> bool:
    return isinstance(method, Continuous) and method.input == BayesInput()


@torch.no_grad()
def what_rows_say(
    method: Continuous, network: nn.DiT, batch: core.Batch, seed: int
) -> tuple[core.Point, Tensor, Tensor]:
    """Noisy points, their times, and nats of the tokens by softmax(beta x) of each row alone."""
    clock, rng = method.time(4), Streams.of(seed, count=len(batch.tokens))
    tau = clock.draw(rng)
    x = method.denoiser(network).noisy(batch.tokens, tau, rng)
    t = clock.t(tau)[..., None]
    beta = (t / (1 - t) ** 2).clamp(max=1e4)
    return x, tau, core.Dense((beta * x.dense()).log_softmax(-1)).nll(batch.tokens)


@torch.no_grad()
def test_learning_lowers_the_loss(method: Method, learner: Learner, agreement: Language) -> None:
    """On the same texts with the same noise, before and after a few dozen steps.

    Where the rows are evidence, of what the rows alone leave above the exact denoiser.
    """
    batch = batch_of(agreement, 99, count=1000)
    before, after = (
        method.loss(of.network, batch, Streams.of(98, count=1000), of.teacher).value
        for of in (started(method, agreement), learner)
    )
    least = 0.0
    if isinstance(method, Flow) and has_evidence(method):
        x, tau, _ = what_rows_say(method, learner.network, batch, 98)
        exact = agreement.denoiser(x.dense(), method.time(4).t(tau))
        least = float(exact.nll(batch.tokens).mean())
    if isinstance(method, ResidualMap):
        # The weights of times are learnt too: without them, and with them.
        raw = [
            float(method.loss(of.network, batch, Streams.of(98, count=1000)).logs["jump"][0])
            for of in (started(method, agreement), learner)
        ]
        assert raw[1] < 0.95 * raw[0], raw
        assert after.mean() < before.mean() - 0.5
    elif isinstance(method, ResidualStudent):
        assert after.mean() < before.mean()
    elif learner.teacher is None or isinstance(method, GumbelMap):
        # A curriculum leaves out the times at which most is to be learnt; ratios of uniform noise
        # have to learn first which token stands there.
        share = {Curriculum: 0.6, SEDDUniform: 0.8}.get(type(method), 0.5)
        assert after.mean() - least < share * (before.mean() - least)
    elif isinstance(method, Duo):
        assert after.mean() < before.mean() - 0.1
    elif isinstance(method, UniformDiffusion | SDTT | Di4C):
        assert after.mean() < before.mean()
    else:
        # On the diagonal it starts at its least, its teacher's entropy: the jumps are to learn.
        assert after[500:].mean() < before[500:].mean() - 0.01
        assert after[:500].mean() > before[:500].mean()


TAUGHT = ("map, ", "student, ", "gumbel", "duo", "dcd", "sdtt", "di4c")


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(TAUGHT)])
def test_teachers_learn_nothing(name: str, agreement: Language) -> None:
    method = CASES[name]
    start = started(method, agreement)
    for p in start.teacher.parameters():
        p.grad = None
    batch = batch_of(agreement, 5, count=4)
    method.loss(start.network, batch, Streams.of(5, count=4), start.teacher).value.sum().backward()
    assert all(p.grad is None for p in start.teacher.parameters())


# --- samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4])
def test_samples_are_tokens_and_the_film_leads_to_them(writer: Writer, steps: int) -> None:
    calls = []
    handle = writer.learner.network.register_forward_hook(lambda *_: calls.append(1))
    film = writer.film(free(7), steps, Streams.of(6, count=7))
    handle.remove()
    heun = isinstance(writer.sampler, Heun)
    asked_again = writer.sampler == replace(TAILED, tail="network")
    own = {LeftToRight: 3, Jacobi: min(steps, 3), Draft: 1}
    assert len(film) == own.get(type(writer.sampler), steps + asked_again)
    assert len(calls) == (2 * steps - 1 if heun else len(film))
    for frame in film:
        assert frame.shape == (7, 3)
        assert frame.dtype == torch.long
        assert ((frame == core.FREE) | ((frame >= 0) & (frame < 4))).all()
    assert (film[-1] != core.FREE).all()
    if isinstance(writer.sampler, Unmask | Tweedie | LeftToRight):
        # What is written stays written.
        for before, after in itertools.pairwise(film):
            assert ((before == core.FREE) | (before == after)).all()


def test_a_text_does_not_depend_on_its_batch(writer: Writer) -> None:
    prompt = free(6)
    prompt[1, 0] = 1
    prompt[4, 1:] = torch.tensor([3, 2])
    together = writer.film(prompt, 4, Streams.of(7, count=6))
    for i in range(6):
        alone = writer.film(prompt[i : i + 1], 4, Streams.of(7, count=1, first=i))
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one, many[i : i + 1])


def test_given_tokens_stay(writer: Writer) -> None:
    prompt = free(8)
    prompt[:4, 0] = torch.tensor([0, 1, 2, 3])
    prompt[4:6, 1:] = 2
    prompt[7] = torch.tensor([3, 0, 3])
    for frame in writer.film(prompt, 3, Streams.of(8, count=8)):
        given = prompt != core.FREE
        assert torch.equal(frame[given], prompt[given])
    assert (frame != core.FREE).all()


def test_a_model_keeps_prompts_in_their_place(writer: Writer) -> None:
    """Text, templates and windows of `LanguageModel`, with every method as far as it reads them."""
    method, tokenizer = writer.learner.method, Tokenizer.words("abcd")
    experiment = Experiment("x", method, writer.sampler, Text(length=3), size_for(method))
    model = LanguageModel(experiment, writer.learner.network, tokenizer, 3)
    if not method.reads_prompts:
        for refused in (lambda: model.sample(prompt="a"), lambda: model.sample(1, length=4)):
            with pytest.raises(Refusal, match="does not read"):
                refused()
        return
    tokens = model.sample(steps=3, prompt=["a", "b c", "d"])
    assert tokens[:, 0].tolist() == [0, 1, 3]
    assert int(tokens[1, 1]) == 2
    long = model.sample(steps=3, prompt=["a", "b c", "d c b a d"], length=8)
    assert torch.equal(long[:2, :3], tokens[:2])
    assert long[2, :5].tolist() == [3, 2, 1, 0, 3]
    template = ["[..] c d", "b [..1] a"]
    if not method.infills:
        with pytest.raises(Refusal, match="left to right and cannot infill"):
            model.infill(template)
        assert model.infill("b [..]")[0].startswith("b ")
        return
    one, two = (text.split() for text in model.infill(template, steps=3))
    assert (len(one), one[1:], two[0], two[2]) == (3, ["c", "d"], "b", "a")


def test_samples_are_a_function_of_the_seed(writer: Writer) -> None:
    one, same, other = (
        writer.film(free(40), 3, Streams.of(seed, count=40))[-1] for seed in (9, 9, 10)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# --- what a method says of itself ---------------------------------------------------------------


def test_every_method_has_a_name_of_its_own() -> None:
    kinds = METHODS.values()
    for fact in (lambda kind: kind.label, lambda kind: kind.about):
        assert len({fact(kind) for kind in kinds}) == len(kinds)
        assert all(fact(kind).strip() for kind in kinds)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_sampler_counts_its_evaluations(writer: Writer, steps: int) -> None:
    calls: list[int] = []
    networks = [m for m in writer.learner.network.modules() if isinstance(m, nn.DiT)]
    hooks = [
        network.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape[1]))
        for network in networks
    ]
    writer.film(free(2), steps, Streams.of(10, count=2))
    for hook in hooks:
        hook.remove()
    assert calls == [writer.sampler.positions(3)] * writer.sampler.evaluations(steps, 3)
    if not writer.sampler.counts_steps:
        one, two = (writer.film(free(2), n, Streams.of(10, count=2))[-1] for n in (steps, 9))
        assert torch.equal(one, two)


def test_a_sampler_of_another_kind_is_refused(method: Method) -> None:
    for _, sampler in WRITERS:
        # A residual map's jumps are steps of points, but of two networks.
        residual = isinstance(sampler, ResidualJumps)
        if isinstance(sampler, method.samplers) and residual == (method.samplers is ResidualJumps):
            method.require_sampler(sampler)
            continue
        with pytest.raises(Refusal, match=type(sampler).__name__):
            method.require_sampler(sampler)


def test_a_method_says_what_its_likelihood_is(learner: Learner, agreement: Language) -> None:
    batch = batch_of(agreement, 14, count=8)
    one, two = (
        learner.method.nll(learner.network, batch, Streams.of(seed, count=8)) for seed in (1, 2)
    )
    match learner.method.likelihood:
        case None:
            assert one is None
        case "exact":
            assert torch.equal(one, two)
        case "upper bound":
            assert not torch.equal(one, two)


# --- likelihood -------------------------------------------------------------------------------


def every_sentence() -> core.Batch:
    tokens = torch.tensor(list(itertools.product(range(4), repeat=3)))
    return core.Batch(tokens, torch.ones(tokens.shape))


@torch.no_grad()
def test_a_likelihood_is_a_bound(learner: Learner, agreement: Language) -> None:
    """No less than the entropy, on average; the same at every number of draws."""
    if learner.method.likelihood is None:
        pytest.skip("it has none")
    n = 1000
    batch = batch_of(agreement, 11, count=n)
    nll = learner.method.nll(learner.network, batch, Streams.of(11, count=n), 3)
    if learner.method.likelihood is None:
        return
    assert nll.shape == (n, 3)
    per_text = nll.double().sum(1)
    error = float(per_text.std()) / math.sqrt(n)
    assert float(per_text.mean()) >= 3 * agreement.entropy - 4 * error
    # The network has learnt something, so that this says something.
    if not isinstance(learner.method, Continuous):
        assert float(per_text.mean()) < 3 * math.log(4) - 0.5
    fresh = learner.method.network(size_for(learner.method), 4, 3).eval()
    before = learner.method.nll(fresh, batch, Streams.of(11, count=n), 3).double().sum(1)
    assert float((before - per_text).mean()) > 0.5
    once = learner.method.nll(learner.network, batch, Streams.of(12, count=n)).double().sum(1)
    apart = math.hypot(error, float(once.std()) / math.sqrt(n))
    assert float(once.mean()) == pytest.approx(float(per_text.mean()), abs=4 * apart)


@torch.no_grad()
def test_exact_likelihoods_sum_to_one(agreement: Language) -> None:
    learner = trained(Autoregressive(), agreement)
    batch = every_sentence()
    nll = learner.method.nll(learner.network, batch, Streams.of(0, count=64))
    assert float((-nll.double().sum(1)).exp().sum()) == pytest.approx(1, abs=1e-5)
    loss = learner.method.loss(learner.network, batch, Streams.of(0, count=64))
    assert torch.equal(loss.value, nll)
    # And they are what the sampler draws from.
    n = 6000
    tokens = Writer(learner, LeftToRight()).film(free(n), 1, Streams.of(12, count=n))[-1]
    place = tokens @ torch.tensor([16, 4, 1])
    found = torch.bincount(place, minlength=64) / n
    wanted = (-nll.double().sum(1)).exp()
    noise = float((wanted * (1 - wanted) / n).sqrt().sum() / 2)
    assert float((found - wanted).abs().sum() / 2) <= 2 * noise


# --- learning the language --------------------------------------------------------------------


def off(learner: Learner, language: Language, steps: int) -> float:
    """Total variation between the language and 4000 samples."""
    n = 4000
    method, rng = learner.method, Streams.of(13, count=n)
    tokens = film(method, learner.network, free(n), steps, rng)[-1]
    found = torch.bincount(tokens @ torch.tensor([16, 4, 1]), minlength=64) / n
    wanted = language.log_prob(every_sentence().tokens).exp()
    return float((found - wanted).abs().sum() / 2)


def longer() -> Iterator[tuple[str, int, float]]:
    """Cases, steps of the sampler, and how far off a trained network may be.

    Words drawn one by one, that is the product of the marginals, are 0.45 off.
    """
    yield from ((name, 64, 0.07) for name in CASES if name.startswith("flow"))
    yield from ((name, 1, 0.1) for name in CASES if name.startswith("map, "))
    yield from (("map of itself", 4, 0.1), ("masked", 64, 0.1), ("autoregressive", 1, 0.06))
    yield from (("gumbel", 1, 0.1), ("gumbel, causal", 1, 0.1))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "most"), list(longer()))
def test_a_trained_network_writes_the_language(
    name: str, steps: int, most: float, agreement: Language
) -> None:
    # A map that is taught at another temperature writes another language.
    method = CASES[name]
    if isinstance(method, FlowMap):
        method = replace(method, teacher_temperature=1.0)
    # In a language of strict rules bayes learns more slowly: 0.12 off after 1500 steps in one jump.
    learner = trained(method, agreement, 4000 if "bayes" in name else 1500)
    assert off(learner, agreement, steps) <= most
