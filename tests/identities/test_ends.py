"""Formulas where they are 0 / 0, and temperatures near 0: values and gradients are numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowlm import chunked, core, nn
from flowlm.core import Decoding, Dense, Streams, draw_tokens, jump, semigroup_weight, velocity
from flowlm.errors import Refusal
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.sampling import Bridge, Euler, Heun, LeftToRight, Unmask
from flowlm.sampling.masking import bound_weight, reveal_probability
from writing import film

# --- times ------------------------------------------------------------------------------------


def learnt(*values: float) -> list[Tensor]:
    return [torch.full((1, 1), value, requires_grad=True) for value in values]


ENDS = {
    "s = u = t = 1": ((1.0, 1.0, 1.0), 0.0),
    "s = u = t": ((0.3, 0.3, 0.3), 0.0),
    "u = t = 1": ((0.3, 1.0, 1.0), 1.0),
    "u = t": ((0.3, 0.6, 0.6), 1.0),
    "s = u": ((0.3, 0.3, 0.6), 0.0),
    "t = 1": ((0.3, 0.6, 1.0), 0.0),
    "as near as float32 goes": ((1 - 2**-23, 1 - 2**-24, 1.0), 0.0),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_semigroup_weight_has_a_value_everywhere(case: str) -> None:
    times, wanted = ENDS[case]
    s, u, t = learnt(*times)
    g = semigroup_weight(s, u, t)
    assert float(g.detach()) == wanted
    g.sum().backward()
    assert all(time.grad is None or time.grad.isfinite().all() for time in (s, u, t))


@given(st.lists(st.floats(0, 1 - 2**-24, width=32), min_size=3, max_size=3))
def test_inside_it_is_its_formula_bit_for_bit(times: list[float]) -> None:
    s, u, t = (torch.tensor([[time]]) for time in sorted(times))
    if s < t and float((1 - u) * (t - s)) > 0:
        wanted = ((1 - t) * (u - s) / ((1 - u) * (t - s))).clamp(0, 1)
        assert torch.equal(semigroup_weight(s, u, t), wanted)


def test_a_target_at_the_end_of_time_is_a_distribution() -> None:
    """s = u = t = 1: both jumps have no length, and one of the two answers counts."""
    clock, space = core.Uniform(), core.OneHot(3)
    rows = torch.tensor([[[0.2, 0.3, 0.5]]]).log()
    one = torch.ones(1, 1)
    times = core.Triple(one, one, one)

    def answer(x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> Dense:
        return Dense(rows)

    target = core.semigroup_target(answer, answer, space, clock, torch.zeros(1, 1, 3), times)
    paid = Dense(rows).cross_entropy(target)
    assert torch.allclose(paid, -(rows.exp() * rows).sum(-1))


def test_a_jump_of_no_length_has_a_gradient() -> None:
    s, t = learnt(1.0, 1.0)
    x, delta = torch.randn(2, 1, 1, 4, generator=torch.Generator().manual_seed(0)).unbind()
    moved = jump(x, delta, s, t)
    moved.sum().backward()
    assert torch.equal(moved.detach(), x)
    assert all(time.grad is None or time.grad.isfinite().all() for time in (s, t))


def test_nothing_moves_at_the_end_of_time() -> None:
    x, mean = torch.randn(2, 2, 1, 4, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.tensor([[1.0], [0.5]], requires_grad=True)
    found = velocity(mean, x, t)
    assert torch.equal(found[0], torch.zeros(1, 4))
    assert torch.equal(found[1], (mean - x)[1] / 0.5)
    found.sum().backward()
    assert t.grad is not None
    assert t.grad.isfinite().all()


def test_masks_at_the_end_of_time() -> None:
    masked = torch.tensor([[True, False], [False, False]])
    weight = bound_weight(masked, torch.tensor([[0.75], [1.0]]))
    assert torch.equal(weight, torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    one = torch.ones(1)
    assert float(reveal_probability(one, one)) == 1
    assert float(reveal_probability(one / 2, one * 0.75)) == 0.5


@pytest.mark.parametrize("vocab", [2, 61, 50_258])
def test_clocks_keep_both_ends_and_have_gradients(vocab: int) -> None:
    clock = Decoding(vocab)
    ends = torch.tensor([[0.0, 1.0]])
    assert torch.equal(clock.tau(ends), ends)
    assert torch.equal(clock.t(ends), ends)
    tau = torch.tensor([[0.0, 0.5, 1 - 2**-24, 1.0]], requires_grad=True)
    clock.t(tau).sum().backward()
    assert tau.grad is not None
    assert tau.grad.isfinite().all()


def test_a_single_word_has_no_decoding_clock() -> None:
    with pytest.raises(Refusal, match="2 tokens"):
        Decoding(1)


# --- temperatures -----------------------------------------------------------------------------

COLD = [1e-3, 1e-30, 1e-39, 1e-45, 1e-310, 5e-324]


@pytest.mark.parametrize("temperature", [0.0, *COLD])
@pytest.mark.parametrize("top_p", [1.0, 0.5, 1e-310])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_a_cold_draw_is_the_likeliest_word(
    temperature: float, top_p: float, kind: torch.dtype
) -> None:
    logits = torch.tensor(
        [[-3.0, 2.0, 4.5, 1.0, -torch.inf], [0.1, 0.4, 0.2, 0.3, 0.0]], dtype=kind
    )
    u = torch.tensor([[1e-9, 0.3, 0.999], [1e-9, 0.3, 1 - 2**-53]], dtype=torch.float64)
    for place in range(3):
        drawn = draw_tokens(logits, u[:, place], temperature, top_p)
        assert drawn.tolist() == [2, 1]


def test_the_smallest_nucleus_is_the_likeliest_word() -> None:
    logits = torch.tensor([[0.0, 0.1, 0.0]])
    for u in (0.0, 0.5, 0.999):
        at = torch.tensor([u], dtype=torch.float64)
        assert draw_tokens(logits, at, 1.0, 5e-324).tolist() == [1]
    last = torch.tensor([0.999], dtype=torch.float64)
    assert draw_tokens(logits, last, 1.0, math.nextafter(1, 0)).tolist() == [2]


def head(cap: float | None, side: int | None) -> chunked.HeadPrediction:
    features, weight = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
        for seed, shape in enumerate(((2, 3, 4), (11, 4)))
    )
    return chunked.HeadPrediction(features, weight, torch.linspace(-1, 1, 11), cap, side)


@pytest.mark.parametrize("temperature", COLD)
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("side", [None, 2], ids=["at once", "in tiles"])
def test_a_cold_distribution_is_the_likeliest_word(
    temperature: float, cap: float | None, side: int | None
) -> None:
    warm = head(cap, side)
    best = warm.argmax()
    eye = torch.eye(11)
    rows = Dense(warm.log_probs())
    gap = rows.logp.topk(2).values.diff(dim=-1).abs().min()
    assert gap > 0.02, "no two words are as likely"
    for cold in (warm.with_temperature(temperature), rows.with_temperature(temperature)):
        assert torch.equal(cold.argmax(), best)
        assert torch.allclose(cold.expect(eye), eye[best], atol=1e-6)
        assert (cold.nll(best).abs() < 1e-6).all()
        assert torch.allclose(warm.cross_entropy(cold.probs()), warm.nll(best), atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-39, 1e-310])
@pytest.mark.parametrize(("method", "kind"), [(Masked(), Unmask), (Autoregressive(), LeftToRight)])
def test_a_cold_sampler_writes_what_one_at_zero_writes(
    temperature: float, method: Method, kind: type[Unmask] | type[LeftToRight]
) -> None:
    size = nn.Size(1, 8, 2, 4, dropout=0.0, positions="learned")
    torch.manual_seed(0)
    network = method.network(size, 9, 4).eval()
    with torch.no_grad():
        network.head.weight.normal_()
    prompt = torch.full((3, 4), core.FREE)
    cold, frozen = (
        film(method, network, prompt, 4, Streams.of(0, count=3), kind(temperature=t))[-1]
        for t in (temperature, 0.0)
    )
    assert torch.equal(cold, frozen)
    assert len(cold.unique()) > 1


@pytest.mark.parametrize("temperature", [0.0, 1e-39, 1e-310, -1.0, math.inf, math.nan])
def test_a_flow_has_no_temperature_that_nothing_can_learn(temperature: float) -> None:
    for kind in (Euler, Heun, Bridge):
        with pytest.raises(Refusal, match=r"--sampler\.temperature"):
            kind(temperature=temperature)
    with pytest.raises(Refusal, match=r"--method\.teacher-temperature"):
        FlowMap(teacher="runs/teacher", teacher_temperature=temperature)
