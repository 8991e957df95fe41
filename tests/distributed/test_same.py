"""How many processes and passes share a step changes nothing but rounding."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from several import on

from training import METHODS, Case, Layout, Outcome, outcomes

EXACT, USUAL = torch.float64, torch.float32
CLOSE = {EXACT: 1e-10, USUAL: 1e-6}
FEW = (
    *("flow", "flow, bayes", "flow map, taught", "masked", "autoregressive"),
    *("residual, taught", "student, taught", "di4c, taught"),
)
FEWER = ("flow, bayes", "flow map, taught", "masked")
EVERY = [(n, d) for n in METHODS for d in CLOSE if d == EXACT or "taught" not in n]
"""A few gradients of a student nearly vanish, and of float32's rounding AdamW makes steps of 1e-6:
that it is the same in every layout float64 shows."""

QUICK: dict[Layout, list[Case]] = {
    Layout(2, micro_batch=3): [(name, EXACT) for name in FEW],
    Layout(4, shard=2): [(name, EXACT if "taught" in name else USUAL) for name in FEWER],
}
LAYOUTS = [
    pytest.param(layout, id=str(layout), marks=[pytest.mark.slow] * (layout.processes > 2))
    for layout in QUICK
]
THOROUGH: dict[Layout, list[Case]] = dict.fromkeys(
    (
        Layout(1, micro_batch=2),
        Layout(1, recompute=True),
        Layout(2),
        Layout(2, micro_batch=2, recompute=True),
        Layout(4),
        Layout(4, shard=1),
        Layout(4, shard=2),
        Layout(4, shard=2, recompute=True),
    ),
    EVERY,
)


@cache
def every(processes: int) -> list[dict[Layout, dict[Case, Outcome]]]:
    """The quick outcomes of every process."""
    return on(processes, outcomes, {k: v for k, v in QUICK.items() if k.processes == processes})


@cache
def alone(case: Case) -> Outcome:
    one = Layout(1)
    return outcomes({one: [case]})[one][case]


def compare(processes: list[dict[Case, Outcome]]) -> None:
    for process in processes:
        for case, many in process.items():
            one, close = alone(case), CLOSE[case[1]]
            assert float((many.figures - one.figures).abs().max()) <= close, case
            for name in one.weights:
                assert float((many.weights[name] - one.weights[name]).abs().max()) <= close, name
                assert float((many.average[name] - one.average[name]).abs().max()) <= close, name
            assert torch.equal(many.samples, one.samples), case


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_weights_and_samples_are_those_of_one_process(layout: Layout) -> None:
    compare([process[layout] for process in every(layout.processes)])


@pytest.mark.slow
@pytest.mark.parametrize("layout", THOROUGH, ids=str)
def test_of_every_method_in_every_layout(layout: Layout) -> None:
    found = on(layout.processes, outcomes, {layout: THOROUGH[layout]})
    compare([process[layout] for process in found])


def test_something_was_learnt() -> None:
    """The figures above are not those of a standstill."""
    for case in {case for cases in QUICK.values() for case in cases}:
        one = alone(case)
        moved = max(float((one.weights[n] - one.average[n]).abs().max()) for n in one.weights)
        assert moved > 1e-3, case
        assert float(one.figures[:, 0].std()) > 1e-2, case
        assert len(one.samples.unique(dim=0)) > 1, case


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_averages_and_moments_are_spread(layout: Layout) -> None:
    share = layout.shard or layout.processes
    for case in QUICK[layout]:
        held = [process[layout][case].held for process in every(layout.processes)]
        assert sum(held) == alone(case).held * layout.processes // share
        # Rows are not cut: a tensor of few rows leaves some processes with one row more.
        assert max(held) < 1.3 * alone(case).held / share
