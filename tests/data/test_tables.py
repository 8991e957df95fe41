"""Text in tables: parquet and JSON files here, and a hub that goes away."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from flowlm.data import preparation
from flowlm.data.corpora.tables import Table, is_table, table_corpus, table_files
from flowlm.data.preparation import prepare, unfinished
from flowlm.data.tokenizer import Tokenizer

TEXTS = [f"document {i}\nof two lines " for i in range(250)]
LETTERS = Tokenizer.characters(TEXTS)


def write(file: Path, texts: list, column: str = "text") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        table = pyarrow.table({"id": list(range(len(texts))), column: texts})
        pyarrow.parquet.write_table(table, file, row_group_size=40)
    else:
        text = "".join(json.dumps({"id": i, column: t}) + "\n" for i, t in enumerate(texts))
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize("whole", [False, True])
def test_rows_come_in_order_from_every_format(tmp_path, name, whole, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path / name, TEXTS)
    assert is_table(str(file))
    assert list(Table(name, (str(file),), whole=whole).rows()) == TEXTS


def test_a_directory_is_its_tables_in_order(tmp_path) -> None:
    for i in (1, 0):
        write(tmp_path / f"part/{i}.parquet", TEXTS[125 * i : 125 * i + 125])
    (tmp_path / "README.md").write_text("not this")
    assert is_table(str(tmp_path))
    assert list(table_files(str(tmp_path)).rows()) == TEXTS
    (tmp_path / "notes.txt").write_text("text comes first: it has always meant the .txt files")
    assert not is_table(str(tmp_path))


def test_every_twentieth_row_is_held_out_and_white_space_stays(tmp_path) -> None:
    file = write(tmp_path / "a.parquet", ["", *TEXTS, " \n"])
    prepared = prepare(table_corpus(table_files(str(file)), 0.05), tmp_path / "out", LETTERS)
    assert LETTERS.decode(prepared.valid.tolist()) == "\n".join(TEXTS[19::20]) + "\n"
    assert prepared.manifest["sources"] == [{"name": str(file), "bytes": file.stat().st_size}]
    assert prepared.manifest["splits"]["train"]["documents"] == 238


def test_columns_that_are_not_text_are_refused(tmp_path, refused) -> None:
    file = write(tmp_path / "a.parquet", TEXTS, column="content")
    with refused(file, "no column text", "id, content", "--column"):
        list(table_files(str(file)).rows())
    with refused(file, "column id", "not text"):
        list(Table(str(file), (str(file),), "id").rows())


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json.gz"])
def test_damaged_and_empty_tables_are_refused(tmp_path, refused, name) -> None:
    file = write(tmp_path / name, TEXTS)
    file.write_bytes(file.read_bytes()[:-40])
    with refused(file, "again"):
        list(table_files(str(file)).rows())
    file.write_bytes(b"something else entirely" * 100)
    with refused(file, "again"):
        list(table_files(str(file)).rows())
    write(file, [])
    with refused(file):
        list(table_files(str(file)).rows())


def test_paths_that_are_no_tables_are_refused(tmp_path, refused) -> None:
    with refused("gone.parquet", "does not exist"):
        table_files(str(tmp_path / "gone.parquet"))
    write(tmp_path / "a.parquet", TEXTS)
    write(tmp_path / "b.jsonl", TEXTS)
    with refused(tmp_path, "one kind"):
        table_files(str(tmp_path))


class Hub:
    """A data set on the hub whose connection breaks after some batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def iter(self, batch_size: int):
        for i in range(0, len(TEXTS), 10):
            if i // 10 == self.batches:
                raise OSError("Connection reset by peer.\nmore")
            yield {"text": TEXTS[i : i + 10]}


def test_a_lost_connection_loses_nothing(tmp_path, refused, monkeypatch) -> None:
    monkeypatch.setattr(preparation, "_BATCH", 200)
    monkeypatch.setattr("flowlm.data.ledger.EVERY", 2)
    monkeypatch.setattr(Table, "_open", lambda self: Hub(100))
    corpus = table_corpus(Table("owner/name", revision="abc"), 0.05)
    whole = prepare(corpus, tmp_path / "whole", LETTERS)
    monkeypatch.setattr(Table, "_open", lambda self: Hub(20))
    with refused("owner/name", "Connection reset by peer", "again"):
        prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert not (tmp_path / "out").exists()
    assert (unfinished(tmp_path / "out") / "train.bin").stat().st_size > 1000
    encoded = []
    monkeypatch.setattr(Table, "_open", lambda self: Hub(100))
    original = Tokenizer.encode_many
    monkeypatch.setattr(
        Tokenizer, "encode_many", lambda self, texts: encoded.extend(texts) or original(self, texts)
    )
    again = prepare(corpus, tmp_path / "out", LETTERS, resume=True)
    assert again.manifest == whole.manifest
    assert TEXTS[249] in encoded
    assert TEXTS[0] not in encoded, "what was done is done again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert again.manifest["sources"][0]["revision"] == "abc"


def test_a_connection_lost_before_the_first_row_is_told_apart(refused, monkeypatch) -> None:
    monkeypatch.setattr(Table, "_open", lambda self: Hub(0))
    with refused("owner/name", "check the name"):
        list(Table("owner/name").rows())
    with refused("owner/name", "place a.parquet somewhere"):
        list(Table("owner/name", advice="place a.parquet somewhere").rows())
