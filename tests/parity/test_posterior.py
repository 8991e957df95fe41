"""The encoders that write rows in parts against rows that are simply there: posterior, bayes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from weights import scattered

from flowlm import core, nn, sampling
from flowlm.chunked import Evidence, LazyOneHot, LazyPoint, points, posterior, prediction
from flowlm.core import Dense, OneHot, Streams
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, PosteriorInput
from flowlm.nn.encoder import MIN_BETA
from flowlm.nn.head import Head
from flowlm.run.footprint import Footprint
from flowlm.sampling import Bridge, Euler, Heun, Jumps, PointSampler
from writing import frames

B, L, V, D = 6, 4, 13, 8
SIZE = nn.Size(blocks=2, width=D, heads=2, condition=6, dropout=0.0)


@pytest.fixture(params=[2**22, 2 * L * V, 1], ids=lambda most: f"{most} numbers at once")
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One patch, patches of texts, and patches of a strip of two places."""
    monkeypatch.setattr(points, "chunk_numel", lambda kind: request.param)
    monkeypatch.setattr(points, "DRAW_NUMEL", 2 * V)
    return request.param


# --- a second encoder, whose rows are there -----------------------------------------------------


@dataclass
class Seen:
    """Evidence whose rows are there."""

    x: Tensor
    beta: Tensor

    def with_extra_beta(self, extra: Tensor) -> Seen:
        return Seen(self.x, self.beta + extra)


class Written(nn.Encoder):
    """The same function of dense rows, by autograd."""

    tells_times = nn.Posterior.tells_times

    def __init__(self, like: nn.Posterior) -> None:
        super().__init__(*like.table.shape)
        self.testifies = isinstance(like, nn.Bayes)
        self.log_prior = torch.nn.Parameter(like.log_prior.detach().clone(), requires_grad=False)
        self.t_of_tau = like.t_of_tau

    def forward(self, x: Tensor, tau: Tensor | None) -> Tensor:
        t = self.t_of_tau(cast(Tensor, tau))
        beta = (t / (1 - t) ** 2).clamp(MIN_BETA, 1e4)[..., None]
        mean = (beta * x + self.log_prior).softmax(-1) @ self.table
        deviation = mean - self.log_prior.exp() @ self.table
        return mean.shape[-1] ** 0.5 * mean + F.rms_norm(deviation, deviation.shape[-1:])

    def evidence(self, x: Tensor, tau: Tensor | None) -> Seen | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.testifies:
            return None
        t = self.t_of_tau(cast(Tensor, tau))
        return Seen(x, (t / (1 - t) ** 2).clamp(0, 1e4))


class Told(Dense):
    """Rows whose context cools while what is known of them does not."""

    def __init__(self, context: Tensor, known: Tensor) -> None:
        super().__init__((context + known).log_softmax(-1))
        object.__setattr__(self, "apart", (context, known))

    def with_temperature(self, temperature: float) -> Told:
        context, known = self.apart  # pyright: ignore[reportAttributeAccessIssue]
        return Told(context / temperature, known)


class Plain(torch.nn.Module):
    """The same head in the algebra of written rows."""

    def __init__(self, like: Head) -> None:
        super().__init__()
        self.weight, self.bias, self.cap = like.weight, like.bias, like.cap

    def forward(self, features: Tensor, evidence: Seen | None) -> Dense:
        logits = features @ self.weight.mT + self.bias
        if self.cap is not None:
            logits = self.cap * (logits / self.cap).tanh()
        if evidence is None:
            return Dense(logits.log_softmax(-1))
        return Told(logits, evidence.beta[..., None] * evidence.x)


class Same(OneHot):
    """One-hot space with the very noise that the other space draws."""

    def noise(self, rng: Streams, length: int) -> Tensor:
        return LazyOneHot(self.vocab).noise(rng, length).dense()


def allowed(size: nn.Size, method: Continuous) -> nn.Size:
    """Evidence has no bound, so what is added to it has none."""
    return replace(size, output_cap=None) if method.input == BayesInput() else size


def learnt(method: Continuous, teacher: nn.DiT | None = None, seed: int = 0) -> nn.DiT:
    """A network whose every parameter says something, the prior too."""
    network = scattered(method.network(allowed(SIZE, method), V, L, teacher), seed)
    cast(nn.Posterior, network.encoder).set_prior(torch.arange(V) ** 2)
    return network


def dense(network: nn.DiT) -> nn.DiT:
    """The same network with the second encoder and head."""
    other = copy.deepcopy(network)
    other.encoder = Written(cast(nn.Posterior, network.encoder))
    other.head = Plain(other.head)
    other.load_state_dict(network.state_dict())
    return other


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on methods work with dense points and the same noise."""
    return lambda: monkeypatch.setattr(Continuous, "space", lambda self, model: Same(model.vocab))


# --- the mean of a table ------------------------------------------------------------------------


def noisy(length: int = 1) -> tuple[LazyPoint, Tensor]:
    """x_t with its beta, per text or per token."""
    rng = Streams.of(1, count=B)
    space, tokens = LazyOneHot(V), torch.arange(B * L).view(B, L) % V
    t = 0.9 * rng.uniform(length)
    x = core.interpolate(space.noise(rng, L), space.clean(tokens), t)
    return x, (t / (1 - t).square()).clamp(min=3)


def posterior_mean(table: Tensor, x: LazyPoint, beta: Tensor, log_prior: Tensor) -> Tensor:
    return posterior(Evidence(x, beta), log_prior).expect(table)


def exact(table: Tensor, x: LazyPoint, beta: Tensor, log_prior: Tensor) -> Tensor:
    p = (beta.double()[..., None] * x.dense().double() + log_prior.double()).softmax(-1)
    return p @ table.double()


@pytest.mark.parametrize("length", [1, L])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_and_its_gradient_are_those_of_dense_rows(
    length: int, dtype: torch.dtype, parts: int
) -> None:
    x, beta = noisy(length)
    rng = torch.Generator().manual_seed(2)
    log_prior = torch.randn(V, generator=rng).log_softmax(-1).to(dtype)
    weight = torch.randn(B, L, D, generator=rng).to(dtype)
    tables = [torch.randn(V, D, generator=rng).to(dtype).requires_grad_()]
    tables.append(tables[0].detach().double().requires_grad_())
    got, wanted = (f(e, x, beta, log_prior) for f, e in zip((posterior_mean, exact), tables))
    assert got.dtype == dtype
    assert torch.allclose(got.double(), wanted, rtol=0, atol=1e-5)
    for mean in (got, wanted):
        (mean * weight).sin().sum().backward()
    one, two = (cast(Tensor, table.grad) for table in tables)
    assert one.dtype == dtype
    assert torch.allclose(one.double(), two, rtol=0, atol=2e-5)
    assert two.abs().min() > 1e-4, "every word is learnt"


def test_lowered_precision_lowers_products_alone(parts: int) -> None:
    """Under autocast: within bfloat16's rounding of probabilities and table, three of 2^-8."""
    x, beta = noisy()
    rng = torch.Generator().manual_seed(3)
    table = torch.randn(V, D, generator=rng).requires_grad_()
    log_prior = torch.randn(V, generator=rng).log_softmax(-1)
    weight = torch.randn(B, L, D, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        got = posterior_mean(table, x, beta, log_prior)
    assert got.dtype == torch.float32
    (got * weight).sum().backward()
    reference = table.detach().double().requires_grad_()
    wanted = exact(reference, x, beta, log_prior)
    (wanted * weight).sum().backward()
    size = exact(table.detach().abs(), x, beta, log_prior)
    assert ((got - wanted).abs() <= 3 * 2**-8 * size).all()
    error = (cast(Tensor, table.grad) - cast(Tensor, reference.grad)).abs()
    p = (beta[..., None] * x.dense() + log_prior).softmax(-1).flatten(0, 1)
    patches = len(list(x.patches()))
    assert (error <= (3 + patches) * 2**-8 * (p.mT @ weight.abs().flatten(0, 1))).all()
    assert error.max() > 0, "something was lowered"


# --- losses -------------------------------------------------------------------------------------

LOSSES: dict[str, Continuous] = {
    "flow, posterior": Flow(input=PosteriorInput()),
    "flow, bayes": Flow(input=BayesInput()),
    "flow, bayes, uniform clock": Flow(input=BayesInput(), clock="uniform"),
    "map of itself, posterior": FlowMap(input=PosteriorInput()),
    "map, posterior": FlowMap(input=PosteriorInput(), teacher="runs/teacher"),
    "map, bayes": FlowMap(input=BayesInput(), teacher="runs/teacher"),
    "map, bayes, cooled": FlowMap(
        input=BayesInput(), teacher="runs/teacher", teacher_temperature=0.6
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_dense_points(
    name: str, parts: int, written: Callable[[], None]
) -> None:
    """Fed the same noise: for texts whose tokens count differently, every parameter's gradient."""
    method, teacher = LOSSES[name], None
    if isinstance(method, FlowMap) and method.teacher is not None:
        teacher = learnt(Flow(input=method.input), seed=5).requires_grad_(False)
    network = learnt(method, teacher)
    reference, guide = dense(network), None if teacher is None else dense(teacher)
    batch = core.Batch(torch.arange(B * L).view(B, L) % V, torch.ones(B, L))
    weight = torch.rand(B, L, generator=torch.Generator().manual_seed(1))
    paid, gradients = [], []
    for model, leader, change in (
        (network, teacher, lambda: None),
        (reference, guide, written),
    ):
        change()
        loss = method.loss(model, batch, Streams.of(2, count=B), leader)
        (loss.value * weight).sum().backward()
        paid.append(loss.value.detach())
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.requires_grad})
    assert torch.allclose(*paid, rtol=1e-4, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for key, wanted in gradients[1].items():
        scale = float(wanted.abs().max())
        assert torch.allclose(gradients[0][key], wanted, rtol=0, atol=1e-4 * max(scale, 0.1)), key
    assert gradients[1]["encoder.table"].abs().max() > 1e-3


# --- sampling -----------------------------------------------------------------------------------

SAMPLERS: dict[str, tuple[Continuous, PointSampler]] = {
    "euler, posterior": (Flow(input=PosteriorInput()), Euler()),
    "euler, bayes, cooled": (Flow(input=BayesInput()), Euler(temperature=0.7)),
    "heun, bayes": (Flow(input=BayesInput()), Heun()),
    "bridge to the mean, bayes": (Flow(input=BayesInput()), Bridge("mean")),
    "bridge to tokens, posterior": (Flow(input=PosteriorInput()), Bridge()),
    "jumps, posterior, gamma 0.6": (FlowMap(input=PosteriorInput()), Jumps(0.6)),
    **{f"jumps, bayes, gamma {g}": (FlowMap(input=BayesInput()), Jumps(g)) for g in (0.0, 1.0)},
}


def film(
    method: Continuous, network: nn.DiT, prompt: Tensor, sampler: PointSampler
) -> list[sampling.Frame]:
    return frames(method, network, prompt, 4, Streams.of(4, count=B), sampler)


def rows_of(x: LazyPoint | Tensor) -> Tensor:
    return x.dense() if isinstance(x, LazyPoint) else x


def compare(one: list[sampling.Frame], two: list[sampling.Frame]) -> None:
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.tau, b.tau)
        assert torch.allclose(rows_of(a.x), rows_of(b.x), rtol=0, atol=1e-4)
        assert torch.equal(a.prediction.argmax(), b.prediction.argmax())
        p, q = (frame.prediction.log_probs().exp() for frame in (a, b))
        assert torch.allclose(p, q, rtol=0, atol=1e-3)


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_walk_as_they_do_on_dense_points(
    name: str,
    prompted: bool,
    parts: int,
    written: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With as many entries kept as there are words, and when nothing is ever settled."""
    method, sampler = SAMPLERS[name]
    network = learnt(method)
    prompt = torch.full((B, L), core.FREE)
    if prompted:
        prompt[::2, 1], prompt[1, :2], prompt[3] = 7, 2, torch.arange(L)
    assert points.TOP_K >= V
    settled = film(method, network, prompt, sampler)
    for frame in settled:
        given = prompt != core.FREE
        assert (frame.tau.expand(B, L)[given] == 1).all()
        clean = OneHot(V).clean(prompt.clamp(min=0))
        assert torch.equal(rows_of(frame.x)[given], clean[given]), "given tokens stay"
    with monkeypatch.context() as patched:
        patched.setattr(LazyOneHot, "compress", lambda self, x: x)
        compare(settled, film(method, network, prompt, sampler))
    reference = dense(network)
    written()
    wanted = film(method, reference, prompt, sampler)
    compare(settled, wanted)
    first, last = (wanted[i].prediction.log_probs().exp() for i in (0, -1))
    assert (first - last).abs().max() > 0.1, "the walk leads somewhere"


# --- the prior ----------------------------------------------------------------------------------


def test_the_prior_is_that_of_the_counts_with_one_more_each() -> None:
    encoder = nn.Posterior(4, 3, core.Uniform().t)
    assert torch.allclose(encoder.log_prior.exp(), torch.full((4,), 0.25))
    encoder.set_prior(torch.tensor([5, 0, 2**40, 1]))
    wanted = torch.tensor([6.0, 1.0, 2**40 + 1, 2.0], dtype=torch.float64) / (2**40 + 10)
    assert torch.allclose(encoder.log_prior.exp().double(), wanted, rtol=1e-5)
    assert not encoder.log_prior.requires_grad


def test_a_student_takes_the_prior_of_its_teacher() -> None:
    teacher = learnt(Flow(input=PosteriorInput()))
    student = FlowMap(input=PosteriorInput(), teacher="x").network(SIZE, V, L, teacher)
    one, two = (cast(nn.Posterior, n.encoder).log_prior for n in (teacher, student))
    assert torch.equal(one, two)
    assert one is not two
    assert float(one.std()) > 0.1


@pytest.mark.parametrize("t", [0.6, 0.8, 0.95])
def test_of_independent_words_it_is_the_exact_denoiser(t: float) -> None:
    """A language without grammar: D_t(x) = softmax(beta x + log prior), word by word."""
    chance = torch.tensor([4.0, 1.0, 0.5, 2.0, 9.0])
    vocab = len(chance)
    places = torch.arange(L).repeat_interleave(vocab)
    language = core.Automaton(
        vocab, L, source=places, token=torch.arange(vocab).repeat(L), target=places + 1,
        chance=chance.double().repeat(L), final=torch.arange(L + 1) == L,
    )  # fmt: skip
    encoder = nn.Posterior(vocab, vocab, core.Uniform().t)
    encoder.set_prior((chance * 2**30).long())
    time = torch.full((B, 1), t)
    rng = Streams.of(3, count=B)
    space = LazyOneHot(vocab)
    x = core.interpolate(space.noise(rng, L), space.clean(language.sample(rng)), time)
    beta = time / (1 - time).square()
    p = posterior_mean(torch.eye(vocab), x, beta, encoder.log_prior)
    wanted = language.denoiser(x.dense(), time).logp.exp()
    assert torch.allclose(p.double(), wanted, rtol=0, atol=2e-6)
    # So a network whose rows are evidence begins as the denoiser, before anything is learnt.
    bayes = Flow(input=BayesInput(), clock="uniform")
    fresh = bayes.network(allowed(SIZE, bayes), vocab, L)
    fresh.set_prior((chance * 2**30).long())
    assert torch.allclose(fresh(x, time).log_probs().exp().double(), wanted, rtol=0, atol=2e-6)
    # It is what the encoder reads: its mean and deviation, in the coordinates of words.
    with torch.no_grad():
        encoder.table.copy_(torch.eye(vocab))
    off = wanted - chance.double() / chance.sum()
    read = vocab**0.5 * wanted + off / off.square().mean(-1, keepdim=True).sqrt()
    assert torch.allclose(encoder(x, time).double(), read, rtol=0, atol=1e-4)


# --- memory -------------------------------------------------------------------------------------

WORDS, TEXTS, LONG, MOST = 6000, 32, 64, 2**20
"""All rows would be 47 MiB; a patch, of two texts, is 3 MiB."""


def steps(method: Continuous, network: nn.DiT, teacher: nn.DiT | None) -> Callable[[], None]:
    tokens = torch.zeros(TEXTS, LONG, dtype=torch.long)

    def step() -> None:
        batch = core.Batch(tokens, torch.ones(TEXTS, LONG))
        rng = Streams.of(0, count=TEXTS)
        method.loss(network, batch, rng, teacher).value.mean().backward()

    return step


@torch.no_grad()
def sample(method: Continuous, network: nn.DiT, sampler: PointSampler) -> None:
    prompt = torch.full((TEXTS, LONG), core.FREE)
    denoiser, rng = method.denoiser(network), Streams.of(0, count=TEXTS)
    for frame in sampler.frames(denoiser, prompt, 3, rng):
        frame.tokens()


CASES: list[tuple[Continuous, PointSampler | None]] = [
    *((method, None) for method in LOSSES.values() if method.clock == "decoding"),
    *((method, sampler) for method, sampler in SAMPLERS.values() if not sampler.draws),
]


@pytest.mark.parametrize(("method", "sampler"), CASES, ids=str)
def test_the_largest_tensor_is_the_patch(
    method: Continuous, sampler: PointSampler | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "chunk_numel", lambda kind: MOST)
    monkeypatch.setattr(points, "TOP_K", 16)
    small = allowed(nn.Size(1, 8, 2, 4, dropout=0.0, attention_cap=None), method)
    core.Decoding(WORDS).t(torch.zeros(1, 1))
    # A step's accounts are as exact with tensors that are shapes alone; samplers read numbers.
    with FakeTensorMode(allow_non_fake_inputs=True) if sampler is None else nullcontext():
        teacher = None
        if isinstance(method, FlowMap) and method.teacher is not None:
            teacher = Flow(input=method.input).network(small, WORDS, LONG).requires_grad_(False)
        network = method.network(small, WORDS, LONG, teacher)
        for part in (network, teacher):
            if part is not None:
                part.head.side = 512
        run = steps(method, network, teacher)
        if sampler is not None:
            run = partial(sample, method, network, sampler)
        with Footprint(*network.parameters()) as seen:
            run()
    texts = MOST // (LONG * WORDS)
    assert seen.largest == 4 * texts * LONG * WORDS <= 4 * MOST < 4 * TEXTS * LONG * WORDS / 10


def test_memory_has_no_term_in_tokens_times_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the texts cost the same more beside 2,000 words as beside 4,000."""
    monkeypatch.setattr(points, "chunk_numel", lambda kind: 2**17)
    monkeypatch.setattr(prediction, "tile_side", lambda kind: 128)
    monkeypatch.setattr(points, "TOP_K", 16)
    small = nn.Size(1, 8, 2, 4, dropout=0.0, attention_cap=None)
    for method in (Flow(input=PosteriorInput()), FlowMap(input=BayesInput())):
        peaks = {}
        for words, texts in itertools.product((2048, 4096), (16, 32)):
            core.Decoding(words).t(torch.zeros(1, 1))
            network = method.network(allowed(small, method), words, 32)
            batch = core.Batch(torch.zeros(texts, 32, dtype=torch.long), torch.ones(texts, 32))
            with Footprint(*network.parameters()) as seen:
                loss = method.loss(network, batch, Streams.of(0, count=texts))
                loss.value.mean().backward()
            peaks[words, texts] = seen.peak
        few, many = (peaks[words, 32] - peaks[words, 16] for words in (2048, 4096))
        assert abs(many - few) < 4 * 512 * 2048 / 100
