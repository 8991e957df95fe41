"""Directories that hold text files and are no text."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from flowlm.data.finding import find_corpus


def made(place: Path, *names: str) -> Path:
    """A directory with these files; a name that ends with / is a directory."""
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith("/"):
            (place / name).mkdir(parents=True)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("the cat sat\n")
    return place


KINDS = {
    "a run": ("experiment.json", "checkpoints/", "metrics.jsonl", "samples/step-1.txt"),
    "a run whose experiment is gone": ("metrics.jsonl", "samples/step-1.txt"),
    "a run that has only begun": ("checkpoints/", "samples/step-1.txt"),
    "an export": ("experiment.json", "model.safetensors", "tokenizer.json"),
    "a released model": ("config.json", "model.safetensors", "vocab.txt"),
    "a report": ("report.json", "report.html"),
    "prepared text": ("manifest.json", "train.bin", "valid.bin", "tokenizer.json"),
    "a model in a cache": ("blobs/", "refs/main", "snapshots/abc/vocab.txt"),
    "a data set in a cache": ("blobs/", "refs/main", "snapshots/abc/a.parquet"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_is_refused(kind: str, tmp_path: Path, refused) -> None:
    place = made(tmp_path / "place", *KINDS[kind])
    with refused(place, "name the text files"):
        find_corpus(str(place), "line", 0.05)


@pytest.mark.parametrize("kind", ["a run", "a released model", "a data set in a cache"])
def test_a_directory_that_holds_one_is_refused(kind: str, tmp_path: Path, refused) -> None:
    """Its own text would be mixed with what a model has written."""
    made(tmp_path / "work/runs/own", *KINDS[kind])
    if kind != "a data set in a cache":
        made(tmp_path / "work", "text/a.txt")
    with refused(tmp_path / "work/runs/own", f"which lies in {tmp_path / 'work'}"):
        find_corpus(str(tmp_path / "work"), "line", 0.05)


def test_text_beside_anything_else_is_text(tmp_path: Path) -> None:
    place = made(tmp_path / "notes", "a.txt", "config.json", "report.json", "sub/b.txt", "c.bin")
    assert len(list(find_corpus(str(place), "line", 0.5).documents())) == 2
    # What is named itself is what is meant.
    run = made(tmp_path / "run", *KINDS["a run"])
    for path in (run / "samples", run / "samples/step-1.txt", run / "samples/*.txt"):
        assert list(find_corpus(str(path), "line", 0.5).documents()) == ["the cat sat"]


@pytest.mark.parametrize("name", ["FLM.ckpt", "model.safetensors", "weights.pt"])
def test_a_file_of_weights_is_refused_as_such(name: str, tmp_path: Path, refused) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("data.pkl", "x")
    with refused(tmp_path / name, "is a model"):
        find_corpus(str(tmp_path / name), "line", 0.05)
