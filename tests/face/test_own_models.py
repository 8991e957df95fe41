"""Models from one's own loop, training by one call, moving a model, and what it says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flowlm
from flowlm.data.finding import find_corpus
from flowlm.data.layout import Packed
from flowlm.data.preparation import prepare
from flowlm.data.tokenizer import END, Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, read_experiment
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import PosteriorInput
from flowlm.methods.masked import Masked
from flowlm.model.language_model import LanguageModel
from flowlm.nn import DiT, Size
from flowlm.sampling import Euler, Heun
from flowlm.tasks.generated import Generated
from flowlm.train import Plan

SIZE = Size(1, 16, 2, 8, 0.0, None, None)
OWN = Experiment("own", Flow(), Euler(), Generated(), SIZE, Plan(steps=1200))
SMALL = {
    "train.steps": 4, "train.batch": 4, "train.warmup": 1, "train.save-every": 2,
    "train.validate_every": 10**6, "train.log_every": 10**6,
    "size.width": 16, "size.heads": 2, "size.blocks": 1,
}  # fmt: skip


def network(seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    made = Flow().network(SIZE, 61, 18)
    torch.nn.init.normal_(made.head.weight)
    return made


# --- from a loop --------------------------------------------------------------------------------


def test_a_network_is_copied_and_goes_on_training() -> None:
    own = network().train()
    model = LanguageModel.from_network(OWN, own)
    before = model.sample(3, 2)
    assert own.training
    assert all(p.requires_grad for p in own.parameters())
    torch.nn.init.zeros_(own.head.weight)
    assert torch.equal(model.sample(3, 2), before)
    assert model.generate(1)[0].count(" ") == 17


def test_other_weights_stand_in(tmp_path: Path) -> None:
    other = network(1)
    averaged = {name: p.detach() for name, p in other.named_parameters()}
    model = LanguageModel.from_network(OWN, network(), weights=averaged)
    assert torch.equal(model.sample(3, 2), LanguageModel.from_network(OWN, other).sample(3, 2))
    model.save(tmp_path / "own")
    assert torch.equal(flowlm.load(tmp_path / "own").sample(3, 2), model.sample(3, 2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: LanguageModel.from_network(
                dataclasses.replace(OWN, size=dataclasses.replace(SIZE, blocks=2)), network()
            ),
            "The network is not of",
        ),
        (
            lambda: LanguageModel.from_network(
                OWN, network(), weights={"head.weight": torch.zeros(61, 16)}
            ),
            "The weights are not of",
        ),
        (
            lambda: LanguageModel.from_network(OWN, network(), Tokenizer.words(["a", "b"])),
            "do not belong together",
        ),
    ],
)
def test_a_network_of_another_experiment_is_refused(make: Callable, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        make()


def test_a_model_says_what_it_is() -> None:
    said = repr(LanguageModel.from_network(OWN, network()))
    count = sum(p.numel() for p in network().parameters())
    for fact in (
        "LanguageModel(FLM", f"{count:,} parameters", "vocabulary of 61", "texts of 18 tokens",
        "sentences of the demo's language", "1,200 steps", "cpu, float32",
    ):  # fmt: skip
        assert fact in said
    data = Text(path="/there/book.txt", length=18)
    text = LanguageModel(dataclasses.replace(OWN, data=data), network(), None, 18)
    assert "/there/book.txt" in repr(text)


def test_a_model_moves_in_place() -> None:
    model = LanguageModel.from_network(OWN, network())
    assert model.to("cpu", torch.bfloat16) is model
    assert model.network.head.weight.dtype == torch.bfloat16
    assert model.network.encoder.table.dtype == torch.float32
    assert "bfloat16" in repr(model)
    assert model.to() is model
    for device, dtype, said in (("gpu", None, "no device gpu"), (None, torch.int8, "int8")):
        with pytest.raises(Refusal, match=said):
            model.to(device, dtype)


# --- recipes and training -----------------------------------------------------------------------


def test_options_are_those_of_the_command_line() -> None:
    made = flowlm.recipe(
        "text-flow",
        {
            "train.steps": 7, "data.path": "x.txt", "data.length": 64, "sampler": "heun",
            "method.input": PosteriorInput(), "size.output-cap": None, "sampler.temperature": 0.5,
        },
    )  # fmt: skip
    assert (made.train.steps, made.data.path, made.data.length) == (7, "x.txt", 64)
    assert (made.sampler, made.method.input) == (Heun(0.5), PosteriorInput())
    assert flowlm.recipe(made, {"name": "mine"}) == dataclasses.replace(made, name="mine")
    assert flowlm.recipe(made) == made


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("text-flwo", {}, "did you mean text-flow"),
        ("text-map", {}, "chain of recipes: train text-flow, text-flow-map"),
        ("text-flow", {"train.stpes": 3}, "train.stpes .did you mean steps"),
        ("text-flow", {"colour": 3}, "no option colour"),
        ("text-flow", {"train.steps.x": 3}, "train.steps is one value"),
        ("text-flow", {"sampler": "huen"}, "did you mean heun"),
        ("text-flow", {"sampler": "unmask"}, "Unmask does not write with Flow"),
        ("text-flow", {"data.length": 1}, "length"),
        ("text-flow-map", {"method.teacher": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_an_option_that_is_none_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        flowlm.recipe(name, options)


def test_one_call_trains_goes_on_and_loads(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "flow"
    model = flowlm.fit("demo-flow", out, SMALL, quiet=True)
    assert capfd.readouterr() == ("", "")
    assert read_experiment(out) == model.experiment
    assert (model.experiment.train.steps, model.experiment.size.width) == (4, 16)
    again = flowlm.fit("demo-flow", str(out), SMALL, quiet=True)
    assert torch.equal(again.sample(2), model.sample(2))
    assert torch.equal(flowlm.load(out).sample(2), model.sample(2))
    with pytest.raises(Refusal, match=r"another train.steps \(4 instead of 9\)"):
        flowlm.fit("demo-flow", out, SMALL | {"train.steps": 9}, quiet=True)
    student = flowlm.recipe("demo-flow-map", {"method.teacher": out})
    assert (student.size, student.method.teacher) == (model.experiment.size, str(out))
    assert isinstance(student.method, FlowMap)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """A stopped run, and one that was never stopped: bit for bit the same."""
    experiment = flowlm.recipe("demo-masked", SMALL)
    whole = flowlm.fit(experiment, tmp_path / "whole", quiet=True)
    flowlm.fit(experiment, tmp_path / "part", quiet=True)
    places = (tmp_path / "part" / "checkpoints").glob("step-*")
    last = max(places, key=lambda place: int(place.name.split("-")[1]))
    last.rename(tmp_path / "away")
    (tmp_path / "part" / "model.safetensors").unlink()
    part = flowlm.fit(experiment, tmp_path / "part", quiet=True)
    assert part.fingerprint == whole.fingerprint
    assert isinstance(part.experiment.method, Masked)


def test_a_model_of_packed_text_knows_how_its_texts_begin(tmp_path: Path) -> None:
    documents = ["the cat sat", "on the mat", "and sat"] * 40
    (tmp_path / "text.txt").write_text("\n".join(documents))
    corpus = find_corpus(str(tmp_path / "text.txt"), "line", 0.2)
    tokenizer = Tokenizer.characters(documents)
    prepare(corpus, tmp_path / "packed", tokenizer, layout=Packed(12, END, END, END))
    options = {"data.path": str(tmp_path / "packed"), "data.length": 12, "size.reach": 0} | SMALL
    model = flowlm.fit("text-flow", tmp_path / "run", options, quiet=True)
    assert (model.experiment.data.begin, model.experiment.data.end) == (END, END)
    assert model.fingerprint == flowlm.fit("text-flow", tmp_path / "run", options, True).fingerprint
    (text,) = model.generate(prompt="the cat", steps=2)
    assert text.startswith("\nthe cat")
    with pytest.raises(Refusal, match="do not begin with x"):
        flowlm.fit("text-flow", tmp_path / "other", options | {"data.begin": "x"}, quiet=True)
