"""Budgets: the steps of every stage, so that methods cost the same in all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow_map import FlowMap
from flowlm.recipes import CHAINS, demo, text
from flowlm.run.budget import operations, per_step, spread
from flowlm.run.forecast import forecast

WHOLE = operations((demo.masked(),))
"""What the demo's baselines cost each."""


class Further(FlowMap):
    """A map that a map can teach."""

    teachers = (*FlowMap.teachers, FlowMap)

    def taught_by(self, theirs, sampler):
        return self


def rounds() -> tuple[Experiment, ...]:
    """Three rounds of distillation after a flow, the later ones with smaller steps."""
    flow, flow_map = demo.map_chain()
    more = replace(flow_map, method=Further(), train=replace(flow_map.train, batch=16))
    return flow, flow_map, more, more


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("chain", [demo.map_chain, rounds])
def test_a_chain_costs_its_budget(chain, share: float) -> None:
    stages = spread(chain(), WHOLE, share)
    costs = per_step(stages)
    assert abs(operations(stages) - WHOLE) <= costs[-1]
    base, *distilled = (s.train.steps * c for s, c in zip(stages, costs))
    assert base == pytest.approx((1 - share) * WHOLE, rel=0.001)
    for paid in distilled:
        assert paid == pytest.approx(share * WHOLE / len(distilled), abs=max(costs))
    # Nothing but the steps is changed.
    again = [replace(s, train=replace(s.train, steps=1)) for s in stages]
    assert again == [replace(s, train=replace(s.train, steps=1)) for s in chain()]


def test_a_base_alone_takes_the_whole_budget() -> None:
    (masked,) = spread((demo.masked(),), WHOLE)
    assert masked == demo.masked()
    (flow,) = spread((demo.flow(),), WHOLE)
    assert flow.train.steps > 2 * demo.flow().train.steps
    assert operations((flow,)) == pytest.approx(WHOLE, rel=0.001)


def test_a_step_of_a_student_counts_its_teacher() -> None:
    flow, taught = per_step(demo.map_chain())
    (alone,) = per_step((demo.flow_map(),))
    # Without a teacher the half of the batch on the diagonal learns from the data, and the rule
    # takes the student's own diagonal. So the teacher's is a forward pass of that half: a training
    # step costs three of all.
    forward = flow / 3 / demo.flow().train.batch
    assert taught - alone == pytest.approx(forward * demo.flow_map().train.batch / 2, rel=0.01)


def test_the_count_is_that_of_a_dry_run() -> None:
    for stage in (demo.masked(), replace(text.autoregressive(), data=Text(vocab=500))):
        assert operations((stage,)) == forecast(stage, "h200", 1).operations


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(Refusal, match="share"):
        spread(CHAINS["demo-map"](), WHOLE, share)


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(Refusal, match="demo-flow-map, whose step"):
        spread(demo.map_chain(), WHOLE, 1e-6)
    with pytest.raises(Refusal, match=r"0\.5 .* 1 stages"):
        spread((demo.masked(),), WHOLE, 0.5)


def test_a_chain_that_cannot_be_taught_is_refused() -> None:
    wrong = replace(demo.masked(), method=Autoregressive(), sampler=demo.autoregressive().sampler)
    with pytest.raises(Refusal, match="demo-flow-map of a chain learns from a Flow"):
        per_step((wrong, demo.flow_map()))
