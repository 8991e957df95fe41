"""The head, tile by tile, against plain softmax algebra on rows that are written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowlm import core
from flowlm.chunked import Evidence, HeadPrediction, LazyPoint, points
from flowlm.chunked.points import Stored
from flowlm.core import Dense, Mixture, Patch, Streams, TokenDistribution

B, L, V, D = 2, 5, 7, 3
SEEN = "evidence"
CAPS = [None, 4.0, SEEN]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def leaves(seed: int, dtype: torch.dtype, b: int = B, l: int = L, v: int = V, d: int = D) -> dict:  # noqa: E741
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=dtype).requires_grad_()

    return {
        "features": normal(b, l, d),
        "weight": normal(v, d),
        "bias": normal(v),
        "table": normal(v, 4),
        "beta": normal(b, l),
    }


def noisy_rows(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(106))


def tiled(x: dict, cap: float | str | None, side: int | None = None) -> HeadPrediction:
    head = HeadPrediction(x["features"], x["weight"], x["bias"], None, side)
    if cap == SEEN:
        given = noisy_rows(*head.shape, len(head.weight))
        point = LazyPoint.of(Stored(given), *given.shape, device=given.device)
        return replace(head, evidence=Evidence(point, x["beta"]))
    return replace(head, cap=cap)


def dense(x: dict, cap: float | str | None, side: int | None = None) -> Dense:
    logits = torch.einsum("bld,vd->blv", x["features"], x["weight"]) + x["bias"]
    if cap == SEEN:
        logits = logits + x["beta"][..., None] * noisy_rows(*logits.shape)
    elif cap is not None:
        logits = cap * (logits / cap).tanh()
    return Dense(logits - torch.logsumexp(logits, -1, keepdim=True))


def target(
    dtype: torch.dtype,
    kind: Callable,
    other: Callable,
    side: int | None,
    cap: float | str | None = 2.0,
) -> tuple[Mixture, list[Tensor]]:
    """A mixture of two distributions of other heads, with a share per text and one per token."""
    one, two = leaves(101, dtype), leaves(102, dtype)
    share = torch.rand(B, 1, generator=torch.Generator().manual_seed(103), dtype=dtype)
    near, far = kind(one, cap, side), other(two, None, side)
    mixture = share * near.probs() + (1 - share.expand(B, L)) * far.probs()
    return mixture, [*one.values(), *two.values()]


def entropy(logp: Tensor, patch: Patch) -> Tensor:
    return -(logp.exp() * logp).sum(-1)


def answers(p: TokenDistribution, x: dict, kind: Callable, side: int) -> dict[str, Tensor]:
    tokens = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(104))
    soft, _ = target(x["features"].dtype, kind, kind, side)
    seen, _ = target(x["features"].dtype, kind, kind, side, SEEN)
    mixed, _ = target(x["features"].dtype, kind, dense, side)
    return {
        "cross_entropy with evidence": p.cross_entropy(seen),
        "expect": p.expect(x["table"]),
        "nll": p.nll(tokens),
        "cross_entropy": p.cross_entropy(soft),
        "cross_entropy with written rows": p.cross_entropy(mixed),
        "squared error of tokens": p.squared_error(tokens),
        "squared error of a mixture": p.squared_error(soft),
        "squared error with evidence": p.squared_error(seen),
        "squared error with written rows": p.squared_error(mixed),
        "entropy": p.reduce(entropy),
        "powers": p.reduce(lambda logp, patch, k: (logp / k).exp().cumsum(-1)[..., :3], 2.0),
        "log_probs": p.log_probs(),
        "argmax": p.argmax(),
    }


def gradients(answer: Tensor, x: dict) -> dict[str, Tensor]:
    pull = torch.randn(
        answer.shape, generator=torch.Generator().manual_seed(105), dtype=answer.dtype
    )
    found = torch.autograd.grad(
        (answer * pull).sum(), list(x.values()), retain_graph=True, allow_unused=True
    )
    return {k: torch.zeros_like(x[k]) if g is None else g for k, g in zip(x, found)}


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100), side=st.integers(1, 12), most=st.sampled_from([1, 3 * V, 100 * V]))
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cap", CAPS)
def test_values_and_gradients_at_any_tile_size(
    cap: float | str | None, dtype: torch.dtype, seed: int, side: int, most: int
) -> None:
    """`most`: evidence in strips of a token, of a few tokens of a text, and of several texts."""
    x, size = leaves(seed, dtype), TOLERANCE[dtype]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(points, "chunk_numel", lambda kind: most)
        patched.setattr(points, "DRAW_NUMEL", V)
        got = answers(tiled(x, cap, side), x, tiled, side)
        wanted = answers(dense(x, cap), x, dense, 0)
        for name, value in wanted.items():
            assert got[name].dtype == value.dtype
            if name == "argmax":
                assert torch.equal(got[name], value)
                continue
            assert torch.allclose(got[name], value, rtol=size, atol=size), name
            slopes, right = gradients(got[name], x), gradients(value, x)
            for leaf, slope in right.items():
                assert torch.allclose(slopes[leaf], slope, rtol=size, atol=size), (name, leaf)


@pytest.mark.parametrize("cap", CAPS)
def test_a_temperature_is_that_of_the_features(cap: float | str | None) -> None:
    """p^(1/T), made sum to one; what is known besides neither cools nor warms."""
    x = leaves(3, torch.float64)
    cooled = tiled(x, cap).with_temperature(0.4).log_probs()
    known = x["beta"][..., None] * noisy_rows(B, L, V) if cap == SEEN else 0.0
    context = dense(x, None if cap == SEEN else cap).logp
    assert torch.allclose(cooled, (context / 0.4 + known).log_softmax(-1), rtol=0, atol=1e-10)
    if cap != SEEN:
        assert torch.allclose(cooled, dense(x, cap).with_temperature(0.4).logp, rtol=0, atol=1e-10)
    assert torch.equal(tiled(x, cap).with_temperature(1.0).log_probs(), tiled(x, cap).log_probs())


@pytest.mark.parametrize("make", [tiled, dense])
def test_against_sums_by_hand(make: Callable) -> None:
    """Both implementations against loops over tokens and words."""
    x = leaves(1, torch.float64)
    y, w, c, table, _ = (t.detach().numpy() for t in x.values())
    tokens = np.random.default_rng(0).integers(V, size=(B, L))
    soft, _ = target(torch.float64, dense, dense, None)
    q = sum(np.asarray((k[..., None] * p.logp.exp()).detach()) for k, p in soft.parts)
    x = {k: leaf.detach() for k, leaf in x.items()}
    p = make(x, 4.0, 3)
    for b, i in itertools.product(range(B), range(L)):
        z = [4.0 * math.tanh((sum(y[b, i] * w[v]) + c[v]) / 4.0) for v in range(V)]
        total = sum(math.exp(a) for a in z)
        probability = [math.exp(a) / total for a in z]
        mean = sum(probability[v] * table[v] for v in range(V))
        cross = -sum(q[b, i, v] * math.log(probability[v]) for v in range(V))
        nll = -math.log(probability[tokens[b, i]])
        assert np.allclose(p.expect(x["table"])[b, i], mean, atol=1e-12)
        assert float(p.nll(torch.tensor(tokens))[b, i]) == pytest.approx(nll, abs=1e-12)
        assert float(p.cross_entropy(soft)[b, i]) == pytest.approx(cross, abs=1e-12)
        one_hot = [float(v == tokens[b, i]) for v in range(V)]
        for goal, wanted in ((torch.tensor(tokens), one_hot), (soft, q[b, i])):
            error = sum((probability[v] - wanted[v]) ** 2 for v in range(V))
            assert float(p.squared_error(goal)[b, i]) == pytest.approx(error, abs=1e-12)
        assert int(p.argmax()[b, i]) == max(range(V), key=probability.__getitem__)


@pytest.mark.parametrize("side", [3, None])
@pytest.mark.parametrize("make", [tiled, dense])
def test_no_gradient_flows_into_a_target(make: Callable, side: int | None) -> None:
    x = leaves(2, torch.float64)
    soft, sources = target(torch.float64, make, make, side)
    p = make(x, None, side)
    (p.cross_entropy(soft) + p.squared_error(soft)).sum().backward()
    assert all(leaf.grad is None for leaf in sources)
    assert all(x[k].grad is not None for k in ("features", "weight", "bias"))
    # A distribution as its own target is at the minimum of its cross-entropy: no slope at all.
    y = leaves(3, torch.float64)
    p = make(y, 4.0, side)
    p.cross_entropy(p.probs()).sum().backward()
    assert all(y[k].grad.abs().max() < 1e-13 for k in ("features", "weight", "bias"))


def test_impossible_words_cost_nothing_unless_wanted() -> None:
    p = Dense(torch.tensor([[[0.5, 0.5, 0.0]]]).log())
    q = Dense(torch.tensor([[[0.25, 0.75, 0.0]]]).log())
    assert float(p.cross_entropy(q.probs())) == pytest.approx(math.log(2))
    assert math.isinf(float(p.cross_entropy(Dense(torch.full((1, 1, 3), -1.0986)).probs())))


def test_bfloat16_features_get_float32_rows() -> None:
    x = {k: v.detach().bfloat16() for k, v in leaves(4, torch.float32).items()}
    p = tiled(x, 4.0, 3)
    exact = dense({k: v.double() for k, v in x.items()}, 4.0)
    assert p.log_probs().dtype == torch.float32
    assert (p.log_probs().exp().sum(-1) - 1).abs().max() < 1e-6
    assert (p.log_probs() - exact.logp).abs().max() < 0.05
    assert p.nll(p.argmax()).dtype == torch.float32


def test_a_strip_is_made_again_in_the_precision_of_the_forward_pass() -> None:
    """Backward passes run outside autocast: there, too, p is exactly its own soft target."""
    x = leaves(12, torch.float32)
    for cap in CAPS:
        exact = dense(x, cap)
        with torch.autocast("cpu", torch.bfloat16):
            p = tiled(x, cap, 1)
            paid, rough = p.squared_error(p.probs()), p.squared_error(exact.probs())
        assert paid.abs().max() < 1e-12
        assert all(slope.abs().max() < 1e-6 for slope in gradients(paid, x).values())
        assert all(slope.dtype == torch.float32 for slope in gradients(paid, x).values())
        assert rough.abs().max() > 1e-8, "something was lowered"


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    x = leaves(13, torch.float32)
    with pytest.raises(AssertionError, match="no gradient flows into the operands"):
        tiled(x, None, 1).reduce(lambda logp, patch, k: (logp * k).sum(-1), x["bias"])


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation puts out, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


@pytest.mark.parametrize(
    "operation",
    ["expect", "nll", "cross_entropy", "squared_error", "entropy", "argmax", "sample"],
)
@pytest.mark.parametrize("tracked", [True, False])
def test_nothing_is_larger_than_a_tile(
    operation: str, tracked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither made on the way, forward or backward, nor kept for the backward pass.

    A strip has here as many numbers as a tile.
    """
    b, length, vocab, width, side = 4, 25, 80, 3, 20
    x = leaves(5, torch.float32, b, length, vocab, width)
    goal = leaves(6, torch.float32, b, length, vocab, width)
    tokens = torch.randint(vocab, (b, length))

    def run(side: int | None) -> tuple[int, int, int]:
        p, q = tiled(x, 4.0, side), tiled(goal, None, side)
        work = {
            "expect": lambda: p.expect(x["table"]),
            "nll": lambda: p.nll(tokens),
            "cross_entropy": lambda: p.cross_entropy(q.probs()),
            "squared_error": lambda: p.squared_error(q.probs()),
            "entropy": lambda: p.reduce(entropy),
            "argmax": p.argmax,
            "sample": lambda: p.sample(Streams.of(0, count=b), 0.7, 0.9),
        }
        kept: dict[int, Tensor] = {}

        def keep(t: Tensor) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t
            return t

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
        with torch.set_grad_enabled(tracked), Largest() as largest:
            with hooks:
                answer = work[operation]()
            if answer.requires_grad:
                answer.sum().backward()
        sizes = [t.untyped_storage().nbytes() // t.element_size() for t in kept.values()]
        return largest.numel, max(sizes, default=0), sum(sizes)

    with monkeypatch.context() as patched:
        patched.setattr(points, "chunk_numel", lambda kind: side**2)
        patched.setattr(points, "DRAW_NUMEL", vocab)
        largest, kept, together = run(side)
    assert largest <= side**2
    assert kept <= side**2
    # Nor do the pieces add up to the whole: they are made again on the way back.
    assert together <= b * length * vocab // 4
    # The measure does see rows that are written out.
    assert run(None)[0] >= b * length * vocab


# --- drawing ----------------------------------------------------------------------------------


def drawn_from(rows: Tensor, n: int) -> list[TokenDistribution]:
    """The distribution of given log-probabilities at n x l places, in both implementations."""
    vocab = rows.shape[-1]
    features = torch.eye(len(rows)).expand(n, -1, -1)
    head = HeadPrediction(features, rows.mT.contiguous(), torch.zeros(vocab), None, 30)
    return [Dense(rows.expand(n, -1, -1)), head]


def nucleus(p: list[float], temperature: float, top_p: float) -> list[float]:
    """p^(1/temperature), of which the likeliest words are kept until they have mass top_p."""
    powers = [a ** (1 / temperature) for a in p]
    powers = [a / sum(powers) for a in powers]
    kept, mass = set(), 0.0
    for v in sorted(range(len(p)), key=lambda v: -powers[v]):
        if mass >= top_p:
            break
        kept.add(v)
        mass += powers[v]
    return [a / mass if v in kept else 0.0 for v, a in enumerate(powers)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [0.35, 0.8, 1.0])
def test_words_occur_as_often_as_they_should(
    temperature: float, top_p: float, fits: Callable[[Tensor, Tensor], None]
) -> None:
    n = 5000
    rows = [[0.11, 0.42, 0.07, 0.4], [0.3, 0.26, 0.24, 0.2]]
    for p in drawn_from(torch.tensor(rows).log(), n):
        tokens = p.sample(Streams.of(7, count=n), temperature, top_p)
        for place, row in enumerate(rows):
            counts = torch.bincount(tokens[:, place], minlength=4)
            fits(counts, torch.tensor(nucleus(row, temperature, top_p), dtype=torch.float64))


def test_both_implementations_draw_the_same() -> None:
    x = leaves(8, torch.float32)
    for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (0.6, 0.7)):
        draws = [
            p.sample(Streams.of(9, count=B), temperature, top_p)
            for p in (dense(x, 4.0), tiled(x, 4.0), tiled(x, 4.0, 2))
        ]
        assert torch.equal(draws[0], draws[1])
        assert torch.equal(draws[0], draws[2])
    assert torch.equal(tiled(x, 4.0).sample(Streams.of(9, count=B), 0.0), dense(x, 4.0).argmax())


@dataclass(frozen=True)
class Chosen(Streams):
    """Uniform numbers that are given."""

    numbers: tuple[float, ...] = ()

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(self.numbers, dtype=dtype).view(-1, *shape)


def chosen(*numbers: float) -> Chosen:
    rng = Streams.of(0, count=len(numbers))
    return Chosen(rng.generators, rng.index, rng.total, numbers)


def test_words_rarer_than_float32_can_tell_are_drawn() -> None:
    """A word of probability 1e-12 takes its 1e-12 of [0, 1), at either end of it."""
    rare = math.log(1e-12)
    for place, first in ((0, True), (2, False)):
        row = torch.zeros(3)
        row[1 if first else 0] = 0.0
        row[2 if first else 1] = -60.0
        row[place] = rare
        inside, outside = (0.5e-12, 2e-12) if first else (1 - 0.5e-12, 1 - 2e-12)
        for p in drawn_from(row[None], 2):
            tokens = p.sample(chosen(inside, outside))
            assert tokens.flatten().tolist() == [place, 1 if first else 0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1, exclude_max=True))
def test_an_impossible_word_is_never_drawn(masses: list[float], u: float) -> None:
    p = torch.tensor(masses, dtype=torch.float64).masked_fill(torch.tensor(masses) < 1e-3, 0.0)
    if not p.any():
        return
    for extreme in (u, 0.0, 1 - 2**-53):
        token = core.draw_tokens(p.log()[None], torch.tensor([extreme], dtype=torch.float64))
        assert p[token] > 0
    inverse = torch.searchsorted((p / p.sum()).cumsum(0), torch.tensor(u).double(), right=True)
    token = core.draw_tokens(p.log()[None], torch.tensor([u], dtype=torch.float64))
    edge = ((p / p.sum()).cumsum(0) - u).abs().min()
    assert int(token) == int(inverse) or edge < 1e-12


def test_a_draw_does_not_depend_on_its_batch() -> None:
    x = leaves(10, torch.float32, b=6)
    p = tiled(x, None, 2)
    together = p.sample(Streams.of(11, count=6))
    for i in range(6):
        one = replace(p, features=p.features[i : i + 1])
        assert torch.equal(one.sample(Streams.of(11, count=1, first=i)), together[i : i + 1])
