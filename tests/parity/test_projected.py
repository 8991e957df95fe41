"""The projected state against the one-hot state: the same flow, without the vocabulary."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from weights import scattered

from flowlm import core, nn
from flowlm.core import OneHot, Projected, Streams
from flowlm.methods.continuous import Continuous
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import LinearInput, ProjectedInput
from flowlm.sampling import Bridge, Denoiser, Euler, Heun, Jumps, PointSampler
from flowlm.train import Plan, State, train
from writing import INPUTS, film

L = 4
WIDE = (5, 8)
NARROW = (13, 4)
"""Vocabulary and width, where the table is injective and where it is not."""


def size(width: int) -> nn.Size:
    return nn.Size(blocks=2, width=width, heads=2, condition=6, dropout=0.0)


def pair(method: type[Continuous], shape: tuple[int, int]) -> tuple[nn.DiT, nn.DiT]:
    """The same weights behind a one-hot state and behind a projected one."""
    vocab, width = shape
    dense = scattered(method(input=LinearInput()).network(size(width), vocab, L))
    projected = method(input=ProjectedInput()).network(size(width), vocab, L).eval()
    assert dense.state_dict().keys() == projected.state_dict().keys()
    projected.load_state_dict(dense.state_dict())
    return dense, projected


@dataclass(frozen=True, eq=False)
class Image(Projected):
    """The projected space with the very noise of one-hot space, seen through the table."""

    def noise(self, rng: Streams, length: int) -> Tensor:
        return OneHot(len(self.table)).noise(rng, length) @ self.table


SAMPLERS: list[tuple[type[Continuous], PointSampler]] = [
    (Flow, Euler()),
    (Flow, Heun()),
    (Flow, Bridge("mean")),
    *((FlowMap, Jumps(gamma)) for gamma in (0.0, 0.5, 1.0)),
]


@torch.no_grad()
@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("shape", [WIDE, NARROW])
@pytest.mark.parametrize(("method", "sampler"), SAMPLERS, ids=str)
def test_every_sampler_walks_the_image_of_its_one_hot_walk(
    method: type[Continuous], sampler: PointSampler, shape: tuple[int, int], prompted: bool
) -> None:
    dense, projected = pair(method, shape)
    n, vocab, clock = 6, shape[0], core.Decoding(shape[0])
    whole, image = OneHot(vocab), Image(projected.encoder.table)
    x0, prompt = whole.noise(Streams.of(1, count=n), L), None
    if prompted:
        given = torch.rand(n, L, generator=torch.Generator().manual_seed(2)) < 0.3
        prompt = (torch.arange(n * L).view(n, L) % vocab).where(given, core.FREE)
        x0 = whole.clean(prompt.clamp(min=0)).where(given[..., None], x0)
    grid = clock.grid(7)
    ways = [
        list(sampler.walk(denoiser, start, grid, Streams.of(77, count=n), prompt))
        for denoiser, start in (
            (Denoiser(method().two_time(dense), whole, clock), x0),
            (Denoiser(method().two_time(projected), image, clock), image.from_one_hot(x0)),
        )
    ]
    assert len(ways[0]) == 7
    for a, b in zip(*ways, strict=True):
        assert torch.allclose(a.x @ image.table, b.x, rtol=0, atol=1e-4)
        assert torch.equal(a.tau, b.tau)
        assert torch.equal(a.prediction.argmax(), b.prediction.argmax())
        assert torch.allclose(whole.mean(a.prediction), whole.mean(b.prediction), atol=1e-4)
    first, last = (whole.mean(ways[0][i].prediction) for i in (0, -1))
    assert (first - last).abs().max() > 0.1, "the walk leads somewhere"


@torch.no_grad()
@pytest.mark.parametrize("method", [Flow, FlowMap])
def test_methods_agree_where_the_noise_is_the_same(method: type[Continuous]) -> None:
    """With v <= d both spaces draw the same x0: the same losses and the same texts."""
    dense, projected = pair(method, WIDE)
    tokens = torch.arange(6 * L).view(6, L) % WIDE[0]
    batch = core.Batch(tokens, torch.ones(6, L))
    one, two = method(input=LinearInput()), method(input=ProjectedInput())
    losses = [
        m.loss(net, batch, Streams.of(3, count=6)).value
        for m, net in ((one, dense), (two, projected))
    ]
    assert torch.allclose(*losses, atol=1e-4)
    prompt = torch.full((6, L), core.FREE)
    prompt[::2, 1] = 2
    films = [
        film(m, net, prompt, 5, Streams.of(4, count=6))
        for m, net in ((one, dense), (two, projected))
    ]
    for a, b in zip(*films, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [WIDE, NARROW, (6, 6)])
def test_projected_noise_has_the_covariance_of_the_image(shape: tuple[int, int]) -> None:
    table = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    space, gram = Projected(table), table.T @ table
    if shape[0] > shape[1]:
        factor = space.factor
        assert torch.equal(factor, factor.triu())
        assert torch.allclose(factor.T @ factor, gram, rtol=1e-5, atol=1e-5)
    n = 20_000
    x = space.noise(Streams.of(4, count=n), 3).double().flatten(0, 1)
    count = len(x)
    spread = gram.diagonal().double()
    assert (x.mean(0).abs() <= 4.5 * (spread / count).sqrt()).all()
    # Of a Gaussian: var(x_i x_j) = G_ii G_jj + G_ij^2.
    error = ((spread[:, None] * spread + gram.double().square()) / count).sqrt()
    assert ((x.T @ x / count - gram).abs() <= 4.5 * error).all()
    # Fourth moments too: the noise is Gaussian, and tokens and texts are independent.
    kurtosis = (x.pow(4).mean(0) / spread.square()).sub(3).abs()
    assert (kurtosis <= 5 * math.sqrt(96 / count)).all()
    rows = x.view(n, 3, -1)
    between = (rows[:, 0, :, None] * rows[:, 1, None, :]).mean(0).abs()
    assert (between <= 4.5 * (spread[:, None] * spread / n).sqrt()).all()


def test_the_factor_has_the_gradient_of_a_factor() -> None:
    """The Gram matrix is differentiated through one table and doubled; autograd knows the whole."""
    table = torch.randn(40, 8, generator=torch.Generator().manual_seed(6)).double()
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(7)).double()
    gradients = []
    for factor in (lambda e: Projected(e).factor, lambda e: torch.linalg.cholesky(e.T @ e).T):
        leaf = table.clone().requires_grad_()
        (factor(leaf) * weight).sin().sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, rtol=0, atol=1e-12)


def test_lowered_precision_does_not_reach_the_covariance() -> None:
    """Autocast is applied from outside; a Gram matrix in bfloat16 is not that of the table.

    Trained tables have a direction in common, whose square outweighs the others' last digits.
    """
    rng = torch.Generator().manual_seed(8)
    table = torch.randn(200, 32, generator=rng) / 32**0.5 + torch.randn(32, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        factor = Projected(table).factor.double()
    gram = table.double().T @ table.double()
    least = torch.linalg.eigvalsh(gram)[0]
    assert torch.linalg.matrix_norm(factor.T @ factor - gram, 2) <= 0.01 * least


def test_the_rest_of_the_space_is_the_image() -> None:
    table = torch.randn(NARROW, generator=torch.Generator().manual_seed(5))
    whole, image = OneHot(NARROW[0]), Projected(table)
    tokens = torch.arange(8).view(2, 4)
    assert torch.allclose(image.clean(tokens), image.from_one_hot(whole.clean(tokens)), atol=1e-6)
    rows = torch.randn(2, 4, NARROW[0]).log_softmax(-1)
    p = core.Dense(rows)
    assert torch.allclose(image.mean(p), image.from_one_hot(whole.mean(p)), atol=1e-6)
    assert torch.equal(whole.from_one_hot(rows), rows)


@torch.no_grad()
def test_the_covariance_of_a_frozen_table_is_made_once_and_follows_it() -> None:
    """By every way in which a frozen table may change."""
    method = Flow(input=ProjectedInput())
    model = method.network(size(4), 13, L).requires_grad_(False)

    def factor(model: nn.DiT) -> Tensor:
        space = method.space(model)
        assert isinstance(space, Projected)
        assert method.space(model) is space, "made once"
        assert torch.equal(space.factor, Projected(model.encoder.table).factor)
        return space.factor

    seen = [factor(model)]
    weights = {k: 2 * v for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    seen.append(factor(model))
    seen.append(factor(model.double()))
    other = copy.deepcopy(model)
    other.load_state_dict({k: v / 3 for k, v in weights.items()})
    seen.append(factor(other))
    assert all((a != b).any() for a, b in pairwise(seen))
    assert factor(model).dtype == torch.float64


def test_a_table_that_learns_is_not_remembered() -> None:
    """A fused optimizer changes it and leaves no mark, so remembering would be wrong."""
    method = Flow(input=ProjectedInput())
    model = scattered(method.network(size(4), 13, L))
    batch = core.Batch(torch.ones(2, L, dtype=torch.long), torch.ones(2, L))
    plan = Plan(steps=2, batch=2, warmup=1)
    with torch.no_grad():
        seen = [method.space(model).factor]
    for _ in train(State(model, plan), method.loss, lambda step: batch, plan):
        with torch.no_grad():
            seen.append(method.space(model).factor)
    assert all((a != b).any() for a, b in pairwise(seen))


# --- gradients --------------------------------------------------------------------------------


def mean_gradients(method: Continuous, model: nn.DiT, repeats: int, seed: int) -> Tensor:
    """Gradients of the mean loss of fresh batches, (repeats, parameters)."""
    n = 256
    tokens = torch.tensor([[0, 3], [1, 4], [2, 5], [0, 6]]).repeat(n // 4, 1)
    batch = core.Batch(tokens, torch.ones(n, 2))
    rows = []
    for i in range(repeats):
        loss = method.loss(model, batch, Streams.of(seed, i, count=n)).value.mean()
        rows.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        )
    return torch.stack(rows).double()


def scores(a: Tensor, b: Tensor) -> Tensor:
    """How many standard errors the means of two sets of rows are apart."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return ((a.mean(0) - b.mean(0)) / error).nan_to_num()


def test_the_gradient_is_that_of_the_one_hot_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the expected loss, for every parameter, the table included: it reaches the noise too."""
    vocab, width = 7, 4
    small = nn.Size(blocks=1, width=width, heads=2, condition=3, dropout=0.0)
    dense = scattered(Flow(input=LinearInput()).network(small, vocab, 2), seed=1, scale=0.5)
    projected = Flow(input=ProjectedInput()).network(small, vocab, 2)
    projected.load_state_dict(dense.state_dict())
    wanted = mean_gradients(Flow(input=LinearInput()), dense, 120, seed=1)
    got = mean_gradients(Flow(input=ProjectedInput()), projected, 120, seed=2)
    z = scores(wanted, got)
    assert z.abs().max() < 4.5
    assert (got.mean(0) - wanted.mean(0)).norm() < 0.05 * wanted.mean(0).norm()
    # The comparison has the power to see a table whose noise passes no gradient.
    factor = Projected.factor.func
    monkeypatch.setattr(Projected, "factor", property(lambda self: factor(self).detach()))
    cut = scores(wanted, mean_gradients(Flow(input=ProjectedInput()), projected, 120, seed=2))
    names = [name for name, p in projected.named_parameters() for _ in range(p.numel())]
    table = torch.tensor([name == "encoder.table" for name in names])
    assert cut[table].abs().max() > 10
    assert torch.equal(cut[~table], z[~table])


# --- distillation -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["projected", "linear", "posterior", "bayes"])
@pytest.mark.parametrize(("vocab", "width"), [WIDE, NARROW])
def test_a_flow_map_starts_as_its_teacher(encoder: str, vocab: int, width: int) -> None:
    """Whatever its target time; in projected space the two share one table, which stays."""
    shape = replace(size(width), output_cap=None) if encoder == "bayes" else size(width)
    teacher = scattered(Flow(input=INPUTS[encoder]).network(shape, vocab, L))
    method = FlowMap(input=INPUTS[encoder], teacher="runs/teacher")
    student = method.network(shape, vocab, L, teacher).eval()
    rng = Streams.of(6, count=5)
    x, s = method.space(student).noise(rng, L), rng.uniform(1)
    for t in (s, torch.ones(5, 1), rng.uniform(1), rng.uniform(L)):
        now = s.expand_as(t)
        answer = student(x, now, t).log_probs()
        assert torch.allclose(answer, teacher(x, now).log_probs(), atol=1e-6)
    assert student.encoder.table.requires_grad == (encoder != "projected")
    assert student.encoder.table is not teacher.encoder.table
    trainable = [p for p in student.parameters() if p.requires_grad]
    before = student.encoder.table.clone()
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    batch = core.Batch(torch.arange(6 * L).view(6, L) % vocab, torch.ones(6, L))
    for step in range(2):
        loss = method.loss(student, batch, Streams.of(7, step, count=6), teacher)
        optimizer.zero_grad()
        loss.value.mean().backward()
        optimizer.step()
    assert torch.equal(student.encoder.table, before) == (encoder == "projected")
    assert (student(x, s, torch.ones(5, 1)).log_probs() - teacher(x, s).log_probs()).abs().max() > 0
    assert all(p.grad is None for p in teacher.parameters())
