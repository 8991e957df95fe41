from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from flowlm.data import preparation as module
from flowlm.data.corpora.plain import documents, text_corpus
from flowlm.data.layout import Chunk, Encoder, Stream
from flowlm.data.preparation import prepare
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import is_prepared, open_tokens

LINES = [f"story {i} of {i * i}" for i in range(300)]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES) + "\n\n")
    return str(path)


@pytest.fixture
def letters() -> Tokenizer:
    return Tokenizer.characters(LINES)


def lines(path: str, valid: float = 0.05):
    return text_corpus(path, "line", valid)


def test_every_twentieth_document_is_valid(tmp_path, corpus, letters) -> None:
    prepared = prepare(lines(corpus), tmp_path / "out", letters)
    train = [line for i, line in enumerate(LINES) if i % 20 != 19]
    assert letters.decode(prepared.train.tolist()) == "\n".join(train) + "\n"
    assert letters.decode(prepared.valid.tolist()) == "\n".join(LINES[19::20]) + "\n"
    assert (prepared.train == letters.end).sum() == 285
    assert prepared.train.dtype == np.uint16


def test_the_manifest_says_what_was_done(tmp_path, corpus, letters) -> None:
    prepared = prepare(lines(corpus, 0.25), tmp_path / "out", letters)
    manifest = prepared.manifest
    assert manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["sources"] == [{"name": corpus, "bytes": os.path.getsize(corpus)}]
    assert manifest["splits"] == {
        "train": {"documents": 225, "tokens": len(prepared.train)},
        "valid": {"documents": 75, "tokens": len(prepared.valid)},
    }
    assert manifest["tokenizer"] == letters.fingerprint == prepared.tokenizer.fingerprint
    assert (manifest["format"], manifest["separator"]) == (2, "line")


def test_one_long_document_is_split_by_tokens_and_encoded_in_pieces(tmp_path: Path) -> None:
    text = "to be or not to be " * 20_000
    (tmp_path / "long.txt").write_text(text)
    tokenizer = Tokenizer.bpe([text], 270)
    prepared = prepare(lines(str(tmp_path / "long.txt"), 0.1), tmp_path / "out", tokenizer)
    assert len(text) > 2 * 2**17
    whole = [*tokenizer.encode(text.strip()), tokenizer.end]
    assert [*prepared.train, *prepared.valid] == whole
    assert len(prepared.valid) == round(0.1 * len(whole))
    assert prepared.manifest["splits"]["train"]["documents"] == 1


def test_preparing_twice_gives_the_same_bytes(tmp_path, corpus, letters, monkeypatch) -> None:
    prepare(lines(corpus), tmp_path / "a", letters)
    monkeypatch.setattr(module, "_BATCH", 50)  # how the work is cut must not show
    prepare(lines(corpus), tmp_path / "b", letters)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_reopened_directory_is_the_same(tmp_path, corpus, letters) -> None:
    made = prepare(lines(corpus), tmp_path / "deep/out", letters)
    opened = open_tokens(tmp_path / "deep/out")
    assert isinstance(opened.train, np.memmap)
    np.testing.assert_array_equal(opened.train, made.train)
    np.testing.assert_array_equal(opened.valid, made.valid)
    assert opened.manifest == made.manifest
    assert is_prepared(tmp_path / "deep/out")
    assert not is_prepared(tmp_path / "deep")
    assert not is_prepared(tmp_path / "nowhere")


def test_a_directory_is_as_open_to_others_as_any(tmp_path, corpus, letters) -> None:
    prepare(lines(corpus), tmp_path / "out", letters)
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_progress_rises_to_the_whole(tmp_path, corpus, letters, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 500)
    calls: list[tuple[int, int]] = []
    prepare(lines(corpus), tmp_path / "out", letters, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert len(calls) > 5
    assert done == sorted(done)
    assert {call[1] for call in calls} == {os.path.getsize(corpus)}
    assert done[-1] == os.path.getsize(corpus)


@pytest.mark.parametrize("name", ["train.bin", "valid.bin", "tokenizer.json"])
def test_damage_is_refused(tmp_path, corpus, letters, refused, name: str) -> None:
    prepare(lines(corpus), tmp_path / "out", letters)
    file = tmp_path / "out" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with refused(file, "checksum"):
        open_tokens(tmp_path / "out")
    file.write_bytes(content[:-1])
    with refused(file, "bytes"):
        open_tokens(tmp_path / "out", verify=False)
    file.unlink()
    with refused(file, "missing"):
        open_tokens(tmp_path / "out", verify=False)


def test_another_tokenizer_is_refused_even_without_reading_tokens(
    tmp_path, corpus, letters, refused
) -> None:
    prepare(lines(corpus), tmp_path / "out", letters)
    file = tmp_path / "out/tokenizer.json"
    content = file.read_text()
    swapped = content.replace('"s": ', '"?": ').replace('"t": ', '"s": ').replace('"?": ', '"t": ')
    assert len(swapped) == len(content)
    assert swapped != content
    file.write_text(swapped)
    with refused(file, "checksum"):
        open_tokens(tmp_path / "out", verify=False)


def test_manifests_that_do_not_hold_together_are_refused(
    tmp_path, corpus, letters, refused
) -> None:
    prepare(lines(corpus), tmp_path / "out", letters)
    file = tmp_path / "out/manifest.json"
    good = file.read_text()

    def changed(**fields: object) -> str:
        return json.dumps({**json.loads(good), **fields})

    bad_ones = [{"files": []}, {"dtype": "int8"}, {"dtype": "uint32"}, {"row": 7}, {"row": 0}]
    for bad in ("", "[]", "{}", *(changed(**fields) for fields in bad_ones)):
        file.write_text(bad)
        with refused(file, "damaged"):
            open_tokens(tmp_path / "out")
    file.write_text(changed(format=1))
    with refused(file, "format 1"):
        open_tokens(tmp_path / "out")
    file.unlink()
    with refused(tmp_path / "out", "flowlm prepare"):
        open_tokens(tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path, corpus, letters, refused, files_limited_to) -> None:
    before = sorted(tmp_path.rglob("*"))
    with files_limited_to(3000), refused(tmp_path / "deep/out", "cannot be written"):
        prepare(lines(corpus), tmp_path / "deep/out", letters)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_line_or_an_interrupt_leaves_nothing(tmp_path, corpus, letters, refused) -> None:
    with Path(corpus).open("ab") as file:
        file.write(b"caf\xe9\n")
    with refused(corpus, "line 302"):
        prepare(lines(corpus), tmp_path / "out", letters)

    def interrupt(done: int, total: int) -> None:
        # Under way, the work is beside the target: elsewhere it may not be possible to rename.
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".out.")]
        raise KeyboardInterrupt

    Path(corpus).write_text("\n".join(LINES))
    with pytest.raises(KeyboardInterrupt):
        prepare(lines(corpus), tmp_path / "out", letters, progress=interrupt)
    assert [str(path) for path in tmp_path.iterdir()] == [corpus]


def test_places_that_are_taken_are_refused(tmp_path, corpus, letters, refused) -> None:
    prepare(lines(corpus), tmp_path / "out", letters)
    before = (tmp_path / "out/manifest.json").read_bytes()
    with refused(tmp_path / "out", "exists already"):
        prepare(lines(corpus), tmp_path / "out", letters)
    assert (tmp_path / "out/manifest.json").read_bytes() == before
    with refused(corpus, "exists already"):
        prepare(lines(corpus), corpus, letters)
    with refused(f"{corpus}/out", "cannot be written"):
        prepare(lines(corpus), f"{corpus}/out", letters)
    (tmp_path / "empty").mkdir()
    prepare(lines(corpus), tmp_path / "empty", letters)


def test_shares_and_texts_that_cannot_be_split_are_refused(tmp_path, corpus, refused) -> None:
    letter = Tokenizer.words(["a"])
    for share in (0.0, 1.0, -1.0):
        with refused(share):
            lines(corpus, share)
    (tmp_path / "short.txt").write_text("a")
    with refused("too short"):
        prepare(lines(str(tmp_path / "short.txt")), tmp_path / "out", letter)


def test_small_ids_take_two_bytes_and_large_ones_four() -> None:
    for vocab, width in ((65536, 2), (65537, 4)):
        tokenizer = Tokenizer.words([str(i) for i in range(vocab)])
        chunk = Chunk("train", [("0 1", True), (str(vocab - 1), True)], 2, 0)
        wanted = b"".join(i.to_bytes(width, "little") for i in (0, 1, vocab - 1))
        assert Encoder(tokenizer, Stream(), str)(chunk).data == wanted


def test_tokens_are_those_of_the_documents_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in "ab":
        (tmp_path / f"text/{name}.txt").write_text(f"{name}1\n{name}2\n\n{name}3")
    path = str(tmp_path / "text")
    tokenizer = Tokenizer.characters(documents(path, "blank"))
    prepared = prepare(text_corpus(path, "blank", 0.05), tmp_path / "out", tokenizer)
    packed = [*prepared.train.tolist(), *prepared.valid.tolist()]
    assert tokenizer.decode(packed) == "a1\na2\na3\nb1\nb2\nb3\n"
    assert packed.count(tokenizer.end) == 4
