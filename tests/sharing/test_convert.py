"""Between the two formats and back; exports that need nothing of where they come from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import flowlm
from flowlm.cli import main
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text, read_experiment
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.methods.input import BayesInput, LinearInput, PosteriorInput, ProjectedInput
from flowlm.methods.masked import Masked
from flowlm.model.language_model import LanguageModel
from flowlm.nn.size import Size
from flowlm.tasks.generated import Generated
from writing import usual

SIZE = Size(blocks=2, width=16, heads=2, condition=8)
LENGTH = 9
START = Path(__file__).parents[2] / "docs" / "start.md"


def made(method, size: Size = SIZE, data: Text | Generated | None = None) -> LanguageModel:
    tokenizer = Tokenizer.characters(["abcdefghij"])
    network = method.network(size, tokenizer.vocab, LENGTH)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    experiment = Experiment("mine", method, usual(method), data or Text(length=LENGTH), size)
    return LanguageModel(experiment, network, tokenizer, LENGTH)


def files(directory: Path) -> dict[str, bytes]:
    found = (f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): f.read_bytes() for f in found}


@pytest.mark.parametrize("method", [Flow(), FlowMap(), Flow(input=LinearInput())])
def test_there_and_back_again(method, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made(method)
    export, released, back, again = (tmp_path / n for n in ("export", "released", "back", "again"))
    model.save(export)
    for source, target in ((export, released), (released, back), (back, again)):
        assert main(["convert", str(source), str(target)]) == 0
        assert f"flowlm sample {target}" in capsys.readouterr().out
    assert sorted(files(released)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(files(back)) == ["experiment.json", "model.safetensors", "tokenizer.json"]
    assert files(released) == files(again)
    assert (back / "model.safetensors").read_bytes() == (export / "model.safetensors").read_bytes()
    for place in (released, back, again):
        loaded = flowlm.load(place)
        assert type(loaded.experiment.method) is type(method)
        assert loaded.experiment.size == SIZE
        if method.input == ProjectedInput():
            # The released format says nothing of a sampler.
            way = loaded.experiment.sampler
            assert loaded.generate(3, steps=4) == model.generate(3, steps=4, sampler=way)
    written = load_file(released / "model.safetensors")
    assert {t.dtype for t in written.values()} == {torch.float32}
    assert ("sigma_map_prime.mlp.0.weight" in written) == isinstance(method, FlowMap)
    config = json.loads((released / "config.json").read_text())
    assert config["vocab_size"] == 12
    stated = {k: config["config"]["model"][k] for k in ("hidden_size", "cond_dim", "length")}
    assert stated == {"hidden_size": 16, "cond_dim": 8, "length": 9}


@pytest.mark.parametrize(
    ("method", "size", "named"),
    [
        (Masked(), SIZE, "flows"),
        (Flow(input=PosteriorInput()), SIZE, "input"),
        (Flow(input=BayesInput()), replace(SIZE, output_cap=None), "input"),
        (Flow(), replace(SIZE, reach=2), "reach"),
        (Flow(clock="uniform"), SIZE, "clock"),
        (Flow(), replace(SIZE, positions="learned"), "positions"),
        (Flow(), replace(SIZE, attention_cap=None), "attention cap"),
        (FlowMap(), replace(SIZE, output_cap=20.0), "output cap"),
    ],
)
def test_what_the_released_format_cannot_hold_is_refused(
    method, size: Size, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(method, size).save(tmp_path / "export")
    before = files(tmp_path)
    assert main(["convert", str(tmp_path / "export"), str(tmp_path / "released")]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert files(tmp_path) == before


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made(Flow())
    model.save(tmp_path / "export")
    other = made(FlowMap())
    other.save(tmp_path / "other")
    before = files(tmp_path)
    with pytest.raises(Refusal, match="exists already"):
        model.save(tmp_path / "other")
    for target in ("other", "export"):
        assert main(["convert", str(tmp_path / "export"), str(tmp_path / target)]) == 2
        assert "exists already" in capsys.readouterr().err
    assert files(tmp_path) == before


@pytest.mark.parametrize("bad", range(3))
def test_a_full_disk_leaves_nothing(
    bad: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the files cannot be written."""
    model = made(Flow())
    model.save(tmp_path / "export")
    before, calls, real = files(tmp_path), [0], shutil.os.replace

    def full(*arguments: object) -> None:
        calls[0] += 1
        if calls[0] - 1 == bad:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(Refusal, match="No space left"):
        model.save(tmp_path / "second")
    calls[0] = 0
    assert main(["convert", str(tmp_path / "export"), str(tmp_path / "third")]) == 2
    assert files(tmp_path) == before


def test_a_tokenizer_can_be_added(tmp_path: Path) -> None:
    model = made(Flow())
    model.save(tmp_path / "export")
    (tmp_path / "export/tokenizer.json").rename(tmp_path / "tokenizer.json")
    words = ["convert", str(tmp_path / "export"), str(tmp_path / "released")]
    assert main([*words, "--tokenizer", str(tmp_path / "tokenizer.json")]) == 0
    assert flowlm.load(tmp_path / "released").generate(2) == model.generate(2)


def test_an_export_needs_nothing_of_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on a text that is gone: loaded, written with and evaluated in another process."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("abcdefghij\n" * 60)
    words = "train text-masked --data.path text.txt --data.length 12 --size.blocks 1 --size.width 8"
    words += " --size.heads 2 --train.steps 2 --train.batch 4 --out run"
    assert main(words.split()) == 0
    flowlm.load("run").save("export")
    wanted = flowlm.load("export").generate(2, 3)
    shutil.rmtree("run")
    Path("text.txt").unlink()
    code = "import flowlm; print(flowlm.load('export').generate(2, 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{wanted}\n", done.stderr
    capsys.readouterr()
    assert main(["evaluate", "export", "--num", "2", "--steps", "1", "--out", "told"]) == 0
    assert json.loads(Path("told/report.json").read_text())["held_out"] == []
    assert sorted(files(Path("export"))) == [
        "experiment.json", "fingerprints.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert read_experiment("export").data.path == str(tmp_path / "text.txt")


def test_the_first_steps_load_generate_and_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its example, word by word, on a small model in the released format that stands in."""
    blocks = re.findall(r"```python\n(.*?)```", START.read_text("utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "hf:david3684/" in block)
    assert len([line for line in code.splitlines() if line.strip()]) < 10
    name = re.findall(r'"(hf:david3684/[^"]*)"', code)[0]
    monkeypatch.chdir(tmp_path)
    model = made(FlowMap())
    model.save("export")
    assert main(["convert", "export", "fetched"]) == 0
    fetched = {name: Path("fetched")}
    monkeypatch.setattr("flowlm.hub.transfer.fetch", lambda wanted, files: fetched[str(wanted)])
    capsys.readouterr()
    exec(compile(code, "docs/start.md", "exec"), {})
    shown = capsys.readouterr().out
    assert all(text in shown for text in model.generate(4, steps=1, seed=0))
    saved = re.findall(r'save\("([^"]*)"\)', code)[0]
    assert flowlm.load(saved).generate(2) == model.generate(2)
