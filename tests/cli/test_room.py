"""What cannot fit into memory is refused before it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import flowlm
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.model import batch_size
from flowlm.nn import Size
from flowlm.run import fitting, room
from flowlm.run.fitting import require_fitting
from flowlm.run.forecast import count_memory
from flowlm.run.room import least_kept, least_state
from flowlm.train import World
from flowlm.train.plan import Plan
from writing import usual

SIZE = Size(blocks=3, width=32, heads=4, condition=16)
VOCAB, LENGTH, TEXTS = 50, 16, 8
METHODS = {
    "flow": Flow(),
    "bayes": Flow(input=BayesInput()),
    "map": FlowMap(teacher="runs/flow"),
    "masked": Masked(),
}


def experiment(method: Any, **plan: Any) -> Experiment:
    size = replace(SIZE, output_cap=None)
    return Experiment(
        "fits", method, usual(method), Text(length=LENGTH), size, Plan(batch=TEXTS, **plan)
    )


@pytest.mark.parametrize(
    ("name", "recompute", "precision"),
    [
        ("flow", False, "float32"),
        ("bayes", True, "bfloat16"),
        ("map", False, "bfloat16"),
        ("map", True, "bfloat16"),
        ("masked", True, "float32"),
    ],
)
def test_the_bound_is_a_bound(name: str, recompute: bool, precision: Any) -> None:
    wanted = experiment(METHODS[name], recompute=recompute, precision=precision)
    held = count_memory(wanted, VOCAB, LENGTH, TEXTS)
    assert least_kept(wanted, LENGTH) <= held.activations
    state = held.total - held.activations - held.working
    assert 0.3 * state < least_state(wanted, VOCAB) <= state


def bounded(monkeypatch: pytest.MonkeyPatch, there: int) -> None:
    for module in (room, fitting):
        name = "memory" if module is room else "memory_of"
        monkeypatch.setattr(module, name, lambda *_: there)


def fits(wanted: Experiment, world: World | None = None) -> None:
    cpu = torch.device("cpu")
    require_fitting(wanted, VOCAB, LENGTH, cpu, World() if world is None else world)


def test_a_step_is_refused_where_its_count_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = experiment(Masked())
    held = count_memory(wanted, VOCAB, LENGTH, TEXTS)
    need = held.total - held.working
    bounded(monkeypatch, need)
    fits(wanted)
    bounded(monkeypatch, need - 1)
    with pytest.raises(Refusal, match=r"--train\.micro-batch, or give --train\.recompute"):
        fits(wanted)
    less = replace(wanted, train=replace(wanted.train, micro_batch=2))
    fits(less)
    bounded(monkeypatch, held.weights)
    with pytest.raises(Refusal, match=r"--size\.width"):
        fits(wanted)


def test_far_from_the_limit_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(*_: Any) -> None:
        raise AssertionError("this takes seconds")

    monkeypatch.setattr("flowlm.run.forecast.memory", counted)
    bounded(monkeypatch, 2**30)
    fits(experiment(Masked()))


def test_several_processes_share_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = experiment(Masked())
    state = least_state(wanted, VOCAB)
    bounded(monkeypatch, state // 2)
    with pytest.raises(Refusal, match=r"--size\.width"):
        fits(wanted)
    monkeypatch.setattr(fitting, "NEAR", 0)
    fits(wanted, World(size=4))


@pytest.mark.parametrize("recipe", ["text-masked", "lm1b-masked"])
def test_a_batch_beyond_all_memory_is_refused_at_once(
    recipe: str, flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    words = ["--data.path", corpus, "--train.batch", 2**31 - 1, "--out", tmp_path / "run"]
    flowlm("train", recipe, *words).refusal("--train.batch 2,147,483,647", "GiB")
    assert not list(tmp_path.iterdir())


def test_an_answer_beyond_all_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = flowlm.load("demo")
    monkeypatch.setattr(batch_size, "memory", lambda: 2**30)
    with pytest.raises(Refusal, match="4,294,967,296 texts"):
        model.sample(2**32)
