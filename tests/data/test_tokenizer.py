from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from flowlm.data.tokenizer import Tokenizer, pieces

DOCUMENTS = ["the cat sat\non the mat", "the dog sat on the log", "ça — 猫 <|end|>"] * 5
CHARACTERS = Tokenizer.characters(DOCUMENTS)
BPE = Tokenizer.bpe(DOCUMENTS, 280)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.text(sorted(set("".join(DOCUMENTS)))))
def test_characters_come_back(text: str) -> None:
    ids = CHARACTERS.encode(text)
    assert CHARACTERS.decode(ids) == text
    assert len(ids) == len(text)
    assert CHARACTERS.end not in ids


@given(ANY_TEXT)
def test_any_text_survives_bytes(text: str) -> None:
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert BPE.end not in ids


def test_the_alphabet_is_what_was_seen_in_order() -> None:
    tokenizer = Tokenizer.characters(["ba", "b\nc"])
    assert tokenizer.vocab == 2 + len("\nabc")
    assert tokenizer.encode("\nabc") == [2, 3, 4, 5]
    assert tokenizer.encode("x猫a") == [1, 1, 3]  # an id each: unknown ones are not fused
    assert tokenizer.decode([1, 3]) == "\ufffda"


def test_the_replacement_character_in_a_text_is_the_unknown_token() -> None:
    tokenizer = Tokenizer.characters(["a\ufffd"])
    assert tokenizer.vocab == 3
    assert tokenizer.encode("\ufffda") == [1, 2]


@pytest.mark.parametrize("tokenizer", [CHARACTERS, BPE], ids=["characters", "bpe"])
def test_text_cannot_spell_the_end_of_a_document(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.end == 0
    tokenizer.save(tmp_path / "tokenizer.json")
    for one in (tokenizer, Tokenizer.load(tmp_path / "tokenizer.json")):
        ids = one.encode("the <|end|>")
        assert 0 not in ids
        assert one.decode([*ids, 0, *ids, 0]) == "the <|end|>\nthe <|end|>\n"


def test_many_are_encoded_as_one_by_one() -> None:
    for tokenizer in (CHARACTERS, BPE):
        assert tokenizer.encode_many(DOCUMENTS) == [tokenizer.encode(text) for text in DOCUMENTS]
        assert tokenizer.encode_many([]) == []
        assert tokenizer.encode("") == []


def test_bpe_training_repeats_itself_and_merges() -> None:
    assert Tokenizer.bpe(iter(DOCUMENTS), 280).fingerprint == BPE.fingerprint
    assert BPE.vocab == 280
    assert len(BPE.encode("the cat")) < len("the cat")
    assert Tokenizer.bpe(["ab"], 300).vocab < 300  # nothing left to merge


def test_words_are_their_places() -> None:
    tokenizer = Tokenizer.words(["c", "a", "bb"])
    assert (tokenizer.vocab, tokenizer.end) == (3, None)
    assert tokenizer.encode("a bb c a") == [1, 2, 0, 1]
    assert tokenizer.decode([1, 2, 0, 1]) == "a bb c a"


def test_impossible_tokenizers_are_refused(refused) -> None:
    with refused("no text"):
        Tokenizer.characters([])
    with refused("256", "257"):
        Tokenizer.bpe(DOCUMENTS, 256)
    with refused("distinct"):
        Tokenizer.words(["a", "a"])
    with refused("distinct"):
        Tokenizer.words([])
    for word in ("", "a b", " a"):
        with refused(repr(word)):
            Tokenizer.words([word])
    with refused("lacks"):
        Tokenizer.words(["a"]).encode("a b")


def test_saving_changes_nothing(tmp_path: Path) -> None:
    built = [CHARACTERS, BPE, Tokenizer.words(["a", "b"])]
    for tokenizer in built:
        tokenizer.save(tmp_path / "tokenizer.json")
        loaded = Tokenizer.load(tmp_path / "tokenizer.json")
        assert loaded.fingerprint == tokenizer.fingerprint
        assert (loaded.vocab, loaded.end) == (tokenizer.vocab, tokenizer.end)
        assert loaded.encode("a") == tokenizer.encode("a")
    assert len({tokenizer.fingerprint for tokenizer in built}) == len(built)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_fingerprint_sees_content_and_not_layout(tmp_path: Path) -> None:
    BPE.save(tmp_path / "a.json")
    state = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(dict(reversed(state.items()))))
    assert Tokenizer.load(tmp_path / "b.json").fingerprint == BPE.fingerprint
    state["model"]["merges"].pop()
    (tmp_path / "c.json").write_text(json.dumps(state))
    assert Tokenizer.load(tmp_path / "c.json").fingerprint != BPE.fingerprint


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, refused, monkeypatch) -> None:
    path = tmp_path / "tokenizer.json"
    CHARACTERS.save(path)
    before = path.read_bytes()

    def full(self: Path, text: str, **rest: object) -> None:
        self.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with refused(path, "No space left"):
        BPE.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_tokenizer_are_refused(tmp_path: Path, refused) -> None:
    path = tmp_path / "tokenizer.json"
    with refused(path, "does not exist"):
        Tokenizer.load(path)
    for content in (b"", b"{", b'{"model": 1}', b"\xff\xfe"):
        path.write_bytes(content)
        with refused(path):
            Tokenizer.load(path)
    with refused(tmp_path):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["<|endoftext|>", "[SEP]", "</s>"])
def test_a_tokenizer_from_elsewhere_only_encodes(tmp_path: Path, name: str) -> None:
    library = tokenizers.Tokenizer(
        models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]")
    )
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens([name, "[CLS]"])
    library.post_processor = processors.TemplateProcessing(
        single=f"[CLS] $A {name}", special_tokens=[("[CLS]", 4), (name, 3)]
    )
    library.enable_truncation(4)
    library.enable_padding(length=4)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (tokenizer.end, tokenizer.vocab) == (3, 5)
    assert tokenizer.encode("a b a b a b") == [0, 1, 0, 1, 0, 1]
    assert tokenizer.encode("a") == [0]
    assert tokenizer.decode([4, 0, 3, 1]) == "[CLS] a\nb"


@given(st.text("ab \n.", min_size=0, max_size=60), st.integers(2, 20))
def test_pieces_are_the_text_and_change_no_token(text: str, limit: int) -> None:
    cut = list(pieces(text, limit))
    assert "".join(cut) == text
    assert all(len(piece) <= limit for piece in cut)
    assert all(cut) or text == ""


def test_pieces_are_cut_where_words_begin() -> None:
    text = "the cat, sat on\nthe mat  and the log. " * 20
    cut = list(pieces(text, 40))
    assert len(cut) > 20
    assert [id for ids in BPE.encode_many(cut) for id in ids] == BPE.encode(text)
    assert list(pieces("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_pieces_are_what_each_token_adds() -> None:
    words = Tokenizer.words(("old", "boats", "a"))
    assert words.pieces([2, 0, 1]) == ["a", " old", " boats"]
    letters = Tokenizer.characters(["ab c\n"])
    ids = letters.encode("a bc\na")
    assert letters.pieces(ids) == [*"a bc\na"]
    assert letters.pieces([*ids, 0, *letters.encode("b")])[-2:] == ["\n", "b"]
    parts = Tokenizer.bpe(["so many small boats, so many words"] * 20, 300)
    ids = parts.encode("so many boats, small words")
    assert "".join(parts.pieces(ids)) == "so many boats, small words"
    assert [parts.pieces(ids)[0], *(p for p in parts.pieces(ids) if p.startswith(" "))]
    assert parts.pieces([]) == []
