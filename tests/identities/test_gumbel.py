"""Gumbel noise given its pick, sweeps of an autoregressive model, and texts that a map drafts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from exact import counted, joint, variation
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.chunked import gumbel, points
from flowlm.core import FREE, Dense, Language, Streams
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.masked import Masked
from flowlm.model.drafting import drafted
from flowlm.model.language_model import LanguageModel
from flowlm.sampling import Draft, Jacobi, NextToken, Unmask
from flowlm.sampling.jacobi import nothing_written, verify

EULER = 0.5772156649015329
SIZE = nn.Size(
    blocks=2, width=16, heads=2, condition=8, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned",
)  # fmt: skip
V, L = 30, 9


def following(language: Language) -> NextToken:
    """The language's own next token; what cannot be is left with a chance of e^-50."""

    def whole(tokens: Tensor) -> Dense:
        rows = [language.next_token(tokens, i).logp for i in range(language.length)]
        return Dense(torch.cat(rows, 1).clamp(min=-50).log_softmax(-1))

    return NextToken(whole, language.vocab, whole)


def network(seed: int, vocab: int = V, length: int = L) -> nn.DiT:
    """An autoregressive network with something to say, untrained."""
    torch.manual_seed(seed)
    made = Autoregressive().network(SIZE, vocab, length)
    made.requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.head.bias.zero_()
    return made.eval()


def one_by_one(teacher: NextToken, g: Tensor, prompt: Tensor, temperature: float = 1.0) -> Tensor:
    """y_i = argmax(z_i(y_<i) + T g_i), in a plain loop over dense noise."""
    tokens = prompt.clamp(min=0)
    for i in range(prompt.shape[1]):
        logp = teacher.whole(tokens).log_probs()[:, i]
        own = (logp + temperature * g[:, i]).argmax(-1)
        tokens = tokens.clone()
        tokens[:, i] = torch.where(prompt[:, i] == FREE, own, prompt[:, i])
    return tokens


def by_strips(logp: Tensor) -> chunked.HeadPrediction:
    """Any rows, as a prediction that makes some at a time."""
    return chunked.HeadPrediction(logp, torch.eye(V), torch.zeros(V))


# --- the noise ----------------------------------------------------------------------------------


def test_fresh_noise_is_gumbel() -> None:
    """Mean, variance, third cumulant (2 zeta(3)), and its tail."""
    g = chunked.gumbel_noise(Streams.of(1, count=40), 10, 1000).dense().double().flatten()
    n = len(g)
    assert float(g.mean()) == pytest.approx(EULER, abs=4 * math.pi / math.sqrt(6 * n))
    assert float(g.var()) == pytest.approx(math.pi**2 / 6, abs=4 * math.sqrt(4.4 * 2.7 / n))
    third = float((g - g.mean()).pow(3).mean())
    assert third == pytest.approx(2 * 1.2020569, abs=0.1)
    assert float((g > 6).double().mean()) == pytest.approx(-math.expm1(-math.exp(-6)), rel=0.15)


def test_large_noise_has_all_its_digits() -> None:
    """The largest of a row decides: of numbers of 24 bits, many would be equal here."""
    g = chunked.gumbel_noise(Streams.of(2, count=4), 20, 100_000).dense()
    top = g.flatten(0, 1).topk(40).values
    assert float(top.max()) > 14
    assert len(top.flatten().unique()) > 0.999 * top.numel()
    coarse = (-(-torch.rand(80, 100_000)).log1p()).log().neg().topk(40).values
    assert len(coarse.flatten().unique()) < 0.98 * coarse.numel()


def test_posterior_noise_picks_its_token_in_every_row() -> None:
    """Also one that the teacher finds impossible."""
    n, length, v = 400, 25, 40
    rng = torch.Generator().manual_seed(0)
    logp = (30 * torch.randn(n, length, v, generator=rng)).log_softmax(-1)
    tokens = torch.randint(v, (n, length), generator=rng)
    assert float(logp.min()) < -100
    noise = chunked.gumbel_posterior(Streams.of(3, count=n), tokens, Dense(logp), v)
    g = noise.dense()
    assert g.isfinite().all()
    assert torch.equal((logp.double() + g.double()).argmax(-1), tokens)
    fresh = chunked.gumbel_noise(Streams.of(3, count=n), length, v).dense()
    assert not torch.equal((logp + fresh).argmax(-1), tokens)


def test_posterior_noise_of_drawn_tokens_is_gumbel_and_knows_nothing() -> None:
    """Mean and variance, of every token by itself, and no two of a row move with each other."""
    n, v = 60_000, 5
    logp = torch.tensor([0.55, 0.25, 0.12, 0.06, 0.02]).log().expand(n, 1, v)
    tokens = Dense(logp).sample(Streams.of(4, count=n))
    g = chunked.gumbel_posterior(Streams.of(5, count=n), tokens, Dense(logp), v)
    rows = g.dense()[:, 0].double()
    assert torch.allclose(rows.mean(0), torch.tensor(EULER).double(), atol=0.025)
    assert torch.allclose(rows.var(0), torch.tensor(math.pi**2 / 6).double(), atol=0.07)
    assert float((rows.T.corrcoef() - torch.eye(v)).abs().max()) < 0.02
    # Of other tokens it is not: the noise makes up for what the teacher does not expect.
    wrong = torch.full_like(tokens, 4)
    g = chunked.gumbel_posterior(Streams.of(5, count=n), wrong, Dense(logp), v)
    assert float(g.dense()[:, 0, 4].mean()) > 3


def test_noise_and_text_have_the_law_of_sampling(agreement: Language) -> None:
    """Text first with posterior noise, or noise first: the same pairs.

    Compared by the text together with the side of its median that each of three entries lies on.
    """
    n, v, length = 30_000, agreement.vocab, agreement.length
    teacher, free = following(agreement), torch.full((n, length), FREE)
    fresh = chunked.gumbel_noise(Streams.of(6, count=n), length, v)
    picked = verify(teacher, nothing_written(teacher, free), fresh).tokens
    real = agreement.sample(Streams.of(7, 1, count=n))
    noise = chunked.gumbel_posterior(Streams.of(8, count=n), real, teacher.whole(real), v)

    def table(tokens: Tensor, g: Tensor) -> Tensor:
        side = (g > -math.log(math.log(2))).long()
        code = 4 * side[:, 0, 0] + 2 * side[:, 1, 1] + side[:, 2, 3]
        return torch.stack([counted(tokens[code == k], v) / n for k in range(8)])

    there, here = table(picked, fresh.dense()), table(real, noise.dense())
    other = table(picked, chunked.gumbel_noise(Streams.of(9, count=n), length, v).dense())
    assert variation(there.sum(0), joint(agreement)) < 0.02
    assert variation(there, here) < 0.03
    assert variation(there, other) > 0.1


@pytest.mark.parametrize("given", [False, True])
def test_strips_are_the_dense_formula(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of a few rows, whichever comes first, again and again."""
    monkeypatch.setattr(points, "chunk_numel", lambda kind: 4 * V)
    monkeypatch.setattr(points, "DRAW_NUMEL", 2 * V)
    n, rng = 3, torch.Generator().manual_seed(1)
    logp = (3 * torch.randn(n, L, V, generator=rng)).log_softmax(-1)
    tokens = torch.randint(V, (n, L), generator=rng)
    prediction = by_strips(logp)

    def noise(count: int = n, first: int = 0) -> chunked.LazyPoint:
        streams, part = Streams.of(10, count=count, first=first), slice(first, first + count)
        if not given:
            return chunked.gumbel_noise(streams, L, V)
        own = replace(prediction, features=logp[part])
        return chunked.gumbel_posterior(streams, tokens[part], own, V)

    x, wanted = noise(), noise().dense()
    patches = list(x.patches())
    assert len(patches) > n
    for patch in (*reversed(patches), *patches):
        assert torch.allclose(x.write(patch), wanted[patch], atol=1e-6)
    assert torch.allclose(noise(1, 2).dense(), wanted[2:], atol=1e-6)
    if given:
        e = (-chunked.gumbel_noise(Streams.of(10, count=n), L, V).dense().double()).exp()
        p, picked = logp.double().exp(), tokens[..., None]
        first = e.gather(-1, picked)
        e = (e + first * p).scatter(-1, picked, first * p.gather(-1, picked))
        assert torch.allclose(wanted.double(), -e.log(), atol=1e-4)


def test_the_backward_pass_reads_the_rows_of_the_forward_pass() -> None:
    """Under autocast too, which does not reach it: else gradients are those of another loss."""
    teacher, tokens = network(0), torch.randint(V, (6, L))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        prediction = Autoregressive().next_tokens(teacher, tokens)
        noise = chunked.gumbel_posterior(Streams.of(1, count=6), tokens, prediction, V)
        within = noise.dense()
    apart = chunked.gumbel_posterior(Streams.of(1, count=6), tokens, prediction, V).dense()
    assert torch.equal(noise.dense(), within)
    assert not torch.equal(apart, within)


# --- the map ------------------------------------------------------------------------------------


def test_the_loss_vanishes_at_the_map_itself() -> None:
    """With the teacher's logits for c, and all of z + g multiplied: the token is then certain."""
    n, rng = 200, Streams.of(2, count=200)
    teacher = network(1)
    tokens = torch.randint(V, (n, L), generator=torch.Generator().manual_seed(0))
    prediction = Autoregressive().next_tokens(teacher, tokens)
    noise = chunked.gumbel_posterior(rng, tokens, prediction, V)

    def paid(sharp: float, sign: float = 1.0) -> float:
        beta = torch.full((1, 1), sign * sharp)
        head = replace(prediction, features=sharp * prediction.features)
        return float(replace(head, evidence=chunked.Evidence(noise, beta)).nll(tokens).mean())

    assert paid(1000.0) < 0.01 < paid(1.0) < 2
    assert paid(1.0, -1.0) > 2


def test_a_student_begins_with_its_teachers_trunk_and_draws_by_frequency() -> None:
    teacher, size = network(2), replace(SIZE, output_cap=30.0)
    for causal in (False, True):
        student = GumbelMap("x", causal=causal).network(size, V, L, teacher)
        assert torch.equal(student.encoder.table, teacher.encoder.table[:V])
        assert torch.equal(student.blocks[1].mlp[0].weight, teacher.blocks[1].mlp[0].weight)
        assert student.blocks[0].attention.causal == causal
        assert not student.head.weight.any()
        assert student.head.cap is None
    counts = torch.arange(V)
    GumbelMap("x").prepare(student, lambda: counts)
    noise = chunked.gumbel_noise(Streams.of(3, count=9), L, V)
    share = ((counts + 1).double() / (counts + 1).sum()).log().float()
    assert torch.equal(student.eval()(noise).argmax(), (share + noise.dense()).argmax(-1))


# --- sweeps and drafts --------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("given", [False, True])
def test_sweeps_write_what_is_written_one_by_one(temperature: float, given: bool) -> None:
    n, teacher = 50, network(3)
    prompt = torch.full((n, L), FREE)
    if given:
        prompt[:20, :2], prompt[20:30, 5] = 3, 7
    denoiser = Autoregressive().denoiser(teacher)
    g = chunked.gumbel_noise(Streams.of(4, count=n), L, V).dense()
    wanted = one_by_one(denoiser, g, prompt, temperature)
    way = Jacobi(temperature)
    frames = list(way.frames(denoiser, prompt, 99, Streams.of(4, count=n)))
    assert len(frames) == way.evaluations(99, L) == L
    assert torch.equal(frames[-1].tokens(), wanted)
    for k, frame in enumerate(frames):
        assert torch.equal(frame.tokens()[:, : k + 1], wanted[:, : k + 1])
    assert not torch.equal(frames[0].tokens(), wanted)
    few = list(way.frames(denoiser, prompt, 3, Streams.of(4, count=n)))
    assert [torch.equal(a.tokens(), b.tokens()) for a, b in zip(few, frames)] == 3 * [True]


def test_sweeps_have_the_law_of_the_model(agreement: Language) -> None:
    n = 20_000
    prompt, teacher = torch.full((n, agreement.length), FREE), following(agreement)
    *_, last = Jacobi().frames(teacher, prompt, agreement.length, Streams.of(5, count=n))
    assert variation(counted(last.tokens(), agreement.vocab) / n, joint(agreement)) < 0.02
    nats = Jacobi().nll(teacher, last.tokens(), 3, Streams.of(5, count=n)).sum(1)
    assert torch.allclose(nats, -agreement.log_prob(last.tokens()), atol=1e-6)
    assert Jacobi().nll(teacher, last.tokens(), 2, Streams.of(5, count=n)) is None
    assert Jacobi(0.0).nll(teacher, last.tokens(), 3, Streams.of(5, count=n)) is None


def test_verifying_counts_passes_and_mends_any_draft() -> None:
    """A draft that is right takes one; one that is wrong at token i of l takes at most l - i."""
    n, teacher = 40, network(4)
    denoiser, prompt = Autoregressive().denoiser(teacher), torch.full((n, L), FREE)
    noise = chunked.gumbel_noise(Streams.of(6, count=n), L, V)
    right = one_by_one(denoiser, noise.dense(), prompt)
    asked: list[int] = []

    def whole(tokens: Tensor) -> core.TokenDistribution:
        asked.append(len(tokens))
        return denoiser.whole(tokens)

    counting = replace(denoiser, whole=whole)
    assert verify(counting, right, noise).passes.tolist() == [1] * n
    assert asked == [n]
    for place in (0, 4, L - 2, L - 1):
        wrong = right.clone()
        wrong[:, place] = (wrong[:, place] + 1) % V
        asked.clear()
        found = verify(counting, wrong, noise)
        assert torch.equal(found.tokens, right)
        # The last token is read by no other: what the pass answers there is the text already.
        least, most = (1, 1) if place == L - 1 else (2, max(2, L - place))
        assert least <= int(found.passes.min()) <= int(found.passes.max()) <= most
        assert len(asked) == int(found.passes.max())
    alone = [verify(denoiser, wrong[i : i + 1], _row(6, i)) for i in range(n)]
    assert torch.cat([one.tokens for one in alone]).equal(found.tokens)
    assert torch.cat([one.passes for one in alone]).equal(found.passes)


def _row(seed: int, i: int) -> chunked.LazyPoint:
    return chunked.gumbel_noise(Streams.of(seed, count=1, first=i), L, V)


def models() -> tuple[LanguageModel, LanguageModel]:
    """A map and its teacher."""
    teacher = network(5)
    method, data = GumbelMap("runs/teacher"), Text(length=L)
    student = method.network(SIZE, V, L, teacher)
    with torch.no_grad():
        student.head.weight.copy_(teacher.head.weight)
    return (
        LanguageModel(Experiment("map", method, Draft(), data, SIZE), student, None, L),
        LanguageModel(Experiment("ar", Autoregressive(), Jacobi(), data, SIZE), teacher, None, L),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drafted_texts_are_the_teachers(temperature: float) -> None:
    drafter, teacher = models()
    way, n = Jacobi(temperature), 30
    wanted = teacher.sample(n, L, seed=7, sampler=way)
    found = drafted(drafter, teacher, n, seed=7, temperature=temperature)
    assert torch.equal(found.tokens, wanted)
    assert 1 <= int(found.passes.min()) <= int(found.passes.max()) <= L
    small = drafted(drafter, teacher, n, seed=7, temperature=temperature, memory=0)  # one by one
    assert torch.equal(small.tokens, wanted)
    assert torch.equal(small.passes, found.passes)
    prompt = torch.full((n, L), FREE)
    prompt[:, 0], prompt[3, 1] = 11, 2
    held = drafted(drafter, teacher, n, 7, prompt, temperature).tokens
    assert torch.equal(held, teacher.sample(n, L, 7, prompt, sampler=way))
    assert torch.equal(held[prompt != FREE], prompt[prompt != FREE])


def test_drafts_are_the_noise_of_their_texts() -> None:
    """With the noise of its draft and the same seed, a text that needs one pass is the draft."""
    drafter, teacher = models()
    draft, found = drafter.sample(200, seed=8), drafted(drafter, teacher, 200, seed=8)
    agree = (draft == found.tokens)[:, :-1].all(1)
    assert torch.equal(agree, found.passes == 1)


def test_what_does_not_fit_is_refused() -> None:
    drafter, teacher = models()
    other = LanguageModel(teacher.experiment, network(6, V + 1), None, L)
    with pytest.raises(Refusal, match="vocabulary"):
        drafted(drafter, other, 2)
    with pytest.raises(Refusal, match="Draft"):
        drafted(teacher, teacher, 2)
    with pytest.raises(Refusal, match="Jacobi"):
        drafted(drafter, drafter, 2)
    masked = Experiment("m", Masked(), Unmask(), Text(length=L), SIZE)
    with pytest.raises(Refusal, match="Jacobi"):
        drafted(drafter, LanguageModel(masked, Masked().network(SIZE, V, L), None, L), 2)
    with pytest.raises(Refusal, match="temperature"):
        drafted(drafter, teacher, 2, temperature=-1.0)


@pytest.mark.parametrize("causal", [False, True])
def test_a_map_learns_its_teachers_texts(causal: bool, agreement: Language) -> None:
    """Of a language that no product of single tokens writes, in one evaluation."""
    method, length, v = GumbelMap("x", causal=causal), agreement.length, agreement.vocab
    teacher, n = following(agreement), 2000
    torch.manual_seed(0)
    model = method.network(SIZE, v, length)
    rate = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(150):
        tokens = agreement.sample(Streams.of(step, 1, count=128))
        rng = Streams.of(step, 2, count=128)
        noise = chunked.gumbel_posterior(rng, tokens, teacher.whole(tokens), v)
        rate.zero_grad()
        model(noise).nll(tokens).mean().backward()
        rate.step()
    rng, free = partial(Streams.of, 9, count=n), torch.full((n, length), FREE)
    with torch.no_grad():
        (frame,) = Draft().frames(method.denoiser(model.eval()), free, 1, rng())
    found = verify(teacher, frame.tokens(), chunked.gumbel_noise(rng(), length, v))
    alone = verify(teacher, nothing_written(teacher, free), chunked.gumbel_noise(rng(), length, v))
    assert torch.equal(found.tokens, alone.tokens)
    assert float((frame.tokens() == found.tokens).all(1).double().mean()) > 0.8
    assert float(found.passes.double().mean()) < 1.3 < float(alone.passes.double().mean())


def test_uniform_numbers_keep_away_from_both_ends() -> None:
    """There E would be infinite or 0, which no race knows."""
    u = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64).clamp(gumbel.LEAST, 1 - 2 * gumbel.LEAST)
    e = (-u.log()).float()
    assert e.isfinite().all()
    assert float(e.min()) > 0
