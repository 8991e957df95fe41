"""The budget against what sampling really allocates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.di4c import Di4C
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.model.batch_size import BUDGET, bytes_needed, max_batch_size
from flowlm.model.language_model import LanguageModel
from flowlm.model.precision import narrowed
from flowlm.nn.size import Size
from flowlm.run.footprint import Footprint
from flowlm.sampling import (
    Bridge,
    Draft,
    Euler,
    Heun,
    Jacobi,
    Jumps,
    LeftToRight,
    ResidualJumps,
    Sampler,
    Tweedie,
    TweedieUniform,
    Unmask,
)

BASE = Size(blocks=2, width=32, heads=2, condition=8, dropout=0.0)
CASES: dict[str, tuple[Method, Sampler, Size, int, int]] = {
    # method, sampler, size, vocabulary, length: each is dominated by something else
    "scores of a capped trunk": (Flow(), Euler(), replace(BASE, heads=8), 50, 192),
    "a trunk without a cap": (
        Flow(),
        Euler(),
        replace(BASE, width=128, attention_cap=None),
        50,
        64,
    ),
    "the head of a large vocabulary": (Flow(), Euler(), BASE, 20_000, 256),
    "a dense state": (Flow(input=LinearInput()), Euler(), BASE, 6_000, 32),
    "a posterior": (FlowMap(input=PosteriorInput()), Jumps(), BASE, 6_000, 32),
    "rows as evidence": (
        Flow(input=BayesInput()),
        Euler(),
        replace(BASE, reach=2, output_cap=None),
        6_000,
        32,
    ),
    "jumps with fresh noise": (FlowMap(), Jumps(0.5), replace(BASE, width=128), 300, 32),
    "two evaluations a step": (Flow(), Heun(), replace(BASE, width=128), 300, 32),
    "bridges": (Flow(), Bridge(), BASE, 6_000, 32),
    "masks": (Masked(), Unmask(), replace(BASE, attention_cap=None), 6_000, 32),
    "a mixture": (Di4C("x"), Unmask(), replace(BASE, attention_cap=None), 6_000, 32),
    "a nucleus": (Masked(), Unmask(top_p=0.9), BASE, 6_000, 32),
    "scores of masks": (SEDD(), Tweedie(), replace(BASE, output_cap=None), 6_000, 32),
    "scores": (SEDDUniform(), TweedieUniform(), BASE, 6_000, 32),
    "masks in an order": (Masked(), Unmask(order="entropy"), BASE, 6_000, 32),
    "sweeps": (Autoregressive(), Jacobi(), replace(BASE, output_cap=None), 6_000, 32),
    "noise": (GumbelMap("x"), Draft(), BASE, 6_000, 32),
    "a residual": (ResidualMap(teacher="x"), ResidualJumps(), BASE, 6_000, 32),
    "a residual of rows": (
        ResidualMap(input=PosteriorInput(), teacher="x"),
        ResidualJumps(),
        BASE,
        6_000,
        32,
    ),
    "a residual of a wide trunk": (
        ResidualMap(teacher="x"),
        ResidualJumps(),
        replace(BASE, width=128, attention_cap=None),
        50,
        64,
    ),
    "left to right": (Autoregressive(), LeftToRight(), replace(BASE, width=64, blocks=4), 300, 32),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_above_the_truth_and_not_far(case: str, dtype: torch.dtype) -> None:
    method, sampler, size, vocab, length = CASES[case]
    network = method.network(size, vocab, length)
    model = LanguageModel(
        Experiment("x", method, sampler, Text(length=length), size), network, None, length
    )
    if dtype == torch.bfloat16:
        narrowed(network, dtype)
    model.sample(1, 2)  # tables and factors that stay
    for texts in (2, 6):
        with Footprint(*network.parameters()) as held:
            kept = held.live
            model.sample(texts, 3)
        peak = held.peak - kept
        estimate = bytes_needed(sampler, network, length, texts)
        assert peak <= estimate <= 6 * peak, (peak, estimate)


@pytest.mark.parametrize("case", CASES)
def test_as_many_texts_as_fit(case: str) -> None:
    method, sampler, size, vocab, length = CASES[case]
    with torch.device("meta"):
        network = method.network(size, vocab, length)
    for budget in (1, 10**6, 10**8, BUDGET, 10**10, 10**12):
        n = max_batch_size(sampler, network, length, budget)
        assert n == 1 or bytes_needed(sampler, network, length, n) <= budget
        assert bytes_needed(sampler, network, length, n + 1) > budget


def test_a_projected_state_leaves_room_for_many_texts() -> None:
    """LM1B's size: no vocabulary-sized state, so a batch is tens of texts and not a handful."""
    size = Size()
    with torch.device("meta"):
        networks = [m.network(size, 30_522, 128) for m in (Flow(), Flow(input=LinearInput()))]
    projected = max_batch_size(Euler(), networks[0], 128, BUDGET)
    dense = max_batch_size(Euler(), networks[1], 128, BUDGET)
    assert projected >= 20
    assert dense <= 8
