"""Lowered precision (autocast to bfloat16) against float64, and what it must not touch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from weights import scattered

from flowlm import core, nn
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.sampling import Bridge, Euler, Jumps
from flowlm.train import Plan, State, train
from writing import frames

VOCAB, LENGTH, TEXTS = 1500, 32, 40
SIZE = nn.Size(3, 32, 2, 16, dropout=0.0, output_cap=None)


def lowered() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def networks(times: int) -> tuple[nn.DiT, nn.DiT]:
    """The same weights in float32 and in float64, all of them far from zero."""
    method = Flow() if times == 1 else FlowMap()
    single = scattered(method.network(SIZE, VOCAB, LENGTH), scale=0.15)
    return single, copy.deepcopy(single).double()


def paid(network: nn.DiT, kind: str, x: Tensor, tau: Tensor, tokens: Tensor) -> Tensor:
    if kind == "nll":
        return network(x, tau).nll(tokens)
    with torch.no_grad():
        near, far = network(x, tau, tau), network(x * 0.7, tau, tau + 0.1)
    share = tau / 2
    return network(x, tau, tau * 0 + 1).cross_entropy(
        share * near.probs() + (1 - share) * far.probs()
    )


@pytest.mark.parametrize("kind", ["nll", "semigroup"])
def test_losses_and_gradients_are_those_of_float64(kind: str) -> None:
    """In tiles, to what 8 bits of mantissa in matrix products leave: a percent, without bias."""
    single, double = networks(1 if kind == "nll" else 2)
    rng = core.Streams.of(0, count=TEXTS)
    x, tau = rng.normal(LENGTH, SIZE.width), rng.uniform(1)
    tokens = torch.arange(TEXTS * LENGTH).view(TEXTS, LENGTH) % VOCAB
    assert x[..., 0].numel() * VOCAB > 1024**2, "more than one tile"
    exact = paid(double, kind, x.double(), tau.double(), tokens)
    exact.mean().backward()
    slopes = {k: p.grad for k, p in double.named_parameters() if p.grad is not None}

    def apart(enabled: bool) -> tuple[float, float, float]:
        single.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = paid(single, kind, x, tau, tokens)
        assert value.dtype == torch.float32
        value.mean().backward()
        worst = max(
            float((p.grad - slopes[k]).norm() / slopes[k].norm().clamp(min=1e-12))
            for k, p in single.named_parameters()
            if k in slopes and slopes[k].norm() > 1e-9
        )
        error = (value - exact).detach()
        return float(error.abs().max() / exact.detach().mean()), float(error.mean().abs()), worst

    most, bias, slope = apart(enabled=True)
    assert exact.std() > 0.05, "the weights say something"
    assert most < 0.01
    assert bias < 1e-3
    assert slope < 0.05
    most, bias, slope = apart(enabled=False)
    assert max(most, bias) < 1e-5
    assert slope < 1e-3


def test_states_clocks_and_means_stay_float32() -> None:
    method = Flow()
    network, _ = networks(1)
    prompt = torch.full((TEXTS, LENGTH), core.FREE)
    with lowered(), torch.no_grad():
        films = [
            frames(m, n, prompt, 3, core.Streams.of(1, count=TEXTS), sampler)
            for m, n, sampler in (
                (method, network, Euler()),
                (method, network, Bridge()),
                (FlowMap(), networks(2)[0], Jumps(0.5)),
            )
        ]
        for frame in (frame for film in films for frame in film):
            assert frame.x.dtype == frame.tau.dtype == torch.float32
            space = method.space(network)
            assert space.mean(frame.prediction).dtype == torch.float32
            assert frame.prediction.log_probs().dtype == torch.float32


def test_noise_is_not_lowered() -> None:
    """Bit for bit the state of float32: only networks are lowered."""
    network, _ = networks(1)
    space, tokens = core.Projected(network.encoder.table), torch.ones(2, 3, dtype=torch.long)

    def state() -> Tensor:
        rng = core.Streams.of(2, count=2)
        t = core.Decoding(VOCAB).t(rng.stratified())
        return core.interpolate(space.noise(rng, 3), space.clean(tokens), t)

    plain = state()
    with lowered():
        assert torch.equal(state(), plain)


def test_weights_gradients_and_averages_stay_float32() -> None:
    network, _ = networks(1)
    plan = Plan(steps=1, batch=TEXTS, warmup=1, precision="bfloat16")
    tokens = torch.ones(TEXTS, LENGTH, dtype=torch.long)
    state, batch = State(network, plan), core.Batch(tokens, torch.ones(TEXTS, LENGTH))
    (step,) = train(state, Flow().loss, lambda step: batch, plan)
    assert step.loss.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())
    assert all(a.dtype == torch.float32 for a in state.average.weights.values())
