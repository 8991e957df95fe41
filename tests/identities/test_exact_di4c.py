"""Di4C on languages that are enumerated: correlations, mixtures, rows of copies, bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from exact import Answers, counted, joint, product_of_marginals, variation
from test_exact_masked import bound, written
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.core import Dense, Language, Listed, Streams
from flowlm.errors import Refusal
from flowlm.methods import di4c
from flowlm.methods.di4c import CLEAN, Di4C, compared, correlation, excess, times
from flowlm.methods.masked import Masked
from flowlm.sampling import Unmask
from writing import film


def all_texts(language: Language) -> Tensor:
    return torch.tensor(list(itertools.product(range(language.vocab), repeat=language.length)))


def components(language: Language, n: int) -> Tensor:
    """Rows of n random products, log (1, l, n, v)."""
    shape = 1, language.length, n, language.vocab
    return (2 * torch.randn(shape, dtype=torch.float64)).log_softmax(-1)


def at_texts(logp: Tensor, texts: Tensor) -> Tensor:
    """log p_i(x_i) of every component, (1, l, N, K)."""
    places = texts.mT[None, :, None].expand(-1, -1, logp.shape[2], -1)
    return logp.gather(-1, places)


def rows_of(law: Tensor) -> Tensor:
    """Marginals of a joint law, (l, v)."""
    axes = range(law.ndim)
    return torch.stack([law.sum([a for a in axes if a != i]) for i in axes])


# --- correlations -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
def test_marginals_are_a_control_variate_of_the_likelihood(language: Language, n: int) -> None:
    """E_q C + sum_i KL(q_i || mix_i) = E_q[-log mix] - sum_i H(q_i), by enumeration."""
    law, logp, texts = joint(language).double(), components(language, n), all_texts(language)
    hidden = torch.ones(1, language.length, dtype=torch.bool)
    at = at_texts(logp, texts)
    chance = law.flatten()
    c = correlation(at, hidden)[0]
    q, mixed = rows_of(law), chunked.mixture(logp)[0]
    apart = float(chance @ c + excess(q, mixed).sum())
    nll = -chunked.mixture(at.sum(1))[0]
    entropies = -float(torch.special.xlogy(q, q).sum())
    assert apart == pytest.approx(float(chance @ nll) - entropies, abs=1e-12)
    # The other sign is another number, and the marginals do take away what varies.
    assert abs(float(-(chance @ c) + excess(q, mixed).sum()) - apart) > 0.1
    assert abs(float(chance @ c)) > 0.05


def test_hidden_tokens_alone_count(agreement: Language) -> None:
    logp = at_texts(components(agreement, 3), all_texts(agreement))
    some = torch.tensor([[True, False, True]])
    assert torch.allclose(
        correlation(logp, some), correlation(logp[:, [0, 2]], torch.ones(1, 2, dtype=torch.bool))
    )
    assert (correlation(logp, torch.tensor([[False, True, False]])).abs() < 1e-12).all()


def test_products_have_no_correlation(language: Language) -> None:
    """Nor has a single component; and between equal ones nothing is learnt: a saddle."""
    texts, length = all_texts(language), language.length
    hidden = torch.ones(1, length, dtype=torch.bool)
    one = components(language, 1)
    equal = one.expand(-1, -1, 4, -1).clone().requires_grad_()
    for logp in (one, equal):
        assert (correlation(at_texts(logp, texts), hidden).abs() < 1e-12).all()
    correlation(at_texts(equal, texts), hidden)[0, 1].backward()
    assert equal.grad.abs().max() < 1e-12
    other = components(language, 2).requires_grad_()
    value = correlation(at_texts(other, texts), hidden)
    assert (value.abs() > 1e-3).any()
    value[0, 1].backward()
    assert other.grad.abs().max() > 1e-3


# --- mixtures ---------------------------------------------------------------------------------

TWINS = Listed(2, 4, torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]]))
"""Two texts, as likely."""
TWINS_LAW = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
TWINS_LAW[0, 0, 0, 0] = TWINS_LAW[1, 1, 1, 1] = 0.5


def one_step(answer: Callable[..., Dense], vocab: int, length: int, n: int = 4000) -> Tensor:
    """The law of what is written in one step, counted."""
    model, prompt = Answers(vocab, answer), torch.full((n, length), core.FREE)
    (tokens,) = film(Di4C(teacher="x"), model, prompt, 1, Streams.of(3, count=n))
    return counted(tokens, vocab)


def test_a_mixture_over_enough_latents_writes_any_law_in_one_step(
    language: Language, fits: Callable[[Tensor, Tensor], None]
) -> None:
    """A sentence a component: the latent is where its share of [0, 1) is."""
    texts, chance = language.support()
    ends = chance.float().cumsum(0)

    def answer(tokens: Tensor, latent: Tensor) -> Dense:
        own = texts[torch.searchsorted(ends, latent[:, 0]).clamp(max=len(texts) - 1)]
        return Dense(torch.nn.functional.one_hot(own, language.vocab).float().log())

    fits(one_step(answer, language.vocab, language.length), joint(language))
    # The best product is the one of the marginals in divergence, and far off.
    assert variation(product_of_marginals(joint(language)), joint(language)) > 0.1


def test_latents_are_fresh_in_every_evaluation_and_for_every_text() -> None:
    seen: list[Tensor] = []

    def answer(tokens: Tensor, latent: Tensor) -> Dense:
        seen.append(latent)
        return Dense(torch.zeros(*tokens.shape, 2).log_softmax(-1))

    film(Di4C(teacher="x"), Answers(2, answer), torch.full((50, 4), -1), 3, Streams.of(1, count=50))
    drawn = torch.stack(seen).flatten()
    assert len(drawn) == 150 == len(drawn.unique())
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert abs(float(drawn.mean()) - 0.5) < 4 / math.sqrt(12 * 150)


SIZE = nn.Size(
    blocks=2, width=16, heads=2, condition=8, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned",
)  # fmt: skip


def fitted(method: Di4C | Masked, network: nn.DiT, steps: int, teacher: nn.DiT | None) -> nn.DiT:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        batch = core.Batch(TWINS.sample(Streams.of(step, 1, count=32)), torch.ones(32, 4))
        loss = method.loss(network, batch, Streams.of(step, 2, count=32), teacher)
        optimizer.zero_grad()
        loss.value.mean().backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def teacher() -> nn.DiT:
    torch.manual_seed(0)
    method = Masked()
    return fitted(method, method.network(SIZE, 2, 4), 250, None).requires_grad_(False)


def distilled(teacher: nn.DiT) -> float:
    """How far off the student's one step is, after its training."""
    method = Di4C(teacher="x", latents=8, delta=1 / 4, alpha=1.0)
    torch.manual_seed(0)
    network = fitted(method, method.network(SIZE, 2, 4, teacher), 300, teacher)
    tokens = film(method, network, torch.full((2000, 4), -1), 1, Streams.of(9, count=2000))[-1]
    return variation(counted(tokens, 2) / 2000, TWINS_LAW)


def test_a_trained_student_writes_two_modes_in_one_step(teacher: nn.DiT) -> None:
    """No product is less than 0.49 off; its teacher is 0.87 off, like the product of marginals."""
    shares = torch.linspace(0, 1, 401, dtype=torch.float64)
    best = 1 - ((1 - shares) ** 4).clamp(max=0.5) - (shares**4).clamp(max=0.5)
    assert float(best.min()) > 0.49
    tokens = film(Masked(), teacher, torch.full((2000, 4), -1), 1, Streams.of(9, count=2000))[-1]
    assert variation(counted(tokens, 2) / 2000, TWINS_LAW) > 0.8
    assert distilled(teacher) < 0.25


@pytest.mark.parametrize("wrong", [-1.0, 0.0])
def test_with_another_sign_or_none_it_writes_none(
    teacher: nn.DiT, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(di4c, "correlation", lambda *given: wrong * correlation(*given))
    assert distilled(teacher) > 0.45


# --- rows of copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("count", [2, 5])
def test_copies_in_strips_are_the_dense_ones(
    count: int, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients of all that is asked of them, in float64."""
    monkeypatch.setattr("flowlm.chunked.points.chunk_numel", lambda kind: 40)
    monkeypatch.setattr("flowlm.chunked.points.DRAW_NUMEL", 20)
    b, l, v, d = 3, 5, 7, 4  # noqa: E741
    leaves = [torch.randn(*s).double().requires_grad_() for s in ((count * b, l, d), (v, d), (v,))]
    other = chunked.HeadPrediction(torch.randn(count * b, l, d).double(), *leaves[1:], cap)
    guide = Dense(torch.randn(b, l, v).double().log_softmax(-1))
    read = torch.randint(v + 1, (b, l, count))
    tokens = torch.randint(v, (b, l, count + 1))

    def numbers(prediction: core.TokenDistribution, ahead: core.TokenDistribution) -> Tensor:
        aim = chunked.MeanOfCopies(chunked.Copies(ahead, count), read, v)
        found = compared(chunked.Copies(prediction, count), guide, aim, tokens)
        parts = found.ahead, found.teacher, found.of_each
        return torch.cat((found.logp.flatten(2), torch.stack(parts, -1)), -1)

    head = chunked.HeadPrediction(*leaves, cap, side=2)
    strips = numbers(head, other)
    dense = numbers(Dense(head.log_probs()), Dense(other.log_probs().detach()))
    sums = chunked.Copies(head, count).reduce(lambda logp, patch: logp.sum((-1, -2)))
    assert sums.grad_fn.name() == "StripsBackward"
    assert torch.allclose(strips, dense, atol=1e-12)
    pull = torch.randn(strips.shape).double()
    one, two = (torch.autograd.grad((x * pull).sum(), leaves) for x in (strips, dense))
    assert all(torch.allclose(*pair, atol=1e-11) for pair in zip(one, two, strict=True))
    # Copies of a text stand apart, not side by side: another order is another answer.
    swapped = Dense(head.log_probs().unflatten(0, (b, count)).transpose(0, 1).flatten(0, 1))
    assert not torch.allclose(numbers(swapped, other), dense, atol=1e-3)


def test_strips_of_copies_are_no_larger_than_those_of_single_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowlm.chunked.points.chunk_numel", lambda kind: 100)
    monkeypatch.setattr("flowlm.chunked.points.DRAW_NUMEL", 20)
    head = chunked.HeadPrediction(torch.randn(8, 6, 3), torch.randn(9, 3), torch.randn(9), side=2)
    sizes = []

    def f(logp: Tensor, patch: core.Patch) -> Tensor:
        sizes.append(logp.numel())
        return logp[..., 0, 0]

    assert chunked.Copies(head, 4).reduce(f).shape == (2, 6)
    assert sum(sizes) == 8 * 6 * 9
    assert max(sizes) <= 100


def test_what_is_shown_is_certain_in_the_mean_of_copies() -> None:
    rows = torch.randn(6, 2, 3).double().log_softmax(-1)
    read = torch.tensor([[3, 1, 3], [0, 0, 2]]).expand(2, 2, 3)
    aim = chunked.MeanOfCopies(chunked.Copies(Dense(rows), 3), read, 3)
    found = aim.probs((slice(0, 2), slice(0, 2)))
    p = rows.exp()
    for b in (0, 1):
        assert torch.allclose(3 * found[b, 0], p[b, 0] + p[4 + b, 0] + torch.tensor([0, 1.0, 0]))
        assert torch.allclose(3 * found[b, 1], torch.tensor([2.0, 0, 1]).double())


@pytest.mark.parametrize("n", [1, 3])
def test_several_tokens_of_a_row_have_its_law(
    n: int, fits: Callable[[Tensor, Tensor], None]
) -> None:
    p = torch.tensor([0.5, 0.0, 0.2, 0.3]).double()
    u = Streams.of(1, count=500).uniform(4, n, dtype=torch.float64)
    tokens = chunked.draw_copies(Dense(p.log().expand(500, 4, 4)), u)
    assert tokens.shape == (500, 4, n)
    fits(torch.bincount(tokens.flatten(), minlength=4), p)


# --- the loss ---------------------------------------------------------------------------------


def test_times_are_even_on_both_sides_of_the_clean_end() -> None:
    t, clean = times(torch.linspace(0, 1 - 1e-6, 10_001)[:, None])
    assert float(clean.float().mean()) == pytest.approx(0.3, abs=1e-3)
    assert torch.equal(clean, t >= CLEAN)
    assert float(t[~clean].mean()) == pytest.approx(0.49, abs=1e-3)
    assert float(t[clean].mean()) == pytest.approx(0.99, abs=1e-3)
    assert (t < 1).all()


class Table(nn.LatentDiT):
    """The exact rows of a language and what is added to their logits, whatever the latent."""

    def __init__(self, language: Language, predict: Callable[[Tensor], Dense]) -> None:
        size = nn.Size(blocks=1, width=2, heads=1, condition=1)
        super().__init__(size, language.vocab, language.length)
        self.predict = predict
        states = (language.vocab + 1,) * language.length
        self.added = torch.nn.Parameter(
            torch.zeros(*states, language.length, language.vocab).double()
        )

    def forward(self, x: Tensor, latent: Tensor, rng: Streams | None = None) -> Dense:
        return Dense((self.predict(x).logp + self.added[x.unbind(-1)]).log_softmax(-1))


@pytest.mark.parametrize("delta", [1 / 8, 1.0])
def test_nothing_moves_the_exact_rows_of_a_product(ambiguous: Language, delta: float) -> None:
    """A step of the exact teacher is a martingale: the mean gradient of each state is 0.

    But where tokens are drawn from other rows it is not.
    """

    def predict(tokens: Tensor) -> Dense:
        return Dense(ambiguous.unmasker(tokens, ambiguous.vocab, flip=1e-3).logp.clamp(min=-30))

    n = 6000
    batch = core.Batch(ambiguous.sample(Streams.of(1, 1, count=n)), torch.ones(n, 3))

    def pulled(teacher: Callable[[Tensor], Dense]) -> float:
        """Gradient at the noisiest state, in units of its error."""
        parts = []
        for part in range(6):
            model = Table(ambiguous, predict)
            method = Di4C(teacher="x", latents=4, delta=delta, alpha=0.0)
            rows = slice(part * 1000, (part + 1) * 1000)
            some = core.Batch(batch.tokens[rows], batch.weight[rows])
            rng = Streams.of(2, part, count=1000)
            loss = method.loss(model, some, rng, Answers(ambiguous.vocab, teacher))
            loss.value.sum().backward()
            parts.append(model.added.grad[4, 4, 4])
        found = torch.stack(parts)
        return float((found.mean(0) / (found.std(0) / math.sqrt(6) + 1e-6)).abs().max())

    flat = core.Dense(torch.zeros(1, 3, 4).double().log_softmax(-1)).logp
    assert pulled(predict) < 9
    assert pulled(lambda tokens: Dense(flat.expand(len(tokens), -1, -1))) > 30


def test_a_student_starts_near_its_teacher_but_not_alike(teacher: nn.DiT) -> None:
    """Components differ, or nothing would part them. To a text of four tokens a fifth is much."""
    network = Di4C(teacher="x").network(SIZE, 2, 4, teacher).eval()
    for name, weight in teacher.named_parameters():
        assert torch.equal(network.get_parameter(name), weight)
    z = torch.tensor([[0, 2, 2, 0]]).expand(64, -1)
    latent = torch.linspace(0, 0.99, 64)[:, None]
    own = network(z, latent).log_probs().exp().detach()
    assert 0 < float(own.std(0).max()) < 0.2
    theirs = teacher(z[:1]).log_probs().exp()
    assert float((own.mean(0) - theirs).abs().max()) < 0.15


# --- likelihood -------------------------------------------------------------------------------


def test_more_latents_bound_the_likelihood_more_closely(agreement: Language) -> None:
    """-log of the mean over N draws is above that over all, in the mean, and falls with N."""
    logp, texts = components(agreement, 6).expand(1, -1, -1, -1), all_texts(agreement)
    own = at_texts(logp, texts).sum(1)[0]  # of 6 components, 64 texts
    exact = -chunked.mixture(own).double()
    chance = joint(agreement).double().flatten()
    rng, levels = Streams.of(1, count=4000), []
    for n in (1, 2, 4, 16, 64):
        drawn = (rng.uniform(n) * 6).long()
        paid = -chunked.mixture(own[drawn])
        levels.append(float(chance @ paid.mean(0)))
    wanted = float(chance @ exact)
    assert all(b < a - 0.005 for a, b in itertools.pairwise(levels))
    assert levels[-1] == pytest.approx(wanted, abs=0.1)
    assert levels[-1] > wanted - 0.01
    assert levels[0] == pytest.approx(float(chance @ -own.mean(0)), abs=0.1)


def mixed_marginals(language: Language, parts: list[Callable[[Tensor], Dense]], tokens: Tensor):
    return Dense(torch.stack([part(tokens).logp for part in parts], -2).exp().mean(-2).log())


def test_nll_is_a_draw_of_a_bound_above_that_of_the_mixture(ambiguous: Language) -> None:
    """One latent pays E[-log p]; many steps write with -log E p, exactly what enumeration says."""
    v, length = ambiguous.vocab, ambiguous.length

    def part(sign: float, tokens: Tensor) -> Dense:
        rows = ambiguous.unmasker(tokens, v, flip=1e-3).logp
        tilt = sign * torch.linspace(-1, 1, v).double()
        return Dense((rows + tilt).log_softmax(-1))

    parts = [partial(part, 1.0), partial(part, -1.0)]

    def answer(tokens: Tensor, latent: Tensor) -> Dense:
        one, two = (of(tokens).logp for of in parts)
        return Dense(torch.where(latent[..., None] < 0.5, one, two))

    words = tuple(ambiguous.support()[0][3].tolist())
    single = float(np.mean([bound(ambiguous, of, words) for of in parts]))
    mixed = partial(mixed_marginals, ambiguous, parts)
    n = 20_000
    batch = core.Batch(torch.tensor([words]).expand(n, -1), torch.ones(n, length))
    paid = Di4C(teacher="x").nll(Answers(v, answer), batch, Streams.of(1, count=n), 2).sum(1)
    error = float(paid.std()) / math.sqrt(n)
    assert abs(float(paid.mean()) - single) < 4 * error
    assert bound(ambiguous, mixed, words) < single - 0.1
    # And what is written in many steps is the law that the mixture's marginals give.
    law = written(ambiguous, mixed, 400)
    assert -math.log(float(law[words])) < bound(ambiguous, mixed, words) + 0.02


def test_the_bound_in_k_steps_is_one_of_the_mixture_too() -> None:
    """One step, two texts: the mixture has log 2, a latent that is drawn pays it or more."""

    def answer(tokens: Tensor, latent: Tensor) -> Dense:
        p = torch.where(latent < 0.5, 0.9, 0.1)[..., None].expand(*tokens.shape, 1)
        return Dense(torch.cat((p, 1 - p), -1).log())

    tokens = TWINS.sentences[:1].expand(8000, -1)
    denoiser = Di4C(teacher="x").denoiser(Answers(2, answer))
    paid = Unmask().nll(denoiser, tokens, 1, Streams.of(1, count=8000)).sum(1)
    exact = -math.log((0.9**4 + 0.1**4) / 2)
    single = -2 * (math.log(0.9) + math.log(0.1))
    assert float(paid.mean()) == pytest.approx(single, rel=0.05)
    assert single > exact + 1


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"latents": 1}, "latents"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.5}, "delta"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
    ],
)
def test_what_cannot_work_is_refused(option: dict, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        Di4C(teacher="x", **option)


def test_a_student_needs_a_teacher() -> None:
    with pytest.raises(Refusal, match="the run of a Masked"):
        Di4C()
