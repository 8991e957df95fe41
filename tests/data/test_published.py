"""Published corpora, on small stand-ins in the formats in which the real ones come."""

from __future__ import annotations

import urllib.error
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from flowlm.cli.preparing import Prepare
from flowlm.data import preparation
from flowlm.data.corpora.cleaning import articles, detokenised
from flowlm.data.corpora.published import LM1B, OPENWEBTEXT, PUBLISHED, WIKITEXT103, Part
from flowlm.data.corpora.text8 import Text8
from flowlm.data.layout import Packed, Padded, Stream
from flowlm.data.preparation import prepare
from flowlm.data.pretrained import padded, wordpiece
from flowlm.data.tokenizer import Tokenizer

SENTENCES = ["the cat sat" + " , the cats" * (i % 3) + " ." for i in range(11)]  # 4 to 12 ids
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHORT = Packed(8, "[CLS]", "[SEP]", "[SEP]")
PIECES = [*SPECIAL, "the", "cat", "sat", "s", "##s", ",", "."]
BERT = wordpiece({piece: i for i, piece in enumerate(PIECES)})


def parquet(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file, row_group_size=2)


def small(hub, train: int, valid: int):
    """The same corpus with other numbers of rows."""
    apart = replace(hub.valid, rows=valid) if isinstance(hub.valid, Part) else valid
    return replace(hub, train=replace(hub.train, rows=train), valid=apart)


@pytest.fixture
def lm1b(tmp_path: Path) -> Path:
    for i in range(3):
        parquet(tmp_path / f"hub/plain_text/train/000{i}.parquet", SENTENCES[3 * i : 3 * i + 3])
    parquet(tmp_path / "hub/plain_text/test/0000.parquet", SENTENCES[9:])
    return tmp_path / "hub"


def rows(prepared, split: str) -> list[list[int]]:
    return getattr(prepared, split).reshape(-1, prepared.row).tolist()


@pytest.mark.parametrize("group", [2, 4, 1000])
def test_lm1b_is_packed_group_by_group_as_published(lm1b, tmp_path, monkeypatch, group) -> None:
    monkeypatch.setattr(preparation, "GROUP", group)
    corpus = small(LM1B, 9, 2).corpus("lm1b", lm1b, whole=False)
    prepared = prepare(corpus, tmp_path / "out", BERT, SHORT)
    cls, sep = PIECES.index("[CLS]"), PIECES.index("[SEP]")
    wanted = []
    for first in range(0, 9, group):
        ids: list[int] = []
        for sentence in SENTENCES[first : min(first + group, 9)]:
            ids += [*BERT.encode(detokenised(sentence)), sep]
        while len(ids) >= 6:
            wanted.append([cls, *ids[:6], sep])
            del ids[:6]
    assert rows(prepared, "train") == wanted
    assert prepared.manifest["splits"]["train"]["documents"] == 9
    assert prepared.manifest["splits"]["valid"]["documents"] == 2
    assert prepared.manifest["corpus"] == "lm1b"


def test_unpacked_rows_hold_a_sentence_each(lm1b, tmp_path) -> None:
    corpus = small(LM1B, 9, 2).corpus("lm1b-unpacked", lm1b, whole=False)
    layout = Padded(10, "[CLS]", "[SEP]", "[PAD]")
    prepared = prepare(corpus, tmp_path / "out", BERT, layout)
    cls, sep, pad = (PIECES.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    assert (prepared.row, prepared.pad) == (10, pad)
    for row, sentence in zip(rows(prepared, "train"), SENTENCES, strict=False):
        ids = [cls, *BERT.encode(detokenised(sentence))[:8], sep]
        assert row == ids + [pad] * (10 - len(ids))
    assert len(rows(prepared, "train")) == 9
    assert {row.count(pad) for row in rows(prepared, "train")} == {4, 0}  # filled up, or cut


def test_the_shards_of_the_original_archive_give_the_same_tokens(lm1b, tmp_path) -> None:
    shards = {
        "train/news.en-00001-of-00100": SENTENCES[:5],
        "train/news.en-00002-of-00100": SENTENCES[5:9],
        "heldout/news.en.heldout-00000-of-00050": SENTENCES[9:],
    }
    for name, sentences in shards.items():
        (tmp_path / "archive" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "archive" / name).write_text("\n".join(sentences) + "\n")
    made = []
    for place in (lm1b, tmp_path / "archive"):
        corpus = small(LM1B, 9, 2).corpus("lm1b", place, whole=False)
        made.append(prepare(corpus, tmp_path / place.stem / "out", BERT, SHORT))
    assert rows(made[0], "train") == rows(made[1], "train")
    assert rows(made[0], "valid") == rows(made[1], "valid")
    assert len(made[1].manifest["sources"]) == 3


def test_the_last_documents_of_openwebtext_are_held_out(tmp_path) -> None:
    texts = [f"text {i}\n\nof the web" for i in range(10)]
    for i in range(2):
        parquet(tmp_path / f"hub/train-0000{i}-of-00002.parquet", texts[5 * i : 5 * i + 5])
    gpt2 = padded(Tokenizer.bpe(texts, 300))
    end = "<|end|>"  # what this tokenizer calls GPT-2's <|endoftext|>
    corpus = small(OPENWEBTEXT, 10, 3).corpus("openwebtext", tmp_path / "hub", whole=False)
    prepared = prepare(corpus, tmp_path / "out", gpt2, Packed(12, end, end, end))
    assert prepared.manifest["splits"]["train"]["documents"] == 7
    for split, part in (("train", texts[:7]), ("valid", texts[7:])):
        inside = [id for row in rows(prepared, split) for id in row[1:-1]]
        whole = [id for text in part for id in [*gpt2.encode(text), gpt2.end]]
        assert inside == whole[: len(inside)]
        assert len(whole) - len(inside) < 10
        assert {id for row in rows(prepared, split) for id in (row[0], row[-1])} == {gpt2.end}


@pytest.mark.parametrize("there", [8, 10])
def test_another_number_of_documents_is_another_corpus(lm1b, tmp_path, refused, there) -> None:
    said = "9 of 10" if there == 10 else "more than the 8"
    corpus = small(LM1B, there, 2).corpus("lm1b", lm1b, whole=False)
    with refused(lm1b, said, "plain_text/train"):
        prepare(corpus, tmp_path / "out", BERT, SHORT, resume=True)
    assert list(tmp_path.iterdir()) == [lm1b]


def test_a_place_without_the_files_is_told_what_belongs_there(tmp_path, refused) -> None:
    for name in ("lm1b", "openwebtext", "wikitext103", "fineweb-edu"):
        source = PUBLISHED[name].source
        with refused(tmp_path, name, "huggingface.co/datasets", "revision", "--source"):
            source.corpus(name, tmp_path, whole=False)
    with refused(tmp_path, "text8.zip"):
        PUBLISHED["text8"].source.corpus("text8", tmp_path, whole=False)


def test_without_a_network_a_sentence_says_what_to_place(tmp_path, refused, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for whole in (False, True):
        corpus = LM1B.corpus("lm1b", None, whole)
        with refused("lm1b could not be read", "place plain_text/train/*.parquet", "--source"):
            prepare(corpus, tmp_path / "out", BERT, SHORT, resume=True)

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with refused("text8", "no route to host", "text8.zip", "--source"):
        list(Text8().corpus("text8", None, whole=False).read())
    assert not list(tmp_path.iterdir())


# --- cleaning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "written"),
    [
        ("He said : \" It 's fine . \"", 'He said: "It\'s fine."'),
        ("Why ? Well ! it costs $ 5 , or £ 4 ( or 3 ) .", "Why? Well! it costs $5, or £4 (or 3) ."),
        ("see http : / / a.b / c ; and [ d ]", "see http://a.b/c; and [d]"),
        ("an end . Of it .", "an end. Of it."),
        ("a , : b", "a,: b"),  # the order of the rules shows
        ("' quoted ' and ( this ) .", "'quoted' and (this) ."),  # and so do their faults
    ],
)  # fmt: skip
def test_sentences_are_written_without_their_spaces(published: str, written: str) -> None:
    assert detokenised(published) == written


def test_articles_begin_at_headings_of_the_first_level() -> None:
    one = ["", " = One = \n", "", " text \n", " = = Part = = \n", " more \n", ""]
    lines = [*one, " = Two = \n", " x \n"]
    first, second = articles(iter(lines))
    assert first == ("= One = \n text \n = = Part = = \n more", 7)
    assert second == ("= Two = \n x", 9)


def test_wikitext_is_prepared_by_article(tmp_path) -> None:
    train = [" = A = \n", "", " one \n", " two \n", " = B = \n", " three \n"]
    parquet(tmp_path / "hub/train-0.parquet", train)
    parquet(tmp_path / "hub/validation-0.parquet", [" = C = \n", " four \n"])
    letters = Tokenizer.characters([*train, "Cfu"])
    corpus = small(WIKITEXT103, 6, 2).corpus("wikitext103", tmp_path / "hub", whole=False)
    prepared = prepare(corpus, tmp_path / "out", letters, Stream())
    assert letters.decode(prepared.train.tolist()) == "= A = \n one \n two\n= B = \n three\n"
    assert letters.decode(prepared.valid.tolist()) == "= C = \n four\n"


# --- text8 ------------------------------------------------------------------------------------

LETTERS = ("once upon a time there was a flow of words " * 100)[:4000]
TEXT8 = Text8(train=2000, valid=1000, size=4000)


def packed(file: Path, text: str, name: str = "text8") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file


@pytest.mark.parametrize("form", ["text8", "text8.zip"])
def test_text8_is_split_by_characters_and_has_no_ends(tmp_path, form, monkeypatch) -> None:
    monkeypatch.setattr("flowlm.data.corpora.text8.PIECE", 700)
    file = tmp_path / form
    file.write_text(LETTERS) if form == "text8" else packed(file, LETTERS)
    known = PUBLISHED["text8"]
    tokenizer = Tokenizer.characters(["abcdefghijklmnopqrstuvwxyz "])
    assert tokenizer.vocab == known.vocab
    corpus = TEXT8.corpus("text8", tmp_path, whole=False)
    prepared = prepare(corpus, tmp_path / "out", tokenizer, known.layout)
    assert tokenizer.decode(prepared.train.tolist()) == LETTERS[:2000]
    assert tokenizer.decode(prepared.valid.tolist()) == LETTERS[2000:3000]


def test_what_is_not_text8_is_refused(tmp_path, refused) -> None:
    file = tmp_path / "text8"
    short, long, foreign = LETTERS[:-1], LETTERS + "a", "A" + LETTERS
    for text, said in ((short, "3,999"), (long, "4,001"), (foreign, "a to z")):
        file.write_text(text)
        with refused(file, said):
            list(TEXT8.corpus("text8", tmp_path, whole=False).read())
    file.unlink()
    damaged = packed(tmp_path / "text8.zip", LETTERS)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 255
    damaged.write_bytes(content)
    with refused(damaged, "fetch it again"):
        list(TEXT8.corpus("text8", tmp_path, whole=False).read())
    packed(tmp_path / "text8.zip", LETTERS, "other")
    with refused(damaged, "fetch it again"):
        list(TEXT8.corpus("text8", tmp_path, whole=False).read())


# --- the list ---------------------------------------------------------------------------------


def test_the_help_names_every_published_corpus() -> None:
    text = " ".join((Prepare.__doc__ or "").split())
    listed = text.split("Published corpora: ")[1].split(".")[0]
    assert listed.split(", ") == list(PUBLISHED)
