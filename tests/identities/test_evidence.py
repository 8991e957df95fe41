"""What a noisy row says of its token, and that it says it apart from the other rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowlm import core
from flowlm.chunked import Evidence, LazyOneHot, LazyPoint
from flowlm.core import Language, Streams, beta

B = 6


def noisy(vocab: int, tokens: Tensor, t: float) -> LazyPoint:
    space = LazyOneHot(vocab)
    noise = space.noise(Streams.of(6, count=len(tokens)), tokens.shape[1])
    return core.interpolate(noise, space.clean(tokens), torch.full((len(tokens), 1), t))


def test_beta_is_that_of_the_density() -> None:
    """log N(x; t e_w, (1 - t)^2) differs between two words by beta (x_w - x_u)."""
    t = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    x = torch.randn(5, generator=torch.Generator().manual_seed(0)).double()
    centres = t[..., None] * torch.eye(5, dtype=torch.float64)
    density = -(x - centres).square().sum(-1) / (2 * (1 - t).square())
    wanted = density - density[:, :1]
    assert torch.allclose(beta(t) * (x - x[0]), wanted, atol=1e-9)
    assert beta(torch.tensor([[0.0], [1.0]])).tolist() == [[0.0], [1e4]]


@pytest.mark.parametrize("t", [0.3, 0.6, 0.8])
def test_a_denoiser_is_the_evidence_of_a_row_and_its_context(t: float, agreement: Language) -> None:
    """D_t(x)_i = softmax(beta x_i + what the other rows say), by the exact denoiser."""
    tokens = agreement.sample(Streams.of(5, count=B))
    time, b = torch.full((B, 1), t), t / (1 - t) ** 2
    x = noisy(agreement.vocab, tokens, t).dense()
    strange = torch.randn(B, agreement.vocab, generator=torch.Generator().manual_seed(1))

    def context(x: Tensor, place: int) -> Tensor:
        logp = agreement.denoiser(x, time).logp[:, place]
        return (logp - b * x[:, place].double()).softmax(-1)

    for place in range(3):
        other = x.clone()
        other[:, place] = strange
        assert torch.allclose(context(x, place), context(other, place), rtol=0, atol=1e-5)
        assert not torch.allclose(context(x, place)[0], context(x, place)[1], atol=0.01)


def test_evidence_is_written_whole_or_in_patches() -> None:
    tokens = torch.arange(B * 4).view(B, 4) % 7
    x = noisy(7, tokens, 0.5)
    per_token = torch.arange(B * 4.0).view(B, 4)
    for b in (per_token, per_token[:, :1]):
        evidence = Evidence(x, b)
        everything = slice(0, B), slice(0, 4)
        whole = evidence.rows(everything)
        assert torch.equal(whole, b[..., None] * x.dense())
        patch = (slice(1, 3), slice(0, 2))
        assert torch.equal(evidence.rows(patch), whole[patch])
        more = evidence.with_extra_beta(torch.full((1, 1), math.pi)).rows(everything)
        assert torch.allclose(more, whole + math.pi * x.dense(), rtol=0, atol=1e-4)
