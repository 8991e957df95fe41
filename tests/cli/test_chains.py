"""`flowlm train CHAIN`: runs one after the other, as by hand, stopped and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commands import SHORT, SMALL
from flowlm import load
from flowlm.cli import main
from flowlm.experiment import read_experiment, to_json
from flowlm.experiment.chain import linked, read_chain
from flowlm.methods.flow import Flow
from flowlm.methods.flow_map import FlowMap
from flowlm.recipes import CHAINS, RECIPES, text

FLOW, MAP = "1-text-flow", "2-text-flow-map"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A finished chain. Not to be changed."""
    out = tmp_path_factory.mktemp("chain") / "whole"
    data = ["--data.path", str(corpus), "--data.length", "16"]
    assert main(["train", "text-map", *SMALL, *SHORT, *data, "--out", str(out)]) == 0
    return out


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def written(directory: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in directory.rglob("*") if file.is_file()}


# --- as by hand ---------------------------------------------------------------------------------


def test_a_chain_is_its_stages_trained_by_hand(
    flowlm: Callable, train: Callable, tmp_path: Path
) -> None:
    words = "--data.tokenizer bpe --data.vocab 300 --sampler.temperature 0.6 --train.seed 3"
    chain, hand = tmp_path / "chain", tmp_path / "hand"
    answer = train("text-map", chain, *words.split())
    assert answer.status == 0, answer.err
    assert answer.out.count("Stage ") == 2
    assert f"flowlm sample {chain} " in answer.out
    assert train("text-flow", hand / FLOW, *words.split()).status == 0
    short = "--train.steps 4 --train.batch 4 --train.warmup 2 --train.save-every 2 --train.seed 3"
    teacher = ["--method.teacher", hand / FLOW]
    assert flowlm("train", "text-flow-map", *teacher, *short.split(), "--out", hand / MAP).out
    for name in (FLOW, MAP):
        ours, theirs = chain / name, hand / name
        assert weights(ours) == weights(theirs)
        own = (ours / "experiment.json").read_text().replace(str(chain), str(hand))
        assert own == (theirs / "experiment.json").read_text()
        assert (ours / "tokenizer.json").read_bytes() == (theirs / "tokenizer.json").read_bytes()
    taught = read_experiment(chain / MAP)
    assert (taught.method.teacher_temperature, taught.sampler.temperature) == (0.6, 1.0)


def test_options_go_to_every_stage_that_has_them(train: Callable, tmp_path: Path) -> None:
    out = tmp_path / "chain"
    words = "--method.input linear --method.rule semigroup --sampler.gamma=0.5"
    assert train("text-map", out, *words.split(), "--train.lr", 2e-3).status == 0
    flow, flow_map = (read_experiment(out / name) for name in (FLOW, MAP))
    assert isinstance(flow.method, Flow)
    assert isinstance(flow_map.method, FlowMap)
    assert flow.method.input == flow_map.method.input != text.flow().method.input
    assert flow_map.sampler.gamma == 0.5
    assert (flow.size, flow.data.path) == (flow_map.size, flow_map.data.path)
    assert flow.train == flow_map.train
    assert flow.train.lr == 2e-3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--train.sead 1", "--train.sead"),
        ("--sampler.top-p 0.5", "--sampler.top-p"),
        ("--sampler unmask", "--sampler unmask"),
        ("--sampler ulmer", "did you mean euler"),
        ("--method.teacher demo", "--method.teacher"),
        ("--method.rule", "--method.rule"),
        ("--train", "--train"),
        ("--size.width x", "--size.width"),
        ("more", "more"),
        ("--method.gamma 1", "--method.gamma"),
    ],
)
def test_what_no_stage_takes_is_refused(
    words: str, named: str, train: Callable, tmp_path: Path
) -> None:
    train("text-map", tmp_path / "chain", *words.split()).refusal(named)
    assert not list(tmp_path.iterdir())


def test_a_chain_that_cannot_begin_leaves_nothing(
    flowlm: Callable, train: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "chain"
    flowlm("train", "text-map", "--out", out).refusal("--data.path")
    flowlm("train", "text-map", "--data.path", tmp_path / "no", "--out", out).refusal("no")
    train("text-map", out, "--data.length", 10_000_000).refusal()
    assert not list(tmp_path.iterdir())


# --- stopped and gone on with -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told", "begun"),
    [(2, 2, [FLOW]), (4, 4, [FLOW]), (7, 3, [FLOW, MAP])],
    ids=["in the first stage", "in its last step", "in the second stage"],
)
def test_a_stopped_chain_goes_on_as_if_nothing_had_been(
    call: int, told: int, begun: list[str], train: Callable, flowlm: Callable, whole: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, calls = tmp_path / "chain", []
    for method in (Flow, FlowMap):
        monkeypatch.setattr(method, "loss", _signalling(method.loss, calls, call))
    answer = train("text-map", out)
    assert (answer.status, answer.err) == (130, "")
    assert answer.out.splitlines()[-1] == (
        f"Stopped after step {told} and saved; go on with: flowlm train --resume {out}"
    )
    assert sorted(place.name for place in out.iterdir() if place.is_dir()) == begun
    before = written(out / FLOW)
    assert flowlm("train", "--resume", out).status == 0
    if begun == [FLOW, MAP]:
        assert written(out / FLOW) == before, "a finished stage is not touched"
    for name in (FLOW, MAP):
        assert weights(out / name) == weights(whole / name)
    before = written(out)
    assert flowlm("train", "--resume", out).status == 0
    assert written(out) == before


def _signalling(loss: Callable, calls: list[int], call: int) -> Callable:
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    def signalling(self, model, batch, *others):
        if torch.is_grad_enabled() and not isinstance(batch.tokens, FakeTensor):
            calls.append(0)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, model, batch, *others)

    return signalling


def test_a_killed_chain_begins_its_stage_anew(
    flowlm: Callable, whole: Path, tmp_path: Path
) -> None:
    """Before its first checkpoint, and between the last one and the note that it is finished."""
    out = tmp_path / "chain"
    shutil.copytree(whole, out)
    stored = json.loads((out / "chain.json").read_text())
    (out / "chain.json").write_text(json.dumps(stored | {"finished": 1}))
    shutil.rmtree(out / MAP / "checkpoints")
    (out / MAP / "model.safetensors").unlink()
    assert flowlm("train", "--resume", out).status == 0
    assert weights(out / MAP) == weights(whole / MAP)
    # Moved, it finds its teacher where that is now.
    teacher = read_experiment(out / MAP).method.teacher
    assert teacher == str(out / FLOW)
    (out / "chain.json").write_text(json.dumps(stored | {"finished": 1}))
    (out / MAP / "model.safetensors").write_bytes(weights(out / FLOW))
    assert flowlm("train", "--resume", out).status == 0
    assert weights(out / MAP) == weights(whole / MAP)


def test_a_place_that_is_taken_is_refused(train: Callable, whole: Path, tmp_path: Path) -> None:
    before = written(whole)
    train("text-map", whole).refusal(whole, "--resume")
    train("text-map", whole / FLOW).refusal(whole / FLOW, "run")
    assert written(whole) == before


@pytest.mark.parametrize("content", ["", "{}", '{"finished": 3, "stages": {"a": {}}}', "[1]"])
def test_a_damaged_chain_is_refused(content: str, flowlm: Callable, tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text(content)
    for words in (["train", "--resume"], ["sample"]):
        flowlm(*words, tmp_path).refusal(tmp_path / "chain.json")


# --- used ---------------------------------------------------------------------------------------


def test_a_chain_is_used_as_its_last_run(flowlm: Callable, whole: Path, tmp_path: Path) -> None:
    assert flowlm("sample", whole).out == flowlm("sample", whole / MAP).out
    assert load(whole).fingerprint == load(whole / MAP).fingerprint
    out = tmp_path / "chain"
    shutil.copytree(whole, out)
    assert flowlm("evaluate", out, "--num", 4, "--steps", 1).status == 0
    report = json.loads((out / MAP / "report.json").read_text())
    assert report["held_out"], "its text is at hand"


def test_the_last_run_must_have_begun(flowlm: Callable, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "chain"
    shutil.copytree(whole, out)
    shutil.rmtree(out / MAP)
    flowlm("sample", out).refusal(out / FLOW, f"--resume {out}")
    assert flowlm("sample", out / FLOW, "--num", 1).status == 0
    listed = flowlm("runs", out).out
    assert listed.index(FLOW) < listed.index(MAP)
    assert "4 / 4" in listed
    assert "0 / 4" in listed


def test_runs_are_listed_once(flowlm: Callable, whole: Path) -> None:
    for directory in (whole.parent, whole, whole / MAP):
        listed = flowlm("runs", directory).out
        count = 1 if directory == whole / MAP else 2
        assert sum("corpus.txt" in line for line in listed.splitlines()) == count


def test_a_dry_run_prints_every_stage_and_the_sum(flowlm: Callable, tmp_path: Path) -> None:
    answer = flowlm("train", "lm1b-map", "--dry-run", "--devices", 8, "--out", tmp_path / "chain")
    assert (answer.status, answer.err) == (0, "")
    assert not list(tmp_path.iterdir())
    hours = [float(line.split()[1]) for line in answer.out.splitlines() if "time  " in line]
    assert len(hours) == 3
    assert hours[0] + hours[1] == pytest.approx(hours[2], abs=0.11)
    assert "teacher" in answer.out


def test_a_dry_run_counts_the_vocabulary_that_the_student_will_have(
    flowlm: Callable, corpus: Path
) -> None:
    words = ["--data.path", corpus, "--data.tokenizer", "bpe", "--data.vocab", 777]
    answer = flowlm("train", "text-map", "--dry-run", *words)
    assert answer.out.count("vocabulary  777") == 2


# --- what chains are ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_made_of_recipes(name: str) -> None:
    assert name not in RECIPES
    stages = CHAINS[name]()
    assert len(stages) > 1
    places = [f"runs/{stage.name}" for stage in stages]
    for before, stage in zip((None, *stages), linked(stages, places)):
        recipe = RECIPES[stage.name]()
        assert (stage.size, stage.train, stage.sampler) == (
            recipe.size, recipe.train, recipe.sampler,
        )  # fmt: skip
        taught = before is not None and bool(stage.method.teachers)
        assert stage.method.teacher == (f"runs/{before.name}" if taught else None)


def test_a_method_without_a_teacher_has_none_in_a_chain() -> None:
    flow, masked = linked((text.flow(), text.masked()), ("a", "b"))
    assert (flow, masked) == (text.flow(), text.masked())


def test_a_chain_comes_back_from_its_file(whole: Path) -> None:
    chain = read_chain(whole)
    assert chain.finished == 2
    for name, stage in chain.stages.items():
        assert to_json(stage) == to_json(replace(read_experiment(whole / name)))
