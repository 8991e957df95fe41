"""Tokenizers of other people, from small files in their formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer

from flowlm.data.pretrained import padded, read_tokenizer, wordpiece
from flowlm.data.tokenizer import Tokenizer

PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat",
          ",", ".", "a", "##b", "##c", "naive", "猫", "'", "s"]  # fmt: skip
TEXTS = ["The CATS sat, the cat.", "Naïve  abc\tcat", "猫cat", "[SEP] the", "", "zzz cat's", "a\nb"]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(params=[("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def gpt2(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["Ġ t", "h e", "Ġt he", "# version", "c a"]
    tokens = [*letters, *(pair.replace(" ", "") for pair in merges), "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(tokens)}
    vocab, pairs = request.param
    (tmp_path / vocab).write_text(json.dumps(ids))
    text = "#version: 0.2\n" + "\n".join(merges[:3] + merges[4:]) + "\n"
    (tmp_path / pairs).write_text(text, encoding="utf-8")
    return tmp_path


def test_bert_reads_as_in_the_original_library(bert: Path) -> None:
    wanted = BertWordPieceTokenizer(str(bert / "vocab.txt"), lowercase=True)
    wanted._tokenizer.encode_special_tokens = True
    for place in (bert, bert / "vocab.txt"):
        own = read_tokenizer(place)
        assert own is not None
        assert (own.vocab, own.end) == (len(PIECES), PIECES.index("[SEP]"))
        for text in TEXTS:
            assert own.encode(text) == wanted.encode(text, add_special_tokens=False).ids, text
    ids = own.encode("The CATS sat, naïve.")
    assert [PIECES[i] for i in ids] == ["the", "cat", "##s", "sat", ",", "naive", "."]
    assert own.decode(ids) == "the cats sat, naive."
    packed = [PIECES.index("[CLS]"), *ids, PIECES.index("[SEP]"), PIECES.index("the")]
    assert own.decode(packed) == "[CLS] the cats sat, naive.\nthe"


def test_gpt2_reads_as_in_the_original_library(gpt2: Path) -> None:
    own = read_tokenizer(gpt2)
    assert own is not None
    names = sorted(file.name for file in gpt2.iterdir())
    vocab, pairs = names if names[0] != "merges.txt" else names[::-1]
    wanted = ByteLevelBPETokenizer(str(gpt2 / vocab), str(gpt2 / pairs))
    for text in (" the cat", "the  the", "naïve 猫\n", "", "# version cat"):
        assert own.encode(text) == wanted.encode(text).ids
        assert own.decode(own.encode(text)) == text
    assert len(own.encode(" the")) == 1
    assert own.end == own.vocab - 1
    # Text does not spell the end, and the end is written as a newline.
    assert own.end not in own.encode("<|endoftext|>")
    assert own.decode([*own.encode("the"), own.end, *own.encode("cat")]) == "the\ncat"


def test_padding_is_one_more_id_at_the_end(gpt2: Path, tmp_path: Path) -> None:
    own = read_tokenizer(gpt2)
    assert own is not None
    more = padded(own)
    assert more.vocab == own.vocab + 1
    assert more.encode(" the cat [PAD]") == own.encode(" the cat [PAD]")
    assert more.decode([own.vocab]) == "[PAD]"
    more.save(tmp_path / "saved.json")
    again = read_tokenizer(tmp_path / "saved.json")
    assert again is not None
    assert (again.vocab, again.fingerprint) == (more.vocab, more.fingerprint)


def test_a_tokenizer_json_comes_first(bert: Path) -> None:
    Tokenizer.characters(["abc"]).save(bert / "tokenizer.json")
    own = read_tokenizer(bert)
    assert own is not None
    assert own.vocab == 5


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None
    (tmp_path / "vocab.json").write_text("{}")
    assert read_tokenizer(tmp_path) is None  # half of a pair


def test_pieces_may_come_as_a_mapping(bert: Path) -> None:
    from_file, ids = read_tokenizer(bert), {piece: i for i, piece in enumerate(PIECES)}
    assert from_file is not None
    assert wordpiece(ids).fingerprint == from_file.fingerprint


@pytest.mark.parametrize("content", [b"", b"the\ncat\n", b"[UNK]\nthe\nthe\n", b"\xff\xfe[UNK]"])
def test_a_broken_vocabulary_is_refused(content: bytes, tmp_path: Path, refused) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with refused(tmp_path / "vocab.txt"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [("{", "a b"), ("[]", "a b"), ('{"a": 0}', "a b"), ('{"a": 0, "b": 1}', "a b c"),
     ('{"a": -1}', ""), ('{"a": "x"}', "")],
)  # fmt: skip
def test_a_broken_pair_is_refused(vocab: str, merges: str, tmp_path: Path, refused) -> None:
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with refused(tmp_path / "vocab.json"):
        read_tokenizer(tmp_path)
