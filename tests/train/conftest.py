"""Tiny experiments with every method, and what it takes to run them without a terminal."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.uniform_state import UniformState
from flowlm.nn.size import Size
from flowlm.run.training import train_run
from flowlm.train.plan import Plan
from writing import usual

SIZE = Size(
    blocks=1, width=16, heads=2, condition=8, dropout=0.0, attention_cap=None, output_cap=None
)
PLAN = Plan(
    steps=6, batch=4, lr=1e-2, warmup=2, decay=0.5, ema=0.9, log_every=1, validate_every=3,
    save_every=2, keep=9, device="cpu", threads=1,
)  # fmt: skip
METHODS = {
    "flow": Flow(input=PosteriorInput()),
    "flow in projected space": Flow(),
    "flow map": FlowMap(input=PosteriorInput()),
    "flow map with a teacher": FlowMap(teacher="the fixture names one"),
    "masked": Masked(),
    "sdtt": SDTT(teacher="the fixture names one"),
    "uniform": UniformState(),
    "curriculum": Curriculum(),
    "dcd": DCD(teacher="the fixture names one"),
    "sedd": SEDD(),
    "sedd, uniform": SEDDUniform(),
    "di4c": Di4C(teacher="the fixture names one", latents=2),
    "autoregressive": Autoregressive(),
    "gumbel": GumbelMap(teacher="the fixture names one"),
    "residual": ResidualMap(teacher="the fixture names one"),
    "student": ResidualStudent(teacher="the fixture names one"),
}
TIMES = ("seconds", "tokens_per_second", "share_of_peak", "memory_bytes")

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Train an experiment into a directory; returns what was printed."""

    def train(experiment: Experiment, directory: Path, resume: bool = False) -> str:
        paper = io.StringIO()
        train_run(experiment, directory, Console(file=paper, width=100), resume)
        return paper.getvalue()

    return train


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten letters a line, 256 lines: 2816 tokens, of which 141 are held out, 8 windows of 16."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join("".join(rng.choices("abcde ", k=10)) + "\n" for _ in range(256)))
    return path


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of a flow in projected space."""
    return trained(text, "flow in projected space", tmp_path_factory)


@pytest.fixture(scope="session")
def autoregressive(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of an autoregressive model."""
    return trained(text, "autoregressive", tmp_path_factory)


def trained(text: Path, method: str, places: pytest.TempPathFactory) -> Path:
    """The run of a method."""
    directory = places.mktemp("teacher") / "run"
    train_run(experiment(text, method), directory, Console(file=io.StringIO()))
    return directory


@pytest.fixture(scope="session")
def residual(tmp_path_factory: pytest.TempPathFactory, text: Path, teacher: Path) -> Path:
    """A run of a residual map of that flow."""
    directory = tmp_path_factory.mktemp("residual") / "residual"
    made = experiment(text, "residual")
    made = replace(made, method=made.method.with_teacher(str(teacher)))
    train_run(made, directory, Console(file=io.StringIO()))
    return directory


@pytest.fixture(scope="session")
def uniform_teacher(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of uniform-state diffusion."""
    return trained(text, "uniform", tmp_path_factory)


@pytest.fixture(scope="session")
def masked_teacher(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of masked diffusion."""
    return trained(text, "masked", tmp_path_factory)


@pytest.fixture
def experiments(
    teacher: Path,
    residual: Path,
    autoregressive: Path,
    uniform_teacher: Path,
    masked_teacher: Path,
    text: Path,
) -> Callable[..., Experiment]:
    """A tiny experiment with a method, changed: dropout=0.1, steps=9, ..."""

    def make(method: str, dropout: float = 0.0, **plan: Any) -> Experiment:
        made = experiment(text, method, dropout, **plan)
        places = {ResidualMap: residual, Autoregressive: autoregressive, Flow: teacher}
        places |= {UniformState: uniform_teacher, Masked: masked_teacher}
        if made.method.teacher:
            place = next(places[kind] for kind in places if kind in made.method.teachers)
            made = replace(made, method=made.method.with_teacher(str(place)))
        return made

    return make


def experiment(text: Path, method: str, dropout: float = 0.0, **plan: Any) -> Experiment:
    size = replace(SIZE, dropout=dropout)
    data = Text(path=str(text), length=16)
    return Experiment(
        "tiny", METHODS[method], usual(METHODS[method]), data, size, replace(PLAN, **plan)
    )


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, float]]]:
    """The records of a run's metrics without what depends on the clock on the wall."""

    def read(directory: Path) -> list[dict[str, float]]:
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in lines
        ]

    return read


@pytest.fixture
def same() -> Callable[[Any, Any], None]:
    """Assert that two nested values are the same, bit by bit where they are tensors."""

    def check(one: Any, two: Any, at: str = "") -> None:
        assert type(one) is type(two), at
        if isinstance(one, dict):
            assert one.keys() == two.keys(), at
            for key in one:
                check(one[key], two[key], f"{at}.{key}")
        elif isinstance(one, (list, tuple)):
            assert len(one) == len(two), at
            for i, (first, second) in enumerate(zip(one, two)):
                check(first, second, f"{at}[{i}]")
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, two), f"{at} differs by {(one - two).abs().max()}"
        else:
            assert one == two, at

    return check
