"""Points that are sums: their algebra is that of the rows that they would write."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from flowlm import core
from flowlm.chunked import LazyOneHot, LazyPoint
from flowlm.chunked import points as chunks
from flowlm.chunked.points import Noise, Term, TopK
from flowlm.core import OneHot, Patch, Streams

B, L, V = 3, 7, 5
SPACE = LazyOneHot(V)


def streams(seed: int, count: int = B) -> Streams:
    return Streams.of(seed, count=count)


def points(seed: int = 0) -> tuple[list[LazyPoint], list[Tensor]]:
    """Noise, words, a prediction and given rows, not written and written."""
    logp = streams(seed + 1).normal(L, V).log_softmax(-1)
    tokens = torch.arange(B * L).view(B, L) % V
    sums = [
        SPACE.noise(streams(seed), L),
        SPACE.clean(tokens),
        SPACE.mean(core.Dense(logp)),
        SPACE.from_one_hot(streams(seed + 2).normal(L, V)),
    ]
    whole = OneHot(V)
    dense = [
        sums[0].dense(),
        whole.clean(tokens),
        logp.exp(),
        streams(seed + 2).normal(L, V),
    ]
    return sums, dense


@pytest.fixture(params=[1, L], ids=["time of a text", "time of a token"])
def times(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """s <= t < 1."""
    s, t = (streams(seed).uniform(request.param) for seed in (8, 9))
    return torch.minimum(s, t), torch.maximum(s, t)


@pytest.fixture(params=[2**22, L * V * 2, V * 2, 1], ids=lambda most: f"{most} numbers at once")
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is written at once; strips are of two places where a text is not."""
    monkeypatch.setattr(chunks, "chunk_numel", lambda kind: request.param)
    monkeypatch.setattr(chunks, "DRAW_NUMEL", 2 * V)
    return request.param


def same(point: LazyPoint, wanted: Tensor) -> None:
    assert torch.allclose(point.dense(), wanted, rtol=1e-5, atol=1e-5)


# --- algebra ------------------------------------------------------------------------------------


def test_formulas_of_the_flow_are_those_of_written_rows(
    times: tuple[Tensor, Tensor], parts: int
) -> None:
    s, t = times
    (x0, x1, mean, other), dense = points()
    z0, z1, p, given = dense
    same(core.interpolate(x0, x1, t), core.interpolate(z0, z1, t))
    x, z = core.interpolate(x0, x1, s), core.interpolate(z0, z1, s)
    same(core.velocity(mean, x, s), core.velocity(p, z, s))
    same(core.jump(x, mean, s, t), core.jump(z, p, s, t))
    for kappa in (0.8, core.bridge_kappa(s, t)):
        same(core.step(x, mean, s, t, kappa, other), core.step(z, p, s, t, kappa, given))
    same((x - other) / (1 + t[..., None]), (z - given) / (1 + t[..., None]))


@pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan])
def test_a_weight_that_is_masked_does_not_count(weight: float) -> None:
    """As in torch.where: what is not chosen may be infinite or not a number."""
    (x0, x1, mean, _), (z0, z1, p, _) = points()
    mask = torch.rand(B, L, 1, generator=torch.Generator().manual_seed(3)) < 0.5
    wild = torch.where(mask, torch.full((B, L, 1), weight), 0.5)
    same(x0.where(mask, wild * mean + x1), torch.where(mask, z0, wild * p + z1))
    same((wild * mean + x1).where(~mask, x0), torch.where(~mask, wild * p + z1, z0))


def test_a_pinned_token_does_not_move_at_the_end_of_time() -> None:
    """s = t = 1 at some tokens, where the formula of the velocity is 0 / 0."""
    (x0, x1, mean, _), (z0, z1, p, _) = points()
    given = torch.zeros(B, L, dtype=torch.bool)
    given[0, 2] = given[2, 5] = True
    s, t = (torch.where(given, 1.0, torch.tensor(value)) for value in (0.2, 0.7))
    x, z = core.interpolate(x0, x1, s), core.interpolate(z0, z1, s)
    same(core.jump(x, mean, s, t), core.jump(z, p, s, t))
    moved = x + (t - s)[..., None] * core.velocity(mean, x, s)
    same(moved, torch.where(given[..., None], z, z + 0.5 * core.velocity(p, z, s * 0 + 0.2)))
    assert torch.equal(moved.dense()[given], z1[given])
    assert not torch.equal(moved.dense()[~given], x.dense()[~given]), "the others move"


def test_equal_terms_are_one() -> None:
    """A sampler's sum has as many terms after many jumps as after one."""
    (x0, x1, mean, _), (z0, z1, p, _) = points()
    half = torch.full((B, 1), 0.5)
    x, z = core.interpolate(x0, x1, half), core.interpolate(z0, z1, half)
    for step in range(1, 5):
        s, t = half * step, half * step + 0.1
        x, z = core.jump(x, mean, s * 0.3, t * 0.3), core.jump(z, p, s * 0.3, t * 0.3)
    assert len(x.terms) == 3
    same(x, z)
    same(x - x, torch.zeros(B, L, V))
    assert len((SPACE.noise(streams(0), L) + x0).terms) == 2, "equal numbers, drawn twice"


# --- patches ------------------------------------------------------------------------------------


def everything() -> LazyPoint:
    sums, _ = points()
    kept = TopK(
        torch.tensor([0, 3]).expand(B, L, 2), streams(20).normal(L, 2), streams(21).normal(L, 1)
    )
    x = LazyPoint.of(kept, B, L, V, device=torch.device("cpu"))
    for i, point in enumerate(sums):
        x = x + streams(30 + i).normal(L if i % 2 else 1, 1) * point
    return x


def test_patches_cover_a_point_once_and_write_its_rows(parts: int) -> None:
    x = everything()
    whole, seen = x.dense(), torch.zeros(B, L, dtype=torch.long)
    for patch in x.patches():
        seen[patch] += 1
        written = x.write(patch)
        assert torch.allclose(written, whole[patch], rtol=0, atol=1e-6)
        assert written.numel() <= max(parts, 2 * V), "or a strip, which is drawn at once"
    assert (seen == 1).all()


class Counted(Term):
    """A term that counts how often it is asked."""

    asked = 0

    def add(self, total: Tensor, weight: Tensor, patch: Patch) -> None:
        self.asked += 1
        total.add_(weight)


def test_a_point_no_larger_than_a_patch_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and head read it forth and back; a larger one is written anew each time."""
    for most, asked in ((B * L * V, 1), (B * L * V - 1, 4)):
        monkeypatch.setattr(chunks, "chunk_numel", lambda kind, most=most: most)
        term = Counted()
        x = LazyPoint.of(term, B, L, V, device=torch.device("cpu"))
        whole = [x.dense() for _ in range(3)]
        part = x.write((slice(1, 2), slice(0, L)))
        assert term.asked == asked
        assert torch.equal(whole[0], whole[2])
        assert torch.equal(part, whole[0][1:2])


def test_any_patch_between_strips_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "DRAW_NUMEL", 2 * V)
    x = everything()
    whole = x.dense()
    for texts in (slice(0, 1), slice(1, 3), slice(0, 3)):
        for places in (slice(0, 2), slice(2, 4), slice(4, 7), slice(6, 7), slice(2, 7)):
            wanted = whole[texts, places]
            assert torch.allclose(x.write((texts, places)), wanted, rtol=0, atol=1e-6)


def test_the_size_of_patches_does_not_reach_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a real size of strips: three of them a text, the last one shorter."""
    vocab, length = 2**15, 70
    assert chunks.rows_per_draw(vocab) == 32
    noise, found = LazyOneHot(vocab).noise(streams(1, 2), length), []
    for most in (2**23, 2**21, 1):
        monkeypatch.setattr(chunks, "chunk_numel", lambda kind, most=most: most)
        found.append([noise.write(patch).flatten(0, 1) for patch in noise.patches()])
    assert [len(parts) for parts in found] == [1, 4, 6]
    one, two, three = (torch.cat(parts) for parts in found)
    assert torch.equal(one, two)
    assert torch.equal(one, three)


# --- noise --------------------------------------------------------------------------------------


def drawn(seed: int, count: int, length: int, vocab: int, first: int = 0, times: int = 1) -> Tensor:
    """The last of successive noises of a family."""
    rng = Streams.of(seed, count=count, first=first)
    for _ in range(times):
        noise = LazyOneHot(vocab).noise(rng, length)
    return noise.dense()


@pytest.mark.parametrize("times", [1, 2, 5])
def test_the_noise_of_a_text_is_its_own(times: int) -> None:
    """Whatever batch it is in, and whatever other texts there are."""
    together = drawn(4, 6, L, 40, times=times)
    for i in range(6):
        assert torch.equal(drawn(4, 1, L, 40, first=i, times=times)[0], together[i])
    rng = Streams.of(4, count=6).chosen([1, 3, 5], [0, 1, 2], 3)
    for _ in range(times):
        noise = LazyOneHot(40).noise(rng, L)
    assert torch.equal(noise.dense(), together[1::2])


def test_taking_noise_again_gives_the_same_and_drawing_anew_does_not() -> None:
    rng = streams(5)
    one, two = SPACE.noise(rng, L), SPACE.noise(rng, L)
    assert torch.equal(one.dense(), one.dense())
    assert (one.dense() != two.dense()).all()


def test_streams_go_on_as_if_noise_had_not_been_written() -> None:
    undisturbed, rng = streams(6), streams(6)
    undisturbed.fork_seeds()
    noise = SPACE.noise(rng, L)
    noise.dense()
    assert torch.equal(rng.normal(50), undisturbed.normal(50))
    assert not torch.equal(rng.normal(L, V), noise.dense())


def pairs(numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers beside others that must be independent: of texts, strips, and within rows."""
    yield numbers[0::2], numbers[1::2]
    yield numbers[:, 0::2], numbers[:, 1::2]
    yield numbers[..., 0::2], numbers[..., 1::2]
    yield numbers[:-1], numbers[1:]


def test_noise_is_standard_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments and tails within 4.5 standard errors, of two million numbers in 2,560 strips."""
    monkeypatch.setattr(chunks, "DRAW_NUMEL", 800)
    z = drawn(7, 640, 4, 800).double()
    n = z.numel()
    flat = z.flatten()
    # Var(z^k) = (2k - 1)!! - E[z^k]^2
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        score = (float(flat.pow(power).mean()) - mean) / math.sqrt(variance / n)
        assert abs(score) < 4.5, (power, score)
    for edge in (0.0, 1.0, 2.0, 3.0, 4.0):
        chance = 0.5 * math.erfc(edge / math.sqrt(2))
        for count in (int((flat > edge).sum()), int((flat < -edge).sum())):
            score = (count - n * chance) / math.sqrt(n * chance * (1 - chance))
            assert abs(score) < 4.5, (edge, score)


def test_noises_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between texts, strips, words and the successive noises of a stream.

    The number of pairs that share a value is as telling as a correlation: a stream that came up
    twice would share all.
    """
    monkeypatch.setattr(chunks, "DRAW_NUMEL", 800)
    first, second = (drawn(8, 320, 4, 800, times=times).double() for times in (1, 2))
    for one, two in (*pairs(first), (first, second), (first[1:], second[:-1])):
        for a, b in ((one, two), (one.square() - 1, two.square() - 1)):
            spread = math.sqrt(float(a.var() * b.var()) / a.numel())
            assert abs(float((a * b).mean())) / spread < 4.5
    strips = torch.cat((first, second)).flatten(0, 1)
    assert len(strips[:, 0].unique()) > 0.999 * len(strips)


def test_seeds_of_a_family_stay_distinct() -> None:
    """Of 100,000 texts, for as many noises as a sampler may draw; strips have seeds too."""
    rng = Streams.of(9, count=100_000)
    before = set[int]()
    for _ in range(4):
        seeds = rng.fork_seeds()
        assert len(set(seeds)) == len(seeds)
        assert all(0 <= seed < 2**32 for seed in seeds)
        # By chance, as between any two families: 10^10 pairs of 2^32.
        assert len(before & set(seeds)) < 10
        before = set(seeds)


def test_the_seed_of_a_strip_is_no_text_of_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the strip of another: what is drawn from is written down here."""
    seeds = list[int]()

    class Noted(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            seeds.append(seed)
            return super().manual_seed(seed)

    monkeypatch.setattr(chunks, "DRAW_NUMEL", V)
    rng = Streams.of(10, count=1000)
    own = [generator.initial_seed() for generator in rng.generators]
    noise = Noise(rng.fork_seeds(), Noted())
    LazyPoint.of(noise, 1000, 64, V, device=torch.device("cpu")).dense()
    assert len(seeds) == 64_000
    assert len({*seeds, *own}) == 65_000


# --- what a sampler carries ---------------------------------------------------------------------


def sums() -> LazyPoint:
    """Predictions with weights of both signs, noise and words."""
    (x0, x1, mean, _), _ = points()
    other = SPACE.mean(core.Dense(streams(40).normal(L, V).log_softmax(-1)))
    half = torch.full((B, L, 1), 0.5)
    return (
        half * x0 + half * x1 + streams(41).normal(L, 1) * mean + streams(42).normal(1, 1) * other
    )


@pytest.mark.parametrize("kept", [V, V + 3])
def test_a_point_that_keeps_every_entry_is_itself(
    kept: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "TOP_K", kept)
    x = sums()
    settled = SPACE.compress(SPACE.compress(x) + x)
    assert len(settled.terms) == 3, "noise, words, and one for all predictions"
    assert torch.allclose(settled.dense(), 2 * x.dense(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_the_largest_entries_are_kept_and_so_is_the_sum(
    kept: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "TOP_K", kept)
    x = sums()
    predicted = LazyPoint(x.shape, x.device, x.terms[2:])
    settled = SPACE.compress(x)
    assert [term for _, term in settled.terms[:2]] == [term for _, term in x.terms[:2]]
    before = predicted.dense()
    after = LazyPoint(x.shape, x.device, settled.terms[2:]).dense()
    assert torch.allclose(before.sum(-1), after.sum(-1), atol=1e-5)
    order = before.argsort(-1, descending=True)
    assert torch.allclose(
        after.gather(-1, order[..., :kept]), before.gather(-1, order[..., :kept]), atol=1e-5
    )
    rest = before.gather(-1, order[..., kept:]).mean(-1, keepdim=True)
    assert torch.allclose(
        after.gather(-1, order[..., kept:]), rest.expand(B, L, V - kept), atol=1e-5
    )


def test_without_predictions_nothing_is_settled() -> None:
    x = SPACE.noise(streams(0), L)
    assert SPACE.compress(x) is x
