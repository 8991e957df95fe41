"""Memory, counted byte by byte: nothing grows with batch x length x vocabulary."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from flowlm import core, nn
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.dcd import DCD
from flowlm.methods.di4c import Di4C
from flowlm.methods.duo import Curriculum
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.gumbel_map import GumbelMap
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.methods.residual_map import ResidualMap
from flowlm.methods.residual_student import ResidualStudent
from flowlm.methods.sdtt import SDTT
from flowlm.methods.sedd import SEDD, SEDDUniform
from flowlm.methods.uniform_state import UniformState
from flowlm.run.footprint import Footprint
from flowlm.train import Plan, State, train
from writing import usual

MiB = 2**20
TILE = 4 * MiB
METHODS: dict[str, Method] = {
    "flow": Flow(),
    "map": FlowMap(teacher="runs/flow"),
    "map of itself": FlowMap(),
    "masked": Masked(),
    "sdtt": SDTT(teacher="runs/masked"),
    "uniform": UniformState(),
    "curriculum": Curriculum(),
    "dcd": DCD(teacher="runs/uniform"),
    "sedd": SEDD(),
    "sedd, uniform": SEDDUniform(),
    "di4c": Di4C(teacher="runs/masked", latents=2),
    "autoregressive": Autoregressive(),
    "gumbel": GumbelMap(teacher="runs/autoregressive"),
    "residual": ResidualMap(teacher="runs/flow"),
    "student": ResidualStudent(teacher="runs/residual"),
}
SMALL = nn.Size(1, 8, 2, 4, dropout=0.0, attention_cap=None)


def fake_tensors(vocab: int) -> FakeTensorMode:
    """Tensors that are shapes alone; the clock's table is made before, with numbers."""
    core.Decoding(vocab).t(torch.zeros(1, 1))
    return FakeTensorMode(allow_non_fake_inputs=True)


def networks(method: Method, vocab: int, length: int) -> tuple[nn.DiT, nn.DiT | None]:
    core.Decoding(vocab).t(torch.zeros(1, 1))  # its table is made once, and is not a step's
    teacher = None
    if (like := method.like_teacher()) is not None:
        teacher = like.network(SMALL, vocab, length).requires_grad_(False).eval()
    return method.network(SMALL, vocab, length, teacher), teacher


def trained(method: Method, vocab: int, batch: int, length: int, recompute: bool) -> Footprint:
    """Two whole steps: the first makes the optimizer's state."""
    network, teacher = networks(method, vocab, length)
    network.recompute = recompute
    plan = Plan(steps=2, batch=batch, warmup=1)
    state = State(network, plan)
    texts = core.Batch(torch.zeros(batch, length, dtype=torch.long), torch.ones(batch, length))
    with Footprint(*network.parameters(), *state.average.weights.values()) as seen:
        for _ in train(state, lambda *a: method.loss(*a, teacher), lambda step: texts, plan):
            pass
    return seen


def sampled(method: Method, vocab: int, batch: int, length: int) -> Footprint:
    network, _ = networks(method, vocab, length)
    network.requires_grad_(False)
    rng = core.Streams.of(0, count=batch)
    prompt = torch.full((batch, length), core.FREE)
    with torch.no_grad(), Footprint(*network.parameters()) as seen:
        for frame in usual(method).frames(method.denoiser(network), prompt, 2, rng):
            frame.tokens()
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_the_largest_tensor_of_a_training_step_is_the_tile(name: str) -> None:
    """At 4,096 tokens and 6,000 words, where all logits would be 94 MiB.

    What uniform diffusion and scores learn from, rows of noise and the squared errors of version 1
    need whole rows, a strip of four tiles at a time; twice that where tokens are drawn, in float64.
    """
    with fake_tensors(6000):
        largest = trained(METHODS[name], 6000, 64, 64, recompute=False).largest
    by_rows = name in ("uniform", "curriculum", "dcd", "gumbel", "residual", "student")
    by_rows |= name.startswith("sedd")
    assert largest == TILE or (by_rows and largest <= 4 * TILE) or name in ("sdtt", "di4c")
    assert largest <= 8 * TILE


@pytest.mark.parametrize("name", ["flow", "map", "masked", "gumbel", "residual", "student"])
def test_the_largest_tensor_of_a_sampler_is_the_tile(name: str) -> None:
    """Masked diffusion draws from whole rows, four tiles at a time, in float64; noise is rows."""
    most = {"masked": 8 * TILE, "gumbel": 4 * TILE, "residual": 4 * TILE}.get(name, TILE)
    assert sampled(METHODS[name], 6000, 64, 64).largest <= most < 4 * 64 * 64 * 6000


QUICK = [("map", False, 4096), ("masked", False, 4096)]
THOROUGH = [(name, again, n) for name in METHODS for again in (False, True) for n in (4096, 8192)]
# With few words its peak lies where noise is read, and with more where gradients are made.
THOROUGH = [case for case in THOROUGH if case[0] != "gumbel" or case[2] == 8192]


@pytest.mark.parametrize(
    ("name", "recompute", "words"),
    [
        *QUICK,
        *(pytest.param(*case, marks=pytest.mark.slow) for case in THOROUGH if case not in QUICK),
    ],
)
def test_training_memory_has_no_term_in_tokens_times_words(
    name: str, recompute: bool, words: int
) -> None:
    """2,048 tokens more cost the same beside so many words and beside twice as many.

    To a hundredth of one tensor of these logits: the peak may lie elsewhere in the step.
    """

    def peak(vocab: int, batch: int) -> int:
        with fake_tensors(vocab):
            return trained(METHODS[name], vocab, batch, 64, recompute).peak

    few, many = [peak(vocab, 64) - peak(vocab, 32) for vocab in (words, 2 * words)]
    assert many - few < 4 * 2048 * words / 100


@pytest.mark.parametrize("name", ["flow", "map", "gumbel", "residual"])
def test_sampling_memory_has_no_term_in_tokens_times_words(name: str) -> None:
    def peak(vocab: int, batch: int) -> int:
        return sampled(METHODS[name], vocab, batch, 64).peak

    few, many = [peak(vocab, 96) - peak(vocab, 64) for vocab in (2048, 4096)]
    assert few == many


@pytest.mark.parametrize("name", METHODS)
def test_accounting_without_computing_is_exact(name: str) -> None:
    """A step on tensors that have no numbers takes, byte for byte, what the real step takes."""
    with fake_tensors(3000):
        fake = trained(METHODS[name], 3000, 16, 64, recompute=False)
    real = trained(METHODS[name], 3000, 16, 64, recompute=False)
    assert (fake.peak, fake.largest, fake.live) == (real.peak, real.largest, real.live)


def test_storages_are_counted_once_and_released() -> None:
    kept = torch.empty(1000)
    with Footprint(kept) as seen:
        assert seen.live == 4000
        a = torch.zeros(500)
        b = a.view(5, 100)[1:]
        c = (a + 1).add_(1)
        assert (seen.live, seen.peak, seen.largest) == (8000, 8000, 2000)
        del a, c
        assert seen.live == 6000, "a view keeps its storage"
        del b
        assert (seen.live, seen.peak) == (4000, 8000)
        grown = torch.ones(10, requires_grad=True).expand(300, 10).exp()
        grown.sum().backward()
    assert seen.largest == 12_000, "the backward pass is seen too"


def test_recomputing_keeps_one_tensor_a_block() -> None:
    """The gradients are the same bit for bit, and the activations are those of one block."""
    size = nn.Size(6, 16, 2, 8, dropout=0.3, attention_cap=None)
    tokens = torch.arange(8 * 64).view(8, 64) % 50
    batch, gradients, peaks = core.Batch(tokens, torch.ones(8, 64)), [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = Flow().network(size, 50, 64)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        network.recompute = recompute
        torch.manual_seed(1)
        with Footprint(*network.parameters()) as seen:
            Flow().loss(network, batch, core.Streams.of(0, count=8)).value.mean().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters()})
        peaks.append(seen.peak)
    assert all(torch.equal(g, gradients[1][k]) for k, g in gradients[0].items())
    assert peaks[1] < peaks[0] / 2
