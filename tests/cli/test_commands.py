"""The commands do what they say, end to end, on tiny models."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flowlm as library
from flowlm.experiment import read_experiment
from flowlm.hub.names import SHIPPED

RECIPES = ("text-flow", "text-flow-map", "text-masked", "text-autoregressive")
METHODS = ("flow", "flow-map", "masked", "autoregressive")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_training_leaves_a_whole_run(
    recipe: str, tokenizer: str, train: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["--data.tokenizer", tokenizer, "--data.vocab", 300, "--train.validate-every", 3]
    answer = train(recipe, out, *words)
    assert (answer.status, answer.err) == (0, "")
    assert "flowlm sample" in answer.out
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "experiment.json",
        "fingerprints.json",
        "metrics.jsonl",
        "model.safetensors",
        "samples",
        "tokenizer.json",
        "tokens",
    ]
    checkpoints = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert checkpoints == ["step-00000002", "step-00000004"]
    samples = sorted(path.name for path in (out / "samples").iterdir())
    assert samples == ["step-00000003.txt", "step-00000004.txt"]
    model = library.load(out)
    assert model.network.vocab == (18 if tokenizer == "characters" else 284)
    assert (out / "samples" / samples[-1]).read_text() == (
        "\n\n".join(model.generate(4, steps=32)) + "\n"
    )
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "valid" in r] == [3, 4]
    assert [r["step"] for r in records if "loss" in r] == [4]


def test_a_run_goes_where_its_recipe_is_called(
    flowlm: Callable, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--size.blocks", "1", "--size.width", "8", "--size.heads", "2", "--train.steps", "1"]
    answer = flowlm("train", "text-masked", *words, "--data.path", corpus, "--data.length", 8)
    assert answer.status == 0
    assert (tmp_path / "runs" / "text-masked" / "model.safetensors").exists()


def test_paths_are_printed_as_they_are(train: Callable, tmp_path: Path) -> None:
    out = tmp_path / " ".join(["long"] * 20) / "run [red] :cat:"
    answer = train("text-flow", out)
    assert answer.status == 0
    assert f"into {out}\n" in answer.out
    assert f"flowlm sample {out} --steps" in answer.out


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_writes_a_report(
    method: str, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / method, tmp_path / "run")
    answer = flowlm("evaluate", run, "--steps", 1, 4, "--num", 6)
    assert (answer.status, answer.err) == (0, "")
    assert "sample entropy" in answer.out
    assert answer.out.count("whatever --steps says") == (method == "autoregressive")
    report = json.loads((run / "report.json").read_text())
    rows = report["rows"]
    full = method == "autoregressive"
    assert [row["steps"] for row in rows] == (["full"] if full else [1, 4])
    assert [row["evaluations"] for row in rows] == ([16] if full else [1, 4])
    for row in rows:
        tokens = library.load(run).sample(6, row["evaluations"])
        assert row["samples"] == 6
        assert row["unique"] == len(tokens.unique(dim=0)) / 6
        assert "nll" not in row
    assert report["judge"] == "nobody"
    assert ("film" in report) == method.startswith("flow")
    (held_out,) = report["held_out"]
    assert held_out["kind"] == ("exact" if full else "upper bound")
    assert "nats per held-out token" in answer.out
    page = (run / "report.html").read_text()
    assert report["title"] in page


def test_a_judge_scores_the_texts(flowlm: Callable, runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "flow", tmp_path / "run")
    judge = runs / "autoregressive"
    words = ["evaluate", run, "--steps", 2, "--num", 40, "--seed", 3]
    assert flowlm(*words, "--judge", judge).status == 0
    report = json.loads((run / "report.json").read_text())
    tokens = library.load(run).sample(40, 2, seed=3)
    network = library.load(judge).network
    begin = torch.full((40, 1), network.vocab)
    logp = network(torch.cat((begin, tokens[:, :-1]), 1)).log_probs()
    expected = -float(logp.gather(-1, tokens[..., None]).mean())
    assert report["rows"][0]["nll"] == pytest.approx(expected, rel=1e-5)
    assert report["judge"] != "nobody"


def test_several_judges_score_the_same_texts(
    flowlm: Callable, runs: Path, train: Callable, tmp_path: Path
) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    assert train("text-autoregressive", other, "--train.seed", 5).status == 0
    words = ("evaluate", runs / "flow", "--steps", 2, "--num", 24, "--out", out)
    judges = ("--judge", runs / "autoregressive", "--judge", other)
    assert flowlm(*words, *judges).status == 0
    report = json.loads((out / "report.json").read_text())
    (row,) = report["rows"]
    first, second = row, row["judges"]["other"]
    for figures in (first, second, report["reference"], report["reference"]["judges"]["other"]):
        assert figures["perplexity"] == pytest.approx(math.exp(figures["nll"]))
        assert {"bits_per_byte", "rank_chi2"} <= figures.keys()
    assert first["nll"] != second["nll"]
    assert "rank_chi2" in report["controls"][0]
    assert {"nll", "perplexity"} <= first["intervals"].keys()
    assert "Other judges" in (out / "report.html").read_text()
    again = out.with_name("again")
    assert flowlm(*words[:-1], again, "--judge", other).status == 0
    (alone,) = json.loads((again / "report.json").read_text())["rows"]
    assert {key: alone[key] for key in second if key != "intervals"} == pytest.approx(
        {key: value for key, value in second.items() if key != "intervals"}
    )


@pytest.mark.parametrize("method", ["flow", "flow-map", "masked"])
def test_only_an_autoregressive_model_judges(
    method: str, flowlm: Callable, runs: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / "flow", tmp_path / "run")
    words = ["evaluate", run, "--steps", 1, "--num", 2, "--judge", runs / method]
    flowlm(*words).refusal("autoregressive")
    assert not (run / "report.json").exists()


def test_a_judge_reads_the_same_tokens_and_as_many(
    flowlm: Callable, train: Callable, runs: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(runs / "flow", tmp_path / "run")
    words = ["evaluate", run, "--steps", 1, "--num", 2, "--judge"]
    short, other = tmp_path / "short", tmp_path / "other"
    assert train("text-autoregressive", short, "--data.length", 8).status == 0
    flowlm(*words, short).refusal("8", "16")
    bpe = ["--data.tokenizer", "bpe", "--data.vocab", 300]
    assert train("text-autoregressive", other, *bpe).status == 0
    flowlm(*words, other).refusal("tokenizer")
    assert not (run / "report.json").exists()


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_prepared_text_trains_like_the_text_itself(
    tokenizer: str, flowlm: Callable, train: Callable, corpus: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    vocab = ["--vocab", 300] if tokenizer == "bpe" else []
    words = ["--tokenizer", tokenizer, *vocab, "--valid", 0.1]
    answer = flowlm("prepare", corpus, "--out", tokens, *words)
    assert (answer.status, answer.err) == (0, "")
    assert f"--data.path {tokens}" in answer.out
    one, two = tmp_path / "one", tmp_path / "two"
    assert train("text-masked", one, "--data.path", tokens).status == 0
    assert not (one / "tokens").exists()
    own = ["--data.tokenizer", tokenizer, "--data.vocab", 300, "--data.valid", 0.1]
    assert train("text-masked", two, *own).status == 0
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_sentences_of_the_demo_train_and_are_measured(flowlm: Callable, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = "--size.blocks 1 --size.width 16 --size.heads 2 --train.steps 2 --train.batch 4"
    assert flowlm("train", "demo-flow", *words.split(), "--out", out).status == 0
    answer = flowlm("evaluate", out, "--steps", 1, "--num", 20)
    assert answer.status == 0
    assert "Entropy of the language itself" in answer.out
    row = json.loads((out / "report.json").read_text())["rows"][0]
    assert 0 <= row["valid"] <= 1
    assert row["nll"] > 3, "an untrained model writes sentences of the language"


def test_recipes_are_listed(flowlm: Callable) -> None:
    from flowlm.recipes import CHAINS
    from flowlm.recipes import RECIPES as ALL

    answer = flowlm("recipes")
    assert answer.status == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == [*ALL, *CHAINS]
    assert all(len(line.split()) > 3 for line in answer.out.splitlines())


def test_a_shipped_model_is_used_by_its_name(
    flowlm: Callable, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED, "little", runs / "flow")
    written = flowlm("sample", "little")
    assert (written.status, written.out) == (0, flowlm("sample", runs / "flow").out)
    words = ["--method.teacher", "little", "--train.steps", 2, "--train.batch", 4, "--out", "map"]
    assert flowlm("train", "text-flow-map", *words).status == 0
    shutil.rmtree("map")
    # It is nobody's run: it cannot be continued, and what is measured has no place in it.
    before = sorted(runs.rglob("*"))
    flowlm("train", "--resume", "little").refusal("little")
    assert not list(tmp_path.iterdir())
    answer = flowlm("evaluate", "little", "--num", 2, "--steps", 1)
    if answer.status:
        answer.refusal("little")
    assert sorted(runs.rglob("*")) == before


@pytest.mark.skipif(not SHIPPED["demo"].exists(), reason="no weights are shipped yet")
def test_the_shipped_model_writes_at_once(
    flowlm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowlm.data.language import demo_language

    monkeypatch.chdir(tmp_path)
    answer = flowlm("sample", "demo", "--num", 4, "--quiet")
    assert (answer.status, answer.err) == (0, "")
    texts = answer.out.splitlines()
    assert len(texts) == 4
    assert all(len(text.split()) == demo_language()[0].length for text in texts)
    assert read_experiment("demo").name.startswith("demo-")
    flowlm("train", "--resume", "demo").refusal("demo")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_is_no_error(runs: Path) -> None:
    # What `flowlm sample RUN | head` does, without a race.
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "flowlm", "sample", str(runs / "flow"), "--quiet"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_a_guide_leads_and_is_counted(flowlm: Callable) -> None:
    plain = flowlm("sample", "demo", "--steps", "2", "--num", "2")
    led = flowlm("sample", "demo", "--steps", "2", "--num", "2", "--guide", "demo")
    assert "2 steps, 4 evaluations" in led.err
    assert led.out == plain.out, "a model does not lead itself"
    alone = flowlm("sample", "demo", "--guidance", "2")
    assert (alone.status, "--guide" in alone.err) == (2, True)
