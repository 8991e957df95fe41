"""Models of texts in rows of their own, from the command line to scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import flowlm as face
from flowlm.errors import Refusal
from flowlm.evaluate.extent import count_to_stop
from flowlm.experiment import Text

TINY = (
    "--size.blocks", "1", "--size.width", "16", "--size.heads", "2", "--train.steps", "2",
    "--train.batch", "8", "--train.warmup", "1", "--train.device", "cpu",
)  # fmt: skip
ROWS = ("--data.layout", "rows", "--data.texts", "sentence", "--data.length", "20")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "stories.txt"
    text = "\n".join(f"The Cat {i % 7} sat. It ran {'far ' * (i % 3)}off!" for i in range(300))
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def runs(stories: Path) -> Path:
    from flowlm.cli import main

    data = ["--data.path", str(stories), *ROWS, "--data.lower"]
    for recipe in ("text-flow", "text-autoregressive"):
        out = stories.parent / recipe
        assert main(["train", recipe, *data, *TINY, "--out", str(out)]) == 0
    return stories.parent


def stop_of(model: face.LanguageModel) -> int:
    assert model.tokenizer is not None
    assert model.tokenizer.stop is not None
    return model.tokenizer.stop


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_rows_writes_and_scores_whole_texts(runs: Path) -> None:
    model = face.load(runs / "text-flow")
    data = model.experiment.data
    assert isinstance(data, Text)
    assert (data.layout, data.texts, data.lower) == ("rows", "sentence", True)
    stop = stop_of(model)
    assert not any("\n" in text for text in model.generate(8, steps=2))
    given = model.generate(2, steps=1, prompt="THE cat")
    assert all(text.startswith("the cat") for text in given)
    # A template without a gap of the rest ends where it ends.
    (tokens,) = model.template("the cat [..1] sat.")
    assert tokens[14:].tolist() == [stop] * 6
    assert model.infill("the cat [..1] sat.")[0].startswith("the cat ")
    exact = face.load(runs / "text-autoregressive")
    scores = exact.score(["It ran off!", "The cat 3 sat."])
    assert scores.tokens.tolist() == [12, 15]  # and the end
    assert scores.bytes.tolist() == [11, 14]
    row = torch.tensor([exact.encode("it ran off!")[0].tolist() + [stop_of(exact)] * 9])
    found = exact.experiment.method.next_tokens(exact.network, row)
    assert found is not None
    nats = found.nll(row)
    assert float(scores.nats[0]) == pytest.approx(float(nats.sum()) / 12, rel=1e-4)
    assert int(count_to_stop(row, stop_of(exact))) == 12


def test_what_does_not_fit_a_row_is_refused(runs: Path) -> None:
    model = face.load(runs / "text-flow")
    with pytest.raises(Refusal, match="a row of 20 tokens at most"):
        model.generate(1, length=40)
    with pytest.raises(Refusal, match="Text 1 has 48 tokens"):
        model.score(["it ran off!", "it ran off! " * 4])


def test_an_evaluation_reads_texts_up_to_their_end(flowlm, runs: Path) -> None:
    judge = ("--judge", runs / "text-autoregressive")
    answer = flowlm("evaluate", runs / "text-flow", "--num", 16, "--steps", 1, 2, *judge)
    assert answer.status == 0, answer.err
    report = json.loads((runs / "text-flow" / "report.json").read_text())
    assert report["reference"]["nll"] > 0
    (held_out,) = report["held_out"]
    assert held_out["bits_per_byte"] > 0


def test_a_judge_of_another_layout_is_refused(flowlm, runs: Path, stories: Path) -> None:
    packed = stories.parent / "packed"
    data = ("--data.path", stories, "--data.length", 20, "--data.lower")
    assert flowlm("train", "text-autoregressive", *data, *TINY, "--out", packed).status == 0
    judge = ("--judge", packed)
    answer = flowlm("evaluate", runs / "text-flow", "--num", 8, "--steps", 1, *judge)
    answer.refusal("rows of their own", "same layout")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--data.texts", "sentence"), ("--data.layout rows",)),
        (("--data.layout", "rows", "--data.length", 4), ("longer than a row of 4", "--long cut")),
    ],
)
def test_options_of_rows_that_cannot_be(flowlm, stories, tmp_path, options, named) -> None:
    words = ("train", "text-flow", "--data.path", stories, *options, *TINY)
    flowlm(*words, "--out", tmp_path / "run").refusal(*named)
    assert not (tmp_path / "run").exists()


def test_prepared_rows_are_read_as_they_are(flowlm, stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows"
    words = ("--layout", "rows", "--texts", "sentence", "--length", 20, "--lower", "--out", out)
    assert flowlm("prepare", stories, *words).status == 0
    run = tmp_path / "run"
    data = ("--data.path", out, "--data.length", 20)
    assert flowlm("train", "text-flow", *data, *TINY, "--out", run).status == 0
    stored = json.loads((run / "experiment.json").read_text())["data"]
    assert (stored["layout"], stored["texts"], stored["lower"]) == ("rows", "sentence", True)
    flowlm("train", "text-flow", "--data.path", out, *TINY, "--out", tmp_path / "x").refusal(
        "rows of 20 tokens", "--data.length 20"
    )
    flowlm("prepare", stories, "--texts", "sentence", "--out", tmp_path / "y").refusal(
        "--layout rows"
    )
