"""Corpora: documents in a fixed order, each of one split, wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Literal

from flowlm.data.corpora.watched import State
from flowlm.errors import Refusal

Split = Literal["train", "valid"]

Read = tuple[Split, str, int]
"""The split of a document, its text, and how much of the corpus has been read with it."""

FEW = 100
"""Of fewer documents an even spread is no fair sample: the last ones are held out, by size."""


@dataclass(frozen=True)
class Corpus:
    """Documents, and where they come from.

    `read()` goes through all of them, always the same and in the same order; what it counts rises
    to `total` (bytes or documents; None if nobody knows). `origin` is what a manifest says of the
    corpus, and `state` how its files were found: while both are equal, the text is the same.
    `clean` is applied to every document, by those who encode it. With `tail`, which a corpus of one
    document has, everything is read as train, and the last share `tail` of its tokens is the valid
    split.
    """

    read: Callable[[], Iterator[Read]]
    origin: dict[str, Any]
    total: int | None
    clean: Callable[[str], str] = str
    tail: float = 0.0
    state: tuple[State, ...] = ()

    def documents(self) -> Iterator[str]:
        """Every document as it is encoded, for a tokenizer that learns from them."""
        return (self.clean(text) for _, text, _ in self.read())


def divided(
    measured: Callable[[], Iterator[tuple[str, int]]],
    valid: float,
    origin: dict[str, Any],
    total: int | None,
    state: tuple[State, ...] = (),
) -> Corpus:
    """A corpus of which the share `valid` is held out by whole documents.

    `measured()` yields documents, each with how much has been read. They are evenly spread (every
    20th for 0.05); of fewer than `FEW` they are the last ones, as many as make up that share of the
    characters. Of a single document the last `valid` of its tokens is held out.
    """
    if not 0 < valid < 1:
        raise Refusal(f"The share of valid text is {valid}: choose one between 0 and 1, as 0.05.")
    sizes = [len(text) for text, _ in islice(measured(), FEW)]
    count = len(sizes)
    if count >= FEW:
        # A rule without state: the share of documents so far passes another whole number.
        def is_valid(i: int) -> bool:
            return int((i + 1) * valid) > int(i * valid)

        held_out = f"{valid:g} of the documents"
    else:
        last = _last(sizes, valid)

        def is_valid(i: int) -> bool:
            return i >= count - last

        held_out = f"the last {last} of {count} documents"
        if not last:
            held_out = f"the last {valid:g} of the tokens of one document"

    def read() -> Iterator[Read]:
        for i, (text, done) in enumerate(measured()):
            yield "valid" if is_valid(i) else "train", text, done

    tail = valid if count < 2 else 0.0
    return Corpus(read, {**origin, "valid": held_out}, total, tail=tail, state=state)


def _last(sizes: Sequence[int], share: float) -> int:
    """How many of a few documents are held out: never all, and none of a single one."""
    held_out = accumulate(reversed(sizes[1:]))
    wanted = share * sum(sizes)
    return next((i for i, size in enumerate(held_out, 1) if size >= wanted), len(sizes[1:]))
