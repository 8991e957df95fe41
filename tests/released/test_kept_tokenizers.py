"""The tokenizer that a released model writes with: inside its .ckpt, or beside it."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import synthetic
import tokenizers
import torch
from synthetic import Shape
from tokenizers import AddedToken, decoders, models, pre_tokenizers

import flowlm
from flowlm.errors import Refusal

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
IDS = {token: i for i, token in enumerate([*LETTERS, "he", "<|endoftext|>"])}
BERT = OrderedDict((piece, i) for i, piece in enumerate(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "s", "a"]
))  # fmt: skip


@pytest.fixture(autouse=True)
def no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is not there, even if another test of this process has imported it."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, module)


def gpt2(pad: bool) -> tokenizers.Tokenizer:
    """GPT-2's kind, with or without the added token."""
    library = tokenizers.Tokenizer(models.BPE(vocab=IDS, merges=[("h", "e")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>", *(["[PAD]"] if pad else [])])
    return library


def saved(file: Path, size: int, module: str, name: str, **state: Any) -> Path:
    """A checkpoint with a tokenizer of a class that is not there when it is read."""
    content, _ = synthetic.checkpoint(Shape(vocab=size))
    with synthetic.pretended():
        kept = getattr(sys.modules[f"transformers.models.{module}"], name)()
        kept.__dict__.update(state)
        content["hyper_parameters"]["tokenizer"] = kept
        torch.save(content, file)
    assert "transformers" not in sys.modules
    return file


@pytest.mark.parametrize("pad", [False, True])
def test_a_fast_tokenizer_is_taken_over(pad: bool, tmp_path: Path) -> None:
    """What it is, as its own library says it; padding is added where the model has room for it."""
    vocab = len(IDS) + 1
    file = saved(
        tmp_path / "model.ckpt", vocab, "gpt2.tokenization_gpt2_fast", "GPT2TokenizerFast",
        _tokenizer=gpt2(pad), init_kwargs={"unk_token": AddedToken("<|endoftext|>")},
    )  # fmt: skip
    model = flowlm.load(file)
    assert model.tokenizer is not None
    assert model.tokenizer.vocab == vocab
    text = " the cat, naïve"
    assert model.tokenizer.encode(text) == gpt2(pad).encode(text).ids
    assert model.tokenizer.decode([vocab - 1]) == "[PAD]"
    model.save(tmp_path / "export")
    assert flowlm.load(tmp_path / "export").generate(2) == model.generate(2)


def test_a_slow_tokenizer_is_taken_over(tmp_path: Path) -> None:
    file = saved(
        tmp_path / "model.ckpt", len(BERT), "bert.tokenization_bert", "BertTokenizer",
        vocab=BERT, do_lower_case=True,
    )  # fmt: skip
    model = flowlm.load(file)
    assert model.tokenizer is not None
    assert model.tokenizer.encode("The cats") == [BERT["the"], BERT["cat"], BERT["##s"]]
    assert model.tokenizer.end == BERT["[SEP]"]


@pytest.mark.parametrize("kept", [{}, {"vocab": 3}, {"vocab": {"[UNK]": "x"}}, {"vocab": {"a": 0}}])
def test_what_is_no_tokenizer_is_left_alone(kept: dict, tmp_path: Path) -> None:
    file = saved(
        tmp_path / "model.ckpt", 23, "bert.tokenization_bert", "BertTokenizer", **kept
    )  # fmt: skip
    assert flowlm.load(file).tokenizer is None


def test_a_tokenizer_inside_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    name = ("bert.tokenization_bert", "BertTokenizer")
    file = saved(tmp_path / "model.ckpt", 23, *name, vocab=BERT)
    with pytest.raises(Refusal, match="10 tokens and the model 23"):
        flowlm.load(file)


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_files_of_gpt2_beside_a_model_are_read_and_padded(
    names: tuple[str, str], tmp_path: Path
) -> None:
    shape = Shape(vocab=len(IDS) + 1)
    synthetic.write_folder(tmp_path / "model", shape)
    (tmp_path / "model" / names[0]).write_text(json.dumps(IDS))
    (tmp_path / "model" / names[1]).write_text("#version: 0.2\nh e\n")
    model = flowlm.load(tmp_path / "model")
    assert model.tokenizer is not None
    assert model.tokenizer.vocab == shape.vocab
    assert model.tokenizer.encode(" the") == gpt2(True).encode(" the").ids
    # Another model has no room for a token more: it is not invented there.
    synthetic.write_folder(tmp_path / "other", Shape(vocab=len(IDS)))
    assert flowlm.load(
        tmp_path / "other", tokenizer=tmp_path / "model"
    ).tokenizer.vocab == len(IDS)  # fmt: skip
