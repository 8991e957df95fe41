"""The trunk against a second one, written in numpy with loops, one text and one head at a time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from weights import scattered

from flowlm import nn
from flowlm.chunked import LazyOneHot
from flowlm.core import Decoding, Streams
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.nn.attention import attention

B, L, V = 2, 5, 6
SIZE = nn.Size(blocks=2, width=12, heads=3, condition=5, attention_cap=2.0, output_cap=1.5)

Array = np.ndarray


# --- the second trunk -------------------------------------------------------------------------


def soft_cap(z: float, cap: float | None) -> float:
    return z if cap is None else cap * math.tanh(z / cap)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def normal(x: Array, weight: Array) -> Array:
    centred = x - np.mean(x)
    return weight * centred / np.sqrt(np.mean(centred**2) + 1e-5)


def time_features(tau: float, p: dict[str, Array]) -> Array:
    waves = np.zeros(256)
    for j in range(128):
        frequency = 10_000 ** (-j / 128)
        waves[j], waves[128 + j] = math.cos(tau * frequency), math.sin(tau * frequency)
    hidden = silu(p["inner.weight"] @ waves + p["inner.bias"])
    return p["last.weight"] @ hidden + p["last.bias"]


def turned(x: Array, place: int) -> Array:
    """Rotary: the pair (x_j, x_{j + k/2}) as one complex number, turned by its own angle."""
    half = len(x) // 2
    z = [
        complex(x[j], x[half + j]) * complex(np.exp(1j * place * 10_000 ** (-2 * j / len(x))))
        for j in range(half)
    ]
    return np.array([a.real for a in z] + [a.imag for a in z])


def mixed(x: Array, p: dict[str, Array], size: nn.Size, causal: bool) -> Array:
    """Self-attention over the rows of x, query by query."""
    k = size.width // size.heads
    placed = turned if size.positions == "rotary" else lambda row, _: row
    out = np.zeros_like(x)
    for h in range(size.heads):
        w_q, w_k, w_v = (
            p["attention.qkv.weight"][part * size.width + h * k :][:k] for part in range(3)
        )
        keys = [placed(w_k @ row, i) for i, row in enumerate(x)]
        values = [w_v @ row for row in x]
        for i, row in enumerate(x):
            query = placed(w_q @ row, i)
            seen = range(i + 1 if causal else len(x))
            scores = [
                soft_cap(float(query @ keys[j]) / math.sqrt(k), size.attention_cap) for j in seen
            ]
            shares = [math.exp(s - max(scores)) for s in scores]
            out[i, h * k : h * k + k] = sum(
                share / sum(shares) * values[j] for share, j in zip(shares, seen)
            )
    return out @ p["attention.out.weight"].T


def block(x: Array, c: Array, p: dict[str, Array], size: nn.Size, causal: bool) -> Array:
    d = size.width
    modulation = [p["modulation.weight"] @ row + p["modulation.bias"] for row in c]
    part = [[m[i * d : i * d + d] for i in range(6)] for m in modulation]
    y = np.stack([m[0] + (1 + m[1]) * normal(row, p["norm1.weight"]) for row, m in zip(x, part)])
    y = mixed(y, p, size, causal)
    x = np.stack([row + m[2] * new for row, new, m in zip(x, y, part)])
    out = []
    for row, m in zip(x, part):
        z = m[3] + (1 + m[4]) * normal(row, p["norm2.weight"])
        z = p["mlp.0.weight"] @ z + p["mlp.0.bias"]
        z = 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        out.append(row + m[5] * (p["mlp.2.weight"] @ z + p["mlp.2.bias"]))
    return np.stack(out)


def with_neighbours(x: Array, matrices: Array, reach: int, causal: bool) -> Array:
    """Each row and, where there are any, what stands up to `reach` places from it."""
    out = x.copy()
    for i, j in itertools.product(range(len(x)), repeat=2):
        if -reach <= j - i <= (0 if causal else reach):
            out[i] += matrices[:, :, reach + j - i] @ x[j]
    return out


def under(p: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)}


def plain(model: nn.DiT, features: Tensor, taus: tuple[Tensor, ...], causal: bool) -> Array:
    """Log-probabilities (b, l, v) from features (b, l, d) and times (b, l)."""
    p = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
    size, rows = model.size, []
    for b, x in enumerate(features.detach().double().numpy()):
        c = np.zeros((len(x), size.condition))
        for i in range(len(x)):
            for n, tau in enumerate(taus):
                c[i] += time_features(float(tau[b, i]), under(p, f"times.{n}."))
        c = silu(c)
        if size.reach:
            x = with_neighbours(x, p["near.mix.weight"], size.reach, causal)
        if "places" in p:
            x = x + p["places"][: len(x)]
        for n in range(size.blocks):
            x = block(x, c, under(p, f"blocks.{n}."), size, causal)
        for row, condition in zip(x, c):
            m = p["modulation.weight"] @ condition + p["modulation.bias"]
            y = m[: size.width] + (1 + m[size.width :]) * normal(row, p["norm.weight"])
            z = p["head.weight"] @ y + p["head.bias"]
            z = np.array([soft_cap(float(a), size.output_cap) for a in z])
            rows.append(z - math.log(np.exp(z).sum()))
    return np.stack(rows).reshape(*features.shape[:2], -1)


# --- parity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("caps", [False, True])
@pytest.mark.parametrize(("positions", "reach"), [("rotary", 0), ("learned", 0), ("rotary", 2)])
def test_the_trunk_is_the_one_that_the_paper_describes(
    times: int, per_token: bool, causal: bool, caps: bool, positions: str, reach: int
) -> None:
    """And with neighbours mixed in, which it does not have."""
    size = replace(SIZE, positions=positions, reach=reach)
    if not caps:
        size = replace(size, attention_cap=None, output_cap=None)
    model = scattered(nn.DiT(size, nn.Projected(V, size.width), V, L, times, causal), seed=times)
    rng = Streams.of(1, count=B)
    x = rng.normal(L, size.width)
    taus = tuple(rng.uniform(L if per_token else 1) for _ in range(times))
    with torch.no_grad():
        got = model(x, *taus).log_probs().double().numpy()
        finer = model.double()(x.double(), *taus).log_probs().numpy()
    wanted = plain(model, x, tuple(tau.expand(B, L) for tau in taus), causal)
    assert np.abs(got - wanted).max() < 1e-5
    assert np.abs(finer - wanted).max() < 1e-6
    assert np.ptp(wanted, axis=1).max() > 0.1, "the tokens differ from each other"


@pytest.mark.parametrize("cap", [None, 50.0, 1.0])
def test_caps_change_answers_as_they_should(cap: float | None) -> None:
    """The released output cap is part of the model: parity sees it."""
    size = replace(SIZE, attention_cap=cap, output_cap=cap)
    model = scattered(nn.DiT(size, nn.Projected(V, size.width), V, L, 1))
    x, tau = Streams.of(2, count=B).normal(L, size.width), torch.full((B, L), 0.4)
    got = model(x, tau).log_probs().detach().double().numpy()
    assert np.abs(got - plain(model, x, (tau,), False)).max() < 1e-5
    other = scattered(nn.DiT(replace(size, output_cap=0.7), nn.Projected(V, size.width), V, L, 1))
    assert np.abs(got - plain(other, x, (tau,), False)).max() > 1e-2


def test_equal_times_of_tokens_are_the_time_of_the_text() -> None:
    model = scattered(nn.DiT(SIZE, nn.Linear(V, SIZE.width), V, L, 2))
    rng = Streams.of(3, count=B)
    x, s, t = rng.normal(L, V), rng.uniform(1), rng.uniform(1)
    once = model(x, s, t).log_probs()
    assert torch.allclose(once, model(x, s.expand(B, L), t.expand(B, L)).log_probs(), atol=1e-6)
    assert torch.allclose(once, model(x, s.expand(B, L), t).log_probs(), atol=1e-6)


def test_a_time_reaches_its_own_token_first() -> None:
    """Without mixing (no attention output) a token's answer depends on its own time alone."""
    model = scattered(nn.DiT(SIZE, nn.Linear(V, SIZE.width), V, L, 1))
    with torch.no_grad():
        for layer in model.blocks:
            layer.attention.out.weight.zero_()
    rng = Streams.of(4, count=1)
    x, tau = rng.normal(L, V), rng.uniform(L)
    other = tau.clone()
    other[0, 2] = 1 - other[0, 2]
    moved = (model(x, tau).log_probs() - model(x, other).log_probs()).abs().amax(-1)[0]
    assert moved[2] > 1e-3
    assert (moved[[0, 1, 3, 4]] == 0).all()


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize(("positions", "reach"), [("rotary", 0), ("learned", 3), ("rotary", 1)])
@pytest.mark.parametrize("pieces", [[1] * 6, [6], [2, 1, 3], [4, 2]])
def test_a_cache_gives_what_reading_all_at_once_gives(
    cap: float | None, positions: str, reach: int, pieces: list[int]
) -> None:
    size = replace(SIZE, attention_cap=cap, positions=positions, reach=reach)
    model = scattered(nn.DiT(size, nn.Lookup(V + 1, size.width), V, 6, 0, causal=True))
    tokens = torch.randint(V + 1, (3, 6), generator=torch.Generator().manual_seed(0))
    wanted = model(tokens).log_probs()
    cache = nn.Cache(size.blocks)
    read = [model(part, cache=cache).log_probs() for part in tokens.split(pieces, 1)]
    assert cache.length == 6
    assert torch.allclose(torch.cat(read, 1), wanted, atol=1e-5)


@pytest.mark.parametrize(("cap", "reach"), [(None, 0), (2.0, 0), (None, 2)])
def test_a_causal_trunk_does_not_look_ahead(cap: float | None, reach: int) -> None:
    size = replace(SIZE, attention_cap=cap, reach=reach)
    model = scattered(nn.DiT(size, nn.Lookup(V + 1, size.width), V, 6, 0, causal=True))
    tokens = torch.randint(V, (1, 6), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[0, 3] = V
    moved = (model(tokens).log_probs() - model(other).log_probs()).abs().amax(-1)[0]
    assert (moved[:3] < 1e-6).all()
    assert (moved[3:] > 1e-4).all()
    both = scattered(nn.DiT(size, nn.Lookup(V + 1, size.width), V, 6, 0, causal=False))
    assert ((both(tokens).log_probs() - both(other).log_probs()).abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("causal", [False, True])
def test_a_cap_far_away_is_no_cap(causal: bool) -> None:
    """The explicit attention and the fused one agree."""
    q, k, v = (Streams.of(i, count=2).normal(3, 7, 4) for i in range(3))
    capped = attention(q, k, v, causal, 1e4)
    assert torch.allclose(capped, attention(q, k, v, causal, None), atol=1e-5)


def test_only_distances_matter_to_rotary_positions() -> None:
    """The score of two tokens depends on how far apart they are, not on where."""
    rotary = nn.attention.rotary_tables(9, 8, torch.device("cpu"))
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    places = [nn.attention.rotate(row.expand(1, 1, 9, 8), *rotary)[0, 0] for row in (q, k)]
    scores = places[0] @ places[1].mT
    for distance in range(-4, 5):
        line = scores.diagonal(distance)
        assert torch.allclose(line, line[:1].expand_as(line), atol=1e-4)
    assert float(scores[0].std()) > 0.1


def test_an_empty_text_has_places_only_if_they_are_learned() -> None:
    """Rotary positions cannot tell the places of equal tokens; learned ones can."""
    masks = torch.full((1, 6), V)
    for positions, same in (("rotary", True), ("learned", False)):
        size = replace(SIZE, positions=positions)
        model = scattered(nn.DiT(size, nn.Lookup(V + 1, size.width), V, 6, 0))
        rows = model(masks).log_probs()[0]
        assert torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-5) == same


# --- encoders ---------------------------------------------------------------------------------


def test_the_posterior_encoder_by_hand() -> None:
    width, clock = 4, Decoding(V)
    encoder = nn.Posterior(V, width, clock.t)
    counts = np.array([0, 5, 2, 0, 30, 1])
    encoder.set_prior(torch.from_numpy(counts))
    prior = (counts + 1) / (counts.sum() + V)
    x = Streams.of(5, count=4).normal(L, V)
    tau = torch.tensor([[0.0], [0.3], [0.9], [1.0]])
    got = encoder(LazyOneHot(V).from_one_hot(x), tau)
    table = encoder.table.detach().double().numpy()
    for b, i in itertools.product(range(4), range(L)):
        row = x[b, i].double().numpy()
        t = float(clock.t(tau)[b, 0])
        beta = 1e4 if t == 1 else min(max(t / (1 - t) ** 2, 3.0), 1e4)
        share = prior * np.exp(beta * (row - row.max()))
        mean, before = share / share.sum() @ table, prior @ table
        view = (mean - before) / np.sqrt(np.mean((mean - before) ** 2))
        wanted = width**0.5 * mean + view
        assert np.abs(got[b, i].detach().numpy() - wanted).max() < 2e-4
    # Its softmax is Bayes' rule for one noisy row under the prior, past the floor.
    t, word = 0.7, 2
    row = t * np.eye(V)[word] + (1 - t) * x[0, 0].double().numpy()
    density = np.array(
        [np.prod(np.exp(-0.5 * ((row - t * np.eye(V)[w]) / (1 - t)) ** 2)) for w in range(V)]
    )
    bayes, share = prior * density, prior * np.exp(t / (1 - t) ** 2 * row)
    assert np.allclose(bayes / bayes.sum(), share / share.sum(), atol=1e-12)


def test_the_encoders_of_the_paper_are_one() -> None:
    linear, projected = nn.Linear(V, 4), nn.Projected(V, 4)
    lookup = nn.Lookup(V, 4)
    assert linear.state_dict().keys() == projected.state_dict().keys()
    for other in (projected, lookup):
        other.load_state_dict(linear.state_dict())
    x = Streams.of(6, count=2).normal(L, V)
    assert torch.equal(linear(x, None), projected(x @ linear.table, None))
    tokens = torch.randint(V, (2, L))
    clean = torch.nn.functional.one_hot(tokens, V).float()
    assert torch.allclose(linear(clean, None), lookup(tokens, None), atol=1e-7)


# --- sizes ------------------------------------------------------------------------------------

# Released checkpoints, with the 32 values of their rotary buffer.
COUNTS = [
    ("flow", 50_258, 169_627_250),
    ("flow map", 50_258, 169_676_658),
    ("flow", 30_522, 139_293_018),
    ("flow map", 30_522, 139_342_426),
]


@pytest.mark.parametrize(("kind", "vocab", "count"), COUNTS)
def test_the_released_models_have_as_many_parameters(kind: str, vocab: int, count: int) -> None:
    method = Flow() if kind == "flow" else FlowMap()
    with torch.device("meta"):
        model = method.network(nn.Size(), vocab, 128)
    assert sum(p.numel() for p in model.parameters()) == count - 32
    assert not list(model.buffers())


@pytest.mark.parametrize("times", [1, 2])
def test_the_released_models_have_parameters_of_these_shapes(times: int) -> None:
    v, d, c = 50_258, 768, 128
    time = [(c, 256), (c,), (c, c), (c,)]
    one = [(d,), (d,), (3 * d, d), (d, d), (4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    one += [(6 * d, c), (6 * d,)]
    wanted = [(v, d), *(times * time), *(12 * one), (d,), (2 * d, c), (2 * d,), (v, d), (v,)]
    method = Flow() if times == 1 else FlowMap()
    with torch.device("meta"):
        model = method.network(nn.Size(), v, 128)
    assert Counter(tuple(p.shape) for p in model.parameters()) == Counter(wanted)
