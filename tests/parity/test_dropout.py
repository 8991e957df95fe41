"""Dropout as a hash: its rate, its independence, and that a text takes its draws along."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from weights import scattered

from flowlm import core, nn
from flowlm.nn.dropout import SITES, block_keys, dropped, kept

SIZE = nn.Size(3, 16, 2, 8, dropout=0.2, attention_cap=None, output_cap=None)
TEXTS, PLACES, CHANNELS = 48, 160, 128


def standardised(share: float, key: Tensor) -> Tensor:
    """Mean zero and variance one, if they are what they should be."""
    kinds = kept(key, PLACES, CHANNELS, share).double()
    return (kinds - (1 - share)) / (share * (1 - share)) ** 0.5


KEYS = {
    "drawn": core.Streams.of(0, count=TEXTS).integers(),
    "counted": torch.arange(TEXTS, dtype=torch.int32),
    "apart in a bit or two": torch.tensor(
        [2**i for i in range(31)] + [2**30 + 2**i for i in range(TEXTS - 31)], dtype=torch.int32
    ),
}


@pytest.mark.parametrize("share", [1 / 16, 0.25, 0.5])
@pytest.mark.parametrize("name", KEYS)
def test_the_rate_is_right_everywhere(name: str, share: float) -> None:
    values = standardised(share, KEYS[name])
    assert abs(float(values.sum())) < 4.5 * values.numel() ** 0.5
    for others in ((0, 1), (0, 2), (1, 2)):  # of every channel, place and text
        means = values.mean(others) * (values.numel() / values.shape[3 - sum(others)]) ** 0.5
        assert float(means.abs().max()) < 5
        assert float(means.square().mean()) == pytest.approx(1, abs=4.5 * (2 / len(means)) ** 0.5)


@pytest.mark.parametrize("share", [1 / 16, 0.5])
@pytest.mark.parametrize("name", KEYS)
def test_no_two_channels_places_or_texts_go_together(name: str, share: float) -> None:
    values = standardised(share, KEYS[name])
    for axis in range(3):
        rows = values.movedim(axis, 0).flatten(1)
        together = rows @ rows.T / rows.shape[1] ** 0.5
        pairs = together[torch.ones_like(together).triu(1) > 0]
        assert float(pairs.abs().max()) < 7
        assert float(pairs.square().mean()) == pytest.approx(1, abs=0.1)


def test_blocks_and_sites_drop_other_numbers() -> None:
    seeds = core.Streams.of(1, count=4).integers()
    keys = torch.cat([block_keys(seeds, block) for block in range(6)], 1)
    assert keys.shape == (4, 6 * SITES)
    masks = kept(keys.flatten(), PLACES, CHANNELS, 0.5).flatten(1).double() * 2 - 1
    together = masks @ masks.T / masks.shape[1] ** 0.5
    assert float(together.fill_diagonal_(0).abs().max()) < 5


@pytest.mark.parametrize("p", [0.1, 0.3333, 0.9, 1 - 1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_mean_and_the_type_stay(p: float, dtype: torch.dtype) -> None:
    x = torch.full((64, 65, 33), 3.0, dtype=dtype)
    y = dropped(x, core.Streams.of(2, count=64).integers(), p)
    assert y.dtype == dtype
    alive = float((y != 0).double().mean())
    noise = (p / (1 - p) / y.numel()) ** 0.5
    assert alive == pytest.approx(1 - p, abs=1e-5 + 5 * (p * (1 - p) / y.numel()) ** 0.5)
    if p < 1 - 1e-6:
        assert float(y.double().mean()) == pytest.approx(
            3, rel=5 * noise + 2**-8 * (dtype.itemsize == 2)
        )


def test_gradients_pass_where_numbers_do() -> None:
    x = torch.randn(2, 5, 7, requires_grad=True)
    y = dropped(x, torch.tensor([3, 4], dtype=torch.int32), 0.5)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0) * 2.0)


def answers(network: nn.DiT, tokens: Tensor, seed: int = 0, first: int = 0) -> Tensor:
    rng = core.Streams.of(seed, count=len(tokens), first=first)
    return network(tokens, rng=rng).log_probs()


@pytest.fixture
def network() -> nn.DiT:
    return scattered(nn.DiT(SIZE, nn.Lookup(11, 16), 11, 12, times=0)).train()


def test_a_text_takes_its_draws_into_any_batch(network: nn.DiT) -> None:
    tokens = torch.randint(11, (6, 12))
    whole = answers(network, tokens)
    for rows in (slice(0, 1), slice(2, 6), slice(3, 4)):
        part = answers(network, tokens[rows], first=rows.start)
        assert torch.allclose(part, whole[rows], atol=1e-5)
    assert not torch.allclose(answers(network, tokens, seed=1), whole, atol=1e-2)


def test_every_call_draws_anew_and_only_in_training(network: nn.DiT) -> None:
    tokens = torch.randint(11, (2, 12))
    rng = core.Streams.of(0, count=2)
    one, two = network(tokens, rng=rng).log_probs(), network(tokens, rng=rng).log_probs()
    assert not torch.allclose(one, two, atol=1e-2)
    network.eval()
    state = [g.get_state() for g in rng.generators]
    assert torch.equal(network(tokens, rng=rng).log_probs(), network(tokens).log_probs())
    assert all(torch.equal(g.get_state(), s) for g, s in zip(rng.generators, state))


def test_nothing_is_drawn_without_dropout() -> None:
    network = nn.DiT(replace(SIZE, dropout=0.0), nn.Lookup(11, 16), 11, 12, times=0).train()
    rng = core.Streams.of(0, count=2)
    state = [g.get_state() for g in rng.generators]
    network(torch.randint(11, (2, 12)), rng=rng)
    assert all(torch.equal(g.get_state(), s) for g, s in zip(rng.generators, state))


def test_nothing_is_dropped_without_streams(network: nn.DiT) -> None:
    tokens = torch.randint(11, (2, 12))
    without = network(tokens).log_probs()
    assert torch.equal(without, network.eval()(tokens).log_probs())
    network.train()
    assert not torch.allclose(without, network(tokens, rng=core.Streams.of(0, count=2)).log_probs())


def test_recomputing_drops_the_same_numbers(network: nn.DiT) -> None:
    tokens = torch.randint(11, (3, 12))
    found = []
    for recompute in (False, True):
        network.recompute = recompute
        network.zero_grad()
        answers(network, tokens).square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(one, two) for one, two in zip(*found))
