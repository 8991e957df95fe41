"""Duo and its distillation: Gaussian rows and uniform-state tokens, pairs, targets, optima."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from exact import Answers, joint
from test_exact_uniform import evidence
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.core import Dense, Language, Streams
from flowlm.errors import Refusal
from flowlm.methods.dcd import DCD, replaced_twice
from flowlm.methods.divergence import divergence
from flowlm.methods.duo import Curriculum, Duo, even_times, softened
from flowlm.methods.uniform_state import UniformState, rate_of
from flowlm.sampling import Replace, UniformDenoiser
from flowlm.sampling.replace import transition


def largest(tokens: Tensor, t: Tensor, vocab: int, seed: int) -> Tensor:
    """argmax of x_t, of rows that are written out."""
    space, rng = chunked.LazyOneHot(vocab), Streams.of(seed, count=len(tokens))
    x = core.interpolate(space.noise(rng, tokens.shape[1]), space.clean(tokens), t)
    return x.dense().argmax(-1)


@pytest.mark.parametrize("vocab", [4, 60])
@pytest.mark.parametrize("t", [0.3, 0.45, 0.8])
def test_the_largest_entry_is_a_uniform_state_token(vocab: int, t: float) -> None:
    """Kept with probability tau(t), within 4 sigma; and no other token is likelier than others."""
    n, length = 400, 200
    tokens = torch.full((n, length), 2)
    z = largest(tokens, torch.full((n, 1), t), vocab, seed=vocab)
    a = float(core.Decoding(vocab).tau(torch.tensor([[t]]).double()))
    found = torch.bincount(z.flatten(), minlength=vocab).double() / (n * length)
    wanted = torch.full((vocab,), (1 - a) / vocab).double()
    wanted[2] += a
    error = (wanted * (1 - wanted) / (n * length)).sqrt()
    assert float(((found - wanted) / error).abs().max()) < 4
    # Another schedule is seen: the time itself.
    assert abs(float(found[2]) - t - (1 - t) / vocab) > 20 * float(error[2])


def pair_law(one: Tensor, two: Tensor, vocab: int) -> Tensor:
    pairs = torch.bincount((one * vocab + two).flatten(), minlength=vocab**2)
    return pairs.double() / one.numel()


def test_pairs_of_two_numbers_are_those_of_rows() -> None:
    """The same joint law, cell by cell within 4 sigma, as argmax of x_t and x_s with one noise."""
    n, length, v = 600, 250, 5
    tokens = torch.full((n, length), 2)
    t, s = torch.full((n, 1), 0.45), torch.full((n, 1), 0.65)
    rows = pair_law(largest(tokens, t, v, 1), largest(tokens, s, v, 1), v)
    a, c = (core.Decoding(v).tau(at) for at in (t, s))
    drawn = pair_law(*replaced_twice(tokens, a, c, v, Streams.of(2, count=n)), v)
    error = (2 * (rows + drawn) / 2 / (n * length)).sqrt()
    apart = (rows - drawn).abs()
    assert float((apart / error.clamp(min=1e-9)).max()) < 4
    # A token that has been won back is not lost again, and what replaces it stays the same.
    never = rows.view(v, v)[2, [0, 1, 3, 4]].sum() + rows.view(v, v)[0, [1, 3, 4]].sum()
    assert float(never) == 0 == float(drawn.view(v, v)[2, [0, 1, 3, 4]].sum())
    # Of pairs with noises of their own the same law is far from it.
    apart = rows - pair_law(largest(tokens, t, v, 3), largest(tokens, s, v, 4), v)
    assert float((apart.abs() / error.clamp(min=1e-9)).max()) > 20


def chain(vocab: int, a: float, c: float) -> Tensor:
    """q(z_a, z_c | x), (v, v, v) over x, z_a, z_c: the Markov pair."""
    kept = c * torch.eye(vocab).double() + (1 - c) / vocab
    onward = a / c * torch.eye(vocab).double() + (1 - a / c) / vocab
    return torch.einsum("xc,cz->xzc", kept, onward)


def shared(vocab: int, a: float, c: float) -> Tensor:
    """The same of largest entries of one noise."""
    law = torch.zeros(vocab, vocab, vocab).double()
    for x, other in itertools.product(range(vocab), repeat=2):
        law[x, x, x] += a / vocab
        law[x, other, x] += (c - a) / vocab
        law[x, other, other] += (1 - c) / vocab
    return law


def test_the_pair_that_is_enumerated_is_the_one_that_is_drawn() -> None:
    n, length, v, a, c = 500, 300, 4, 0.3, 0.6
    tokens = torch.full((n, length), 1)
    at = (torch.full((n, 1), share) for share in (a, c))
    found = pair_law(*replaced_twice(tokens, *at, v, Streams.of(5, count=n)), v)
    wanted = shared(v, a, c)[1].flatten()
    error = (wanted * (1 - wanted) / (n * length)).sqrt().clamp(min=1e-9)
    assert float(((found - wanted) / error).abs().max()) < 4


def mean_target(language: Language, law: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """E[posterior of a token at c | all of z_a], and P(z_a), for every z_a; by enumeration."""
    v, length = language.vocab, language.length
    texts = torch.tensor(list(itertools.product(range(v), repeat=length)))
    chance = joint(language).double().flatten()
    pair = chance.new_ones(v**length, v**length, v**length)  # texts, noisy, clean
    for i in range(length):
        w = texts[:, i]
        pair = pair * law[w[:, None, None], w[None, :, None], w[None, None, :]]
    weight = (chance[:, None, None] * pair).sum(0)
    post = language.posterior(
        evidence(language, texts, torch.full((v**length, 1), c, dtype=torch.float64))
    )
    total = weight.sum(1)
    return torch.einsum("zc,clv->zlv", weight / total[:, None], post.double()), total


def test_a_markov_pair_teaches_nothing_and_a_shared_noise_something(agreement: Language) -> None:
    v, a, c = agreement.vocab, 0.3, 0.5
    texts = torch.tensor(list(itertools.product(range(v), repeat=agreement.length)))
    own = agreement.posterior(
        evidence(agreement, texts, torch.full((len(texts), 1), a, dtype=torch.float64))
    )
    markov, _ = mean_target(agreement, chain(v, a, c), c)
    assert float((markov - own).abs().max()) < 1e-12
    together, weight = mean_target(agreement, shared(v, a, c), c)
    assert float(((together - own).abs().sum(-1).mean(-1) * weight).sum() / 2) > 0.01
    # One noise changes fewer tokens, at equal shares of kept ones.
    one, other = shared(v, a, c), chain(v, a, c)
    assert torch.allclose(one.sum(1), other.sum(1))
    assert torch.allclose(one.sum(2), other.sum(2))
    stays = [float(law.diagonal(dim1=1, dim2=2).sum(-1)[0]) for law in (one, other)]
    assert stays[0] > stays[1] + 0.05


class Table(nn.DiT):
    """A network that answers with the logits it holds for a text and time; asked is remembered."""

    def __init__(self, vocab: int, length: int) -> None:
        super().__init__(nn.Size(1, 2, 1, 1), nn.Linear(vocab, 2), vocab, length, times=0)
        self.logits = torch.nn.Parameter(torch.zeros(length, vocab, dtype=torch.float64))
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, *taus: Tensor, cache=None, rng=None) -> Dense:
        self.asked.append((x, taus[0]))
        return Dense(self.logits.log_softmax(-1).expand(len(x), *self.logits.shape))


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_a_student_that_answers_as_its_teacher_pays_and_learns_nothing(direction: str) -> None:
    method = DCD(teacher="runs/x", delta=0.25, divergence=direction)
    student, teacher = Table(5, 3), Table(5, 3)
    made = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        student.logits.copy_(made), teacher.logits.copy_(made)
    batch = core.Batch(torch.arange(24).view(8, 3) % 5, torch.ones(8, 3))
    value = method.loss(student, batch, Streams.of(0, count=8), teacher).value
    value.sum().backward()
    assert float(value.detach().abs().max()) < 1e-12
    assert student.logits.grad is not None
    assert float(student.logits.grad.abs().max()) < 1e-12
    assert teacher.logits.grad is None
    # Another answer pays, and its gradient leads back.
    student.logits = torch.nn.Parameter(made + torch.arange(5) / 3)
    value = method.loss(student, batch, Streams.of(0, count=8), teacher).value
    value.sum().backward()
    assert float(value.detach().min()) > 0.01
    assert float((student.logits.grad * torch.arange(5)).sum()) > 0


def test_the_teacher_sees_the_cleaner_text_at_its_time() -> None:
    n, v = 4000, 50
    method, clock = DCD(teacher="runs/x", delta=0.25), core.Decoding(v)
    student, teacher = Table(v, 4), Table(v, 4)
    tokens = torch.arange(4 * n).view(n, 4) % v
    method.loss(student, core.Batch(tokens, torch.ones(n, 4)), Streams.of(0, count=n), teacher)
    (noisy, a), (clean, c) = student.asked[0], teacher.asked[0]
    assert bool((a < c).all())
    assert float(((noisy == tokens) & (clean != tokens)).sum()) == 0
    for seen, share in ((noisy, a), (clean, c)):
        kept = share + (1 - share) / v
        assert float(((seen == tokens).float() - kept).mean().abs()) < 4 * 0.5 / (4 * n) ** 0.5
    gammas = [2 * clock.t(x.double()).logit() for x in (a, c)]
    ends = [2 * clock.t(torch.tensor([[x]]).double()).logit() for x in (0.006, 0.999)]
    width = float(ends[1] - ends[0])
    assert torch.allclose(
        (gammas[1] - gammas[0]) / width, torch.full((n, 1), 0.25).double(), atol=2e-3
    )
    # Even in log-SNR; a quarter of them at the noisier end, where a text cannot be noisier.
    place = (gammas[0] - ends[0]) / width
    assert float((place < 1e-3).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert float((place < 0.5).double().mean()) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_the_optimum_over_several_targets(direction: str) -> None:
    """Reverse: their normalised geometric mean; forward: their mean. Neither is the other."""
    rng = torch.Generator().manual_seed(0)
    targets = (2 * torch.randn(6, 1, 7, generator=rng, dtype=torch.float64)).log_softmax(-1)
    geometric = targets.mean(0, keepdim=True).log_softmax(-1)
    mean = (targets.exp().mean(0, keepdim=True)).log()

    def slope(answer: Tensor) -> float:
        logits = answer.clone().requires_grad_()
        student = Dense(logits.log_softmax(-1).expand(6, 1, 7))
        divergence(student, Dense(targets), direction).mean().backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    best, other = (geometric, mean) if direction == "reverse" else (mean, geometric)
    assert slope(best) < 1e-12
    assert slope(other) > 1e-3


def test_a_divergence_by_strips_is_the_dense_one() -> None:
    b, length, v, d = 3, 4, 40, 6
    rng = torch.Generator().manual_seed(0)
    near, far = (torch.randn(b, length, d, generator=rng) for _ in range(2))
    weight, bias = torch.randn(v, d, generator=rng), torch.randn(v, generator=rng)
    found = []
    for side in (4, 1024):
        y = near.clone().requires_grad_()
        student = chunked.HeadPrediction(y, weight, bias, side=side)
        teacher = chunked.HeadPrediction(far, weight, bias, side=side)
        value = divergence(student, teacher, "reverse")
        value.sum().backward()
        found.append((value.detach(), y.grad))
    p, q = (torch.nn.functional.linear(x, weight, bias).log_softmax(-1) for x in (near, far))
    assert torch.allclose(found[0][0], (p.exp() * (p - q)).sum(-1), atol=1e-5)
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*found))


# --- the curriculum -------------------------------------------------------------------------------


def test_a_cold_softmax_is_the_row_of_the_largest_entry() -> None:
    n, length, v = 40, 12, 30
    tokens, t = torch.arange(n * length).view(n, length) % v, torch.rand(n, 1)
    space = chunked.LazyOneHot(v)
    x = core.interpolate(space.noise(Streams.of(0, count=n), length), space.clean(tokens), t)
    encoder = nn.Lookup(v, 8)
    z = x.dense().argmax(-1)
    for temperature, near in ((1e-6, True), (0.3, False)):
        soft = softened(x, t, temperature)
        assert torch.equal(soft.argmax(), z)
        read = encoder(soft, None)
        wanted = x.dense() / (t.square() + (1 - t).square()).sqrt()[..., None] / temperature
        assert torch.allclose(read, wanted.softmax(-1) @ encoder.table, atol=2e-3)
        apart = (read - encoder(z, None)).abs().amax(-1)
        assert (float((apart > 1e-3).float().mean()) < 0.01) == near
    read.sum().backward()
    assert encoder.table.grad is not None
    assert bool(encoder.table.grad.any())


def test_times_are_even_in_log_snr_and_their_weight_makes_the_bound() -> None:
    """The mean of f(a) (da / d share) over shares is the integral of f between the two ends."""
    clock = core.Decoding(100)
    share = ((torch.arange(4000).double() + 0.5) / 4000)[:, None]
    t, per_share = even_times(share, 0.05, 0.95, clock)
    gamma = 2 * t.logit()
    assert torch.allclose(gamma.diff(dim=0), gamma.diff(dim=0).mean(), atol=1e-9)
    assert float(clock.tau(t[:1])) == pytest.approx(0.05, abs=1e-3)
    assert float(clock.tau(t[-1:])) == pytest.approx(0.95, abs=1e-3)
    a, weight = clock.tau(t), clock.slope(t) * per_share
    assert float(weight.mean()) == pytest.approx(0.9, abs=1e-4)
    assert float((weight * a.square()).mean()) == pytest.approx((0.95**3 - 0.05**3) / 3, abs=1e-4)


def test_a_curriculum_without_warmth_pays_the_bound_between_its_ends(agreement: Language) -> None:
    """What tokens of the same share pay, for a network that reads the likeliest of what it sees."""
    n, v = 4000, agreement.vocab
    heard: list[tuple[Tensor, Tensor]] = []

    def others_say(x: core.TokenDistribution, a: Tensor) -> Dense:
        z = x.argmax()
        heard.append((z, a))
        return Dense(agreement.leave_one_out(evidence(agreement, z, a)).log())

    tokens = agreement.sample(Streams.of(1, count=n))
    batch = core.Batch(tokens, torch.ones(tokens.shape))
    method = Curriculum(temperature=1e-6)
    model = Answers(v, others_say)
    paid = method.loss(model, batch, Streams.of(2, count=n)).value.double()
    z, a = heard[0]
    kept = (z == tokens).double() - (a + (1 - a) / v)
    assert float(kept.mean().abs()) < 4 * 0.5 / (3 * n) ** 0.5
    # The same by tokens that are replaced, at even shares between the ends.
    even = 0.05 + 0.9 * Streams.of(3, count=n).stratified()
    rng = Streams.of(4, count=n)
    noisy, _ = replaced_twice(tokens, even, even, v, rng)
    exact = Dense(agreement.leave_one_out(evidence(agreement, noisy, even)).log())
    wanted = 0.9 * rate_of(exact, tokens, noisy, even, v).double()
    error = math.hypot(*(float(x.sum(1).std()) / n**0.5 for x in (paid, wanted)))
    assert float(paid.sum(1).mean()) == pytest.approx(float(wanted.sum(1).mean()), abs=4 * error)
    assert error < 0.1


# --- stages, samplers, refusals -------------------------------------------------------------------


@pytest.mark.parametrize("method", [Duo(teacher="runs/x"), DCD(teacher="runs/x")], ids=str)
def test_a_student_starts_as_its_teacher(method: Duo | DCD) -> None:
    size = nn.Size(blocks=1, width=8, heads=2, condition=4, attention_cap=None)
    teacher = Curriculum().network(size, 5, 3)
    student = method.network(size, 5, 3, teacher)
    theirs = teacher.state_dict()
    assert all(torch.equal(part, theirs[name]) for name, part in student.state_dict().items())


def test_a_later_round_looks_twice_as_far() -> None:
    first = DCD(teacher="a")
    assert first.taught_by(UniformState(), Replace()).delta == 1 / 128
    second = first.taught_by(first, Replace())
    assert second.delta == 1 / 64
    assert second.taught_by(DCD(teacher="b", delta=0.4), Replace()).delta == 0.5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DCD(), "cannot teach itself"),
        (lambda: Duo(), "cannot teach itself"),
        (lambda: DCD(teacher="x", delta=0.6), "--method.delta"),
        (lambda: DCD(teacher="x", first=0.9, last=0.1), "--method.first"),
        (lambda: Curriculum(last=1.0), "--method.last"),
        (lambda: Curriculum(temperature=0.0), "--method.temperature"),
    ],
)
def test_what_cannot_work_is_refused(make, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        make()


def test_temperature_and_nucleus_act_before_the_transition() -> None:
    """On p: a token outside its nucleus may still be drawn, from the noise that a step leaves."""
    v, n = 6, 30_000
    p = torch.tensor([0.5, 0.3, 0.1, 0.05, 0.03, 0.02]).double()
    denoiser = UniformDenoiser(lambda z, a: Dense(p.log().expand(*z.shape, v)), v)
    prompt = torch.full((n, 1), core.FREE)

    def first_step(way: Replace) -> Tensor:
        frame = next(way.frames(denoiser, prompt, 2, Streams.of(0, count=n)))
        return torch.bincount(frame.decided.flatten(), minlength=v).double() / n

    a, c = torch.tensor(0.0).double(), torch.tensor(0.5).double()
    z = torch.zeros(1, 1, dtype=torch.long)
    for way, row in (
        (Replace(temperature=0.5), p.square() / p.square().sum()),
        (Replace(top_p=0.75), torch.tensor([5 / 8, 3 / 8, 0, 0, 0, 0]).double()),
    ):
        wanted = transition(row[None, None], z, a, c)[0, 0]
        error = (wanted * (1 - wanted) / n).sqrt()
        assert float(((first_step(way) - wanted) / error).abs().max()) < 4
