"""Token files under way: what of them is certain, so that an interrupted preparation goes on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

from flowlm.data.corpora.corpus import Split
from flowlm.data.layout import Encoded
from flowlm.data.tokens import FILES, SPLITS
from flowlm.errors import Refusal
from flowlm.files import replacing, sha256_of

EVERY = 32
"""Chunks between entries: as many are encoded again after an interruption, at most."""

_LEDGER = "ledger.json"
_ENTRY = {"key", "chunks", "documents", "ids", "unknown", "long", "bytes", "sha256"}
_OURS = {*FILES, "manifest.json", _LEDGER}


class Ledger:
    """The split files of a preparation in `directory`, and an entry of how far they are good.

    `key` names the preparation: corpus, tokenizer, layout. `ids` counts those of the text so far,
    and `unknown` how many of them the tokenizer did not know; `long` counts texts that were longer
    than their row. Opening goes back to the last entry.
    A Refusal if the directory is of another preparation or of something else, or if a file is not
    what it was when the entry was made.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory = directory
        self.chunks = 0
        self.documents: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.ids = self.unknown = self.long = 0
        self._key = key
        self._digests = {split: hashlib.sha256() for split in SPLITS}
        for left in directory.glob(".*.partial"):  # by a process that was killed while it wrote
            left.unlink()
        if self.begun(directory):
            self._go_back(_read(directory / _LEDGER))
        elif strangers := sorted({file.name for file in directory.iterdir()} - _OURS):
            raise Refusal(
                f"{directory} is not of a preparation (it holds {strangers[0]}): remove it, or "
                "choose another place."
            )
        mode = "ab" if self.chunks else "wb"
        self._files: dict[str, IO[bytes]] = {
            split: self._file(split).open(mode) for split in SPLITS
        }

    @staticmethod
    def begun(directory: Path) -> bool:
        """Whether there is anything in `directory` to go on with."""
        return (directory / _LEDGER).exists()

    def add(self, split: Split, encoded: Encoded, documents: int) -> None:
        """Write the next chunk, of so many documents."""
        self._files[split].write(encoded.data)
        self._digests[split].update(encoded.data)
        self.documents[split] += documents
        self.ids += encoded.ids
        self.unknown += encoded.unknown
        self.long += encoded.long
        self.chunks += 1
        if self.chunks % EVERY == 0:
            self._enter()

    def finish(self) -> None:
        """Close the files; from here on there is nothing to go back to."""
        self.close()
        (self.directory / _LEDGER).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files as they are."""
        for file in self._files.values():
            file.close()

    def _enter(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())  # the entry must not reach the disk before what it speaks of
        entry = {
            "key": self._key,
            "chunks": self.chunks,
            "documents": self.documents,
            "ids": self.ids,
            "unknown": self.unknown,
            "long": self.long,
            "bytes": {split: file.tell() for split, file in self._files.items()},
            "sha256": {split: digest.hexdigest() for split, digest in self._digests.items()},
        }
        with replacing(self.directory / _LEDGER) as partial:
            partial.write_text(json.dumps(entry), encoding="utf-8")

    def _go_back(self, entry: dict[str, Any]) -> None:
        if entry["key"] != self._key:
            raise Refusal(
                f"{self.directory} is of another preparation (another text, tokenizer or version "
                "of flowlm, or a text that has changed since): remove it, or choose another place."
            )
        for split in SPLITS:
            file, good = self._file(split), entry["bytes"][split]
            if not file.exists() or file.stat().st_size < good:
                raise Refusal(f"{file} is cut short: remove {self.directory} and begin again.")
            os.truncate(file, good)
            if sha256_of(file) != entry["sha256"][split]:
                raise Refusal(f"{file} is damaged: remove {self.directory} and begin again.")
            with file.open("rb") as stream:
                while block := stream.read(2**20):
                    self._digests[split].update(block)
        self.chunks, self.documents = entry["chunks"], entry["documents"]
        self.ids, self.unknown, self.long = entry["ids"], entry["unknown"], entry["long"]

    def _file(self, split: str) -> Path:
        return self.directory / f"{split}.bin"


def _read(file: Path) -> dict[str, Any]:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        assert entry.keys() >= _ENTRY
        return entry
    except (ValueError, AttributeError, AssertionError) as error:
        raise Refusal(f"{file} is damaged: remove {file.parent} and begin again.") from error
