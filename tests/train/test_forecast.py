"""What is counted without computing: operations by closed forms, memory by real steps."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest
import torch

from flowlm import core
from flowlm.chunked.points import chunk_numel
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.machine.accelerators import KNOWN, accelerator
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.nn import Size
from flowlm.run import forecast as module
from flowlm.run.footprint import Footprint
from flowlm.run.forecast import Memory, count_memory, forecast, memory, work
from flowlm.train import State
from flowlm.train.plan import Plan
from writing import usual

SIZE = Size(blocks=3, width=64, heads=4, condition=32, dropout=0.0)
VOCAB, LENGTH = 5000, 32
METHODS = {
    "flow": Flow(),
    "flow, posterior": Flow(input=PosteriorInput()),
    "flow, bayes": Flow(input=BayesInput()),
    "map": FlowMap(teacher="runs/flow"),
    "map of itself": FlowMap(),
    "masked": Masked(),
}


def size_for(method: Method) -> Size:
    return replace(SIZE, output_cap=None) if method == METHODS["flow, bayes"] else SIZE


def experiment(method: Method, **plan: object) -> Experiment:
    data = Text(length=LENGTH, vocab=VOCAB)
    train = Plan(steps=10, batch=8, **plan)
    return Experiment("counted", method, usual(method), data, size_for(method), train)


# --- operations ---------------------------------------------------------------------------------


def trunk(passes: int = 3) -> int:
    """Of a token: twelve matrices of d x d a block, the head, and attention to l tokens twice."""
    d, blocks = SIZE.width, SIZE.blocks
    return passes * (2 * (12 * d * d * blocks + VOCAB * d) + 4 * LENGTH * d * blocks)


def conditioned(times: int, passes: int = 3) -> float:
    """Of a token's share of its text: time embeddings and modulations. Sinusoids have no slope."""
    d, c, blocks = SIZE.width, SIZE.condition, SIZE.blocks
    modulations = 2 * passes * (6 * blocks + 2) * d * c
    embeddings = times * (2 * max(1, passes - 1) * 256 * c + 2 * passes * c * c)
    return (modulations + embeddings) / LENGTH


@pytest.mark.parametrize("vocab", [VOCAB, 60_000])
def test_a_posterior_costs_two_products_of_its_table(vocab: int) -> None:
    """p @ E, and p^T g for the table's gradient: rows have no other; in one strip or in many."""
    masked = work(Masked(), SIZE, vocab, LENGTH)
    posterior = work(METHODS["flow, posterior"], SIZE, vocab, LENGTH)
    extra = posterior.flops_per_token - masked.flops_per_token - conditioned(1) + conditioned(0)
    assert extra == pytest.approx(4 * vocab * SIZE.width, rel=0.02)


@pytest.mark.parametrize("method", [Masked(), Autoregressive()])
def test_operations_of_a_trunk_without_times(method: Method) -> None:
    assert work(method, SIZE, VOCAB, LENGTH).flops_per_token == trunk()


def test_operations_of_a_flow() -> None:
    d = SIZE.width
    counted = work(Flow(), SIZE, VOCAB, LENGTH)
    # Noise is d numbers times the factor, which has a slope; the numbers have none.
    assert counted.flops_per_token == pytest.approx(trunk() + 4 * d * d + conditioned(1), rel=1e-9)
    # The table's Gram matrix is made once a step, and its slope takes as much again.
    assert counted.flops_per_step == pytest.approx(4 * VOCAB * d * d + 2 * d**3, rel=1e-9)


def test_operations_of_a_linear_encoder() -> None:
    """x @ E forward, and a slope for E alone."""
    counted = work(Flow(input=LinearInput()), SIZE, VOCAB, LENGTH)
    assert counted.flops_per_token == pytest.approx(
        trunk() + 4 * VOCAB * SIZE.width + conditioned(1)
    )
    assert counted.flops_per_step == 0


def test_operations_of_a_distilled_map() -> None:
    """Half of the texts: student and teacher. The other half: two forward passes for the target.

    Between these the mean of a prediction, p @ E, for which the head's logits are made once more
    than for the target. Noise is drawn with a frozen table.
    """
    counted = work(FlowMap(teacher="runs/flow"), SIZE, VOCAB, LENGTH)
    d = SIZE.width
    learnt = trunk() + conditioned(2)
    teacher = trunk(1) + conditioned(1, 1)
    target = 2 * (trunk(1) + conditioned(2, 1)) + 4 * VOCAB * d
    assert counted.flops_per_token == pytest.approx(
        learnt + (teacher + target) / 2 + 2 * d * d, rel=1e-9
    )


def test_operations_are_counted_once_wherever_a_teacher_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = []

    def count(method: Method, *others: object) -> int:
        counted.append(method)
        return len(counted)

    monkeypatch.setattr(module, "_operations", count)
    size = replace(SIZE, blocks=5)
    one, another = (work(FlowMap(teacher=t), size, 50, 8) for t in ("one/place", "another/place"))
    assert one is another
    assert len(counted) == 4
    work(FlowMap(), size, 50, 8)
    assert [m.teacher is None for m in counted] == [False] * 4 + [True] * 4


def test_what_is_computed_again_counts_once() -> None:
    """Neither recomputed activations nor tiles: only the method and the sizes matter."""
    counts = [work(Flow(), replace(SIZE, attention_cap=cap), VOCAB, LENGTH) for cap in (None, 50.0)]
    assert counts[0] == counts[1]


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_that_of_a_real_step(name: str) -> None:
    method = METHODS[name]
    counted = count_memory(experiment(method, warmup=1), VOCAB, LENGTH, 8)
    network, teacher = module.networks(method, size_for(method), VOCAB, LENGTH)
    network.head.side = 4096
    state = State(network, experiment(method).train)

    def loss() -> torch.Tensor:
        batch = core.Batch(torch.zeros(8, LENGTH, dtype=torch.long), torch.ones(8, LENGTH))
        rng = core.Streams.of(0, count=8)
        return state.loss_module(partial(method.loss, teacher=teacher), batch, rng)[0]

    loss().backward()
    state.optimizer.step()
    learnt = [p for p in network.parameters() if p.requires_grad]
    moments = [t for of in state.optimizer.state.values() for t in of.values()]
    guide = [] if teacher is None else list(teacher.parameters())
    held = [*network.parameters(), *guide, *moments, *state.average.weights.values()]
    with Footprint(*held, *[p.grad for p in learnt if p.grad is not None]) as seen:
        loss().backward()
    # With a table that is frozen its factor was made before, and stays.
    factor = 4 * SIZE.width**2 if name == "map" else 0
    assert counted.total == seen.peak + factor


@pytest.mark.parametrize("name", METHODS)
def test_memory_by_part(name: str) -> None:
    method = METHODS[name]
    counted = count_memory(experiment(method), VOCAB, LENGTH, 8)
    network, teacher = module.networks(method, size_for(method), VOCAB, LENGTH)
    every = sum(p.numel() for p in network.parameters())
    learnt = [p for p in network.parameters() if p.requires_grad]
    count = sum(p.numel() for p in learnt)
    assert counted.weights == counted.average == 4 * every
    assert counted.gradients == 4 * count
    assert counted.optimizer == 8 * count + 4 * len(learnt)
    guide = [] if teacher is None else list(teacher.parameters())
    assert counted.teacher == 4 * sum(p.numel() for p in guide)


def test_of_many_texts_memory_is_counted_along_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = experiment(Flow())
    exact = count_memory(flow, VOCAB, LENGTH, 64)
    monkeypatch.setattr(module, "TOKENS", 32 * LENGTH)
    along = memory(flow, VOCAB, LENGTH, 64)
    assert along.activations == exact.activations
    assert along.total == pytest.approx(exact.total, rel=0.05)
    shared = memory(flow, VOCAB, LENGTH, 64, devices=4)
    assert shared == replace(
        along,
        weights=along.weights // 4,
        gradients=along.gradients // 4,
        optimizer=along.optimizer // 4,
        average=along.average // 4,
    )


def test_recomputing_and_bfloat16_take_less() -> None:
    kept, again, narrow = (
        count_memory(experiment(Flow(), **plan), 100, LENGTH, 64).activations
        for plan in ({}, {"recompute": True}, {"precision": "bfloat16"})
    )
    assert again < kept / 2
    assert narrow < kept


# --- the whole ----------------------------------------------------------------------------------


def test_hours_are_operations_over_speed() -> None:
    ahead = forecast(experiment(Masked()), "100", 2)
    counted = work(Masked(), SIZE, VOCAB, LENGTH)
    assert (ahead.tokens, ahead.texts, ahead.vocab, ahead.assumed) == (2560, 4, VOCAB, True)
    assert ahead.operations == 2560 * counted.flops_per_token + 10 * counted.flops_per_step
    assert ahead.hours == pytest.approx(ahead.operations / 200e12 / 3600)
    named = forecast(experiment(Masked()), "a100", 2)
    assert named.hours == pytest.approx(ahead.hours * 100 / (0.4 * 312))


@pytest.mark.parametrize("wrong", ["h300", "0", "-5", "nan", "inf", ""])
def test_an_unknown_accelerator_is_refused(wrong: str) -> None:
    with pytest.raises(Refusal, match=re.escape(", ".join(KNOWN))):
        accelerator(wrong, Plan(), SIZE.width)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_accelerator_has_a_speed_and_a_memory(name: str) -> None:
    known = accelerator(name, Plan(), SIZE.width)
    assert known.speed == pytest.approx(0.4 * KNOWN[name][0])
    assert known.memory == KNOWN[name][1]
    assert accelerator("350", Plan(), SIZE.width).memory is None


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowlm.machine.hardware.peak", lambda *_: 5e9)
    monkeypatch.setattr("flowlm.machine.hardware.memory", lambda: 7 * 2**30)
    here = accelerator("here", Plan(device="cpu"), SIZE.width)
    assert (here.speed, here.memory) == (0.4 * 5e9, 7 * 2**30)
    assert "measured" in here.reached


def test_a_state_in_strips_is_counted_along_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large vocabulary it has so many strips that counting each would take minutes."""
    counted = []

    def count(experiment: Experiment, vocab: int, length: int, texts: int) -> Memory:
        counted.append(texts)
        return Memory(1, 0, 1, 2, 1, activations=100 * texts, working=10 * texts)

    monkeypatch.setattr(module, "count_memory", count)
    vocab = 50_000
    along = memory(experiment(Flow(input=BayesInput())), vocab, LENGTH, 1000)
    assert (along.activations, along.working) == (100_000, 10_000)
    assert max(counted) <= module.ENTRIES / (vocab * LENGTH)
    # A point that is no larger than a patch is kept whole, and what is kept would be no line.
    assert min(counted) * vocab * LENGTH > chunk_numel("cpu")
    counted.clear()
    memory(experiment(Flow()), vocab, LENGTH, 1000)
    assert counted == [1000], "no strips, no line"


@pytest.mark.parametrize("devices", [0, 3, 16])
def test_devices_that_cannot_share_a_batch_are_refused(devices: int) -> None:
    with pytest.raises(Refusal, match=f"cannot be shared evenly by {devices} devices"):
        forecast(experiment(Masked()), "h200", devices)
