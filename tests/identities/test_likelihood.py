"""Likelihood bounds of flows and of samplers in few steps, against exact entropies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowlm import core
from flowlm.chunked import HeadPrediction, LazyOneHot
from flowlm.chunked.points import chunk_numel
from flowlm.chunked.tiles import tile_side
from flowlm.core import Batch, Dense, OneHot, Projected, Streams
from flowlm.data.language import demo_language
from flowlm.evaluate.likelihood import mean_nll
from flowlm.methods.bound import largest_lift, likelihood_bound
from flowlm.methods.flow import Flow
from flowlm.methods.input import BayesInput, Input, ProjectedInput
from flowlm.nn import Size
from flowlm.sampling import Bridge, Denoiser, Euler, LeftToRight, MaskedDenoiser, Unmask
from flowlm.sampling.left_to_right import NextToken
from flowlm.tasks.queens import Queens

TEXTS = 1500


def exact(language: core.Language, temperature: float = 1.0) -> Denoiser:
    """The language's own denoiser, in one-hot space."""
    clock = core.Decoding(language.vocab)

    def denoise(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        return language.denoiser(x, clock.t(s.double())).with_temperature(temperature)

    return Denoiser(denoise, OneHot(language.vocab), clock)


def own_row_alone(language: core.Language) -> Denoiser:
    """The denoiser of independent tokens with the language's marginals."""
    clock, prior = core.Decoding(language.vocab), language.marginals.log()

    def denoise(x: Tensor, s: Tensor, t: Tensor) -> Dense:
        beta = core.beta(clock.t(s.double()))[..., None]
        return Dense((beta * x.double() + prior).log_softmax(-1))

    return Denoiser(denoise, OneHot(language.vocab), clock)


def bound(denoiser: Denoiser, language: core.Language, draws: int = 16, seed: int = 3) -> Tensor:
    """Nats of texts of the language."""
    texts = language.sample(Streams.of(seed, 1, count=TEXTS))
    return likelihood_bound(denoiser, texts, Streams.of(seed, count=TEXTS), draws).double().sum(1)


def estimated(nats: Tensor) -> tuple[float, float]:
    """Mean and standard error."""
    return float(nats.mean()), float(nats.std()) / len(nats) ** 0.5


def marginal_entropies(language: core.Language) -> float:
    return float(-(language.marginals * language.marginals.clamp(min=1e-300).log()).sum())


@pytest.mark.parametrize("draws", [1, 16])
def test_the_exact_denoisers_bound_is_the_entropy(agreement: core.Language, draws: int) -> None:
    mean, error = estimated(bound(exact(agreement), agreement, draws))
    assert mean == pytest.approx(agreement.length * agreement.entropy, abs=2 * error)
    assert error < 0.15


def test_the_bound_of_the_demos_language() -> None:
    demo, _ = demo_language()
    texts = demo.sample(Streams.of(8, 1, count=200))
    nats = likelihood_bound(exact(demo), texts, Streams.of(8, count=200), 16).double().mean(1)
    mean, error = estimated(nats)
    assert mean == pytest.approx(demo.entropy, abs=2 * error)
    assert error < 0.04


def test_the_bound_of_a_list_of_solutions() -> None:
    queens = Queens(8).language
    nats = bound(exact(queens), queens, 8)
    mean, error = estimated(nats)
    assert mean == pytest.approx(math.log(92), abs=2 * error)
    assert error < 0.15


def test_the_bound_of_each_text_is_its_own_likelihood(agreement: core.Language) -> None:
    """Pointwise, not only in the mean."""
    tokens, chances = agreement.support()
    for text, chance in zip(tokens[::5], chances[::5]):
        copies = text.expand(TEXTS, -1)
        nats = likelihood_bound(exact(agreement), copies, Streams.of(5, count=TEXTS), 8)
        mean, error = estimated(nats.double().sum(1))
        assert mean == pytest.approx(-math.log(float(chance)), abs=4 * error)


def test_rows_alone_pay_the_entropies_of_the_marginals(agreement: core.Language) -> None:
    mean, error = estimated(bound(own_row_alone(agreement), agreement))
    assert mean == pytest.approx(marginal_entropies(agreement), abs=3 * error)


def test_a_tempered_denoiser_pays_more(agreement: core.Language) -> None:
    """The same texts and the same noise."""
    least = bound(exact(agreement), agreement)
    for temperature in (0.5, 2.0):
        mean, error = estimated(bound(exact(agreement, temperature), agreement) - least)
        assert mean > 4 * error


def test_it_is_unbiased_at_every_number_of_draws(agreement: core.Language) -> None:
    tempered = exact(agreement, 0.7)
    means, errors = zip(
        *(estimated(bound(tempered, agreement, draws, seed=draws)) for draws in (1, 3, 24))
    )
    for mean, error in zip(means, errors):
        assert mean == pytest.approx(means[-1], abs=4 * math.hypot(error, errors[-1]))


@pytest.mark.parametrize("space", ["lazy", "projected"])
def test_it_is_the_same_number_in_every_space(agreement: core.Language, space: str) -> None:
    """Of the same network; the noise has the same law: states not written out change nothing."""
    v = agreement.vocab
    torch.manual_seed(0)
    table, weight = torch.randn(v, 3, dtype=torch.float64), torch.randn(v, 3, dtype=torch.float64)
    clock = core.Decoding(v)

    def head(y: Tensor) -> HeadPrediction:
        return HeadPrediction(y.tanh(), weight, torch.zeros(v, dtype=torch.float64))

    whole = Denoiser(lambda x, s, t: head(x.double() @ table), OneHot(v), clock)
    if space == "lazy":
        other = Denoiser(lambda x, s, t: head(x.dense().double() @ table), LazyOneHot(v), clock)
    else:
        other = Denoiser(lambda x, s, t: head(x.double()), Projected(table.float()), clock)
    (one, error), (two, other_error) = (estimated(bound(d, agreement, 4)) for d in (whole, other))
    assert one == pytest.approx(two, abs=3 * math.hypot(error, other_error))


def test_the_end_is_where_rows_are_decoded() -> None:
    """S* as the table of sizes has it: 40 for a small vocabulary, below 80 for a large one."""
    assert 38 < largest_lift(61) ** 2 < 42
    assert 60 < largest_lift(50_257) ** 2 < 80


# --- a number of steps ------------------------------------------------------------------------


def law(language: core.Language, denoiser: Denoiser, steps: int, n: int = 20_000) -> Tensor:
    """How often each sentence of the support is written by the bridge to tokens."""
    prompt = torch.full((n, language.length), core.FREE)
    *_, last = Bridge().frames(denoiser, prompt, steps, Streams.of(17, count=n))
    place = torch.tensor([language.vocab**i for i in reversed(range(language.length))])
    counts = (last.tokens() @ place).bincount(minlength=language.vocab**language.length)
    return counts.double() / n


def test_the_bound_of_few_steps_falls_to_that_of_many(agreement: core.Language) -> None:
    """One step: marginals. Never below the exact cross-entropy of what the sampler writes."""
    denoiser = exact(agreement)
    texts = agreement.sample(Streams.of(4, 1, count=TEXTS))
    place = torch.tensor([agreement.vocab**i for i in reversed(range(agreement.length))])
    found = []
    for steps in (1, 2, 4, 32):
        nats = Bridge().nll(denoiser, texts, steps, Streams.of(4, count=TEXTS))
        assert nats is not None
        found.append(estimated(nats.double().sum(1)))
        if steps in (2, 4):
            support, chances = agreement.support()
            written = law(agreement, denoiser, steps)[support @ place]
            assert float(written.min()) > 0
            truth = float(-(chances * written.log()).sum())
            assert found[-1][0] > truth - 3 * found[-1][1]
    means = [mean for mean, _ in found]
    assert means[0] == pytest.approx(marginal_entropies(agreement), abs=3 * found[0][1])
    assert means == sorted(means, reverse=True)
    limit = agreement.length * agreement.entropy
    assert limit - 3 * found[-1][1] < means[-1] < limit + 0.15 * (means[0] - limit)


def test_the_divergence_of_a_step_in_closed_form() -> None:
    """Two tokens, p = (1 - q, q): E_z[-log(1 - q + q exp(sqrt(2 delta) z - delta))]."""
    q, n = 0.3, 20_000
    clock = core.Decoding(2)
    logp = torch.tensor([1 - q, q]).log()
    denoiser = Denoiser(lambda x, s, t: Dense(logp.expand(n, 1, 2)), OneHot(2), clock)
    nats = Bridge().nll(denoiser, torch.zeros(n, 1).long(), 2, Streams.of(0, count=n))
    assert nats is not None
    t = float(clock.t(torch.tensor([[0.5]])))
    delta = (t / (1 - t)) ** 2
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)
    step = -(mass * torch.log(1 - q + q * torch.exp((2 * delta) ** 0.5 * z - delta))).sum()
    wanted = float(step / mass.sum()) - math.log(1 - q)
    mean, error = estimated(nats.double())
    assert mean == pytest.approx(wanted, abs=4 * error)


def test_unmasking_in_few_steps_has_a_bound(agreement: core.Language) -> None:
    """One step: marginals; many: the entropy, since the unmasker is exact."""
    v = agreement.vocab
    denoiser = MaskedDenoiser(lambda tokens: agreement.unmasker(tokens, v, 1e-9), v)
    texts = agreement.sample(Streams.of(6, 1, count=TEXTS))
    means = []
    for steps in (1, 2, 8, 64):
        nats = Unmask().nll(denoiser, texts, steps, Streams.of(6, count=TEXTS))
        assert nats is not None
        means.append(estimated(nats.double().sum(1)))
    entropy = agreement.length * agreement.entropy
    assert means[0][0] == pytest.approx(marginal_entropies(agreement), abs=3 * means[0][1])
    assert means[1][0] > means[2][0] > entropy - 3 * means[2][1]
    assert means[-1][0] == pytest.approx(entropy, abs=3 * means[-1][1] + 0.05)


def test_left_to_right_is_exact(agreement: core.Language) -> None:
    tokens, chances = agreement.support()
    read: list[Tensor] = []

    def predict(last: Tensor) -> Dense:
        read.append(last)
        so_far = torch.cat([*read[1:], tokens], 1)[:, : agreement.length]
        return agreement.next_token(so_far, len(read) - 1)

    nats = LeftToRight().nll(
        NextToken(predict, agreement.vocab, predict), tokens, 1, Streams.of(0, count=1)
    )
    assert nats is not None
    assert torch.allclose(nats.sum(1), -chances.log(), atol=1e-6)


def test_what_has_no_likelihood_says_none(agreement: core.Language) -> None:
    """Samplers without noise, ends at the likeliest tokens, tokens that are never drawn."""
    tokens, rng = agreement.support()[0], Streams.of(0, count=1)
    for sampler in (Euler(), Bridge("mean"), Bridge(top_p=0.9)):
        assert sampler.nll(exact(agreement), tokens, 2, rng) is None
    masked = MaskedDenoiser(lambda tokens: agreement.unmasker(tokens, 4), 4)
    for sampler in (Unmask(temperature=0), Unmask(top_p=0.5)):
        assert sampler.nll(masked, tokens, 2, rng) is None


def test_the_error_is_that_of_a_weighted_mean() -> None:
    """Against the spread of many means of texts drawn anew."""
    torch.manual_seed(1)
    values, weight = torch.randn(300, 40, 5) + 2, torch.rand(300, 40, 5)
    told = [
        mean_nll(lambda batch, rng, v=v: v[batch.tokens[:, 0]], Batch(of, w), at_once=7)
        for v, w in zip(values, weight)
        for of in [torch.arange(40)[:, None].expand(40, 5)]
    ]
    means = torch.tensor([e.mean for e in told if e is not None])
    errors = torch.tensor([e.error for e in told if e is not None])
    assert float(errors.mean()) == pytest.approx(float(means.std()), rel=0.15)
    alone = Batch(torch.zeros(1, 3).long(), torch.ones(1, 3))
    single = mean_nll(lambda batch, rng: torch.ones(1, 3), alone)
    assert single is not None
    assert single.mean == 1
    assert math.isnan(single.error)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numbers = max(self.numbers, *made, 0)
        return out


@torch.no_grad()
@pytest.mark.parametrize("input", [ProjectedInput(), BayesInput()], ids=str)
def test_no_tensor_grows_with_tokens_times_words(input: Input) -> None:
    """Of the bound in the limit and of that in K steps."""
    vocab, count, length = 30_000, 4, 64
    method = Flow(input=input)
    size = Size(1, 16, 2, 8, 0.0, None, None)
    denoiser = method.denoiser(method.network(size, vocab, length).eval())
    texts = torch.randint(vocab, (count, length))
    most = max(chunk_numel("cpu"), tile_side("cpu") ** 2)
    assert most < count * length * vocab
    for read in (
        lambda rng: likelihood_bound(denoiser, texts, rng, 1),
        lambda rng: Bridge().nll(denoiser, texts, 2, rng),
    ):
        with Largest() as largest:
            assert read(Streams.of(0, count=count)).shape == texts.shape
        assert largest.numbers <= most
