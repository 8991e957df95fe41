"""Unmasking in an order and on a grid: which tokens a step reveals, how many, and their law."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from exact import counted, joint, variation
from torch import Tensor

from flowlm import core
from flowlm.core import Dense, Language, Streams
from flowlm.sampling import MaskedDenoiser, Unmask
from flowlm.sampling.masking import mask

ORDERS = ("confidence", "entropy")


def unmasker(language: Language) -> MaskedDenoiser:
    """The exact one; even where the given tokens belong to no sentence."""

    def predict(tokens: Tensor) -> Dense:
        rows = language.unmasker(tokens, language.vocab).logp
        return Dense(rows.nan_to_num(nan=-math.log(language.vocab), neginf=-torch.inf))

    return MaskedDenoiser(predict, language.vocab)


def scattered(vocab: int) -> MaskedDenoiser:
    """Rows that depend on all tokens of a text, in no simple way."""

    def predict(tokens: Tensor) -> Dense:
        place = torch.arange(tokens.shape[1])
        known = (tokens * (place + 1)).sum(1, keepdim=True)
        phase = (known + 7 * place)[..., None] * (1 + torch.arange(vocab))
        return Dense((2 * (0.7 * phase).sin()).log_softmax(-1))

    return MaskedDenoiser(predict, vocab)


def film(way: Unmask, of: MaskedDenoiser, prompt: Tensor, steps: int, seed: int) -> list[Tensor]:
    rng = Streams.of(seed, count=len(prompt))
    return [frame.tokens() for frame in way.frames(of, prompt, steps, rng)]


def sureness(of: MaskedDenoiser, tokens: Tensor, order: str) -> Tensor:
    """How sure the prediction of every token is, by definition."""
    p = of.predict(tokens.where(tokens != core.FREE, of.mask_id)).logp.exp()
    return p.amax(-1) if order == "confidence" else torch.special.xlogy(p, p).sum(-1)


@pytest.mark.parametrize("order", ORDERS)
def test_as_many_steps_as_tokens_reveal_the_surest_one_at_a_time(
    order: str, language: Language
) -> None:
    n, length, exact = 300, language.length, unmasker(language)
    before, seen = torch.full((n, length), core.FREE), set()
    for tokens in film(Unmask(order=order), exact, before, length, 1):
        revealed = (before == core.FREE) & (tokens != core.FREE)
        assert bool((revealed.sum(1) == 1).all())
        score = sureness(exact, before, order).masked_fill(before != core.FREE, -torch.inf)
        assert torch.allclose(score[revealed], score.amax(1))
        seen |= {*revealed.long().argmax(1).tolist()}
        before = tokens
    assert len(seen) == length
    # A random order reveals another token, now and then.
    (tokens, *_) = film(Unmask(), exact, torch.full((n, length), core.FREE), length, 1)
    assert bool(((tokens != core.FREE).sum(1) != 1).any())


@pytest.mark.parametrize("order", ORDERS)
def test_one_at_a_time_an_exact_network_writes_its_language(
    order: str, language: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """The chain rule holds in any order that looks at what is known alone.

    An order by what is drawn, or tokens in a random number, would write another law.
    """
    n = 6000
    prompt = torch.full((n, language.length), core.FREE)
    texts = film(Unmask(order=order), unmasker(language), prompt, language.length, 2)[-1]
    fits(counted(texts, language.vocab), joint(language))
    texts = film(Unmask(), unmasker(language), prompt, language.length, 2)[-1]
    assert variation(counted(texts, language.vocab) / n, joint(language)) > 0.05


def test_of_several_at_once_the_surest_are_revealed_and_the_first_of_equals() -> None:
    rows = torch.tensor([[0.4, 0.3, 0.3], [0.45, 0.45, 0.1], [0.4, 0.3, 0.3], [0.4, 0.4, 0.2]])
    of = MaskedDenoiser(lambda tokens: Dense(rows.log().expand(len(tokens), 4, 3)), 3)
    prompt = torch.full((5, 4), core.FREE)
    shown = {
        order: (film(Unmask(order=order), of, prompt, 2, 3)[0] != core.FREE).tolist()
        for order in ORDERS
    }
    assert shown["confidence"] == [[True, True, False, False]] * 5
    assert shown["entropy"] == [[False, True, False, True]] * 5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", ["even", "cosine"])
@pytest.mark.parametrize("steps", [1, 3, 8, 20, 50])
def test_counts_follow_the_grid_and_are_of_free_tokens(order: str, grid: str, steps: int) -> None:
    """Rounded, at least one more a step while there is one; given tokens stay, and do not count."""
    length, v = 20, 5
    prompt = torch.full((21, length), core.FREE)
    for given in range(1, 21):
        prompt[given, torch.randperm(length)[:given]] = given % v
    free = (prompt == core.FREE).sum(1)
    frames = film(Unmask(order=order, grid=grid), scattered(v), prompt, steps, 4)
    before = torch.zeros_like(free)
    for i, tokens in enumerate(frames, 1):
        t = i / steps if grid == "even" else 1 - math.cos(math.pi / 2 * i / steps)
        after = free - (tokens == core.FREE).sum(1)
        wanted = (free * t).maximum(free.clamp(max=i).float())
        assert float((after - wanted).abs().max()) <= 0.5 + 1e-4
        assert bool(((after > before) | (after == free)).all())
        assert torch.equal(tokens[prompt != core.FREE], prompt[prompt != core.FREE])
        before = after
    assert bool((frames[-1] != core.FREE).all())


@pytest.mark.parametrize("order", ["random", *ORDERS])
@pytest.mark.parametrize("grid", ["even", "cosine"])
def test_a_text_does_not_depend_on_the_others(order: str, grid: str) -> None:
    """Neither on how many they are, nor on how much of them is given."""
    way, of = Unmask(order=order, grid=grid), scattered(6)
    prompt = torch.full((7, 9), core.FREE)
    for i in range(7):
        prompt[i, :i] = i % 6
    whole = list(way.frames(of, prompt, 4, Streams.of(5, count=7)))
    for parts in ([3, 4], [1] * 7):
        first = 0
        for size in parts:
            rng = Streams.of(5, count=size, first=first, total=7)
            rows = slice(first, first + size)
            for some, every in zip(way.frames(of, prompt[rows], 4, rng), whole, strict=True):
                assert torch.equal(some.tokens(), every.tokens()[rows])
            first += size


def test_a_random_order_is_what_it_always_was() -> None:
    """Bit for bit: a draw of all tokens, then a number a token that says whether it is shown."""
    of, steps, n, length = scattered(6), 5, 40, 9
    prompt = torch.full((n, length), core.FREE)
    prompt[:, 3] = 2
    tokens, rng = prompt.where(prompt != core.FREE, 6), Streams.of(6, count=n)
    for i, found in enumerate(film(Unmask(0.8, 0.9), of, prompt, steps, 6)):
        drawn = of.predict(tokens).sample(rng, 0.8, 0.9)
        t = torch.linspace(0, 1, steps + 1)
        shown = rng.uniform(length) < (t[i + 1] - t[i]) / (1 - t[i])
        tokens = drawn.where((tokens == 6) & (shown | (i == steps - 1)), tokens)
        assert torch.equal(found, tokens.where(tokens != 6, core.FREE))


def test_a_cosine_reveals_few_at_first() -> None:
    """Of many tokens, the share 1 - cos(pi r / 2) after the share r of the steps; at random too."""
    n, length, steps = 50, 400, 4
    prompt = torch.full((n, length), core.FREE)
    for i, tokens in enumerate(film(Unmask(grid="cosine"), scattered(5), prompt, steps, 7), 1):
        share = float((tokens != core.FREE).float().mean())
        wanted = 1 - math.cos(math.pi / 2 * i / steps)
        assert share == pytest.approx(wanted, abs=4 * 0.5 / (n * length) ** 0.5)
    for steps in (1, 7, 1000):
        t = Unmask(grid="cosine").times(steps)
        r = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        assert torch.allclose(t.double(), 1 - (r * math.pi / 2).cos(), rtol=1e-5, atol=1e-12)
        assert (float(t[0]), float(t[-1])) == (0.0, 1.0)


def test_the_bound_of_a_sampler_is_on_its_grid_and_of_a_random_order(agreement: Language) -> None:
    n = 4000
    exact = MaskedDenoiser(lambda tokens: agreement.unmasker(tokens, 4, 1e-9), 4)
    texts = agreement.sample(Streams.of(8, 1, count=n))

    def nats(way: Unmask) -> Tensor:
        found = way.nll(exact, texts, 2, Streams.of(8, count=n))
        assert found is not None
        return found.double().sum(1)

    even, cosine = nats(Unmask()), nats(Unmask(grid="cosine"))
    # What two steps cost by hand: the first reveals the share t of all, the second the rest.
    for found, t in ((even, 0.5), (cosine, 1 - math.sqrt(0.5))):
        rng = Streams.of(9, count=n)
        masked = mask(texts, torch.full((n, 1), t), 4, rng)
        first = t * exact.predict(torch.full_like(texts, 4)).nll(texts)
        second = exact.predict(masked).nll(texts).where(masked == 4, 0.0)
        wanted = (first + second).sum(1)
        error = math.hypot(float(found.std()), float(wanted.std())) / n**0.5
        assert float(found.mean()) == pytest.approx(float(wanted.mean()), abs=4 * error)
    assert abs(float(even.mean() - cosine.mean())) > 0.02
    for order in ORDERS:
        assert Unmask(order=order).nll(exact, texts, 2, Streams.of(8, count=n)) is None
