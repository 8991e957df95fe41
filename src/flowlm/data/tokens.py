"""Prepared text: token ids in memory-mapped files, with the tokenizer that made them.

A prepared directory holds `train.bin` and `valid.bin` (little-endian unsigned ids, nothing else),
`tokenizer.json`, and `manifest.json`, which says where they come from and what they must be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flowlm.data.corpora import Separator, documents, measured, sources
from flowlm.data.tokenizer import Tokenizer, pieces, replacing
from flowlm.errors import Refusal

FORMAT = 1
"""Version of the directory's layout; another one is refused."""

FEW = 100
"""A corpus of fewer documents is split by tokens: a few documents are no fair sample of it."""

_BATCH = 2**20  # characters encoded at once, in documents or pieces of them
_SPLITS: tuple[str, ...] = ("train", "valid")
_FILES = ("train.bin", "valid.bin", "tokenizer.json")


@dataclass(frozen=True, eq=False)
class Prepared:
    """An open prepared directory: ids of both splits (1-d, read from disk as needed)."""

    train: np.memmap
    valid: np.memmap
    tokenizer: Tokenizer
    manifest: dict[str, Any]


def prepare(
    path: str,
    directory: str | Path,
    tokenizer: Tokenizer,
    separator: Separator,
    valid: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Encode the corpus at `path` into the new directory `directory`, and open it.

    Each document is followed by `tokenizer.end` where there is one. The share `valid` of the
    documents, evenly spread (every 20th for 0.05), is the valid split; of a corpus of fewer than
    `FEW` documents it is the last `valid` of the tokens. Memory does not grow with the corpus.
    `progress(bytes_done, bytes_total)` is called as the text is read.

    The directory appears when it is complete: after any failure nothing is left behind. A Refusal
    if it exists already (and is not empty), cannot be written, or if the corpus is refused.
    """
    directory = Path(directory)
    if not 0 < valid < 1:
        raise Refusal(f"The share of valid text is {valid}: choose one between 0 and 1, as 0.05.")
    with _refusing_writes(directory):
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise Refusal(f"{directory} exists already: remove it or choose another directory.")
        few = sum(1 for _ in islice(documents(path, separator), FEW)) < FEW
        # Beside the target, or beside the first directory missing on the way to it: renaming is
        # only possible on the same disk.
        target = directory.resolve()
        home = next(place for place in target.parents if place.exists())
        mark = f".{target.name}."
        with tempfile.TemporaryDirectory(prefix=mark, suffix=".partial", dir=home) as scratch:
            built = Path(scratch) / "tokens"  # a level down: the scratch is closed to other people
            built.mkdir()
            encoded = _encoded(path, separator, tokenizer, progress)
            counts = _write_splits(built, encoded, tokenizer, 0.0 if few else valid)
            if few:
                _move_tail(built, _dtype(tokenizer).itemsize, valid)
            tokenizer.save(built / "tokenizer.json")
            origin = {
                "sources": [{"name": str(f), "bytes": f.stat().st_size} for f in sources(path)],
                "separator": separator,
                "valid": f"{valid:g} of the {'tokens, the last' if few else 'documents'}",
            }
            _write_manifest(built, origin, counts, tokenizer)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(built, target)
    return open_tokens(directory, verify=False)


def open_tokens(directory: str | Path, verify: bool = True) -> Prepared:
    """Open what `prepare` wrote. A Refusal if a file is missing, truncated or altered.

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
            if (verify or name == "tokenizer.json") and _sha256(file) != stated["sha256"]:
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
    train, valid = (np.memmap(directory / f"{s}.bin", dtype=dtype, mode="r") for s in _SPLITS)
    return Prepared(train, valid, Tokenizer.load(directory / "tokenizer.json"), manifest)


def is_prepared(path: str | Path) -> bool:
    """Whether `path` is a directory with a manifest, to be opened with `open_tokens`."""
    return os.path.isfile(os.path.join(path, "manifest.json"))


def write_tokens(
    directory: str | Path, split: str, ids: Iterable[Sequence[int]], tokenizer: Tokenizer
) -> None:
    """Stream the ids of documents to `directory/{split}.bin`, each followed by `tokenizer.end`.

    Two bytes an id for up to 65,536 ids, else four, little-endian. The file is complete or not
    there. A Refusal for an id that the tokenizer does not have, or if the file cannot be written.
    """
    target = Path(directory) / f"{split}.bin"
    end = [] if tokenizer.end is None else [tokenizer.end]
    with _refusing_writes(target), replacing(target) as partial, partial.open("wb") as file:
        for document in ids:
            file.write(_packed([*document, *end], tokenizer))


def _write_splits(
    directory: Path,
    encoded: Iterable[tuple[int, list[int]]],
    tokenizer: Tokenizer,
    share: float,
) -> dict[str, int]:
    """Write `(document, ids)` to the splits' files; how many documents went to each."""
    last = dict.fromkeys(_SPLITS, -1)
    counts = dict.fromkeys(_SPLITS, 0)
    with ExitStack() as stack:
        files = {s: stack.enter_context((directory / f"{s}.bin").open("wb")) for s in _SPLITS}
        for document, ids in encoded:
            # A rule without state: the share of documents so far passes another whole number.
            split = _SPLITS[int((document + 1) * share) > int(document * share)]
            files[split].write(_packed(ids, tokenizer))
            counts[split] += document != last[split]
            last[split] = document
    return counts


def _encoded(
    path: str,
    separator: Separator,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, list[int]]]:
    """`(document, ids)` of the corpus in order; a long document comes in several parts."""
    total = sum(file.stat().st_size for file in sources(path))
    end = [] if tokenizer.end is None else [tokenizer.end]
    for batch, done in _batches(path, separator):
        encoded = tokenizer.encode_many([piece for _, piece, _ in batch])
        for (document, _, last), ids in zip(batch, encoded, strict=True):
            yield document, ids + end if last else ids
        if progress is not None:
            progress(done, total)
    if progress is not None:
        progress(total, total)


def _batches(path: str, separator: Separator) -> Iterator[tuple[list[tuple[int, str, bool]], int]]:
    """Lists of (document, piece, whether it is the last), each with the bytes read so far."""
    batch: list[tuple[int, str, bool]] = []
    size = 0
    done = 0
    for index, (document, done) in enumerate(measured(path, separator)):
        left = len(document)
        for piece in pieces(document):
            left -= len(piece)
            batch.append((index, piece, left == 0))
            size += len(piece)
            if size >= _BATCH:
                yield batch, done
                batch, size = [], 0
    if batch:
        yield batch, done


def _move_tail(directory: Path, width: int, share: float) -> None:
    """Cut the last `share` of the tokens, of `width` bytes each, off train and into valid."""
    train = directory / "train.bin"
    tokens = train.stat().st_size // width
    tail = min(tokens - 1, max(1, round(tokens * share)))
    with train.open("r+b") as source, (directory / "valid.bin").open("wb") as target:
        source.seek((tokens - tail) * width)
        shutil.copyfileobj(source, target)
        source.truncate((tokens - tail) * width)


def _write_manifest(
    directory: Path, origin: dict[str, Any], counts: dict[str, int], tokenizer: Tokenizer
) -> None:
    sizes = {name: (directory / name).stat().st_size for name in _FILES}
    dtype = _dtype(tokenizer)
    splits = {}
    for split in _SPLITS:
        tokens = sizes[f"{split}.bin"] // dtype.itemsize
        if not tokens:
            raise Refusal(f"The text is too short to leave anything for {split}: give more text.")
        splits[split] = {"documents": counts[split], "tokens": tokens}
    manifest = {
        "format": FORMAT,
        **origin,
        "splits": splits,
        "dtype": dtype.name,
        "tokenizer": tokenizer.fingerprint,
        "files": {n: {"bytes": sizes[n], "sha256": _sha256(directory / n)} for n in _FILES},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (directory / "manifest.json").write_text(text, encoding="utf-8")


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
    tokens = {split: manifest["splits"][split]["tokens"] for split in _SPLITS}
    return set(files) == set(_FILES) and all(
        [
            isinstance(file["bytes"], int) and isinstance(file["sha256"], str)
            for file in files.values()
        ]
        + [files[f"{split}.bin"]["bytes"] == tokens[split] * width > 0 for split in _SPLITS]
    )


def _packed(ids: Sequence[int], tokenizer: Tokenizer) -> bytes:
    array = np.asarray(ids, dtype=np.int64)
    if array.size and not 0 <= array.min() <= array.max() < tokenizer.vocab:
        raise Refusal(f"There is an id outside the tokenizer's {tokenizer.vocab}: encode again.")
    return array.astype(_dtype(tokenizer).newbyteorder("<")).tobytes()


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.vocab <= 65536 else np.uint32)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _refusing_writes(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"{target} cannot be written ({error.strerror or error}): free some space or choose "
            "another place; nothing was left behind."
        ) from error
