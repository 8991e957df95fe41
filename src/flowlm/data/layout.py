"""How the ids of documents lie in a token file.

A `Stream` has no lines: whoever reads it cuts windows of any length. `Rows`, `Packed` and `Padded`
are rows of one length, which are read as they are. An `Encoder` turns documents into any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np

from flowlm.data.corpora.corpus import Split
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.unknown import Unknown
from flowlm.errors import Refusal

GROUP = 1000
"""Documents that are packed together. What is left at the end of a group, less than a row, is
dropped: the published preparations work in groups of this size."""

_AT_ONCE = 2**20  # characters

Long = Literal["drop", "cut"]
"""The treatment of a text that is longer than its row."""


@dataclass(frozen=True)
class Stream:
    """Documents one after the other, each followed by the tokenizer's `end` where it has one.

    Without `ended` nothing stands between them: they are one text that was cut for reading.
    """

    ended: bool = True


@dataclass(frozen=True)
class Rows:
    """A row of `length` ids for every text, and the tokenizer's `end` from there on.

    The end is a token like any other, so that its place is learnt. A text that fills its row has
    none. One that is longer is dropped, or with `long` "cut" the row is its beginning.
    """

    length: int
    long: Long = "drop"


@dataclass(frozen=True)
class Packed:
    """Rows of `length` ids: `begin`, a piece of the documents one after the other, `end`.

    Every document is followed by `between`; a piece may begin and stop anywhere.
    """

    length: int
    begin: str
    between: str
    end: str


@dataclass(frozen=True)
class Padded:
    """A row of `length` ids for every document: `begin`, what fits of it, `end`, then `pad`."""

    length: int
    begin: str
    end: str
    pad: str


Layout = Stream | Rows | Packed | Padded


@dataclass(frozen=True)
class Chunk:
    """Documents of one split that are encoded together.

    A long document comes in pieces; each piece says whether its document ends with it. `documents`
    counts those ends, and `done` what has been read of the corpus.
    """

    split: Split
    pieces: Sequence[tuple[str, bool]]
    documents: int
    done: int


@dataclass(frozen=True)
class Encoded:
    """A chunk in a token file: its bytes; the ids that its text has, and how many are unknown.

    A character that a tokenizer leaves out counts as an id, an unknown one. `long` counts texts
    that were longer than a row of their own.
    """

    data: bytes
    ids: int
    unknown: int
    long: int = 0


@dataclass(frozen=True)
class Encoder:
    """Text to the bytes of a token file: little-endian ids of `dtype`."""

    tokenizer: Tokenizer
    layout: Layout
    clean: Callable[[str], str]

    def __post_init__(self) -> None:
        layout = self.layout
        if isinstance(layout, Packed):
            self._ids(layout.begin, layout.between, layout.end)
        elif isinstance(layout, Padded):
            self._ids(layout.begin, layout.end, layout.pad)
        elif isinstance(layout, Rows):
            self.tokenizer.of_rows()

    @property
    def dtype(self) -> np.dtype:
        """Two bytes an id for up to 65,536 ids, else four."""
        return np.dtype("<u2" if self.tokenizer.vocab <= 65536 else "<u4")

    @property
    def row(self) -> int | None:
        """Ids in a row; None for a stream."""
        return None if isinstance(self.layout, Stream) else self.layout.length

    @property
    def pad(self) -> int | None:
        """The id that fills rows up, where there is one."""
        return self._ids(self.layout.pad)[0] if isinstance(self.layout, Padded) else None

    def __call__(self, chunk: Chunk) -> Encoded:
        """A chunk encoded, which depends on nothing but the chunk."""
        encoded, unknown = self._encoded([self.clean(text) for text, _ in chunk.pieces])
        data = self._packed(self._laid_out(chunk, encoded))
        left_out = unknown if self._unknown.twin is not None else 0
        long = 0
        if isinstance(self.layout, Rows):
            long = sum(len(text) > self.layout.length for text in _whole(chunk, encoded))
        return Encoded(data, sum(map(len, encoded)) + left_out, unknown, long)

    def _laid_out(self, chunk: Chunk, encoded: Sequence[Sequence[int]]) -> np.ndarray:
        ends = [last for _, last in chunk.pieces]
        match self.layout:
            case Stream(ended):
                end = self.tokenizer.end if ended else None
                ids = _joined(encoded, ends, [] if end is None else [end])
            case Packed(length, begin, between, end):
                first, stop, last = self._ids(begin, between, end)
                text = _joined(encoded, ends, [stop])
                rows = len(text) // (length - 2)
                ids = np.empty((rows, length), np.int64)
                ids[:, 0], ids[:, -1] = first, last
                ids[:, 1:-1] = text[: rows * (length - 2)].reshape(rows, length - 2)
            case Padded(length, begin, end, pad):
                first, last, fill = self._ids(begin, end, pad)
                texts = (text[: length - 2] for text in _whole(chunk, encoded))
                ids = _filled([[first, *text, last] for text in texts], length, fill)
            case Rows(length, long):
                fill = self.tokenizer.end
                assert fill is not None
                kept = (t for t in _whole(chunk, encoded) if long == "cut" or len(t) <= length)
                ids = _filled([text[:length] for text in kept], length, fill)
        return ids

    @cached_property
    def _unknown(self) -> Unknown:
        return Unknown.of(self.tokenizer)

    def _encoded(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Ids, and how much was unknown.

        Some texts at a time: the library needs hundreds of bytes a character while it works.
        """
        encoded: list[list[int]] = []
        unknown = 0
        for some in _batches(texts):
            ids = self.tokenizer.encode_many(some)
            unknown += self._unknown.count(some, ids)
            encoded += ids
        return encoded, unknown

    def _ids(self, *tokens: str) -> list[int]:
        found = [self.tokenizer.id_of(token) for token in tokens]
        for token, id in zip(tokens, found):
            if id is None:
                raise Refusal(
                    f"The tokenizer has no token {token}, which this corpus is packed with: use "
                    "the corpus's own, by leaving --tokenizer out."
                )
        return [id for id in found if id is not None]

    def _packed(self, ids: np.ndarray) -> bytes:
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab:
            raise Refusal(
                f"There is an id outside the tokenizer's {self.tokenizer.vocab}: encode again."
            )
        return ids.astype(self.dtype).tobytes()


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= _AT_ONCE:
            yield some
            some, size = [], 0
    yield some


def _whole(chunk: Chunk, encoded: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """The ids of every document, whose pieces are joined."""
    document = list[int]()
    for (_, last), part in zip(chunk.pieces, encoded):
        document += part
        if last:
            yield document
            document = []


def _filled(texts: Sequence[Sequence[int]], length: int, fill: int) -> np.ndarray:
    ids = np.full((len(texts), length), fill)
    for row, text in zip(ids, texts):
        row[: len(text)] = text
    return ids


def _joined(
    encoded: Sequence[Sequence[int]], ends: Sequence[bool], mark: Sequence[int]
) -> np.ndarray:
    parts = ((ids, mark) if last else (ids,) for ids, last in zip(encoded, ends))
    return np.fromiter(chain.from_iterable(chain.from_iterable(parts)), np.int64)
