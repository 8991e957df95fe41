"""What is imported for what: the compiler for nothing, torch not before a name means something."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from flowlm.nn import Size, hollow

LOADED = """
import json, sys
import torch, flowlm
seen = set(sys.modules)
for dtype in (torch.float32, torch.bfloat16):
    flowlm.load("demo", dtype=dtype).generate(2, steps=2)
print(json.dumps(sorted({name for name in set(sys.modules) - seen})))
"""
HEAVY = (
    "torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes", "sympy", "rich", "tyro", "huggingface_hub",
    "transformers", "datasets",
)  # fmt: skip

REFUSED = """
import contextlib, io, json, sys
import flowlm
from flowlm.cli import main
from flowlm.errors import Refusal
said = {}
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        status = main(words)
    said[" ".join(words)] = [status, told.getvalue(), "torch" in sys.modules]
try:
    flowlm.load("nope")
except Refusal as refusal:
    said["load"] = [2, f"flowlm: {refusal}", "torch" in sys.modules]
print(json.dumps(said))
"""
MISTYPED = [
    ["sample", "nope"],
    ["sample", "tests"],
    ["evaluate", "nope"],
    ["evaluate", "demo", "--judge", "nope"],
    ["convert", "nope", "x"],
    ["export", "nope", "--page", "x"],
    ["export", "nope", "--onnx", "x"],
    ["publish", "nope", "me/model"],
    ["train", "--resume", "nope"],
    ["train", "text-flow", "--data.path", "nope"],
    ["train", "text-flow", "--data.path", "nope", "--dry-run"],
]


def answer(code: str, said: Any = None) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_loading_and_writing_import_no_compiler() -> None:
    imported = answer(LOADED)
    assert "flowlm.model.language_model" in imported
    wrong = [name for name in imported for h in HEAVY if name == h or name.startswith(h + ".")]
    assert wrong == []


@pytest.fixture(scope="module")
def refused() -> dict[str, list]:
    return answer(REFUSED, MISTYPED)


@pytest.mark.parametrize("words", [*map(" ".join, MISTYPED), "load"])
def test_a_mistyped_name_is_refused_before_torch_is_imported(
    words: str, refused: dict[str, list]
) -> None:
    status, sentence, torch_is_there = refused[words]
    assert status == 2
    assert sentence.startswith("flowlm: ")
    assert "nope" in sentence or "tests" in sentence
    assert not torch_is_there


METHODS = {
    "projected": Flow(),
    "linear": Flow(input=LinearInput()),
    "map, posterior": FlowMap(input=PosteriorInput()),
    "map, bayes": FlowMap(input=BayesInput()),
    "masked": Masked(),
    "autoregressive": Autoregressive(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_hollow_network_has_the_shapes_and_no_numbers(name: str, positions: Any) -> None:
    method: Method = METHODS[name]
    size = Size(blocks=2, width=16, heads=2, condition=8, positions=positions, reach=1)
    if name == "map, bayes":
        size = replace(size, output_cap=None)
    before = torch.get_rng_state()
    with hollow():
        made = method.network(size, 11, 6)
    assert torch.equal(torch.get_rng_state(), before)
    whole = dict(method.network(size, 11, 6).named_parameters())
    assert {n: p.shape for n, p in made.named_parameters()} == {
        n: p.shape for n, p in whole.items()
    }
    for key, parameter in made.named_parameters():
        assert parameter.is_meta
        assert parameter.dtype == whole[key].dtype
        assert parameter.requires_grad == whole[key].requires_grad
