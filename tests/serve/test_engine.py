"""Texts of many orders, written together, are those that each would be alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import flowlm
from flowlm.core import FREE, Streams
from flowlm.experiment import Experiment
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.model.language_model import LanguageModel
from flowlm.recipes import demo as recipes
from flowlm.sampling import Bridge, Euler, Heun, Jumps, LeftToRight, Sampler, Unmask
from flowlm.serve.engine import Engine, Full
from flowlm.serve.metrics import Metrics
from flowlm.serve.orders import Order, Shot, Way


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return flowlm.load("demo", "cpu")


def small(experiment: Experiment) -> LanguageModel:
    """A model of random weights."""
    from dataclasses import replace

    size = replace(experiment.size, blocks=2, width=32, heads=2)
    experiment = replace(experiment, size=size)
    network = experiment.method.network(size, experiment.data.vocab, experiment.data.length)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return LanguageModel.from_network(experiment, network)


MODELS = {
    "bayes flow": lambda: small(recipes.Experiment(
        "own", Flow(input=BayesInput()), Euler(), recipes.Generated(), recipes.SIZE, recipes.PLAN
    )),
    "masked": lambda: small(recipes.masked()),
    "autoregressive": lambda: small(recipes.autoregressive()),
}  # fmt: skip
SAMPLERS: dict[type, tuple[Sampler, ...]] = {
    Flow: (Jumps(), Euler(temperature=0.8), Heun(), Bridge(), Jumps(gamma=1.0)),
    Masked: (Unmask(), Unmask(temperature=0.5)),
    Autoregressive: (LeftToRight(), LeftToRight(top_p=0.8)),
}


@pytest.fixture(params=["demo", *MODELS])
def model(request: pytest.FixtureRequest, demo: LanguageModel) -> LanguageModel:
    return demo if request.param == "demo" else MODELS[request.param]()


class Waiting:
    """What an order hears."""

    def __init__(self) -> None:
        self.shots: list[Shot] = []
        self.texts: list[list[int]] | None = None
        self._done = threading.Event()

    def done(self, texts: list[list[int]] | None) -> None:
        assert not self._done.is_set(), "an order hears of its end once"
        self.texts = texts
        self._done.set()

    def get(self) -> list[list[int]] | None:
        assert self._done.wait(60)
        return self.texts


def ordered(
    engine: Engine, sampler: Sampler, steps: int, seed: int, given: Tensor, filmed: bool = False
) -> tuple[Order, Waiting]:
    waiting = Waiting()
    way = Way(sampler, steps, bool((given != FREE).any()), filmed)
    order = Order(way, seed, given.tolist(), waiting.shots.append, waiting.done)
    engine.submit(order)
    return order, waiting


@pytest.fixture
def engine(model: LanguageModel) -> Iterator[Engine]:
    running = Engine(model, at_once=16, queue=100, metrics=Metrics())
    yield running
    running.close(10)


def test_orders_at_different_steps_get_the_texts_they_would_get_alone(
    model: LanguageModel, engine: Engine
) -> None:
    choose = random.Random(3)
    known = torch.randint(model.network.vocab, (1, 18), generator=torch.Generator().manual_seed(2))
    own = SAMPLERS.get(type(model.experiment.method), SAMPLERS[Flow])
    asked = []
    for seed in range(20):
        given = torch.full((choose.choice((1, 1, 3)), model.length), FREE)
        if seed % 3 == 0:
            given[:, :4] = known[:, :4]
        sampler, steps = choose.choice(own), choose.choice((1, 2, 5))
        asked.append((sampler, steps, seed, given, ordered(engine, sampler, steps, seed, given)[1]))
    for sampler, steps, seed, given, waiting in asked:
        prompt = given if bool((given != FREE).any()) else None
        alone = model.sample(len(given), steps, seed, prompt, sampler=sampler)
        assert waiting.get() == alone.tolist()


def test_batches_of_several_steps_share_a_pass(demo: LanguageModel) -> None:
    metrics = Metrics()
    engine = Engine(demo, at_once=64, queue=100, metrics=metrics)
    free = torch.full((4, demo.length), FREE)
    heard = [ordered(engine, Jumps(), steps, steps, free)[1] for steps in (8, 7, 6, 5)]
    assert all(waiting.get() is not None for waiting in heard)
    engine.close(10)
    said = dict(line.rsplit(" ", 1) for line in metrics.text().splitlines() if line[0] != "#")
    assert float(said["flowlm_batch_texts_sum"]) == 4 * (8 + 7 + 6 + 5)
    # One after the other they would take 26 passes.
    assert float(said["flowlm_batch_texts_count"]) < 20


def test_a_film_is_told_step_by_step(demo: LanguageModel) -> None:
    engine = Engine(demo, at_once=16, queue=10, metrics=Metrics())
    given = torch.full((1, demo.length), FREE)
    given[0, 3] = 7
    _, waiting = ordered(engine, Jumps(), 3, 5, given, filmed=True)
    texts = waiting.get()
    engine.close(10)
    frames = list(demo.film(1, 3, 5, prompt=given))
    assert [shot.tokens for shot in waiting.shots] == [f.tokens()[0].tolist() for f in frames]
    assert texts == [waiting.shots[-1].tokens]
    for shot, frame in zip(waiting.shots, frames, strict=True):
        confidence = frame.confidence()
        assert confidence is not None
        assert shot.confidence == pytest.approx(confidence[0].tolist(), abs=1e-5)
        assert shot.alternatives[3] == [(7, 1.0)]
        (first, chance), *others = shot.alternatives[0]
        assert first == shot.tokens[0]
        assert len(others) == 4
        assert chance == pytest.approx(shot.confidence[0], abs=1e-5)
    assert [shot.tau for shot in waiting.shots] == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_full_queue_and_a_closed_one_take_nothing(demo: LanguageModel) -> None:
    engine = Engine(demo, at_once=1, queue=1, metrics=Metrics())
    many = torch.full((40, demo.length), FREE)
    _, first = ordered(engine, Jumps(), 8, 0, many)
    refused = 0
    for seed in range(3):
        try:
            ordered(engine, Jumps(), 8, seed, many)
        except Full:
            refused += 1
    assert refused >= 2
    engine.close(0)
    assert first.get() is None
    with pytest.raises(Full):
        ordered(engine, Jumps(), 1, 0, many[:1])


def test_a_cancelled_order_is_not_written_on(demo: LanguageModel) -> None:
    engine = Engine(demo, at_once=8, queue=10, metrics=Metrics())
    free = torch.full((2, demo.length), FREE)
    order, waiting = ordered(engine, Jumps(), 200, 0, free, filmed=True)
    order.cancelled = True
    assert ordered(engine, Jumps(), 1, 1, free)[1].get() == demo.sample(2, 1, 1).tolist()
    engine.close(10)
    assert waiting.texts is None
    assert len(waiting.shots) < 400


def test_a_failure_is_told_and_the_engine_goes_on(
    demo: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(demo, at_once=8, queue=10, metrics=Metrics())
    free = torch.full((1, demo.length), FREE)
    with monkeypatch.context() as patch:
        patch.setattr(Streams, "normal", None)
        patch.setattr(Streams, "fork_seeds", None)
        assert ordered(engine, Jumps(), 1, 0, free)[1].get() is None
    assert ordered(engine, Jumps(), 1, 1, free)[1].get() == demo.sample(1, 1, 1).tolist()
    engine.close(10)
