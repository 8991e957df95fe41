"""The training loop against closed forms, on models that are small enough for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flowlm.core import Batch, Loss, Streams
from flowlm.errors import Refusal
from flowlm.train import Plan, State
from flowlm.train import train as steps_of
from flowlm.train.trainer import learning_rate

PLAN = Plan(steps=8, batch=3, lr=0.1, warmup=1, decay=0.0, beta2=0.99, ema=0.9, clip=1e9)


class Table(nn.Module):
    """A matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        self.vector = nn.Parameter(torch.linspace(1, 2, 3))


def squares(model: Table, batch: Batch, rng: Streams) -> Loss:
    """A loss with noise from the streams: gradients differ from step to step."""
    noise = rng.normal(batch.tokens.shape[1])
    size = model.matrix.square().sum() + model.vector.square().sum() + model.vector.sum()
    logs = {"noise": (noise.sum(), batch.weight.sum())}
    return Loss(noise + size * (1 + noise), batch.weight, logs)


def nothing(model: Table, batch: Batch, rng: Streams) -> Loss:
    """A loss whose gradient is zero everywhere."""
    zero = (model.matrix.sum() + model.vector.sum()) * 0
    return Loss(zero.expand(batch.tokens.shape), batch.weight)


def batches(step: int) -> Batch:
    return Batch(torch.full((3, 4), step), torch.ones(3, 4))


def mean(loss: Loss) -> Tensor:
    return (loss.value * loss.weight).sum() / loss.weight.sum()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


# --- learning rate ------------------------------------------------------------------------------


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = Plan(steps=10, warmup=4, decay=0.5, lr=1.0)
    expected = [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    assert [learning_rate(plan, n) for n in range(10)] == pytest.approx(expected)
    constant = Plan(steps=4, warmup=0, decay=0.0, lr=0.3)
    assert [learning_rate(constant, n) for n in range(4)] == [0.3] * 4
    falling = Plan(steps=4, warmup=0, decay=1.0, lr=1.0)
    assert [learning_rate(falling, n) for n in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1), st.floats(1e-6, 10))
def test_the_learning_rate_is_the_product_of_its_ramps(
    steps: int, warmup: int, decay: float, lr: float
) -> None:
    plan = Plan(steps=steps, warmup=warmup, decay=decay, lr=lr)
    for n in range(steps):
        rate = learning_rate(plan, n)
        up = 1.0 if n + 1 >= warmup else (n + 1) / warmup
        down = 1.0 if decay == 0 or n <= steps * (1 - decay) else (steps - n) / (decay * steps)
        assert rate == pytest.approx(lr * up * down, rel=1e-9)
        assert 0 < rate <= lr


def test_the_optimizer_uses_the_rate_that_is_reported() -> None:
    plan = Plan(steps=8, batch=3, lr=0.1, warmup=3, decay=0.5)
    state = State(Table(), plan)
    for n, step in enumerate(steps_of(state, squares, batches, plan)):
        assert step.lr == learning_rate(plan, n)
        assert {group["lr"] for group in state.optimizer.param_groups} == {step.lr}


# --- the optimizer ------------------------------------------------------------------------------


def test_adamw_by_hand() -> None:
    plan = Plan(steps=5, batch=3, lr=0.1, warmup=2, beta2=0.97, weight_decay=0.5, clip=1e9)
    state = State(Table(), plan)
    own = {name: weight.double() for name, weight in weights(state.model).items()}
    first = {name: torch.zeros_like(weight) for name, weight in own.items()}
    second = {name: torch.zeros_like(weight) for name, weight in own.items()}
    for n, step in enumerate(steps_of(state, squares, batches, plan), start=1):
        for name, parameter in state.model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.double()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.97 * second[name] + 0.03 * g.square()
            decay = 0.5 if parameter.ndim > 1 else 0.0
            mean, square = first[name] / (1 - 0.9**n), second[name] / (1 - 0.97**n)
            own[name] = own[name] * (1 - step.lr * decay) - step.lr * mean / (square.sqrt() + 1e-8)
            assert torch.allclose(parameter.double(), own[name], rtol=1e-5, atol=1e-6)


def test_weight_decay_is_for_matrices_only() -> None:
    plan = Plan(steps=3, batch=3, lr=0.1, warmup=0, weight_decay=0.25)
    state = State(Table(), plan)
    before = weights(state.model)
    for _ in steps_of(state, nothing, batches, plan):
        pass
    assert torch.equal(state.model.vector, before["vector"])
    assert torch.allclose(state.model.matrix, before["matrix"] * (1 - 0.1 * 0.25) ** 3)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    for clip in (1e-3, 1e9):
        plan = Plan(steps=3, batch=3, lr=0.1, clip=clip)
        state = State(Table(), plan)
        for n, step in enumerate(steps_of(state, squares, batches, plan)):
            gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            assert float(norm) == pytest.approx(min(clip, float(step.norm)), rel=1e-3)
            if n == 0:
                size = Table()
                rng = Streams.of(0, 0, count=3)
                mean(squares(size, batches(0), rng)).backward()
                true = [p.grad.square().sum() for p in size.parameters() if p.grad is not None]
                assert float(step.norm) == pytest.approx(float(torch.stack(true).sum().sqrt()))


def test_a_frozen_parameter_stays() -> None:
    model = Table()
    model.matrix.requires_grad_(False)
    plan = Plan(steps=3, batch=3, lr=0.1, weight_decay=0.5)
    state = State(model, plan)
    before = weights(model)
    for _ in steps_of(state, squares, batches, plan):
        pass
    assert torch.equal(model.matrix, before["matrix"])
    assert torch.equal(state.average.weights["matrix"], before["matrix"])
    assert not torch.equal(model.vector, before["vector"])


# --- the average --------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999])
def test_the_average_is_the_weighted_sum_of_all_weights(decay: float) -> None:
    plan = Plan(steps=40, batch=3, lr=0.1, warmup=1, ema=decay)
    state = State(Table(), plan)
    history = [weights(state.model)["matrix"].double()]
    history += [
        weights(state.model)["matrix"].double() for _ in steps_of(state, squares, batches, plan)
    ]
    kept = [min(decay, (1 + n) / (10 + n)) for n in range(40)]
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for k, weight in enumerate(history):
        # Weights k enter with 1 - d_k and are kept by every later step; those at the start with 1.
        share = 1.0 if k == 0 else 1 - kept[k - 1]
        for d in kept[k:]:
            share *= d
        expected += share * weight
    assert torch.allclose(state.average.weights["matrix"].double(), expected, atol=1e-5)


# --- the loop -----------------------------------------------------------------------------------


def test_steps_are_pure_functions_of_seed_and_step() -> None:
    def run(plan: Plan, start: int = 0) -> list[float]:
        state = State(Table(), plan)
        state.step = start
        return [float(step.logs["noise"]) for step in steps_of(state, squares, batches, plan)]

    whole = run(PLAN)
    assert len(set(whole)) == 8
    assert run(PLAN) == whole
    assert run(PLAN, start=5) == whole[5:]
    assert run(Plan(**{**vars(PLAN), "seed": 1}))[0] not in whole


def test_the_caller_owns_the_loop() -> None:
    state, asked = State(Table(), PLAN), []

    def asking(step: int) -> Batch:
        asked.append(step)
        return batches(step)

    loop = steps_of(state, squares, asking, PLAN)
    for number in (1, 2, 3):
        assert next(loop).number == number
        assert state.step == number
    loop.close()
    assert asked == [0, 1, 2]
    numbers = [step.number for step in steps_of(state, squares, asking, PLAN)]
    assert numbers == [4, 5, 6, 7, 8]
    assert list(steps_of(state, squares, asking, PLAN)) == []


def test_a_step_says_what_it_did() -> None:
    state = State(Table(), PLAN)
    paid = mean(squares(state.model, batches(0), Streams.of(0, 0, count=3))).detach()
    step = next(steps_of(state, squares, batches, PLAN))
    assert float(step.loss) == pytest.approx(float(paid), rel=1e-6)
    assert step.tokens == 12
    assert step.seconds > 0
    assert not step.loss.requires_grad


# --- the reduction ------------------------------------------------------------------------------


class Values(nn.Module):
    """Pays just what it holds."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())


def step_of(value: Tensor, weight: Tensor, at_once: int = 0) -> tuple[float, float, Tensor]:
    """Loss, norm and gradient of one step on losses `value`."""
    plan = Plan(steps=1, batch=len(value), micro_batch=at_once, lr=0.1, clip=1e9)
    model, batch = Values(value), Batch(torch.zeros(value.shape).long(), weight)

    def loss(model: Values, batch: Batch, rng: Streams) -> Loss:
        return Loss(model.value[list(rng.index)], batch.weight)

    step = next(steps_of(State(model, plan), loss, lambda _: batch, plan))
    assert model.value.grad is not None
    return float(step.loss), float(step.norm), model.value.grad


@pytest.mark.parametrize("at_once", [0, 1, 2, 3, 9])
def test_losses_are_divided_by_the_global_weight(at_once: int) -> None:
    value = torch.tensor([[1.0, 3.0], [5.0, 7.0], [9.0, 2.0]])
    weight = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    # Not a mean of means: texts, and passes, with fewer tokens count less.
    for scale in (1, 4):
        loss, norm, gradient = step_of(value, scale * weight, at_once)
        assert loss == pytest.approx(3)
        assert torch.allclose(gradient, weight / 3)
        assert norm == pytest.approx(3**-0.5)
    loss, _, gradient = step_of(value, torch.zeros(3, 2), at_once)
    assert loss == 0
    assert not gradient.any()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_tokens_without_weight_cost_nothing(texts: int, length: int, at_once: int) -> None:
    value, weight = torch.randn(texts, length), (torch.rand(texts, length) < 0.6).float()
    _, _, gradient = step_of(value, weight, at_once)
    assert torch.equal(gradient != 0, weight != 0)
    assert float(gradient.sum()) == pytest.approx(1 if weight.any() else 0)


@pytest.mark.parametrize("method", ["flow", "flow map", "masked", "autoregressive"])
@pytest.mark.parametrize("at_once", [2, 4])
def test_passes_add_up_to_the_step_of_a_whole_batch(
    method: str, at_once: int, experiments: Callable
) -> None:
    """With dropout, weights that differ, stratified times and a batch that does not divide.

    In float64: AdamW makes a step of any gradient, one that is all rounding included.
    """
    experiment = experiments(method, dropout=0.2)
    tokens, weight = torch.randint(7, (6, 16)), (torch.rand(6, 16) < 0.7).double()

    def run(at_once: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        plan = Plan(steps=3, batch=6, micro_batch=at_once, lr=1e-3, warmup=1)
        torch.manual_seed(0)
        state = State(experiment.method.network(experiment.size, 7, 16).double(), plan)
        for parameter in state.model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        steps = steps_of(state, experiment.method.loss, lambda _: Batch(tokens, weight), plan)
        found = [x for step in steps for x in (step.loss, step.norm, *step.logs.values())]
        return found, weights(state.model)

    (whole, there), (parts, here) = run(0), run(at_once)
    assert torch.allclose(torch.stack(whole), torch.stack(parts), rtol=1e-6)
    for name, weight_ in there.items():
        assert torch.allclose(here[name], weight_, rtol=0, atol=1e-10), name


@pytest.mark.parametrize("method", ["flow", "flow map", "masked", "autoregressive"])
def test_texts_without_weight_change_no_gradient(method: str, experiments: Callable) -> None:
    experiment = experiments(method)
    torch.manual_seed(0)
    model = experiment.method.network(experiment.size, 7, 16)
    torch.nn.init.normal_(model.head.weight)
    tokens = torch.randint(7, (4, 16))
    weight = torch.ones(4, 16)
    weight[2:] = 0

    def gradients(count: int) -> dict[str, Tensor]:
        model.zero_grad()
        rng = Streams.of(3, count=count, total=4)
        batch = Batch(tokens[:count], weight[:count])
        mean(experiment.method.loss(model, batch, rng)).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    padded, alone = gradients(4), gradients(2)
    assert padded.keys() == alone.keys()
    assert any(float(g.abs().max()) > 1e-3 for g in alone.values())
    for name, gradient in alone.items():
        assert torch.allclose(padded[name], gradient, atol=1e-6), name


def test_the_end_of_a_text_without_weight_changes_no_gradient(experiments: Callable) -> None:
    experiment = experiments("autoregressive")
    model = experiment.method.network(experiment.size, 7, 16)
    torch.nn.init.normal_(model.head.weight)
    tokens, weight = torch.randint(7, (4, 16)), torch.ones(4, 16)
    weight[:, 9:] = 0
    answers = []
    for length in (16, 9):
        model.zero_grad()
        batch = Batch(tokens[:, :length], weight[:, :length])
        mean(experiment.method.loss(model, batch, Streams.of(0, count=4))).backward()
        answers.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    for name, gradient in answers[1].items():
        assert torch.allclose(answers[0][name], gradient, atol=1e-6), name


# --- what is not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_bad_step_is_remembered(bad: float) -> None:
    plan = Plan(steps=6, batch=3, lr=0.1, warmup=4)
    state = State(Table(), plan)

    def loss(model: Table, batch: Batch, rng: Streams) -> Loss:
        paid = squares(model, batch, rng)
        return Loss(paid.value + (bad if state.step >= 2 else 0), paid.weight)

    for step in steps_of(state, loss, batches, plan):
        if step.number < 3:
            state.check(plan)
    with pytest.raises(Refusal) as caught:
        state.check(plan)
    message = str(caught.value)
    for named in ("step 3", f"{learning_rate(plan, 2):.2g}", "--train.lr", "--train.warmup"):
        assert named in message
    assert "\n" not in message


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is() -> None:
    def loss(model: Table, batch: Batch, rng: Streams) -> Loss:
        # The square root of zero: its value is fine and its slope is not.
        return Loss((model.vector - model.vector.detach()).abs().sum().sqrt() + squares(
            model, batch, rng).value, batch.weight)  # fmt: skip

    state = State(Table(), PLAN)
    step = next(steps_of(state, loss, batches, PLAN))
    assert bool(step.loss.isfinite())
    with pytest.raises(Refusal, match="step 1"):
        state.check(PLAN)
