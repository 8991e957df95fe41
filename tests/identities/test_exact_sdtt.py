"""SDTT: what the steps of a teacher make the target of a token, and what a student makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from exact import Answers
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.core import Dense, Streams
from flowlm.errors import Refusal
from flowlm.methods.divergence import divergence
from flowlm.methods.masked import Masked
from flowlm.methods.sdtt import SDTT, Patchwork
from flowlm.sampling import Unmask
from flowlm.sampling.masking import mask

V, L = 3, 3
TEXTS = torch.tensor(list(itertools.product(range(V), repeat=L)))
STARTS = {"nothing": [V, V, V], "the first": [0, V, V], "the middle": [V, 2, V]}
"""Texts of which something is still masked, by what is known of them."""
Predictor = Callable[[Tensor], Dense]


@pytest.fixture(scope="module")
def exact() -> Predictor:
    """The exact unmasker of a language in which every text is possible, some far likelier."""
    rng = torch.Generator().manual_seed(3)
    chance = (1.5 * torch.randn(len(TEXTS), generator=rng, dtype=torch.float64)).softmax(0)
    rows = torch.nn.functional.one_hot(TEXTS, V).double()

    def predict(tokens: Tensor) -> Dense:
        fits = ((tokens[:, None] == TEXTS) | (tokens == V)[:, None]).all(-1) * chance
        return Dense(torch.einsum("nt,tlv->nlv", fits / fits.sum(1, keepdim=True), rows).log())

    return predict


@pytest.fixture(scope="module")
def wrong(exact: Predictor) -> Predictor:
    """Another one, whose rows are no martingale: sharper the more is known."""

    def predict(tokens: Tensor) -> Dense:
        sharper = (1 + (tokens != V).sum(1)).view(-1, 1, 1)
        return Dense((sharper * exact(tokens).logp).log_softmax(-1))

    return predict


def onward(start: Tensor, rows: Tensor, reveal: float) -> tuple[Tensor, Tensor]:
    """Every text that a step may lead to, and its chance: tokens are revealed one by one."""
    choices = [[int(w)] if w != V else [*range(V), V] for w in start]
    texts = torch.tensor(list(itertools.product(*choices)))
    chance = torch.ones(len(texts), dtype=torch.float64)
    for i, w in enumerate(start):
        if w == V:
            shown = torch.cat([reveal * rows[i], rows.new_tensor([1 - reveal])])
            chance = chance * shown[texts[:, i]]
    return texts, chance


def mean_target(predict: Predictor, start: Tensor, reveal: float) -> tuple[Tensor, Tensor]:
    """Mean of the targets of every token over two steps, and their normalised geometric mean."""
    before = predict(start[None]).logp
    texts, chance = onward(start, before[0].exp(), reveal)
    targets = before.where((texts != V)[..., None], predict(texts).logp)
    mean = torch.einsum("n,nlv->lv", chance, targets.exp())
    geometric = torch.einsum("n,nlv->lv", chance, targets.nan_to_num(neginf=-1e9))
    return mean, geometric.log_softmax(-1).exp()


def two_steps(predict: Predictor, start: Tensor, reveal: float) -> Tensor:
    """Distribution of every token of a text that two steps write: the second reveals the rest."""
    found = torch.zeros(L, V, dtype=torch.float64)
    for text, chance in zip(*onward(start, predict(start[None]).logp[0].exp(), reveal)):
        ends, share = onward(text, predict(text[None]).logp[0].exp(), 1.0)
        for i in range(L):
            kept = ends[:, i] != V
            found[i].index_add_(0, ends[kept, i], chance * share[kept])
    return found


@pytest.mark.parametrize("known", STARTS)
def test_the_mean_target_is_what_the_two_steps_write(wrong: Predictor, known: str) -> None:
    """Token by token, with the chances 1/2 and 1 of being revealed; and with no other ones."""
    start = torch.tensor(STARTS[known])
    mean, geometric = mean_target(wrong, start, 0.5)
    written = two_steps(wrong, start, 0.5)
    assert torch.allclose(mean, written, atol=1e-12)
    assert float((mean_target(wrong, start, 0.25)[0] - written).abs().max()) > 0.005
    assert float((geometric - written).abs().max()) > 0.005


@pytest.mark.parametrize("known", STARTS)
def test_targets_that_are_drawn_have_that_mean(wrong: Predictor, known: str) -> None:
    """From t = 1/2 in steps of 1/4: the first reveals a half of what is masked, not a quarter."""
    n, start = 40_000, torch.tensor(STARTS[known])
    method, noisy = SDTT(teacher="x", dt=1 / 4), start.expand(n, L)
    t = torch.full((n, 1), 0.5)
    target = method.target(Answers(V, wrong), noisy, t, Streams.of(0, count=n))
    rows = target.log_probs((slice(0, n), slice(0, L))).exp()[:, start == V]
    error = rows.std(0) / n**0.5
    right, other = (mean_target(wrong, start, reveal)[0][start == V] for reveal in (0.5, 0.25))
    assert float(((rows.mean(0) - right).abs() / error).max()) < 4
    assert float(((rows.mean(0) - other).abs() / error).max()) > 8


def test_a_row_is_of_the_step_that_revealed_its_token(exact: Predictor) -> None:
    """Four steps of 1/8 from t = 1/4: each reveals a sixth of what was masked at the start."""
    n, asked = 6000, []

    def watched(tokens: Tensor) -> Dense:
        asked.append(tokens)
        return exact(tokens)

    noisy = mask(
        TEXTS[torch.arange(n) % len(TEXTS)], torch.full((n, 1), 0.25), V, Streams.of(1, count=n)
    )
    method = SDTT(teacher="x", dt=1 / 8, substeps=4)
    t = torch.full((n, 1), 0.25)
    target = method.target(Answers(V, watched), noisy, t, Streams.of(2, count=n))
    assert len(asked) == 4
    assert torch.equal(asked[0], noisy)
    masked = noisy == V
    found = target.log_probs((slice(0, n), slice(0, L)))
    for step, text in enumerate(asked):
        later = asked[step + 1] if step < 3 else torch.zeros_like(noisy)
        here = (text == V) & (later != V)
        assert torch.equal(found[here], exact(text).logp[here])
        share = float((here & masked).sum() / masked.sum())
        wanted = 1 / 6 if step < 3 else 1 / 2
        assert share == pytest.approx(wanted, abs=4 * 0.5 / float(masked.sum()) ** 0.5)
        # Nothing that was known changes.
        assert torch.equal(later[~masked], noisy[~masked]) or step == 3


def test_an_exact_teacher_has_nothing_to_teach_forwards_but_sharpness_backwards(
    exact: Predictor,
) -> None:
    """Change of the optimum of a text of which nothing is known, by the length of a step.

    Forwards it comes from pairs of tokens that are revealed at once, dt^2; backwards from every
    token that is revealed, dt.
    """
    start = torch.tensor(STARTS["nothing"])
    own = exact(start[None]).logp[0].exp()
    changes = []
    for dt in (1 / 16, 1 / 32, 1 / 64, 1 / 128):
        optima = mean_target(exact, start, dt)
        changes.append([float((best - own).abs().max()) for best in optima])
    for (forward, reverse), (half, less) in itertools.pairwise(changes):
        assert forward / half == pytest.approx(4, abs=0.2)
        assert reverse / less == pytest.approx(2, abs=0.2)
        assert forward < 0.1 * reverse
    # In one long step it is no longer small, and there the geometric mean is the sharper one.
    mean, geometric = mean_target(exact, start, 0.5)
    assert float((mean - own).abs().max()) > 0.005
    entropies = [-(p * p.log()).sum(-1) for p in (geometric, mean)]
    assert bool((entropies[0] < entropies[1]).all())


# --- the loss -------------------------------------------------------------------------------------


class Table(nn.DiT):
    """A network that answers every text with the logits that it holds."""

    def __init__(self, logits: Tensor) -> None:
        size = nn.Size(blocks=1, width=2, heads=1, condition=1)
        super().__init__(size, nn.Linear(V, 2), V, L, times=0)
        self.logits = torch.nn.Parameter(logits.clone())
        self.read: list[Tensor] = []

    def forward(self, x: Tensor, *taus: Tensor, cache=None, rng=None) -> Dense:
        self.read.append(x)
        return Dense(self.logits.log_softmax(-1).expand(len(x), -1, -1))


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_a_student_that_answers_as_its_target_pays_and_learns_nothing(direction: str) -> None:
    method = SDTT(teacher="x", dt=1 / 4, divergence=direction)
    made = torch.randn(L, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    student, teacher = Table(made), Table(made)
    batch = core.Batch(TEXTS, torch.ones(TEXTS.shape))

    def paid() -> Tensor:
        loss = method.loss(student, batch, Streams.of(0, count=len(TEXTS)), teacher)
        return (loss.value * loss.weight).sum() / loss.weight.sum()

    value = paid()
    value.backward()
    assert student.logits.grad is not None
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    assert float(student.logits.grad.abs().max()) < 1e-12
    assert teacher.logits.grad is None
    # Another answer pays, and its gradient leads back.
    student.logits = torch.nn.Parameter(made + torch.arange(V) / 3)
    value = paid()
    value.backward()
    assert float(value.detach()) > 0.01
    assert float((student.logits.grad * torch.arange(V)).sum()) > 0


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_the_gradient_vanishes_at_the_mean_of_the_targets(exact: Predictor, direction: str) -> None:
    """Forwards; backwards at their normalised geometric mean. Neither is stationary for the other.

    One long round, all texts masked, every draw of the teacher with its chance.
    """
    start = torch.tensor(STARTS["nothing"])
    texts, chance = onward(start, exact(start[None]).logp[0].exp(), 0.5)
    parts = exact(start.expand(len(texts), -1)), exact(texts)
    target = Patchwork(parts, (texts == V).long())

    def slope(answer: Tensor) -> float:
        logits = answer.log().requires_grad_()
        student = Dense(logits.log_softmax(-1).expand(len(texts), -1, -1))
        (divergence(student, target, direction).sum(1) @ chance).backward()
        assert logits.grad is not None
        return float(logits.grad.abs().max())

    mean, geometric = mean_target(exact, start, 0.5)
    best, other = (geometric, mean) if direction == "reverse" else (mean, geometric)
    assert slope(best) < 1e-12
    assert slope(other) > 1e-3


def test_a_batch_pays_the_mean_over_what_is_masked() -> None:
    """Of all its masked tokens alike, in whichever text: not of texts, and not of all tokens."""
    method = SDTT(teacher="x", dt=1 / 4)
    rng = torch.Generator().manual_seed(1)
    student, teacher = (Table(torch.randn(L, V, generator=rng).double()) for _ in range(2))
    weight = 1.0 + torch.arange(float(TEXTS.numel())).view(TEXTS.shape)
    loss = method.loss(student, core.Batch(TEXTS, weight), Streams.of(3, count=len(TEXTS)), teacher)
    (noisy,) = student.read
    assert torch.equal(teacher.read[0], noisy)
    masked = noisy == V
    assert 0.2 < float(masked.float().mean()) < 0.8
    assert torch.equal(loss.weight, weight * masked)
    p, q = (of.logits.detach().log_softmax(-1) for of in (student, teacher))
    wanted = (p.exp() * (p - q)).sum(-1).expand(TEXTS.shape)
    assert torch.allclose(loss.value.detach()[masked], wanted[masked])


@pytest.mark.parametrize(("dt", "substeps"), [(1 / 8, 2), (1 / 8, 4), (1 / 2, 2)])
def test_texts_leave_time_for_all_steps(dt: float, substeps: int) -> None:
    """t even over [0, c), and the rest of the texts at c = 1 - k dt."""
    n, length = 2000, 400
    student = Answers(V, lambda tokens: Dense(torch.zeros(*tokens.shape, V).log_softmax(-1)))
    seen: list[Tensor] = []
    teacher = Answers(V, lambda tokens: seen.append(tokens) or student.answer(tokens))
    batch = core.Batch(torch.zeros(n, length).long(), torch.ones(n, length))
    method = SDTT(teacher="x", dt=dt, substeps=substeps)
    method.loss(student, batch, Streams.of(0, count=n), teacher)
    known, c = (seen[0] != V).float().mean(1).sort().values, 1 - substeps * dt
    wanted = ((torch.arange(n) + 0.5) / n).clamp(max=c)
    assert float((known - wanted).abs().max()) < 5 * 0.5 / length**0.5
    assert float((known - wanted).mean().abs()) < 4 * 0.5 / (n * length) ** 0.5 + 1 / n
    assert len(seen) == substeps


def test_a_patchwork_by_strips_is_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    b, length, v, d = 3, 4, 40, 6
    monkeypatch.setattr(chunked.points, "chunk_numel", lambda kind: 2 * v)  # two rows at a time
    rng = torch.Generator().manual_seed(0)
    near, *far = (torch.randn(b, length, d, generator=rng) for _ in range(4))
    weight, bias = torch.randn(v, d, generator=rng), torch.randn(v, generator=rng)
    chosen = torch.arange(b * length).view(b, length) % 3
    rows = [torch.nn.functional.linear(x, weight, bias).log_softmax(-1) for x in far]
    wanted = torch.stack(rows).gather(0, chosen[None, ..., None].expand(1, b, length, v))[0]
    for side in (4, 1024):
        parts = tuple(chunked.HeadPrediction(x, weight, bias, side=side) for x in far)
        found = []
        for target in (Patchwork(parts, chosen), Dense(wanted)):
            y = near.clone().requires_grad_()
            value = divergence(
                chunked.HeadPrediction(y, weight, bias, side=side), target, "reverse"
            )
            value.sum().backward()
            found.append((value.detach(), y.grad))
        assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*found))
    assert float(found[0][0].min()) > 0.1


# --- rounds, likelihood, refusals -----------------------------------------------------------------


def test_a_student_starts_as_its_teacher() -> None:
    size = nn.Size(blocks=1, width=8, heads=2, condition=4, attention_cap=None)
    method = SDTT(teacher="x")
    teacher = method.like_teacher().network(size, 5, 3)
    student = method.network(size, 5, 3, teacher)
    theirs = teacher.state_dict()
    assert all(torch.equal(part, theirs[name]) for name, part in student.state_dict().items())


def test_a_later_round_takes_as_long_as_all_steps_of_the_one_before() -> None:
    first = SDTT(teacher="a")
    assert first.taught_by(Masked(), Unmask()).dt == 1 / 128
    second = first.taught_by(first, Unmask())
    assert second.dt == 1 / 64
    assert second.taught_by(second, Unmask()).dt == 1 / 32
    # From four steps at once follow steps of four times the length.
    assert first.taught_by(replace(first, substeps=4), Unmask()).dt == 1 / 32
    # All of time is enough.
    late = replace(first, dt=0.4)
    assert first.taught_by(late, Unmask()).dt == 1 / 2
    assert replace(first, substeps=4).taught_by(late, Unmask()).dt == 1 / 4
    # From 1/1024, the seventh round's steps are sixteenths: its student writes in eight.
    method = SDTT(teacher="a", dt=1 / 1024)
    for _ in range(6):
        method = method.taught_by(method, Unmask())
    assert method.dt == 1 / 16


def test_its_likelihood_is_that_of_masked_diffusion(exact: Predictor) -> None:
    """The same bound, of any network: after distillation it holds as before."""
    n = 50
    batch = core.Batch(TEXTS[:n], torch.ones(len(TEXTS[:n]), L))
    model = Answers(V, exact)
    one, two = (
        method.nll(model, batch, Streams.of(0, count=len(batch.tokens)), 2)
        for method in (Masked(), SDTT(teacher="x"))
    )
    assert torch.equal(one, two)
    assert SDTT.likelihood == "upper bound"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SDTT(), "cannot teach itself"),
        (lambda: SDTT(teacher="x", dt=0.0), "--method.dt"),
        (lambda: SDTT(teacher="x", dt=0.51), "up to 0.5"),
        (lambda: SDTT(teacher="x", dt=0.3, substeps=4), "up to 0.25"),
        (lambda: SDTT(teacher="x", dt=float("nan")), "--method.dt"),
        (lambda: SDTT(teacher="x", substeps=1), "--method.substeps"),
    ],
)
def test_what_cannot_work_is_refused(make, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        make()
