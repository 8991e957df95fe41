"""Prompts in training: which tokens are given, and that only the others learn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowlm import nn
from flowlm.core import Batch, Language, Streams
from flowlm.errors import Refusal
from flowlm.experiment import RULES
from flowlm.experiment.stored import from_json, to_json
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput, ProjectedInput
from flowlm.methods.prompts import Prompts
from flowlm.recipes import RECIPES
from flowlm.sampling import Euler

N, L = 4000, 12


def drawn(prompts: Prompts) -> Tensor:
    tokens = torch.zeros(N, L, dtype=torch.long)
    batch = prompts.drawn(Batch(tokens, torch.ones(N, L)), Streams.of(0, count=N))
    assert batch.given is not None
    assert torch.equal(batch.weight, 1.0 - batch.given.float())
    return batch.given


def test_without_prompts_nothing_is_drawn() -> None:
    batch, rng = Batch(torch.zeros(2, 3).long(), torch.ones(2, 3)), Streams.of(1, count=2)
    assert Prompts().drawn(batch, rng) is batch
    assert torch.equal(rng.uniform(1), Streams.of(1, count=2).uniform(1))


def test_scattered_prompts_have_any_number_of_tokens_few_more_often() -> None:
    number = drawn(Prompts(1.0, runs=0.0)).sum(1)
    # Of a binomial law with the chance u^2, in closed form: C(l, k) B(k + 1/2, l - k + 1) / 2.
    k = torch.arange(L + 1).double()
    log_choose = torch.lgamma(torch.tensor(L + 1.0)) - torch.lgamma(k + 1) - torch.lgamma(L - k + 1)
    log_beta = torch.lgamma(k + 0.5) + torch.lgamma(L - k + 1) - torch.lgamma(torch.tensor(L + 1.5))
    wanted = (log_choose + log_beta).exp() / 2
    assert float(wanted.sum()) == pytest.approx(1)
    shares = torch.bincount(number, minlength=L + 1) / N
    assert torch.allclose(shares.double(), wanted, atol=0.025)


def test_a_run_begins_anywhere_and_goes_on_at_the_beginning() -> None:
    given = drawn(Prompts(1.0, runs=1.0))
    ends = (given & ~given.roll(-1, 1)).sum(1)
    assert ((ends == 1) | given.all(1) | ~given.any(1)).all()
    # Every place as often: f has the mean 1/3.
    assert torch.allclose(given.double().mean(0), torch.tensor(1 / 3).double(), atol=0.03)
    first = (given & ~given.roll(1, 1)).double().sum(0)
    assert float(first.std() / first.mean()) < 0.12


def test_a_share_of_the_texts_has_one() -> None:
    half = drawn(Prompts(0.5, runs=1.0)).any(1).double().mean()
    whole = drawn(Prompts(1.0, runs=1.0)).any(1).double().mean()
    assert float(half / whole) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("name", "value"), [("share", 1.5), ("runs", -0.1), ("share", math.nan)])
def test_shares_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(Refusal, match=rf"--method.prompts.{name} must lie between 0 and 1"):
        replace(Prompts(), **{name: value})


SIZE = nn.Size(
    blocks=1, width=16, heads=2, condition=8, dropout=0.0, attention_cap=None, output_cap=None,
    positions="learned",
)  # fmt: skip
INPUTS = (ProjectedInput(), LinearInput(), PosteriorInput(), BayesInput())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clock", ["decoding", "uniform"])
@pytest.mark.parametrize("taught", [True, False])
def test_given_tokens_pay_nothing_and_every_rule_stays_finite(
    rule: str, clock: str, taught: bool, agreement: Language
) -> None:
    method = FlowMap(
        input=PosteriorInput(), clock=clock, prompts=Prompts(1.0), rule=RULES[rule](),
        teacher="runs/flow" if taught else None,
    )  # fmt: skip
    guide = Flow(input=method.input, clock=clock).network(SIZE, 4, 3) if taught else None
    model = method.network(SIZE, 4, 3, guide)
    tokens = agreement.sample(Streams.of(3, count=64))
    loss = method.loss(model, Batch(tokens, torch.ones(64, 3)), Streams.of(4, count=64), guide)
    assert loss.value.isfinite().all()
    assert 0.2 < float((loss.weight == 0).double().mean()) < 0.5
    (loss.value * loss.weight).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("chosen", INPUTS, ids=lambda i: type(i).__name__)
def test_a_network_reads_given_tokens_and_not_the_noise_that_was_there(chosen) -> None:
    """A given token's noise has no weight: with other noise the answer is the same."""
    method = Flow(input=chosen, prompts=Prompts(1.0))
    model = method.network(SIZE, 4, 3)
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    denoiser, tokens = method.denoiser(model), torch.tensor([[1, 2, 3]])
    given = torch.tensor([[True, False, True]])
    tau = torch.tensor([[1.0, 0.3, 1.0]])

    def answer(seed: int, tokens: Tensor = tokens) -> Tensor:
        space, rng = denoiser.space, Streams.of(seed, count=1)
        x = denoiser.noisy(tokens, tau, rng)
        free = denoiser.noisy(tokens, tau, Streams.of(9, count=1))
        assert space is not None
        return denoiser.at(x.where(given[..., None], free), tau).log_probs().detach()

    assert torch.allclose(answer(1), answer(2), atol=1e-5)
    assert not torch.allclose(answer(1), answer(1, torch.tensor([[0, 2, 3]])), atol=1e-3)


def test_a_map_takes_the_prompts_of_its_teacher_and_the_file_keeps_them() -> None:
    flow = Flow(input=PosteriorInput(), prompts=Prompts(0.5, runs=0.25))
    assert FlowMap().taught_by(flow, Euler()).prompts == flow.prompts
    experiment = replace(RECIPES["demo-flow"](), method=flow)
    from pathlib import Path

    assert from_json(to_json(experiment), Path("experiment.json")) == experiment
