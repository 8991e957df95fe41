"""Bad words on the command line: one sentence, exit status 2, and nothing written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowlm import load

WORDS = {
    "an unknown command": ("trian text-flow", "trian", "did you mean train"),
    "an unknown recipe": ("train text-flwo", "text-flwo", "did you mean text-flow"),
    "no recipe": ("train", "recipe"),
    "an unknown option": ("train text-flow --method.tempo 3", "--method.tempo"),
    "another method's option": ("train text-flow --method.teacher x", "--method.teacher"),
    "an option of text for sentences": ("train demo-flow --data.path x", "--data.path"),
    "a word for a number": ("train text-flow --train.steps many", "--train.steps"),
    "a fraction for a count": ("train text-flow --train.steps 1.5", "--train.steps"),
    "a choice that is none": ("train text-flow --method.clock sundial", "--method.clock"),
    "an option without its value": ("train text-flow --data.path", "--data.path"),
    "a teacher without a name": ("train text-flow-map --method.teacher", "--method.teacher"),
    "no text": ("train text-flow", "--data.path"),
    "nothing to resume": ("train --resume", "--resume"),
    "two runs to resume": ("train --resume a b", "--resume"),
    "no run to write with": ("sample", "run directory"),
    "a run that does not exist": ("sample nowhere", "nowhere", "flowlm train"),
    "a judge that does not exist": ("evaluate {run} --judge nowhere", "nowhere"),
    "an evaluation of nothing": ("evaluate nowhere", "nowhere"),
    "a resumption of nothing": ("train --resume nowhere", "nowhere"),
    "no texts": ("sample {run} --num 0", "number of texts"),
    "less than no texts": ("sample {run} --num -3", "number of texts"),
    "no steps": ("sample {run} --steps 0", "number of steps"),
    "no steps among others": ("sample {run} --steps 4 0", "number of steps"),
    "a film without steps": ("sample {run} --film --steps 0", "number of steps"),
    "one text to compare": ("evaluate {run} --num 1", "two texts"),
    "texts without end": ("sample {run} --num 99999999999999999999", "number of texts"),
    "steps without end": ("sample {run} --steps 1000000000", "number of steps"),
    "a film of too many steps": ("sample {run} --film --steps 65537", "65,536"),
    "a film's seed below zero": ("sample {run} --film --seed -1", "seed"),
    "a seed without end": (f"sample {{run}} --seed {2**64}", "seed"),
    "texts without end to compare": ("evaluate {run} --num 4294967297", "number of texts"),
    "no steps to compare": ("evaluate {run} --steps 0", "number of steps"),
    "a seed below zero": ("sample {run} --seed -1", "seed"),
    "an evaluation's seed below zero": ("evaluate {run} --num 2 --seed -1", "seed"),
    "a demo's seed below zero": ("demo --seed -1 --out {out}", "seed"),
    "nothing to prepare": ("prepare --out x", "text file"),
    "nowhere to put it": ("prepare x.txt", "--out"),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_that_mean_nothing_are_refused(
    case: str,
    flowlm: Callable,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, *named = WORDS[case]
    before = sorted(runs.rglob("*"))
    flowlm(*words.format(run=runs / "flow", out=tmp_path / "out").split()).refusal(*named)
    assert not list(tmp_path.iterdir())
    assert sorted(runs.rglob("*")) == before


VALUES = {
    "text-flow": [
        ("--size.width 18 --size.heads 4", "--size.width"),
        ("--size.width 6 --size.heads 2", "--size.width"),
        ("--size.width 0", "--size.width"),
        ("--size.heads 0", "--size.heads"),
        ("--size.heads -2", "--size.heads"),
        ("--size.blocks 0", "--size.blocks"),
        ("--size.condition 0", "--size.condition"),
        ("--size.dropout 1.5", "--size.dropout"),
        ("--size.dropout -0.1", "--size.dropout"),
        ("--size.attention-cap 0", "--size.attention-cap"),
        ("--size.output-cap -1", "--size.output-cap"),
        ("--size.attention-cap 1e-300", "--size.attention-cap"),
        ("--size.output-cap 1e300", "--size.output-cap"),
        ("--size.output-cap 20", "--size.output-cap", "bayes"),
        ("--size.reach -1", "--size.reach"),
        ("--size.reach 16", "--size.reach", "16 tokens"),
        ("--size.blocks 1000000000", "--size.blocks"),
        ("--size.width 1000000 --size.heads 1", "--size.width"),
        ("--size.condition 99999999999999999999", "--size.condition"),
        ("--data.length 99999999999999999999", "--data.length"),
        ("--data.vocab 1", "--data.vocab"),
        ("--data.vocab 99999999999999999999", "--data.vocab"),
        ("--sampler.temperature 0", "--sampler.temperature"),
        ("--sampler.temperature 1e-39", "--sampler.temperature"),
        ("--sampler.temperature nan", "--sampler.temperature"),
        ("--sampler heum", "heum", "heun"),
        ("--sampler unmask", "unmask", "euler"),
        ("--train.steps 0", "--train.steps"),
        (f"--train.steps {2**31}", "--train.steps"),
        (f"--train.warmup {10**400}", "--train.warmup"),
        ("--train.shard 3", "--train.shard", "torchrun"),
        ("--train.batch 0", "--train.batch"),
        ("--train.keep 0", "--train.keep"),
        ("--train.log-every 0", "--train.log-every"),
        ("--train.warmup -1", "--train.warmup"),
        ("--train.decay 1.5", "--train.decay"),
        ("--train.ema nan", "--train.ema"),
        ("--train.beta2 1", "--train.beta2"),
        ("--train.weight-decay -1", "--train.weight-decay"),
        ("--train.lr 0", "--train.lr"),
        ("--train.lr nan", "--train.lr"),
        ("--train.lr inf", "--train.lr"),
        ("--train.clip nan", "--train.clip"),
        ("--train.seed -1", "--train.seed"),
        (f"--train.seed {2**32}", "--train.seed"),
        ("--train.threads -1", "--train.threads"),
        ("--data.length 1", "--data.length"),
        ("--data.valid 0", "--data.valid"),
        ("--data.valid nan", "--data.valid"),
        ("--data.tokenizer bpe --data.vocab 100", "--data.vocab"),
        ("--data.tokenizer nowhere.json", "nowhere.json"),
    ],
    "text-flow-map": [
        ("--sampler.gamma 1.5", "--sampler.gamma"),
        ("--sampler.gamma -1", "--sampler.gamma"),
        ("--method.teacher-temperature inf", "--method.teacher-temperature"),
        ("--method.teacher-temperature 1e-310", "--method.teacher-temperature"),
        ("--method.teacher-temperature 0.5", "--method.teacher-temperature", "--method.teacher"),
    ],
    "text-masked": [
        ("--sampler.temperature -1", "--sampler.temperature"),
        ("--sampler.top-p 0", "--sampler.top-p"),
    ],
    "text-autoregressive": [
        ("--sampler.temperature nan", "--sampler.temperature"),
        ("--sampler.top-p 2", "--sampler.top-p"),
    ],
}


@pytest.mark.parametrize(
    ("recipe", "case"),
    [pytest.param(recipe, case, id=case[0]) for recipe in VALUES for case in VALUES[recipe]],
)
def test_impossible_values_are_refused(
    recipe: str, case: tuple[str, ...], train: Callable, tmp_path: Path
) -> None:
    words, *named = case
    train(recipe, tmp_path / "out", *words.split()).refusal(*named)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(
    device: str, train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    train("text-flow", tmp_path / "out", "--train.device", device).refusal(device)
    assert not list(tmp_path.iterdir())


# --- the text ---------------------------------------------------------------------------------

BYTES = {
    "empty": b"",
    "blank": b"\n \n\t\n",
    "binary": bytes(range(256)) * 8,
    "latin": "Übergröße\n".encode("latin-1") * 100,
    "wide": ("plain text\n" * 100).encode("utf-16"),
    "packed": gzip.compress(b"plain text\n" * 100),
    "shorter than a window": b"ten chars.\n",
    "held-out part shorter than a window": b"x" * 120 + b"\n",
}


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("recipe", ["text-flow", "text-autoregressive"])
def test_unusable_text_is_refused(kind: str, recipe: str, train: Callable, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(BYTES[kind])
    named = ["--data.length"] if "window" in kind else [file]
    train(recipe, tmp_path / "out", "--data.path", file).refusal(*named)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["empty", "blank", "binary", "latin", "wide", "packed"])
def test_unusable_text_is_not_prepared(kind: str, flowlm: Callable, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(BYTES[kind])
    flowlm("prepare", file, "--out", tmp_path / "out").refusal(file)
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_refused_command_read_is_not_trained_on(train: Callable, tmp_path: Path) -> None:
    one, two, out = tmp_path / "one.txt", tmp_path / "two.txt", tmp_path / "out"
    one.write_text("abc\n" * 500)
    two.write_text("vwxyz\n" * 500)
    train("text-flow", out, "--data.path", one, "--data.length", 5000).refusal("--data.length")
    assert train("text-flow", out, "--data.path", two).status == 0
    tokenizer = load(out).tokenizer
    assert tokenizer is not None
    assert tokenizer.decode(tokenizer.encode("vwxyz")) == "vwxyz", "trained on the first text"


def test_text_that_is_not_there_is_refused(train: Callable, tmp_path: Path) -> None:
    train("text-flow", tmp_path / "out", "--data.path", tmp_path / "no.txt").refusal("no.txt")
    train("text-flow", tmp_path / "out", "--data.path", tmp_path).refusal(".txt")
    train("text-flow", tmp_path / "out", "--data.path", tmp_path / "*.md").refusal("*.md")
    assert not list(tmp_path.iterdir())


def test_a_held_out_part_that_is_too_short_is_told_from_the_text(
    train: Callable, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(BYTES["held-out part shorter than a window"])
    refused = train("text-flow", tmp_path / "out", "--data.path", file)
    # The text itself is long enough: the sentence must not say that it has 6 tokens.
    refused.refusal("held")


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["text-flow", "demo-flow"])
def test_a_place_that_cannot_be_written_is_refused(
    recipe: str, flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a-file"
    file.write_text("precious")
    text = ["--data.path", corpus] if recipe == "text-flow" else []
    for out in (file, file / "below"):
        flowlm("train", recipe, "--train.steps", 1, *text, "--out", out).refusal(out)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_is_not_overwritten(train: Callable, flow_run: Path) -> None:
    before = {f: f.read_bytes() for f in flow_run.rglob("*") if f.is_file()}
    train("text-masked", flow_run).refusal(flow_run, "--resume")
    assert {f: f.read_bytes() for f in flow_run.rglob("*") if f.is_file()} == before


def test_prepared_text_is_not_overwritten(flowlm: Callable, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    assert flowlm("prepare", corpus, "--out", out).status == 0
    before = {f: f.read_bytes() for f in out.iterdir()}
    flowlm("prepare", corpus, "--out", out).refusal(out)
    assert {f: f.read_bytes() for f in out.iterdir()} == before
