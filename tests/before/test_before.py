"""Models of before: tiny runs and the shipped model write the tokens that they have always written.

The shipped model's are those of commit 31f27c4, which shipped it, without new noise between steps.

The runs were trained, and their tokens written, by the code of commit 6f0c84c: 150 steps each on a
kilobyte of letters.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import flowlm
from flowlm.sampling import Jumps

HERE = Path(__file__).parent
TOKENS = json.loads((HERE / "tokens.json").read_text())


@pytest.mark.parametrize("name", TOKENS)
def test_a_model_of_before_writes_the_same_tokens(name: str) -> None:
    written = dict(TOKENS[name])
    model = flowlm.load(name if name == "demo" else HERE / name)
    prompted = written.pop("prompt", None)
    way = Jumps(gamma=0.0) if name == "demo" else None
    for steps, tokens in written.items():
        assert model.sample(3, int(steps), seed=7, sampler=way).tolist() == tokens
    if prompted is not None:
        prompt = torch.full((3, 12), -1)
        # Whoever writes from left to right reads what stands before, and is given nothing else.
        first, second = (0, 1) if name == "autoregressive" else (2, 5)
        prompt[:, first], prompt[1, second] = 3, 4
        assert model.sample(3, 4, seed=8, prompt=prompt, sampler=way).tolist() == prompted


def test_they_differ() -> None:
    """What is compared is not the same for every model and every number of steps."""
    assert len({json.dumps(of) for of in TOKENS.values()}) == len(TOKENS)
    for name, of in TOKENS.items():
        assert name == "autoregressive" or len({json.dumps(rows) for rows in of.values()}) > 1
