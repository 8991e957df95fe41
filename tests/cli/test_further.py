"""Training that goes further: from the weights of a run, for more steps, or as a file says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from commands import SHORT
from flowlm import load
from flowlm.experiment import Experiment, read_experiment, rooted
from flowlm.model.card import model_card
from flowlm.model.export import without_places
from flowlm.recipes import RECIPES
from flowlm.train.plan import Plan
from flowlm.train.trainer import learning_rate

STEADY = ("--train.decay", 0, "--train.validate-every", 2)


def files(directory: Path) -> dict[str, bytes]:
    """Every file of a run, checkpoints too, but those that have times or names of their own."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name not in ("metrics.jsonl", ".metadata", "checkpoint.json")
    }


def rates(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["lr"] for line in lines if "lr" in line}


# --- for more steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["flow", "masked"])
def test_a_longer_run_equals_one_of_as_many_steps_from_the_start(
    method: str, train: Callable, flowlm: Callable, tmp_path: Path
) -> None:
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert train(f"text-{method}", whole, *STEADY, "--train.steps", 8).status == 0
    assert train(f"text-{method}", short, *STEADY, "--train.steps", 4).status == 0
    answer = flowlm("train", "--resume", short, "--train.steps", 8)
    assert (answer.status, answer.err) == (0, "")
    assert "learning rate" not in answer.out
    assert files(short) == files(whole)
    assert read_experiment(short).train.steps == 8


def test_a_run_with_a_decay_says_what_becomes_of_it(
    train: Callable, flowlm: Callable, tmp_path: Path
) -> None:
    run, words = tmp_path / "run", ("--train.lr", 0.01, "--train.log-every", 1)
    assert train("text-masked", run, *words, "--train.decay", 0.5).status == 0
    answer = flowlm("train", "--resume", run, "--train.steps", 8)
    assert answer.status == 0
    old = Plan(steps=4, lr=0.01, warmup=2, decay=0.5)
    new = Plan(steps=8, lr=0.01, warmup=2, decay=0.5)
    wanted = [learning_rate(old, k) for k in range(4)] + [
        learning_rate(new, k) for k in (4, 5, 6, 7)
    ]
    assert list(rates(run).values()) == pytest.approx(wanted)
    (said,) = [line for line in answer.out.splitlines() if "learning rate" in line]
    assert f"it was {wanted[3]:.3g} at step 4 and goes on at {wanted[4]:.3g}" in said
    assert "50% of the steps, which are now 8 and were 4" in said
    # Before the decay begins nothing differs, and nothing is said.
    far = tmp_path / "far"
    assert train("text-masked", far, *words, "--train.decay", 0).status == 0
    assert "learning rate" not in flowlm("train", "--resume", far, "--train.steps", 5).out


def test_steps_that_are_no_more_are_refused(flowlm: Callable, flow_run: Path) -> None:
    before = files(flow_run)
    for steps in (1, 4):
        flowlm("train", "--resume", flow_run, "--train.steps", steps).refusal("4 steps", flow_run)
    flowlm("train", "--resume", flow_run, "--train.steps", 0).refusal("--train.steps")
    flowlm("train", "--resume", flow_run, "--train.lr", 1).refusal("--train.lr")
    flowlm("train", "--resume", flow_run.parent, "--train.steps", 9).refusal("experiment.json")
    assert files(flow_run) == before


def test_a_chain_has_no_steps_of_its_own(flowlm: Callable, tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text("{}")
    flowlm("train", "--resume", tmp_path, "--train.steps", 9).refusal("chain", "--train.steps")


# --- from the weights of a run ----------------------------------------------------------------


def test_a_run_starts_from_the_weights_of_another(
    train: Callable, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "run", ("--train.lr", 1e-12, "--train.seed", 5)
    assert train("text-flow", out, "--init", runs / "flow", *words).status == 0
    theirs, own = load_file(runs / "flow/model.safetensors"), load_file(out / "model.safetensors")
    assert theirs.keys() == own.keys()
    for name, weight in theirs.items():
        assert (own[name] - weight).abs().max() < 1e-9, name
    assert read_experiment(out).init == str(runs / "flow")
    marks = json.loads((out / "fingerprints.json").read_text())
    assert marks["init"][:16] == load(runs / "flow").fingerprint
    assert list(rates(out)) == [4], "steps count from 0"


def test_it_takes_size_tokenizer_and_settings_of_the_run(
    train: Callable, flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = "--method.clock uniform --method.input linear --size.width 24"
    words += " --data.tokenizer bpe --data.vocab 300"
    assert train("text-flow", one, *words.split()).status == 0
    text = ["--data.path", corpus, "--data.length", 12]
    assert flowlm("train", "text-flow", "--init", one, *SHORT, *text, "--out", two).status == 0
    theirs, own = read_experiment(one), read_experiment(two)
    assert (own.size, own.method) == (theirs.size, theirs.method)
    assert (two / "tokenizer.json").read_bytes() == (one / "tokenizer.json").read_bytes()
    assert own.data.length == 12


def test_a_run_from_weights_goes_on_without_them(
    train: Callable, flowlm: Callable, runs: Path, flow_run: Path, tmp_path: Path
) -> None:
    """Its checkpoints hold all; the file still says where it started."""
    whole, half, words = tmp_path / "whole", tmp_path / "half", ("--init", flow_run, *STEADY)
    assert train("text-flow", whole, *words, "--train.steps", 8).status == 0
    assert train("text-flow", half, *words, "--train.steps", 4).status == 0
    flow_run.rename(flow_run.with_name("gone"))
    assert flowlm("train", "--resume", half, "--train.steps", 8).status == 0
    assert files(half) == files(whole)


MISFITS = {
    "another size": ("text-flow", "flow", "--size.width 24 --size.heads 2", "has shape"),
    "more blocks": ("text-flow", "flow", "--size.blocks 2", "lacks"),
    "another method": ("text-flow", "masked", "", "lacks"),
    "one time more": ("text-flow-map", "flow", "--method.teacher None", "lacks"),
    "other heads": ("text-flow", "flow", "--size.heads 1", "--size.heads"),
    "another tokenizer": ("text-flow", "flow", "--data.tokenizer bpe --data.vocab 300", "tokenis"),
    "nothing": ("text-flow", "nowhere", "", "nowhere"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_refused(
    case: str, train: Callable, flowlm: Callable, corpus: Path, runs: Path, tmp_path: Path
) -> None:
    recipe, origin, words, named = MISFITS[case]
    text = ["--data.path", corpus, "--data.length", 16, "--out", tmp_path / "out"]
    answer = flowlm("train", recipe, "--init", runs / origin, *words.split(), *SHORT, *text)
    answer.refusal(runs / origin if "tokenizer" not in case else "--init", named)
    assert not list(tmp_path.iterdir())


def test_a_student_starts_from_its_teacher(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    words = ["--method.teacher", runs / "flow", "--init", runs / "flow", "--out", tmp_path / "out"]
    flowlm("train", "text-flow-map", *words).refusal("--init", "teacher")
    assert not list(tmp_path.iterdir())


def test_where_it_started_is_told_without_its_place() -> None:
    wanted = RECIPES["text-flow"]()
    parts = {**vars(wanted), "init": "/home/somebody/runs/first"}
    made = Experiment(**parts)
    assert rooted(made).init == made.init
    told = without_places(made)
    assert told.init == "first"
    assert "`first`" in model_card(told, 1, 2, 3, "hf:a/b", None)
    assert "from the weights" not in model_card(without_places(wanted), 1, 2, 3, "hf:a/b", None)


# --- as a file says ---------------------------------------------------------------------------


def test_a_file_is_trained_as_its_run_was(
    train: Callable, flowlm: Callable, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    assert train("text-masked", one, "--train.seed", 3, *STEADY).status == 0
    for name, place in (("two", one / "experiment.json"), ("three", one)):
        assert flowlm("train", "--config", place, "--out", tmp_path / name).status == 0
        assert files(tmp_path / name) == files(one)


def test_options_change_what_a_file_says(
    train: Callable, flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = runs / "flow" / "experiment.json"
    words = ["--train.steps", 3, "--sampler", "bridge", "--name", "mine"]
    assert flowlm("train", "--config", file, *words).status == 0
    stated, own = read_experiment(runs / "flow"), read_experiment("runs/mine")
    assert own.train.steps == 3
    assert type(own.sampler).__name__ == "Bridge"
    assert (own.method, own.size, own.data) == (stated.method, stated.size, stated.data)


def test_a_dry_run_of_a_file_needs_no_text(
    flowlm: Callable, flow_run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    stated = json.loads((flow_run / "experiment.json").read_text())
    stated["data"]["path"] = "/nowhere/text.txt"
    file.write_text(json.dumps(stated))
    answer = flowlm("train", "--config", file, "--dry-run", "--accelerator", "h100")
    assert answer.status == 0
    assert "parameters" in answer.out
    flowlm("train", "--config", file).refusal("/nowhere/text.txt")


def test_a_file_that_is_none_is_refused(flowlm: Callable, tmp_path: Path) -> None:
    flowlm("train", "--config").refusal("--config")
    flowlm("train", "--config", "--train.steps", 3).refusal("--config")
    flowlm("train", "--config", tmp_path / "no.json").refusal("no.json")
    (broken := tmp_path / "broken.json").write_text("{")
    flowlm("train", "--config", broken).refusal(broken)
    broken.write_bytes(b"\xff\xfe")
    flowlm("train", "--config", broken).refusal(broken)
    flowlm("train", "--config", tmp_path).refusal("experiment.json")


@pytest.mark.parametrize("words", [["--resume"], ["--config", "{file}"]])
def test_each_way_to_train_has_help(words: list[str], flowlm: Callable, runs: Path) -> None:
    file = runs / "flow" / "experiment.json"
    answer = flowlm("train", *(word.format(file=file) for word in words), "--help")
    assert (answer.status, answer.err) == (0, "")
    assert "--train.steps" in answer.out
    assert ("--init" in answer.out) == (words[0] == "--config")
    assert all(f"--{way}" in flowlm("train", "--help").out for way in ("init", "config", "resume"))
