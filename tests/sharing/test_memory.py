"""The budget against what sampling really allocates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowlm.experiment import AnyMethod, Experiment, Text
from flowlm.loading import narrowed
from flowlm.memory import BUDGET, bytes_needed, texts_at_once
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.masked import Masked
from flowlm.model import LanguageModel
from flowlm.nn.size import Size


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self.most = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        before = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if _tensor(t)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if _tensor(tensor) and tensor.untyped_storage().data_ptr() not in before:
                storage = tensor.untyped_storage()
                self.alive[id(storage)] = storage
        sizes = {s.data_ptr(): s.nbytes() for s in self.alive.values()}
        self.most = max(self.most, sum(sizes.values()))
        return result


def _tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


BASE = Size(blocks=2, width=32, heads=2, condition=8, dropout=0.0)
CASES: dict[str, tuple[AnyMethod, Size, int, int]] = {
    # method, size, vocabulary, length: each is dominated by something else
    "scores of a capped trunk": (Flow(), replace(BASE, heads=8), 50, 192),
    "a trunk without a cap": (Flow(), replace(BASE, width=128, attention_cap=None), 50, 64),
    "the head of a large vocabulary": (Flow(), BASE, 20_000, 16),
    "a dense state": (Flow(encoder="linear"), BASE, 6_000, 32),
    "a posterior": (FlowMap(encoder="posterior"), BASE, 6_000, 32),
    "jumps with fresh noise": (FlowMap(gamma=0.5), replace(BASE, width=128), 300, 32),
    "two evaluations a step": (Flow(solver="heun"), replace(BASE, width=128), 300, 32),
    "masks": (Masked(), replace(BASE, attention_cap=None), 6_000, 32),
    "a nucleus": (Masked(top_p=0.9), BASE, 6_000, 32),
    "left to right": (Autoregressive(), replace(BASE, width=64, blocks=4), 300, 32),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_above_the_truth_and_not_far(case: str, dtype: torch.dtype) -> None:
    method, size, vocab, length = CASES[case]
    network = method.network(size, vocab, length)
    model = LanguageModel(Experiment("x", method, Text(length=length), size), network, None, length)
    if dtype == torch.bfloat16:
        narrowed(network, dtype)
    model.sample(1, 2)  # tables and factors that stay
    for texts in (2, 6):
        with Peak() as peak:
            list(model.film(texts, 3))
        estimate = bytes_needed(method, network, length, texts)
        assert peak.most <= estimate <= 6 * peak.most, (peak.most, estimate)


@pytest.mark.parametrize("case", CASES)
def test_as_many_texts_as_fit(case: str) -> None:
    method, size, vocab, length = CASES[case]
    with torch.device("meta"):
        network = method.network(size, vocab, length)
    for budget in (1, 10**6, 10**8, BUDGET, 10**10, 10**12):
        n = texts_at_once(method, network, length, budget)
        assert n == 1 or bytes_needed(method, network, length, n) <= budget
        assert bytes_needed(method, network, length, n + 1) > budget


def test_a_projected_state_leaves_room_for_many_texts() -> None:
    """LM1B's size: no vocabulary-sized state, so a batch is tens of texts and not a handful."""
    size = Size()
    with torch.device("meta"):
        networks = [m.network(size, 30_522, 128) for m in (Flow(), Flow(encoder="linear"))]
    projected = texts_at_once(Flow(), networks[0], 128, BUDGET)
    dense = texts_at_once(Flow(encoder="linear"), networks[1], 128, BUDGET)
    assert projected >= 20
    assert dense <= 8
