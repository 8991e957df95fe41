"""Text in a column of a table: parquet and JSON files, here or on the hub, read by `datasets`.

The only file that knows `datasets`: its cache, its login and its offline mode (HF_HUB_OFFLINE=1)
are the user's own. A table is streamed, or fetched whole into that cache first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlm.data.corpora.corpus import Corpus, divided
from flowlm.data.corpora.foreign import require_text
from flowlm.data.corpora.watched import Files
from flowlm.errors import CutShort, Refusal, reason

_AT_ONCE = 1000  # rows that are asked for at a time

_PACKED = (".gz", ".zst", ".xz", ".bz2")
_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


@dataclass(frozen=True)
class Table:
    """A column of text.

    `files` are all parquet or all JSON, and local paths or hf:// addresses; without files, `name`
    is a data set on the hub, of which `subset` and `revision` may be chosen. `whole` fetches
    everything into the cache of `datasets` before the first row. `advice` ends the sentence that
    is said when the hub cannot be reached.
    """

    name: str
    files: tuple[str, ...] = ()
    column: str = "text"
    subset: str | None = None
    revision: str | None = None
    whole: bool = False
    advice: str = "check the name, and the connection"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Places of the rows, for a manifest."""
        if not self.files:
            return [{"name": self.name, "subset": self.subset, "revision": self.revision}]
        if self.remote:
            return [{"name": file} for file in self.files]
        return self.local.sources

    @property
    def local(self) -> Files:
        """The files that are here, as they are now."""
        return Files.seen(() if self.remote else map(Path, self.files))

    @property
    def remote(self) -> bool:
        """Whether reading it needs the network."""
        return not self.files or self.files[0].startswith("hf://")

    def rows(self) -> Iterator[str]:
        """The texts in order. A Refusal if there are none; CutShort if the hub goes away."""
        opened = self._open()
        batches = opened.iter(batch_size=_AT_ONCE)
        empty = True
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:  # whatever the reader of the format or the network raises
                raise self._broken(error, begun=not empty) from error
            if batch is None:
                break
            empty = False
            yield from self._texts(batch)
        if empty:
            raise Refusal(f"{self.name} holds no rows: check its files.")

    def _open(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise Refusal(
                "This needs the package datasets: `pip install 'flowlm[data]'`."
            ) from error
        # A Refusal tells what went wrong; logs beside it would say everything several times.
        datasets.logging.set_verbosity(logging.CRITICAL)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            if not self.files:
                return datasets.load_dataset(
                    self.name,
                    self.subset,
                    revision=self.revision,
                    split="train",
                    streaming=not self.whole,
                )
            files = {"train": list(self.files)}
            kind = _kind(self.files[0])
            return datasets.load_dataset(
                kind, data_files=files, split="train", streaming=not self.whole
            )
        except Exception as error:  # the library passes on whatever its transport raises
            raise self._broken(error, begun=False) from error

    def _texts(self, batch: dict[str, list[Any]]) -> list[str]:
        texts = batch.get(self.column)
        if texts is None:
            raise Refusal(
                f"{self.name} has no column {self.column}, only {', '.join(batch)}: choose one "
                "with --column."
            )
        if not all(isinstance(text, str) for text in texts):
            raise Refusal(
                f"The column {self.column} of {self.name} holds rows that are not text: choose "
                "another with --column."
            )
        return texts

    def _broken(self, error: Exception, begun: bool) -> Refusal:
        said = reason(error)
        if not self.remote:
            return Refusal(
                f"{self.name} cannot be read as {_kind(self.files[0])} ({said}): fetch or write "
                "its files again."
            )
        if not begun:
            return Refusal(f"{self.name} could not be read from the hub ({said}): {self.advice}.")
        return CutShort(f"The connection to {self.name} was lost ({said}): run the command again.")


def is_table(path: str) -> bool:
    """Whether `path` names a parquet or JSON file, or a directory with such files and no text."""
    if Path(path).is_dir():
        return bool(_tables(Path(path))) and not any(Path(path).rglob("*.txt"))
    return _suffix(path) in _KINDS


def table_files(path: str) -> Table:
    """The parquet or JSON files that `path` stands for, sorted by name; a Refusal for a mixture."""
    place = Path(path)
    found = _tables(place) if place.is_dir() else [place]
    if place.is_dir():
        require_text(path, found)
    if not all(file.is_file() for file in found):
        raise Refusal(f"{path} does not exist: name a file or a directory.")
    if len({_kind(str(file)) for file in found}) > 1:
        raise Refusal(f"{path} holds parquet and JSON files: keep one kind.")
    return Table(path, tuple(str(file) for file in found))


def table_corpus(table: Table, valid: float) -> Corpus:
    """A table of which the share `valid` of the rows is held out; read in rows.

    White space around a text is kept; a text of white space alone is skipped. A Refusal to go on
    reading if a file here changes after this call.
    """

    files = table.local
    origin = {"sources": table.sources, "column": table.column}

    def measured() -> Iterator[tuple[str, int]]:
        rows = files.unchanged(table.rows())
        return ((text, i) for i, text in enumerate(rows, start=1) if text.strip())

    return divided(measured, valid, origin, None, files.states)


def _tables(directory: Path) -> Sequence[Path]:
    return sorted(f for f in directory.rglob("*") if f.is_file() and _suffix(f.name) in _KINDS)


def _kind(file: str) -> str:
    return _KINDS[_suffix(file)]


def _suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").suffix if path.suffix in _PACKED else path.suffix
