"""The engine of the page equals torch on the same noises, and draws the same noise from seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from in_node import NODE, Film, answers, differences, made, rounded, run

import flowlm
from flowlm.chunked.space import LazyOneHot
from flowlm.core import Streams
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, PosteriorInput
from flowlm.model.language_model import LanguageModel
from flowlm.nn import Size
from flowlm.page.alone import joined
from flowlm.sampling import Euler, Jumps

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node on this machine")

SIZE = Size(blocks=2, width=16, heads=2, condition=8, dropout=0.0)
NEAR = 1e-3
"""Nats between log-probabilities of the engine and of torch."""


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return rounded(flowlm.load("demo", "cpu"))


@pytest.mark.parametrize("gamma", [0.0, None, 0.6])
@pytest.mark.parametrize("steps", [1, 8])
def test_twenty_noises_become_the_texts_of_torch(
    demo: LanguageModel, steps: int, gamma: float | None
) -> None:
    generator = torch.Generator().manual_seed(1)
    noises = torch.randn(20, steps, 18, 61, generator=generator)
    films = [Film(noise, steps, Jumps(gamma=gamma)) for noise in noises]
    assert max(differences(demo, films)) < NEAR


def test_a_given_token_stays_and_the_others_answer_to_it(demo: LanguageModel) -> None:
    given = [-1] * 18
    given[2], given[17] = 39, 38
    noises = torch.randn(3, 4, 18, 61)
    films = [Film(noise, 4, Jumps(temperature=0.8), given) for noise in noises]
    films.append(Film(noises[0], 2, Jumps(), demo.sample(1)[0].tolist()))  # nothing is left to say
    assert max(differences(demo, films)) < NEAR


MAPS: dict[str, tuple[Any, Size, int, Any]] = {
    "flow, bayes, neighbours": (Flow(input=BayesInput()), replace(SIZE, reach=2), 12, Euler()),
    "map, bayes, cold rows": (
        FlowMap(input=BayesInput()), SIZE, 12, Jumps(temperature=0.7, cools="row")
    ),
    "map, posterior, two Euler ends": (FlowMap(input=PosteriorInput()), SIZE, 12, Euler()),
    "flow, jumps, another clock": (
        Flow(input=PosteriorInput(), clock="uniform"), SIZE, 12, Jumps(gamma=1.0)
    ),
    "map, both caps": (
        FlowMap(input=PosteriorInput()), replace(SIZE, attention_cap=2.0, output_cap=3.0), 12,
        Jumps(latest=0.7),
    ),
    "map, learned positions, more words than are kept": (
        FlowMap(input=BayesInput()), replace(SIZE, positions="learned"), 300, Jumps()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_the_engine_reads_the_experiment(name: str) -> None:
    method, size, vocab, sampler = MAPS[name]
    if isinstance(method.input, BayesInput):
        size = replace(size, output_cap=None)
    model = made(method, size, 7, vocab, sampler)
    count = model.network.vocab
    given = [-1, 3, -1, -1, -1, 5, -1]
    noises = torch.randn(2, 6, 7, count)
    films = [Film(noises[0], 6, sampler), Film(noises[1], 6, sampler, given)]
    assert max(differences(model, films)) < NEAR


def test_a_seed_names_the_noise_that_it_names_in_torch(demo: LanguageModel) -> None:
    seeds = (0, 1, 99, 2**31 + 7)
    for seed, noises in zip(seeds, answers(demo, [], seeds)["noises"], strict=True):
        rng = Streams.of(seed, count=1)
        for rows in noises:
            ours = LazyOneHot(61).noise(rng, 18).dense().flatten()
            assert torch.allclose(torch.tensor(rows), ours, atol=1e-5)


def test_noise_of_several_draws_is_that_of_torch() -> None:
    """A draw is of whole rows, here of one, whose length is no multiple of 16."""
    length, vocab = 3, 600_001
    last = "[...new Stream(5).normal(3, 600001)].filter((_, i) => i % 600001 > 599980)"
    rows = run(joined("engine/rng.js") + f"console.log(JSON.stringify({last}));")
    ours = LazyOneHot(vocab).noise(Streams.of(5, count=1), length)
    each = [ours.write((slice(0, 1), slice(i, i + 1)))[0, 0, 599_981:] for i in range(length)]
    assert torch.allclose(torch.tensor(rows), torch.cat(each), atol=1e-5)
