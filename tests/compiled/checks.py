"""Compiled parts answer like plain ones, and one compilation serves every size.

Run by test_compiled.py in a process of its own.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from weights import scattered

from flowlm import core, nn
from flowlm.errors import Refusal
from flowlm.methods.autoregressive import Autoregressive
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput
from flowlm.methods.masked import Masked
from flowlm.methods.method import Method
from writing import INPUTS, film

compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
CASES: dict[str, Method] = {
    "flow": Flow(),
    "map": FlowMap(teacher="runs/flow"),
    "flow, bayes": Flow(input=BayesInput()),
    "masked": Masked(),
    "autoregressive": Autoregressive(),
}
VOCAB, LENGTH = 2100, 48
SIZE = nn.Size(2, 16, 2, 8, dropout=0.0, attention_cap=None, output_cap=9.0, reach=1)
UNCAPPED = replace(SIZE, output_cap=None)
"""Of the bayes encoder, whose evidence has no bound."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def gradients(
    method: Method, network: nn.DiT, teacher: nn.DiT | None, count: int, length: int
) -> dict[str, Tensor]:
    tokens = torch.arange(count * length).view(count, length) * 7 % VOCAB
    batch = core.Batch(tokens, torch.ones(count, length))
    paid = method.loss(network, batch, core.Streams.of(1, count=count), teacher)
    network.zero_grad()
    (paid.value * paid.weight).mean().backward()
    found = {k: p.grad.clone() for k, p in network.named_parameters() if p.grad is not None}
    return {"value": paid.value.detach(), **found}


@compiler
@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_plain_parts_and_no_size_is_compiled_anew(name: str) -> None:
    """Whole tiles and remainders, in tokens (1,024 at a time) and in words (2,100).

    Every trunk sees more than 4,096 tokens (a flow map has two half batches): there, and only
    there, code for the CPU changes how it adds up.
    """
    method, teacher = CASES[name], None
    size = UNCAPPED if "bayes" in name else SIZE
    if isinstance(method, FlowMap):
        teacher = scattered(Flow().network(size, VOCAB, LENGTH)).requires_grad_(False)
    plain = scattered(method.network(size, VOCAB, LENGTH, teacher), seed=3)
    made = copy.deepcopy(plain)
    nn.compile_parts(made)
    assert made.state_dict().keys() == plain.state_dict().keys()

    def compare(count: int, length: int) -> None:
        wanted = gradients(method, plain, teacher, count, length)
        got = gradients(method, made, teacher, count, length)
        assert wanted.keys() == got.keys()
        for key, value in wanted.items():
            assert torch.allclose(got[key], value, rtol=1e-4, atol=1e-5), key

    compare(192, 48)
    torch.compiler.set_stance("fail_on_recompile")
    try:
        for count, length in ((180, 48), (256, 40), (400, 46)):
            compare(count, length)
    finally:
        torch.compiler.set_stance("default")


@compiler
def test_a_copy_of_a_compiled_network_has_its_own_weights() -> None:
    """Validation copies the network and loads the averages into it."""
    plain = scattered(Flow().network(SIZE, VOCAB, LENGTH))
    nn.compile_parts(plain)
    other = copy.deepcopy(plain)
    other.load_state_dict({k: v + 0.1 for k, v in plain.state_dict().items()})
    x, tau = torch.randn(2, LENGTH, SIZE.width), torch.full((2, 1), 0.3)
    with torch.no_grad():
        one, two = plain(x, tau).log_probs(), other(x, tau).log_probs()
        apart = scattered(Flow().network(SIZE, VOCAB, LENGTH))
        apart.load_state_dict(other.state_dict())
        assert torch.allclose(two, apart(x, tau).log_probs(), atol=1e-5)
    assert (one - two).abs().max() > 0.01


@compiler
@pytest.mark.parametrize("encoder", ["projected", "bayes"])
def test_a_network_compiled_whole_writes_the_same_texts(encoder: str) -> None:
    method, size = FlowMap(input=INPUTS[encoder]), UNCAPPED if encoder == "bayes" else SIZE
    plain = scattered(method.network(size, 90, LENGTH), scale=0.4).requires_grad_(False)
    whole = copy.deepcopy(plain)
    nn.compile_whole(whole)
    prompt = torch.full((3, LENGTH), core.FREE)
    with torch.no_grad():
        for seed in (5, 6, 7):
            texts = [
                film(method, network, prompt, 3, core.Streams.of(seed, count=3))
                for network in (plain, whole)
            ]
            for one, two in zip(*texts, strict=True):
                assert torch.equal(one, two)
            assert len(texts[0][-1].unique()) > 5, "the weights say something"
            # Neither other noise nor what was predicted before is compiled anew.
            torch.compiler.set_stance("fail_on_recompile")


def test_without_a_compiler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for compiled in (nn.compile_parts, nn.compile_whole):
        with pytest.raises(Refusal, match=r"C\+\+ compiler"):
            compiled(Flow().network(SIZE, VOCAB, LENGTH))
