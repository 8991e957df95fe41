"""Forward mode through the trunk against differences of whole answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowlm import nn
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, Input, LinearInput, PosteriorInput, ProjectedInput

B, L, V = 3, 5, 23
WHOLE = slice(0, B), slice(0, L)
S = torch.tensor([[0.1], [0.5], [0.7]], dtype=torch.float64)
T = torch.tensor([[0.4], [0.9], [0.95]], dtype=torch.float64)
INPUTS = (ProjectedInput(), LinearInput(), PosteriorInput(), BayesInput())
H = 1e-4


def network(method: FlowMap, cap: float | None = None) -> nn.DiT:
    """One whose every weight counts."""
    size = nn.Size(
        blocks=2, width=16, heads=2, condition=8, dropout=0.1, attention_cap=None,
        output_cap=cap, reach=1,
    )  # fmt: skip
    made = method.network(size, V, L).double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=rng, dtype=torch.float64))
    return made


def rows() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x, dx = torch.randn(2, B, L, V, generator=rng, dtype=torch.float64).unbind()
    return x, dx


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("input", INPUTS, ids=lambda x: type(x).__name__)
def test_the_derivative_is_the_limit_of_differences(input: Input, cap: float | None) -> None:
    if cap is not None and input == BayesInput():
        pytest.skip("evidence has no cap")
    method = FlowMap(input=input)
    model = network(method, cap)
    of = method.denoiser(model)
    clock, space, (x, dx) = of.clock, of.space, rows()
    s, t = clock.t(S), clock.t(T)

    def answer(h: float, slide: bool) -> Tensor:
        point = space.from_one_hot(x + h * dx * slide)
        start, end = (S, T)
        if slide:
            start = clock.tau(s + h)
        else:
            end = T + h * clock.slope(t)
        return of.two_time(point, start, end).log_probs().double()

    nothing, here = torch.zeros_like(S), space.from_one_hot(x)
    model.train()  # nothing is dropped in a derivative
    end = model.moving(here, S, T, (nothing, clock.slope(t)))
    slid = model.moving(here, S, T, (clock.slope(s), nothing), space.from_one_hot(dx))
    model.eval()
    for moved, slide in ((end, False), (slid, True)):
        logp, slope = moved.rows(WHOLE)
        found = (answer(H, slide) - answer(-H, slide)) / (2 * H)
        assert torch.allclose(logp.double(), answer(0.0, slide), atol=1e-5)
        assert (slope - found).abs().max() <= 2e-3 * found.abs().max()
        part = slice(1, 3), slice(2, 4)
        assert torch.allclose(moved.rows(part)[1], slope[part], atol=1e-6, rtol=1e-5)


def test_a_derivative_in_rows_is_one_in_their_projection() -> None:
    """A network that reads x through x @ E cannot tell the two."""
    model = network(FlowMap(input=LinearInput()))
    other = network(FlowMap(input=ProjectedInput()))
    other.load_state_dict(model.state_dict())
    x, dx = rows()
    table, rates = model.encoder.table, (torch.ones_like(S), torch.zeros_like(S))
    one = model.moving(x, S, T, rates, dx).rows(WHOLE)[1]
    two = other.moving(x @ table, S, T, rates, dx @ table).rows(WHOLE)[1]
    assert torch.allclose(one, two, atol=1e-12)


def test_a_mean_moves_as_its_rows_do() -> None:
    model = network(FlowMap(input=LinearInput()))
    x, dx = rows()
    moved = model.moving(x, S, T, (torch.ones_like(S), torch.zeros_like(S)), dx)
    logp, slope = moved.rows(WHOLE)
    table = torch.randn(V, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(moved.expect(table), (logp.exp() * slope) @ table, atol=1e-12)
    assert torch.allclose((logp.exp() * slope).sum(-1), torch.zeros(()).double(), atol=1e-12)
