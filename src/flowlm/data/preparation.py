"""Preparing text: a corpus becomes a directory of token files, in one go or in several."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from flowlm.data.corpora.corpus import Corpus, Split
from flowlm.data.layout import GROUP, Chunk, Encoder, Layout, Rows, Stream
from flowlm.data.ledger import Ledger
from flowlm.data.processes import in_order
from flowlm.data.tokenizer import Tokenizer, pieces
from flowlm.data.tokens import FILES, FORMAT, SPLITS, Prepared, open_tokens
from flowlm.errors import CutShort, Notice, Refusal
from flowlm.files import locked, sha256_of

_BATCH = 2**20  # characters of a stream that make a chunk

_BEGINNING = 2**18
"""Tokens of a text after which too many unknown ones end its preparation: about a million
characters, in which a tokenizer that does not fit shows."""

Progress = Callable[[int, int | None], None]
"""Called with what has been read of a corpus and its total, in the corpus's own unit."""


def prepare(
    corpus: Corpus,
    directory: str | Path,
    tokenizer: Tokenizer,
    layout: Layout = Stream(),  # noqa: B008  (a frozen value)
    processes: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
    unknown: float = 0.01,
) -> Prepared:
    """Encode `corpus` into the new directory `directory`, and open it.

    The bytes do not depend on the number of `processes`, and memory does not grow with the corpus.
    The directory appears when it is complete. After a failure nothing is left behind; but with
    `resume`, what was done before an interruption (Ctrl-C, a kill, a full disk, a lost connection)
    stays beside it, in `unfinished(directory)`, and the same call goes on from there.

    A Refusal if it exists already (and is not empty), cannot be written, if the corpus or what
    there is to go on with is refused, or if the tokenizer does not know more than the share
    `unknown` of the text, or if no text fits its row; a Notice if it does not know some, and of
    texts that were longer than a row of their own.
    """
    directory = Path(directory)
    encoder = Encoder(tokenizer, layout, corpus.clean)
    with _refusing_writes(directory, resume):
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise Refusal(f"{directory} exists already: remove it or choose another directory.")
        with _workplace(directory, _key(corpus, encoder), resume) as ledger:
            todo = islice(_chunks(corpus, encoder), ledger.chunks, None)
            with closing(in_order(encoder, todo, processes)) as encoded:
                for chunk, data in encoded:
                    ledger.add(chunk.split, data, chunk.documents)
                    if ledger.ids >= _BEGINNING:
                        _require_known(ledger, unknown)
                    if progress is not None:
                        progress(chunk.done, corpus.total)
            if progress is not None and corpus.total is not None:
                progress(corpus.total, corpus.total)
            _require_known(ledger, unknown)
            ledger.finish()
            built = ledger.directory
            if corpus.tail:
                _move_tail(built, (encoder.row or 1) * encoder.dtype.itemsize, corpus.tail)
            tokenizer.save(built / "tokenizer.json")
            _write_manifest(built, corpus.origin, ledger, encoder)
            directory.parent.mkdir(parents=True, exist_ok=True)
            os.replace(built, Path(os.path.realpath(directory)))
    if ledger.unknown:
        warnings.warn(_said(ledger) + ".", Notice, stacklevel=2)
    if ledger.long:
        warnings.warn(_said_of_long(ledger, layout) + ".", Notice, stacklevel=2)
    return open_tokens(directory, verify=False)


def unfinished(directory: str | Path) -> Path:
    """Where a preparation of `directory` that may be resumed does its work."""
    place = Path(os.path.realpath(directory))
    return place.with_name(f"{place.name}.partial")


@contextmanager
def _workplace(directory: Path, key: str, resume: bool) -> Iterator[Ledger]:
    """A ledger in a place beside `directory`, so that renaming stays on one disk."""
    target = Path(os.path.realpath(directory))
    if not resume:
        # Beside the first directory that is missing on the way: nothing else may be left behind.
        home = next(place for place in target.parents if place.exists())
        mark = f".{target.name}."
        with tempfile.TemporaryDirectory(prefix=mark, suffix=".partial", dir=home) as scratch:
            built = Path(scratch) / "tokens"  # a level down: the scratch is closed to other people
            built.mkdir()
            with closing(Ledger(built, key)) as ledger:
                yield ledger
        return
    place = unfinished(directory)
    # The lock is beside it: the place itself will take another name.
    with locked(place.with_name(f".{place.name}.lock"), place):
        place.mkdir(exist_ok=True)
        # Outside of what follows: nothing is removed that is not ours.
        with closing(Ledger(place, key)) as ledger:
            try:
                yield ledger
            except BaseException as error:
                outside = isinstance(error, CutShort) or not isinstance(error, Refusal)
                if not (outside and Ledger.begun(place)):
                    shutil.rmtree(place, ignore_errors=True)
                raise


def _chunks(corpus: Corpus, encoder: Encoder) -> Iterator[Chunk]:
    """The corpus in pieces of work: always the same ones, whoever does them."""
    grouped = encoder.row is not None
    limit = GROUP if grouped else _BATCH
    waiting: dict[Split, list[tuple[str, bool]]] = {split: [] for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    done = 0

    def chunk(split: Split, done: int) -> Chunk:
        taken, waiting[split], size[split] = waiting[split], [], 0
        return Chunk(split, taken, sum(last for _, last in taken), done)

    for split, text, done in corpus.read():
        left = len(text)
        for piece in pieces(text):
            left -= len(piece)
            waiting[split].append((piece, left == 0))
            size[split] += (left == 0) if grouped else len(piece)
            if size[split] >= limit:
                yield chunk(split, done)
    yield from (chunk(split, done) for split in SPLITS if waiting[split])


def _require_known(ledger: Ledger, share: float) -> None:
    """Refuse a text of which more than a share is unknown so far."""
    if ledger.unknown > share * ledger.ids:
        raise Refusal(
            f"{_said(ledger)}: use a tokenizer that was made for this text, or say what share may "
            "be unknown (--unknown of `flowlm prepare`, --data.unknown of `flowlm train`)."
        )


def _said(ledger: Ledger) -> str:
    share = f"{ledger.unknown / ledger.ids:.2%} ({ledger.unknown:,} of {ledger.ids:,} tokens)"
    return f"The tokenizer does not know {share} of the text"


def _said_of_long(ledger: Ledger, layout: Layout) -> str:
    assert isinstance(layout, Rows)
    total = sum(ledger.documents.values())
    share = f"{ledger.long / total:.2%} ({ledger.long:,} of {total:,})"
    done = "were dropped" if layout.long == "drop" else "were cut"
    return f"Of the texts {share} are longer than a row of {layout.length} tokens, and {done}"


def _key(corpus: Corpus, encoder: Encoder) -> str:
    """Hash of everything that must be equal for one preparation to resume another."""
    named = [FORMAT, _BATCH, GROUP, corpus.origin, corpus.state, _description(encoder.layout)]
    text = json.dumps([*named, encoder.tokenizer.fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _description(layout: Layout) -> dict[str, Any]:
    return {"kind": type(layout).__name__, **asdict(layout)}


def _move_tail(directory: Path, width: int, share: float) -> None:
    """Cut the last `share` of the tokens or rows, of `width` bytes each, off train and into valid.

    One of them stays at least.
    """
    train = directory / "train.bin"
    count = train.stat().st_size // width
    tail = min(max(0, count - 1), max(1, round(count * share)))
    with train.open("r+b") as source, (directory / "valid.bin").open("wb") as target:
        source.seek((count - tail) * width)
        shutil.copyfileobj(source, target)
        source.truncate((count - tail) * width)


def _write_manifest(
    directory: Path, origin: dict[str, Any], ledger: Ledger, encoder: Encoder
) -> None:
    sizes = {name: (directory / name).stat().st_size for name in FILES}
    splits = {}
    for split in SPLITS:
        tokens = sizes[f"{split}.bin"] // encoder.dtype.itemsize
        if not tokens:
            if ledger.long:
                raise Refusal(
                    f"{_said_of_long(ledger, encoder.layout)}, which leaves nothing for {split}: "
                    "choose longer rows, or cut long texts (--long cut, --data.long cut)."
                )
            raise Refusal(f"The text is too short to leave anything for {split}: give more text.")
        splits[split] = {"documents": ledger.documents[split], "tokens": tokens}
    manifest = {
        "format": FORMAT,
        **origin,
        "layout": _description(encoder.layout),
        "row": encoder.row,
        "pad": encoder.pad,
        "splits": splits,
        "unknown": ledger.unknown,
        "long": ledger.long,
        "lower": encoder.tokenizer.lowers,
        "dtype": encoder.dtype.name,
        "tokenizer": encoder.tokenizer.fingerprint,
        "files": {n: {"bytes": sizes[n], "sha256": sha256_of(directory / n)} for n in FILES},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (directory / "manifest.json").write_text(text, encoding="utf-8")


@contextmanager
def _refusing_writes(target: Path, resume: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = resume and Ledger.begun(unfinished(target))
        left = f"what is done is in {unfinished(target)}" if kept else "nothing was left behind"
        raise Refusal(
            f"{target} cannot be written ({error.strerror or error}): free some space or choose "
            f"another place; {left}."
        ) from error
