"""Text that a tokenizer does not know: counted, told, and refused where it is too much."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from flowlm.data import preparation
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.layout import Chunk, Encoder, Packed, Stream
from flowlm.data.ledger import EVERY
from flowlm.data.preparation import prepare, unfinished
from flowlm.data.pretrained import padded, wordpiece
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.unknown import Unknown
from flowlm.errors import Notice, Refusal

BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]


def bpe(vocab: dict[str, int], **settings) -> Tokenizer:
    merges = [("a", "b")] if "ab" in vocab else []
    return Tokenizer(tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, **settings)))


def words() -> Tokenizer:
    library = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(library)


def unigram() -> Tokenizer:
    pieces = [("<unk>", -9.0), ("a", -1.0), ("b", -1.0)]
    return Tokenizer(tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0)))


KINDS = {
    "characters": (Tokenizer.characters(["abc"]), "abxc猫", 2),
    "a replacement character of the text's own": (Tokenizer.characters(["a\ufffd"]), "\ufffda", 0),
    "both": (Tokenizer.characters(["a\ufffd"]), "\ufffdxx", 2),
    "bytes": (Tokenizer.bpe(["the cat"], 260), "猫 the", 0),
    "bytes with padding": (padded(Tokenizer.bpe(["the cat"], 260)), "猫 the", 0),
    "pieces": (wordpiece({p: i for i, p in enumerate(PIECES)}), "The cats zebra 猫", 2),
    "a spelled special token": (wordpiece({p: i for i, p in enumerate(PIECES)}), "[UNK]", 3),
    "words": (words(), "a b a c", 2),
    "words that are marked unknown": (words(), "a <unk> a", 0),
    "unigram": (unigram(), "abxab", 1),
    "dropped characters": (bpe({"a": 0, "b": 1, "ab": 2}), "aXb猫ab", 2),
    "fallback to bytes": (bpe(BYTES | {"a": 256}, byte_fallback=True), "a猫", 0),
    "half a fallback": (bpe({"<0x41>": 0, "a": 1}, byte_fallback=True), "aA猫", 1),
    "another unknown token": (bpe({"?!": 0, "a": 1}, unk_token="?!", fuse_unk=False), "axy", 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_is_counted(kind: str) -> None:
    tokenizer, text, lost = KINDS[kind]
    texts = [text, "", text]
    encoded = tokenizer.encode_many(texts)
    assert Unknown.of(tokenizer).count(texts, encoded) == 2 * lost
    again = Tokenizer.from_json(tokenizer.to_json(), "A copy")
    assert Unknown.of(again).count([text], [tokenizer.encode(text)]) == lost


def test_a_left_out_character_counts_as_a_token_that_is_unknown() -> None:
    tokenizer = bpe({"a": 0, "b": 1, "ab": 2})
    made = Encoder(tokenizer, Stream(), str)(Chunk("train", [("abXX", True), ("a", True)], 2, 0))
    assert (made.ids, made.unknown) == (4, 2)
    assert made.data == bytes([2, 0, 0, 0])


# --- preparing --------------------------------------------------------------------------------

LINES = [f"story {i} of {i * i}" for i in range(4000)]
LETTERS = Tokenizer.characters(LINES)


def corpus(tmp_path: Path, lines: list[str]):
    (tmp_path / "text").write_text("\n".join(lines))
    return text_corpus(str(tmp_path / "text"), "line", 0.05)


@pytest.fixture
def with_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every fifth line has two characters that nobody knows: 1.9 % of the text."""
    monkeypatch.setattr(preparation, "_BATCH", 500)
    return corpus(tmp_path, [line + "!!" * (i % 5 == 0) for i, line in enumerate(LINES)])


def test_too_much_is_refused_and_a_little_is_told(tmp_path, with_unknown, refused) -> None:
    total = sum(map(len, LINES)) + 1600
    for resume in (False, True):
        with refused(f"{1600 / total:.2%}", f"1,600 of {total:,}", "--unknown", "--data.unknown"):
            prepare(with_unknown, tmp_path / "out", LETTERS, resume=resume)
        assert [file.name for file in tmp_path.iterdir()] == ["text"]
    with pytest.warns(Notice) as said:
        prepared = prepare(with_unknown, tmp_path / "out", LETTERS, unknown=0.5)
    assert len(said) == 1
    assert f"{1600 / total:.2%} (1,600 of {total:,} tokens)" in str(said[0].message)
    assert prepared.manifest["unknown"] == 1600
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        letters = Tokenizer.characters(with_unknown.documents())
        known = prepare(with_unknown, tmp_path / "known", letters, unknown=0.0)
    assert known.manifest["unknown"] == 0


def test_what_a_tokenizer_leaves_out_is_refused(tmp_path, refused) -> None:
    alphabet = sorted(set("".join(LINES)) - {"s"})
    silent = bpe({letter: id for id, letter in enumerate(alphabet)})
    total, lost = sum(map(len, LINES)), 4000
    with refused(f"{lost / total:.2%}", f"{lost:,} of {total:,}"):
        prepare(corpus(tmp_path, LINES), tmp_path / "out", silent)
    with pytest.warns(Notice, match=f"{lost:,} of {total:,}"):
        prepared = prepare(corpus(tmp_path, LINES), tmp_path / "out", silent, unknown=0.1)
    assert len(prepared.train) + len(prepared.valid) == total - lost


def test_a_text_that_does_not_fit_is_refused_at_its_beginning(
    tmp_path, with_unknown, refused, monkeypatch
) -> None:
    monkeypatch.setattr(preparation, "_BEGINNING", 2000)
    seen: list[int] = []
    with refused("The tokenizer does not know"):
        prepare(with_unknown, tmp_path / "out", LETTERS, progress=lambda done, _: seen.append(done))
    assert len(seen) == 3, "chunks of 500 characters"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_count_does_not_depend_on_how_the_work_is_done(
    tmp_path, with_unknown, monkeypatch
) -> None:
    monkeypatch.setattr(preparation, "GROUP", 300)
    layout = Packed(16, "s", "t", "o")
    for out, processes in (("one", 1), ("two", 2)):
        made = prepare(with_unknown, tmp_path / out, LETTERS, layout, processes, unknown=1.0)
        assert made.manifest["unknown"] == 1600
    calls: list[int] = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == 2 * EVERY + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(with_unknown, tmp_path / "out", LETTERS, resume=True, progress=stop, unknown=1.0)
    entry = json.loads((unfinished(tmp_path / "out") / "ledger.json").read_text())
    assert 0 < entry["unknown"] < 1600
    resumed = prepare(with_unknown, tmp_path / "out", LETTERS, resume=True, unknown=1.0)
    assert resumed.manifest["unknown"] == 1600


def test_a_limit_may_be_met_and_not_passed(tmp_path) -> None:
    text = corpus(tmp_path, ["abcdefghi!"] * 200)
    letters = Tokenizer.characters(["abcdefghi"])
    with pytest.raises(Refusal, match=r"10\.00%"):
        prepare(text, tmp_path / "out", letters, unknown=0.0999)
    with pytest.warns(Notice, match=r"10\.00%"):
        prepare(text, tmp_path / "out", letters, unknown=0.1)
