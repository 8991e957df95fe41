"""Prepared text: token ids in memory-mapped files, with the tokenizer that made them.

A prepared directory holds `train.bin` and `valid.bin` (little-endian unsigned ids, nothing else),
`tokenizer.json`, and `manifest.json`, which says where they come from and what they must be.
`data/preparation.py` writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowlm.data.corpora.corpus import Split
from flowlm.data.layout import Rows
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.files import sha256_of

FORMAT = 2
"""Version of the directory's layout; another one is refused."""

SPLITS: tuple[Split, ...] = ("train", "valid")
PACKING = ("begin", "end", "layout", "texts", "long", "lower")
"""What prepared text says of how its texts lie, by the names that the data of an experiment has."""

FILES = ("train.bin", "valid.bin", "tokenizer.json")


@dataclass(frozen=True, eq=False)
class Prepared:
    """An open prepared directory: ids of both splits (1-d, read from disk as needed).

    Texts that have rows of their own, or were packed into rows, come in rows of `row` ids, to be
    read as they are; in them `pad`, where there is one, stands for no text. Other text is one row,
    to be cut anywhere.
    """

    train: np.memmap
    valid: np.memmap
    tokenizer: Tokenizer
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of the tokens and the tokenizer, wherever they lie."""
        digests = {name: file["sha256"] for name, file in self.manifest["files"].items()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    @property
    def row(self) -> int | None:
        """Ids in a row, where the text comes in rows."""
        return self.manifest["row"]

    @property
    def pad(self) -> int | None:
        """The id that fills rows up, where they are filled up."""
        return self.manifest["pad"]

    @property
    def packing(self) -> dict[str, Any]:
        """How texts lie in it, as the fields of an experiment's data by name.

        `begin` and `end` are the tokens at the first and the last place of every row, where rows
        were packed with them: rows that are filled up have no last one.
        """
        stated = self.manifest.get("layout", {})
        own = stated.get("kind") == Rows.__name__
        return {
            "begin": stated.get("begin"),
            "end": stated.get("end") if self.pad is None else None,
            "layout": "rows" if own else "packed",
            "texts": self.manifest.get("texts", "document"),
            "long": stated["long"] if own else "drop",
            "lower": self.tokenizer.lowers,
        }


def open_tokens(directory: str | Path, verify: bool = True) -> Prepared:
    """Open what was prepared. A Refusal if a file is missing, truncated or altered.

    Sizes and the tokenizer are always checked. `verify` reads all tokens once to check their
    sha256 as well, about a second per GB: one process of many is enough for that.
    """
    directory = Path(directory)
    manifest = _read_manifest(directory)
    for name, stated in manifest["files"].items():
        file = directory / name
        try:
            size = file.stat().st_size
            if size != stated["bytes"]:
                raise Refusal(
                    f"{file} has {size:,} bytes instead of {stated['bytes']:,}: "
                    "prepare the text again."
                )
            if (verify or name == "tokenizer.json") and sha256_of(file) != stated["sha256"]:
                raise Refusal(
                    f"{file} is not the file that was prepared (its checksum differs): "
                    "prepare the text again."
                )
        except FileNotFoundError as error:
            raise Refusal(f"{file} is missing: prepare the text again.") from error
        except OSError as error:
            raise Refusal(
                f"{file} cannot be read ({error.strerror}): check permissions."
            ) from error
    dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
    train, valid = (np.memmap(directory / f"{s}.bin", dtype=dtype, mode="r") for s in SPLITS)
    return Prepared(train, valid, Tokenizer.load(directory / "tokenizer.json"), manifest)


def is_prepared(path: str | Path) -> bool:
    """Whether `path` is a directory with a manifest, to be opened with `open_tokens`."""
    return os.path.isfile(os.path.join(path, "manifest.json"))


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / "manifest.json"
    if not is_prepared(directory):
        raise Refusal(f"{directory} is not prepared text: make it with `flowlm prepare`.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format"]
        if version == FORMAT and not _consistent(manifest):
            raise ValueError
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(f"{file} is damaged: prepare the text again.") from error
    if version != FORMAT:
        raise Refusal(f"{file} has format {version}, not {FORMAT}: prepare the text again.")
    return manifest


def _consistent(manifest: dict[str, Any]) -> bool:
    width = {"uint16": 2, "uint32": 4}[manifest["dtype"]]
    files = manifest["files"]
    tokens = {split: manifest["splits"][split]["tokens"] for split in SPLITS}
    row, pad = manifest["row"], manifest["pad"]
    if row is not None and (row < 1 or any(count % row for count in tokens.values())):
        return False
    if pad is not None and not isinstance(pad, int):
        return False
    return set(files) == set(FILES) and all(
        [
            isinstance(file["bytes"], int) and isinstance(file["sha256"], str)
            for file in files.values()
        ]
        + [files[f"{split}.bin"]["bytes"] == tokens[split] * width > 0 for split in SPLITS]
    )
