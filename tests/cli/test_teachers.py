"""A flow map and its teacher: what it takes over, and every teacher that does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from flowlm.experiment import read_experiment
from writing import INPUTS

STEPS = ["--train.steps", "2", "--train.batch", "4"]


def learn(flowlm: Callable, teacher: object, out: Path, *others: object):
    return flowlm(
        "train", "text-flow-map", "--method.teacher", teacher, *STEPS, "--out", out, *others
    )


def test_a_flow_map_takes_size_data_and_tokenizer_of_its_teacher(
    flowlm: Callable, train: Callable, tmp_path: Path
) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "map"
    words = "--method.clock uniform --method.input linear --data.length 12 --size.width 24"
    words += " --sampler.temperature 0.6"
    words += " --data.tokenizer bpe --data.vocab 300 --data.valid 0.1"
    assert train("text-flow", teacher, *words.split()).status == 0
    assert learn(flowlm, teacher, out).status == 0
    theirs, own = read_experiment(teacher), read_experiment(out)
    assert own.size == theirs.size
    assert own.size.width == 24
    for part in ("path", "length", "documents", "vocab", "valid"):
        assert getattr(own.data, part) == getattr(theirs.data, part)
    assert (own.method.clock, own.method.input) == ("uniform", INPUTS["linear"])
    assert own.method.teacher_temperature == 0.6
    assert own.method.teacher == str(teacher)
    for name in ("tokenizer.json", "tokens/train.bin", "tokens/valid.bin"):
        assert (out / name).read_bytes() == (teacher / name).read_bytes()


def test_equals_signs_name_a_teacher_as_well(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "map"
    words = ["train", "text-flow-map", f"--method.teacher={runs / 'flow'}", *STEPS]
    assert flowlm(*words, "--out", out).status == 0
    assert read_experiment(out).size == read_experiment(runs / "flow").size


def test_a_flow_map_starts_from_its_teacher(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    """At the temperature at which its teacher writes."""
    out = tmp_path / "map"
    slow = ["--train.lr", 1e-12, "--train.ema", 1]
    assert learn(flowlm, runs / "flow", out, *slow).status == 0
    theirs, own = load_file(runs / "flow/model.safetensors"), load_file(out / "model.safetensors")
    for name, weight in theirs.items():
        wanted = weight / 0.7 if name.startswith("head.") else weight
        assert (own[name] - wanted).abs().max() < 1e-9, name
    assert all(name.startswith(("times.1.", "sharper.")) for name in own.keys() - theirs.keys())


@pytest.mark.parametrize("method", ["flow-map", "masked", "autoregressive"])
def test_a_teacher_of_another_method_is_refused(
    method: str, flowlm: Callable, runs: Path, corpus: Path, tmp_path: Path
) -> None:
    text = ["--data.path", corpus]
    learn(flowlm, runs / method, tmp_path / "map", *text).refusal(runs / method, "flow recipe")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--size.width 32", "--size"),
        ("--size.blocks 2", "--size"),
        ("--data.length 12", "length"),
        ("--method.input linear", "--method.input"),
        ("--method.clock uniform", "--method.clock"),
    ],
)
def test_a_teacher_of_another_shape_is_refused(
    words: str, named: str, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map"
    learn(flowlm, runs / "flow", out, *words.split()).refusal(runs / "flow", named)
    assert not list(tmp_path.iterdir())


def test_a_teacher_with_another_tokenizer_is_refused(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    words = ["--data.tokenizer", "bpe", "--data.vocab", "300"]
    learn(flowlm, runs / "flow", tmp_path / "map", *words).refusal("--data.tokenizer")
    assert not list(tmp_path.iterdir())


def test_text_prepared_with_another_tokenizer_is_refused(
    flowlm: Callable, runs: Path, corpus: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    words = ["--tokenizer", "bpe", "--vocab", "300"]
    assert flowlm("prepare", corpus, "--out", tokens, *words).status == 0
    learn(flowlm, runs / "flow", tmp_path / "map", "--data.path", tokens).refusal("teacher")
    assert list(tmp_path.iterdir()) == [tokens]


def test_other_text_is_read_with_the_teachers_tokenizer(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    # Its alphabet is smaller: a tokenizer of its own would have fewer ids.
    file, out = tmp_path / "other.txt", tmp_path / "map"
    file.write_text("the cat sat on the mat\n" * 50)
    assert learn(flowlm, runs / "flow", out, "--data.path", file).status == 0
    tokenizer = (runs / "flow" / "tokenizer.json").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == tokenizer


def test_other_text_is_read_with_the_teachers_bpe(
    flowlm: Callable, train: Callable, tmp_path: Path
) -> None:
    # The teacher's experiment says bpe, which must not mean: train another one on this text.
    file, teacher, out = tmp_path / "other.txt", tmp_path / "teacher", tmp_path / "map"
    file.write_text("other words are written here\n" * 50)
    words = ["--data.tokenizer", "bpe", "--data.vocab", "300"]
    assert train("text-flow", teacher, *words).status == 0
    answer = learn(flowlm, teacher, out, "--data.path", file)
    assert answer.status == 0, answer.err
    assert (out / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("what", ["directory", "experiment.json", "model.safetensors"])
def test_a_teacher_that_is_not_there_is_refused(
    what: str, flowlm: Callable, flow_run: Path, tmp_path: Path
) -> None:
    shutil.rmtree(flow_run) if what == "directory" else (flow_run / what).unlink()
    learn(flowlm, flow_run, tmp_path / "map").refusal(flow_run)
    assert not (tmp_path / "map").exists()


def test_a_flow_map_without_a_teacher_teaches_itself(train: Callable, tmp_path: Path) -> None:
    out = tmp_path / "map"
    assert train("text-flow-map", out).status == 0
    assert read_experiment(out).method.teacher is None


def test_a_last_held_out_batch_of_one_text_is_judged(train: Callable, tmp_path: Path) -> None:
    # Each line is 20 characters and an end; the five held out are a batch of four and one more,
    # which leaves the half of the flow map's loss that reads every second text without any.
    file = tmp_path / "text.txt"
    file.write_text("abcdefghij0123456789\n" * 100)
    answer = train("text-flow-map", tmp_path / "map", "--data.path", file, "--data.length", 21)
    assert answer.status == 0, answer.err


def test_of_two_teachers_the_last_one_counts(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    """As of any option; the size must not be taken from the first one."""
    words = ["--method.teacher", "nowhere", f"--method.teacher={runs / 'flow'}"]
    answer = flowlm("train", "text-flow-map", *words, *STEPS, "--out", tmp_path / "map")
    assert answer.status == 0, answer.err
    assert read_experiment(tmp_path / "map").size == read_experiment(runs / "flow").size
    words = [f"--method.teacher={runs / 'flow'}", "--method.teacher", "nowhere"]
    refused = flowlm("train", "text-flow-map", *words, *STEPS, "--out", tmp_path / "other")
    refused.refusal("nowhere does not exist")


def test_text_that_the_teacher_cannot_read_is_refused(
    flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "other.txt", tmp_path / "map"
    file.write_text("the cat sat on the mat Ж\n" * 100)
    words = ["--data.path", file]
    learn(flowlm, runs / "flow", out, *words).refusal("4.17%", "100 of 2,400", "--data.unknown")
    assert list(tmp_path.iterdir()) == [file]
    answer = learn(flowlm, runs / "flow", out, *words, "--data.unknown", 0.05)
    assert answer.status == 0, answer.err
    assert answer.err.count("does not know 4.17% (100 of 2,400 tokens)") == 1
    for share in (-0.1, 1.1, "nan"):
        words = ["--data.path", file, "--data.unknown", share]
        learn(flowlm, runs / "flow", tmp_path / "new", *words).refusal("--data.unknown")
    assert not (tmp_path / "new").exists()
