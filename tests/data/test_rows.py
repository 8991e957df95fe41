"""Texts in rows of their own: how they are found, what a row holds, who is held out."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path

import pytest

from flowlm.data import preparation
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.corpora.texts import in_texts, lines, sentences
from flowlm.data.finding import make_tokenizer
from flowlm.data.layout import Rows, Stream
from flowlm.data.ledger import EVERY
from flowlm.data.lower import lowered
from flowlm.data.preparation import prepare, unfinished
from flowlm.data.pretrained import wordpiece
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import Prepared
from flowlm.errors import Notice, Refusal

STORIES = [f"One day cat {i} sat. It ran {'far ' * (i % 4)}off! The dig" for i in range(240)]
LETTERS = Tokenizer.characters(STORIES)


@pytest.fixture
def stories(tmp_path: Path):
    (tmp_path / "stories.txt").write_text("\n".join(STORIES))
    return text_corpus(str(tmp_path / "stories.txt"), "line", 0.05)


def texts(prepared: Prepared, split: str) -> list[str]:
    rows = vars(prepared)[split].reshape(-1, prepared.row).tolist()
    return [prepared.tokenizer.of_rows().decode(row) for row in rows]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("One sat. Two ran!  Three?\nFour…", ["One sat.", "Two ran!", "Three?", "Four…"]),
        ("No mark", ["No mark"]),
        ("a line\nbroken in a sentence. b", ["a line broken in a sentence.", "b"]),
        ("Title\n \nText. More.\n\n\nEnd", ["Title", "Text.", "More.", "End"]),
        ('"Stop!" said Tom. "Go."', ['"Stop!" said Tom.', '"Go."']),
        ('"Stop!" Tom said. (He did.) So', ['"Stop!"', "Tom said.", "(He did.)", "So"]),
        ("It was 3.5 cm, e.g.this. What?! No", ["It was 3.5 cm, e.g.this.", "What?!", "No"]),
        ("Mr. Fox met mrs. Owl. Dr. No left.", ["Mr. Fox met mrs. Owl.", "Dr. No left."]),
        ("the alms. he gave", ["the alms.", "he gave"]),
    ],
)
def test_where_sentences_end(document: str, found: list[str]) -> None:
    assert list(sentences(document)) == found


def test_lines_are_those_that_are_not_blank() -> None:
    assert list(lines(" one\n\n\ttwo. three \n")) == ["one", "two. three"]


def test_a_row_holds_a_text_and_its_end_from_there_on(stories, tmp_path) -> None:
    corpus = in_texts(stories, "sentence")
    with pytest.warns(Notice, match=r"8\.33% \(60 of 720\) are longer.*20 tokens, and were drop"):
        dropped = prepare(corpus, tmp_path / "drop", LETTERS, Rows(20))
    with pytest.warns(Notice, match="were cut"):
        cut = prepare(corpus, tmp_path / "cut", LETTERS, Rows(20, "cut"))
    every = [(split, text) for split, text, _ in corpus.read()]
    assert {text for _, text in every} >= {"One day cat 7 sat.", "It ran far off!", "The dig"}
    for split in ("train", "valid"):
        own = [text for of, text in every if of == split]
        assert texts(dropped, split) == [text for text in own if len(text) <= 20]
        assert texts(cut, split) == [text[:20] for text in own]
        for prepared in (dropped, cut):
            for row in vars(prepared)[split].reshape(-1, 20).tolist():
                text = [id for id in row if id != LETTERS.end]
                assert row == text + [LETTERS.end] * (20 - len(text))
    assert dropped.manifest["long"] == cut.manifest["long"] == 60
    assert sum(part["documents"] for part in dropped.manifest["splits"].values()) == 720
    assert (dropped.row, dropped.pad) == (20, None)
    assert dropped.packing == {
        "begin": None, "end": None, "layout": "rows", "texts": "sentence", "long": "drop",
        "lower": False,
    }  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_the_same_after_an_interruption(stories, tmp_path, monkeypatch, processes) -> None:
    monkeypatch.setattr(preparation, "GROUP", 7)
    corpus, layout = in_texts(stories, "sentence"), Rows(20)
    done: list[int] = []

    def stop(read: int, total: int | None) -> None:
        done.append(read)
        if len(done) == EVERY + 9:
            raise KeyboardInterrupt

    with pytest.warns(Notice, match="60 of 720"):
        whole = prepare(corpus, tmp_path / "whole", LETTERS, layout)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, out, LETTERS, layout, processes, resume=True, progress=stop)
    other = "another preparation"
    with pytest.raises(Refusal, match=other):
        prepare(corpus, out, LETTERS, Rows(20, "cut"), resume=True)
    with pytest.raises(Refusal, match=other):
        prepare(stories, out, LETTERS, layout, resume=True)
    assert unfinished(out).exists()
    with pytest.warns(Notice, match="60 of 720"):
        again = prepare(corpus, out, LETTERS, layout, resume=True)
    assert again.manifest == whole.manifest


@pytest.mark.parametrize("layout", [Stream(), Rows(60)])
@pytest.mark.parametrize("count", [2, 5, 99, 240])
def test_no_document_is_in_both_parts(tmp_path, layout, count) -> None:
    words = [f"w{i} is {'so ' * (i % 5)}long. w{i} ends." for i in range(count)]
    (tmp_path / "text").write_text("\n".join(words))
    corpus = text_corpus(str(tmp_path / "text"), "line", 0.1)
    if isinstance(layout, Rows):
        corpus = in_texts(corpus, "sentence")
    prepared = prepare(corpus, tmp_path / "out", Tokenizer.characters(words), layout)
    found = {}
    for split in ("train", "valid"):
        text = prepared.tokenizer.decode(vars(prepared)[split].tolist())
        found[split] = {word for word in text.split() if word[1:].isdigit()}
        said = sum(f"{name} is" in text and f"{name} ends." in text for name in found[split])
        assert said == len(found[split]) > 0, "a document is whole"
    assert not found["train"] & found["valid"]
    assert len(found["train"] | found["valid"]) == count
    held_out = sum(len(word) for word in words if word.split()[0] in found["valid"])
    least = 0.1 if count < 100 else 0.08
    assert least <= held_out / sum(map(len, words)) < (0.7 if count < 9 else 0.13)


def test_of_one_document_whole_rows_at_its_end_are_held_out(tmp_path) -> None:
    text = ". ".join(f"sentence {i}" for i in range(50)) + "."
    (tmp_path / "text").write_text(text)
    corpus = in_texts(text_corpus(str(tmp_path / "text"), "line", 0.1), "sentence")
    prepared = prepare(corpus, tmp_path / "out", Tokenizer.characters([text]), Rows(12))
    assert texts(prepared, "valid") == [f"sentence {i}." for i in range(45, 50)]
    assert texts(prepared, "train") == [f"sentence {i}." for i in range(45)]
    assert prepared.manifest["valid"] == "the last 0.1 of the tokens of one document"


def test_rows_that_cannot_be_are_refused(stories, tmp_path, refused) -> None:
    with refused("240 of 240", "longer than a row of 5", "--long cut"):
        prepare(stories, tmp_path / "out", LETTERS, Rows(5))
    pieces = wordpiece({"[UNK]": 0, "one": 1})
    with refused("end of a text", "[SEP]"):
        prepare(stories, tmp_path / "out", pieces, Rows(5), unknown=1.0)
    assert not (tmp_path / "out").exists()


def test_only_the_tokenizer_of_rows_ends_at_the_end() -> None:
    ids = [*LETTERS.encode("cat"), LETTERS.end, *LETTERS.encode("fog")]
    own = LETTERS.of_rows()
    for rows in (own, pickle.loads(pickle.dumps(own))):
        assert (rows.decode(ids), rows.plain(ids), rows.stop) == ("cat", "cat", LETTERS.end)
        assert "".join(rows.pieces(ids)) == "cat"
        assert rows.fingerprint == LETTERS.fingerprint
    assert (LETTERS.decode(ids), LETTERS.stop) == ("cat\nfog", None)


@pytest.mark.parametrize("kind", ["characters", "bpe", "file"])
def test_a_tokenizer_of_lower_case_reads_and_learns_lower_case(
    stories, tmp_path, kind: str
) -> None:
    if kind == "file":
        LETTERS.save(tmp_path / "tokenizer.json")
        kind = str(tmp_path / "tokenizer.json")
    low = make_tokenizer(kind, 300, stories, lower_case=True)
    assert low.lowers
    assert low.decode(low.encode("One CAT")) == "one cat"
    assert lowered(low) is low
    assert not make_tokenizer(kind, 300, stories).lowers
    prepared = prepare(stories, tmp_path / "out", low)
    assert prepared.manifest["unknown"] == 0
    assert prepared.packing["lower"]
    assert prepared.tokenizer.lowers, "so do prompts of whoever learns from it"
    found = prepared.tokenizer.decode(prepared.valid.tolist()).splitlines()
    assert found == [story.lower() for story in STORIES[19::20]]
    if kind == "characters":
        known = {low.decode([id]) for id in range(2, low.vocab)}
        assert known == {*chain(*STORIES)} - {*"OTI"} | {*"oti"}, "no room for upper case"


@pytest.mark.parametrize("mark", ["<|endoftext|>", "\n<|endoftext|>\n"])
def test_documents_end_at_their_mark(tmp_path: Path, mark: str) -> None:
    stories = ["one\n\nof two parts", "two", " three \nfour"]
    (tmp_path / "a.txt").write_text(mark.join(["", *stories[:2], " ", ""]))
    (tmp_path / "b.txt").write_text(mark + stories[2])
    corpus = text_corpus(str(tmp_path), "endoftext", 0.5)
    assert list(corpus.documents()) == [story.strip() for story in stories]
    assert corpus.origin["separator"] == "endoftext"
