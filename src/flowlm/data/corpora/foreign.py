"""Directories that hold text files and are no text: runs, models, reports, a hub's cache.

A run writes samples, and a model has lists of words: read as a corpus they would teach a model its
own mistakes without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flowlm.errors import Refusal

_KINDS = (
    (("experiment.json",), "a run or a model"),
    (("metrics.jsonl",), "a run"),
    (("checkpoints",), "a run"),
    (("config.json", "model.safetensors"), "a model"),
    (("report.json", "report.html"), "a report"),
    (("manifest.json", "train.bin"), "prepared text, which --data.path takes as it is"),
    (("blobs", "snapshots"), "a cache of the Hugging Face hub"),
)
"""What lies in a directory, and what it therefore is."""

_WEIGHTS = (".ckpt", ".safetensors", ".pt", ".pth")


def require_text(path: str, files: Iterable[Path] = ()) -> None:
    """Refuse a `path` that is no text, and one of whose `files` lies in a directory that is none.

    Directories are looked at from `path`, which is one, down to each file.
    """
    top = Path(path)
    if top.suffix in _WEIGHTS and not top.is_dir():
        raise Refusal(f"{path} is a model, not text: name a text file.")
    looked_at = {top}
    _require_text_in(top, path)
    for file in files:
        for directory in file.parents:
            if directory in looked_at:
                break
            looked_at.add(directory)
            _require_text_in(directory, path)


def _require_text_in(directory: Path, path: str) -> None:
    for names, kind in _KINDS:
        if all((directory / name).exists() for name in names):
            inside = "" if directory == Path(path) else f", which lies in {path},"
            raise Refusal(
                f"{directory}{inside} is {kind}: to learn from text, name the text files "
                "themselves or a pattern."
            )
