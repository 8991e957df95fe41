"""Annotations are checked while tests run: a wrong shape or type does not get past a call."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from checking import OFTEN
from flowlm import chunked, core, nn, sampling
from flowlm.methods.flow import Flow


def test_shapes_are_checked() -> None:
    x, t = torch.zeros(2, 3, 4), torch.zeros(2, 1)
    assert core.jump(x, x, t, t).shape == (2, 3, 4)
    for wrong in (
        lambda: core.jump(x[0], x[0], t, t),
        lambda: core.jump(x, x, t[0], t),
        lambda: core.jump(x.long(), x, t, t),
        lambda: core.interpolate(x, x, torch.zeros(3, 1)),
        lambda: core.Loss(torch.zeros(2, 3), torch.zeros(2, 4)),
        lambda: core.Batch(torch.zeros(2, 3), torch.zeros(2, 3)),
        lambda: chunked.HeadPrediction(x, torch.zeros(5, 3), torch.zeros(5)),
        lambda: sampling.Frame(torch.zeros(2, 2), core.Dense(x), torch.zeros(3)),
    ):
        with pytest.raises(TypeCheckError):
            wrong()


def test_types_are_checked() -> None:
    method, rng = Flow(), core.Streams.of(0, count=2)
    network = method.network(nn.Size(blocks=1, width=4, heads=1, condition=2), 5, 3)
    batch = core.Batch(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3))
    assert method.loss(network, batch, rng).value.shape == (2, 3)
    for wrong in (
        lambda: method.loss(network, batch.tokens, rng),
        lambda: method.loss(torch.nn.Linear(1, 1), batch, rng),
        lambda: method.loss(network, batch, torch.Generator()),
        lambda: method.network(8, 5, 3),
    ):
        with pytest.raises(TypeCheckError):
            wrong()


def test_a_wrong_type_is_found_among_many_calls() -> None:
    """Not every call of a loop is checked; the first ones are, and some of the others."""
    x, t = torch.zeros(2, 3, 4), torch.zeros(2, 1)
    for _ in range(3 * OFTEN):
        core.jump(x, x, t, t)
    found = 0
    for _ in range(3 * OFTEN):
        try:
            core.jump(x.long(), x, t, t)
        except TypeCheckError:
            found += 1
    assert found == (3 if OFTEN > 1 else 3 * OFTEN)
