"""`flowlm prepare`: published corpora, tables, and training on what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from flowlm import load
from flowlm.data.corpora import published
from flowlm.data.layout import Packed, Padded
from flowlm.data.tokens import open_tokens
from flowlm.experiment import Experiment, Text
from flowlm.methods.masked import Masked
from flowlm.recipes.text import SIZE
from flowlm.run.inputs import open_inputs
from flowlm.sampling import Unmask
from flowlm.train.plan import Plan

LAYOUTS = {
    "lm1b": Packed(16, "[CLS]", "[SEP]", "[SEP]"),
    "lm1b-unpacked": Padded(16, "[CLS]", "[SEP]", "[PAD]"),
}


@pytest.fixture
def place(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small LM1B as somebody may have placed it, with a small BERT vocabulary beside it."""
    lines = corpus.read_text().splitlines()
    for split, part in (("train", lines[:180]), ("test", lines[180:])):
        file = tmp_path / "place" / split / "0000.parquet"
        file.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": part}), file)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *sorted({word for line in lines for word in line.split()})]
    (tmp_path / "place" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    hub = published.LM1B
    assert isinstance(hub.valid, published.Part)
    hub = replace(hub, train=replace(hub.train, rows=180), valid=replace(hub.valid, rows=20))
    for name, layout in LAYOUTS.items():
        known = published.Published(hub, "bert-base-uncased", len(pieces), layout)
        monkeypatch.setitem(published.PUBLISHED, name, known)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "place"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_corpus_is_prepared_and_trained_on(
    name: str, flowlm: Callable, train: Callable, place: Path, tmp_path: Path
) -> None:
    answer = flowlm("prepare", name, "--source", place, "--tokenizer", place / "vocab.txt")
    assert (answer.status, answer.err) == (0, "")
    assert f"Use it as --data.path data/{name} --data.length 16" in answer.out
    assert sorted(path.name for path in Path("data").iterdir()) == [name]
    assert train("text-masked", tmp_path / "run", "--data.path", f"data/{name}").status == 0
    refused = train(
        "text-masked", tmp_path / "2", "--data.path", f"data/{name}", "--data.length", 8
    )
    refused.refusal(f"data/{name}", "--data.length 16")
    flowlm("prepare", name, "--source", place, "--tokenizer", place / "vocab.txt").refusal(name)


def test_rows_are_learnt_from_as_they_are_and_padding_has_no_weight(
    flowlm: Callable, place: Path, tmp_path: Path
) -> None:
    for name in LAYOUTS:
        words = ["--source", place, "--tokenizer", place / "vocab.txt"]
        assert flowlm("prepare", name, *words).status == 0
        prepared = open_tokens(f"data/{name}")
        whole = {tuple(row) for row in prepared.train.reshape(-1, 16).tolist()}
        plan = Plan(batch=6, warmup=1)
        experiment = Experiment("x", Masked(), Unmask(), Text(f"data/{name}", 16), SIZE, plan)
        sources = [open_inputs(experiment, tmp_path / "unused", rank=r, world=2) for r in range(2)]
        alone = open_inputs(experiment, tmp_path / "unused")
        for step in (0, 9):
            parts = [source.batches(step) for source in sources]
            tokens = torch.cat([part.tokens for part in parts])
            assert torch.equal(tokens, alone.batches(step).tokens)
            assert {tuple(row) for row in tokens.tolist()} <= whole
            weight = torch.cat([part.weight for part in parts])
            filled = tokens != 0 if name == "lm1b-unpacked" else torch.ones(6, 16)
            assert torch.equal(weight, filled.float())
        assert len(alone.valid.tokens) == len(prepared.valid) // 16


def test_what_is_published_is_not_changed(flowlm: Callable, place: Path, tmp_path: Path) -> None:
    for option, value in (("valid", 0.1), ("documents", "blank"), ("vocab", 300), ("column", "x")):
        flowlm("prepare", "lm1b", f"--{option}", value).refusal("lm1b", f"--{option}")
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n")
    words = ["--source", place, "--tokenizer", tmp_path / "vocab.txt"]
    flowlm("prepare", "lm1b", *words).refusal("bert-base-uncased", "--tokenizer")
    assert not Path("data").exists()


def test_a_place_without_the_corpus_is_refused(flowlm: Callable, place: Path) -> None:
    empty = place / "test"
    words = ["--source", empty, "--tokenizer", place / "vocab.txt"]
    flowlm("prepare", "lm1b", *words).refusal(empty, "plain_text/train/*.parquet", "--source")
    assert not Path("data").exists()


def test_a_corpus_that_is_not_prepared_yet_is_told_from_a_slip(
    train: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "openwebtext"
    train("text-masked", tmp_path / "run", "--data.path", path).refusal(
        f"`flowlm prepare openwebtext --out {path}`"
    )


def test_a_table_trains_like_the_text_it_holds(
    flowlm: Callable, train: Callable, corpus: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.parquet"
    lines = pyarrow.table({"text": corpus.read_text().splitlines()})
    pyarrow.parquet.write_table(lines, table)
    words = ["--out", tmp_path / "tokens", "--tokenizer", "bpe", "--vocab", 300]
    assert flowlm("prepare", table, *words).status == 0
    flowlm("prepare", table, "--out", tmp_path / "x", "--column", "body").refusal("body", "text")
    own = ["--data.tokenizer", "bpe", "--data.vocab", 300]
    runs = {
        "prepared": ["--data.path", tmp_path / "tokens"],
        "table": ["--data.path", table, *own],
        "lines": own,
    }
    weights = set()
    for name, options in runs.items():
        assert train("text-masked", tmp_path / name, *options).status == 0
        weights.add((tmp_path / name / "model.safetensors").read_bytes())
    assert len(weights) == 1


def test_options_that_would_do_nothing_are_refused(
    flowlm: Callable, corpus: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"]
    flowlm("prepare", corpus, *out, "--source", tmp_path).refusal("--source")
    flowlm("prepare", corpus, *out, "--jobs", -1).refusal("--jobs")
    flowlm("prepare", corpus, *out, "--subset", "en").refusal("--subset")
    assert not list(tmp_path.iterdir())


def test_models_are_not_read_as_text(
    flowlm: Callable, train: Callable, flow_run: Path, tmp_path: Path
) -> None:
    """A run has samples, which are text files, and an export has tables."""
    (flow_run / "samples").mkdir(exist_ok=True)
    (flow_run / "samples/step-00000004.txt").write_text("what a model wrote\n" * 100)
    load(flow_run).save(tmp_path / "export")
    for place in (flow_run, tmp_path / "export"):
        flowlm("prepare", place, "--out", tmp_path / "out").refusal(place, "a run or a model")
        train("text-flow", tmp_path / "out", "--data.path", place).refusal(place)
    flowlm("prepare", flow_run / "tokens", "--out", tmp_path / "out").refusal("prepared text")
    assert not (tmp_path / "out").exists()
    assert train("text-flow", tmp_path / "out", "--data.path", flow_run / "tokens").status == 0


def test_what_a_tokenizer_does_not_know_is_said_and_limited(
    flowlm: Callable, place: Path, tmp_path: Path
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("the cat sat on the zebra\n" * 100)
    words = ["prepare", text, "--tokenizer", place / "vocab.txt", "--out", out]
    flowlm(*words).refusal("16.67%", "100 of 600", "--unknown")
    for share in (-0.1, 1.1, "nan"):
        flowlm(*words, "--unknown", share).refusal("--unknown")
    assert not out.exists()
    answer = flowlm(*words, "--unknown", 0.2)
    assert answer.status == 0
    assert (
        answer.err
        == "flowlm: The tokenizer does not know 16.67% (100 of 600 tokens) of the text.\n"
    )
    assert open_tokens(out).manifest["unknown"] == 100
