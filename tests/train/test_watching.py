"""What is measured between steps: validation by tau, speed against the peak, memory."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowlm import core
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import open_tokens
from flowlm.experiment import Experiment
from flowlm.machine.hardware import memory_held, peak
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.nn import DiT
from flowlm.run.forecast import work
from flowlm.run.inputs import Inputs, open_inputs
from flowlm.run.monitor import LEVELS, evaluate_by_tau, evaluate_loss

VOCAB, LENGTH = 7, 16
CPU = torch.device("cpu")


@pytest.fixture
def flow(experiments: Callable[..., Experiment]) -> Experiment:
    return replace(experiments("flow"), method=Flow())


def built(experiment: Experiment, teacher: DiT | None = None) -> DiT:
    network = experiment.method.network(experiment.size, VOCAB, LENGTH, teacher)
    if teacher is None:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network.requires_grad_(False)


def held_out(count: int) -> Inputs:
    weight = torch.ones(count, LENGTH)
    weight[:, LENGTH // 2 :] = 0.25
    texts = core.Batch(torch.randint(VOCAB, (count, LENGTH)), weight)
    tokenizer = Tokenizer.words(list("abcdefg"))
    return Inputs(lambda step: texts, lambda: torch.ones(VOCAB), texts, tokenizer, LENGTH, "")


def test_a_network_that_knows_nothing_pays_log_v_at_every_level(flow: Experiment) -> None:
    network = flow.method.network(flow.size, VOCAB, LENGTH)
    levels = evaluate_by_tau(flow, network, held_out(8))
    assert list(levels) == [pytest.approx(0.05 + 0.1 * i) for i in range(10)]
    assert list(levels.values()) == [pytest.approx(math.log(VOCAB))] * 10


def test_levels_are_weighted_means_over_the_first_64_texts(flow: Experiment) -> None:
    torch.manual_seed(2)  # no two levels pay the same by chance
    source, network = held_out(150), built(flow)
    found = evaluate_by_tau(flow, network, source)
    assert found == evaluate_by_tau(flow, network, source), "the same noise at every call"
    texts = core.Batch(source.valid.tokens[:64], source.valid.weight[:64])
    rng = core.Streams.of(flow.train.seed, 0, count=64)
    paid = (
        flow.method.cross_entropy_at(network, texts, torch.full((64, 1), LEVELS[7]), rng)
        * texts.weight
    )
    wanted = float(paid.double().sum() / texts.weight.double().sum())
    assert found[LEVELS[7]] == pytest.approx(wanted, rel=1e-6)
    assert len({round(paid, 4) for paid in found.values()}) == 10


def test_the_mean_over_levels_is_the_loss(flow: Experiment) -> None:
    """Both estimate the mean over tau: one on a grid, the other from stratified draws."""
    source, network = held_out(64), built(flow)
    source = replace(source, valid=core.Batch(source.valid.tokens, torch.ones(64, LENGTH)))
    levels = evaluate_by_tau(flow, network, source)
    loss = evaluate_loss(flow, network, source, None)
    assert sum(levels.values()) / 10 == pytest.approx(loss, rel=0.05)


def test_a_map_that_has_learnt_nothing_pays_what_its_teacher_pays(flow: Experiment) -> None:
    teacher = built(flow)
    student = replace(flow, method=FlowMap())
    source, network = held_out(8), built(student, teacher)
    assert evaluate_by_tau(student, network, source) == evaluate_by_tau(flow, teacher, source)


@pytest.mark.parametrize("method", ["flow", "flow map", "masked", "autoregressive"])
def test_validation_does_not_depend_on_how_texts_are_batched(
    method: str, experiments: Callable[..., Experiment], tmp_path: Path
) -> None:
    """The same texts and the same noise for each: what is left is rounding."""
    whole = experiments(method, batch=512)
    source = open_inputs(whole, tmp_path / "tokens")
    torch.manual_seed(1)
    texts = core.Batch(torch.randint(source.tokenizer.vocab, (37, 16)), torch.rand(37, 16))
    network = whole.method.network(whole.size, source.tokenizer.vocab, 16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.requires_grad_(False)

    def measured(experiment: Experiment) -> list[float]:
        opened = open_inputs(experiment, tmp_path / "tokens")
        assert torch.equal(opened.valid.tokens, source.valid.tokens)
        seen = replace(opened, valid=texts)
        loss = evaluate_loss(experiment, network, seen, None)
        return [loss, *evaluate_by_tau(experiment, network, seen).values()]

    wanted = measured(whole)
    for plan in ({"batch": 2}, {"batch": 4}, {"batch": 20, "micro_batch": 2}):
        assert measured(experiments(method, **plan)) == pytest.approx(wanted, rel=1e-6), plan
    other = experiments(method, batch=512, seed=1)
    assert method == "autoregressive" or measured(other)[0] != pytest.approx(wanted[0], rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 7, 300, 512])
def test_a_run_validates_on_the_first_512_texts_or_on_all(
    batch: int, experiments: Callable[..., Experiment], tmp_path: Path
) -> None:
    few = open_inputs(experiments("masked", batch=batch), tmp_path / "tokens").valid
    assert 4 < len(few.tokens) == len(open_tokens(tmp_path / "tokens").valid) // 16
    file = tmp_path / "long.txt"
    file.write_text("abcdefghi\n" * 2000)
    experiment = experiments("masked", batch=batch)
    data = replace(experiment.data, path=str(file), length=2, valid=0.1)
    many = open_inputs(replace(experiment, data=data), tmp_path / "many").valid
    held_out = open_tokens(tmp_path / "many").valid
    assert len(held_out) // 2 > 512
    assert torch.equal(many.tokens.flatten(), torch.from_numpy(held_out[:1024].astype("int64")))


def test_a_pass_of_validation_is_in_proportion_to_one_of_training(
    experiments: Callable[..., Experiment],
) -> None:
    sizes: list[int] = []

    class Watched(Masked):
        def loss(self, model, batch, rng, teacher=None) -> core.Loss:
            sizes.append(len(batch.tokens))
            assert rng.total == 23
            return super().loss(model, batch, rng, teacher)

    for plan, most in (
        ({"batch": 3}, 12),
        ({"batch": 64, "micro_batch": 5}, 20),
        ({"batch": 1}, 4),
    ):
        experiment = replace(experiments("masked", **plan), method=Watched())
        sizes.clear()
        evaluate_loss(experiment, built(experiment), held_out(23), None)
        assert sizes == [most] * (23 // most) + [23 % most]


@pytest.mark.parametrize("method", ["masked", "autoregressive"])
def test_without_a_clock_there_are_no_levels(
    method: str, experiments: Callable[..., Experiment]
) -> None:
    experiment = experiments(method)
    assert evaluate_by_tau(experiment, built(experiment), held_out(4)) == {}


def test_a_run_records_levels_share_of_peak_and_memory(
    experiments: Callable[..., Experiment], run: Callable[..., str], tmp_path: Path
) -> None:
    experiment = experiments("flow", log_every=2)
    began = time.perf_counter()
    printed = run(experiment, tmp_path)
    took = time.perf_counter() - began
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps, valid = ([r for r in rows if key in r] for key in ("loss", "valid"))
    assert [r["step"] for r in valid] == [3, 6]
    assert all(f"valid/tau_{tau:.2f}" in r for r in valid for tau in LEVELS)
    assert all(r["tokens_per_second"] * r["seconds"] == pytest.approx(2 * 4 * 16) for r in steps)
    assert 0 < sum(r["seconds"] for r in steps) < took
    vocab = 8  # a to e, the space, the end of a document, the unknown
    counted = work(experiment.method, experiment.size, vocab, 16)
    best = peak(CPU, torch.float32, 1)
    for row in steps:
        done = row["tokens_per_second"] * (
            counted.flops_per_token + counted.flops_per_step / (4 * 16)
        )
        assert row["share_of_peak"] == pytest.approx(done / best)
        assert 0 < row["share_of_peak"] < 1
        assert 2**27 < row["memory_bytes"] <= 1.1 * memory_held(CPU)
    assert f"peak {steps[-1]['share_of_peak']:.1%}  memory " in printed
    assert printed.count("  step ") == 2
    assert " left" not in printed, "six steps say nothing of how long the rest takes"


def test_the_peak_is_measured_once_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    first = peak(CPU, torch.float32, 1)
    assert peak(CPU, torch.float32, 1) == first > 1e8
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_held_is_a_high_water_mark() -> None:
    before = memory_held(CPU)
    block = torch.ones(before // 4 + 2**26)  # as many floats take more bytes than before
    with_block = memory_held(CPU)
    assert with_block >= block.nbytes > before
    del block
    assert memory_held(CPU) >= with_block
