"""`flowlm export --onnx`: a graph that answers like torch, and sentences for what has none."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_node import made
from torch import Tensor

import flowlm
from flowlm.chunked.space import LazyOneHot
from flowlm.cli import main
from flowlm.core import Decoding, Streams
from flowlm.core.clock import INTERVALS
from flowlm.errors import Refusal
from flowlm.experiment import INPUTS, Text
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput, ProjectedInput
from flowlm.methods.masked import Masked
from flowlm.model.graph import Graph, TimeTable
from flowlm.model.language_model import LanguageModel
from flowlm.model.onnx import LARGEST, PACKAGES, facts_of, onnx_of, require_graph
from flowlm.nn import Size, hollow
from flowlm.sampling import Jumps

DOCS = Path(__file__).parents[2] / "docs" / "onnx.md"
NEAR = 1e-4
"""Nats between log-probabilities of the graph and of torch."""
LENGTH, LETTERS = 7, 12
SIZE = Size(blocks=1, width=16, heads=2, condition=8, dropout=0.0)
CASES: dict[str, tuple[Any, Size]] = {
    "text-flow": (Flow(input=BayesInput()), replace(SIZE, output_cap=None, reach=2)),
    "text-flow-map": (FlowMap(input=BayesInput()), replace(SIZE, output_cap=None, reach=2)),
    "uniform clock": (
        FlowMap(input=PosteriorInput(), clock="uniform"), replace(SIZE, positions="learned")
    ),
    "linear": (Flow(input=LinearInput()), replace(SIZE, attention_cap=None)),
    "projected": (FlowMap(input=ProjectedInput()), SIZE),
}  # fmt: skip
INSTALLED = all(find_spec(name) for name in (*PACKAGES, "onnxruntime"))
exporting = pytest.mark.skipif(not INSTALLED, reason="flowlm[onnx] and onnxruntime are missing")


def model_of(name: str) -> LanguageModel:
    if name == "demo":
        return flowlm.load("demo", "cpu")
    method, size = CASES[name]
    return made(method, size, LENGTH, LETTERS, Jumps(gamma=0.0))


@dataclass(frozen=True)
class Question:
    """A point of one-hot space and two clock times."""

    x: Tensor
    now: Tensor
    then: Tensor

    @torch.no_grad()
    def by_torch(self, model: LanguageModel) -> Tensor:
        denoiser = model.experiment.method.denoiser(model.network)
        point = denoiser.space.from_one_hot(self.x)
        return denoiser.two_time(point, self.now, self.then).log_probs()

    def feed(self, model: LanguageModel, inputs: list[str]) -> dict[str, np.ndarray]:
        x, method = self.x, model.experiment.method
        if "ProjectedInput" in repr(method):
            x = method.denoiser(model.network).space.from_one_hot(x)
        told = {"x": x, "now": self.now, "then": self.then}
        return {name: told[name].numpy() for name in inputs}


def questions(model: LanguageModel) -> list[Question]:
    """For one text and for five: in one step, on the way, and with two tokens given."""
    found, (length, vocab) = [], (model.length, model.network.vocab)
    for count in (1, 5):
        still = torch.zeros(count, length)
        noise = torch.randn(count, length, vocab)
        found.append(Question(noise, still, still + 1))
        tokens = torch.randint(vocab, (count, length))
        rows, now = torch.eye(vocab)[tokens], torch.rand(count, 1)
        clock = model.experiment.method.time(vocab)
        assert clock is not None
        t = clock.t(now)[..., None]
        x, then = (1 - t) * noise + t * rows, now + (1 - now) * torch.rand(count, 1)
        found.append(Question(x, now + still, then + still))
        given = torch.zeros(count, length, dtype=torch.bool)
        given[:, [0, 3]] = True
        found.append(Question(
            torch.where(given[..., None], rows, x), (now + still).masked_fill(given, 1.0),
            (then + still).masked_fill(given, 1.0),
        ))  # fmt: skip
    return found


@exporting
@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", *CASES])
def test_the_graph_answers_and_the_program_of_the_docs_writes_like_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    model = model_of(name)
    monkeypatch.chdir(tmp_path)
    Path("demo.onnx").write_bytes(onnx_of(model))
    assert capsys.readouterr() == ("", "")
    session = onnxruntime.InferenceSession("demo.onnx")
    inputs = [given.name for given in session.get_inputs()]
    assert inputs == ["x", "now", "then"][: 1 + model.experiment.method.times]
    assert session.get_modelmeta().custom_metadata_map == facts_of(model)
    feed: dict[str, np.ndarray] = {}
    for asked in questions(model):
        feed, ours = asked.feed(model, inputs), asked.by_torch(model)
        theirs = torch.from_numpy(session.run(["log_probs"], feed)[0])
        free = asked.now < 1
        assert float((ours - theirs)[free].abs().max()) < NEAR
        # Of given tokens float32 tells no less than a thousandth of a nat apart: they count 1e4.
        assert torch.allclose(ours.exp(), theirs.exp(), atol=NEAR)
    if name == "projected":
        table: Any = session.run(["table"], feed)[0]
        assert np.array_equal(table, model.weights["encoder.table"].numpy())
        return
    program: dict[str, Any] = {}
    exec(program_of_the_docs(), program)
    vocab = model.network.vocab
    for steps in (1, 4):
        texts = model.sample(3, steps, seed=5, sampler=Jumps(gamma=0.0))
        noise = LazyOneHot(vocab).noise(Streams.of(5, count=3), model.length).dense()
        if name == "linear":
            noise = Streams.of(5, count=3).normal(model.length, vocab)
        assert program["write"](noise.numpy(), steps).tolist() == texts.tolist()
    if name == "demo":
        assert set(capsys.readouterr().out.split()) <= set(
            model.decode(torch.arange(vocab)[:, None])
        )


def program_of_the_docs() -> str:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 25
    return program


@exporting
@pytest.mark.slow
def test_the_file_tells_no_path() -> None:
    method = FlowMap(input=LinearInput(), teacher="/home/me/secret")
    content = onnx_of(with_places(made(method, SIZE, LENGTH, LETTERS)))
    for path in ("/home", str(Path(flowlm.__file__).parent), sys.prefix, ".py"):
        assert path.encode() not in content


def test_facts_tell_no_path_and_hold_the_clock_and_the_tokenizer() -> None:
    method = FlowMap(input=PosteriorInput(), teacher="/home/me/secret")
    model = with_places(made(method, SIZE, LENGTH, LETTERS))
    facts = facts_of(model)
    assert "/home" not in "".join(facts.values())
    assert json.loads(facts["experiment"])["method"]["teacher"] == "secret"
    assert model.tokenizer is not None
    assert facts["tokenizer"] == model.tokenizer.to_json()
    taus = np.frombuffer(base64.b64decode(facts["clock"]), "<f4")
    clock = method.time(model.network.vocab)
    times = torch.rand(1, 1000)
    read = np.interp(times[0].numpy(), taus, np.linspace(0, 1, len(taus)))
    assert np.allclose(clock.t(times)[0].numpy(), read, atol=1e-6)
    assert "tokenizer" not in facts_of(LanguageModel(model.experiment, model.network, None, LENGTH))


def with_places(model: LanguageModel) -> LanguageModel:
    data = Text(length=LENGTH, path="/home/me/diary.txt")
    experiment = replace(model.experiment, data=data)
    return LanguageModel(experiment, model.network, model.tokenizer, LENGTH)


@pytest.mark.parametrize("name", CASES)
def test_what_is_traced_is_the_model(name: str) -> None:
    model = model_of(name)
    graph = Graph(model.experiment, model.network, model.length)
    for asked in questions(model):
        inputs = ["x", "now", "then"][: 1 + model.experiment.method.times]
        feed = {key: torch.from_numpy(value) for key, value in asked.feed(model, inputs).items()}
        with torch.no_grad():
            answer = graph(*feed.values())[0]
        assert torch.allclose(
            answer[asked.now < 1], asked.by_torch(model)[asked.now < 1], atol=NEAR
        )
    assert graph.network.head.weight.data_ptr() == model.network.head.weight.data_ptr()


def test_a_model_in_bfloat16_has_a_graph_in_float32_and_stays_as_it_is() -> None:
    model = model_of("text-flow").to(dtype=torch.bfloat16)
    graph = Graph(model.experiment, model.network, model.length)
    assert {parameter.dtype for parameter in graph.parameters()} == {torch.float32}
    assert model.network.head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("vocab", [2, 61, 50_258])
def test_comparisons_find_the_interval_of_a_search(vocab: int) -> None:
    clock = Decoding(vocab)
    ts = torch.linspace(0, 1, INTERVALS + 1)
    knots = clock.tau(ts[None])
    for tau in (torch.rand(5, 1000), knots, torch.nextafter(knots, torch.zeros(()))):
        assert torch.equal(TimeTable(clock)(tau), clock.t(tau))


def too_large() -> LanguageModel:
    small = model_of("linear")
    size = replace(SIZE, width=4096, blocks=3)
    with hollow():
        network = small.experiment.method.network(size, small.network.vocab, LENGTH)
    assert 4 * sum(parameter.numel() for parameter in network.parameters()) > LARGEST
    return LanguageModel(small.experiment, network, small.tokenizer, LENGTH)


@dataclass(frozen=True)
class OwnInput(LinearInput):
    """An input of an extension."""


def of_another_input() -> LanguageModel:
    return made(Flow(input=OwnInput()), SIZE, LENGTH, LETTERS)


REFUSED: dict[str, tuple[Callable[[], LanguageModel], str]] = {
    "method": (
        lambda: made(Masked(), SIZE, LENGTH, LETTERS), "flows and flow maps, .* is a Masked"
    ),
    "input": (of_another_input, "posterior, bayes, linear, projected, .* has OwnInput"),
    "size": (too_large, "holds less than 2 GiB, .* take 2.3"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_without_a_graph_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INPUTS, "OwnInput", OwnInput)
    make, sentence = REFUSED[name]
    with pytest.raises(Refusal, match=sentence) as refusal:
        require_graph(make())
    assert str(refusal.value).endswith("with flowlm serve.")


def test_without_the_packages_one_sentence_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "demo", "--onnx", str(tmp_path / "demo.onnx")]) == 2
    said = capsys.readouterr().err
    assert said == (
        "flowlm: A graph needs the packages onnx and onnxscript: pip install 'flowlm[onnx]'.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages were there and took no time."""

    def graph(model: LanguageModel) -> bytes:
        require_graph(model)
        return b"a graph"

    monkeypatch.setattr("flowlm.model.onnx.PACKAGES", ())
    monkeypatch.setattr("flowlm.model.onnx.onnx_of", graph)


@pytest.mark.usefixtures("instant")
def test_the_command_writes_the_file_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "demo.onnx"
    assert main(["export", "demo", "--onnx", str(file)]) == 0
    assert file.read_bytes() == b"a graph"
    assert capsys.readouterr().out.startswith(f"{file}: 0.0 MB.")
    assert main(["export", "demo", "--onnx", str(file)]) == 2  # not over another file
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["demo.onnx"]


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("place", ["missing/demo.onnx", "a" * 300, "", "null\0byte", "."])
def test_a_place_that_cannot_be_written_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "demo", "--onnx", place]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flowlm: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("instant")
def test_a_refused_model_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(Masked(), SIZE, LENGTH, LETTERS).save(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--onnx", str(tmp_path / "run.onnx")]) == 2
    assert "flows and flow maps" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("files", [[], ["--page", "new.html", "--onnx", "new.onnx"]])
def test_one_kind_of_file_is_asked_for(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["export", "demo", *files]) == 2
    assert "--page FILE.html or --onnx FILE.onnx." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
