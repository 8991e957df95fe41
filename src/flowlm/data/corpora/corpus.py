"""Corpora: documents in a fixed order, each of one split, wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from flowlm.data.corpora.watched import State
from flowlm.errors import Refusal

Split = Literal["train", "valid"]

Read = tuple[Split, str, int]
"""The split of a document, its text, and how much of the corpus has been read with it."""

FEW = 100
"""A corpus of fewer documents is split by tokens: a few documents are no fair sample of it."""


@dataclass(frozen=True)
class Corpus:
    """Documents, and where they come from.

    `read()` goes through all of them, always the same and in the same order; what it counts rises
    to `total` (bytes or documents; None if nobody knows). `origin` is what a manifest says of the
    corpus, and `state` how its files were found: while both are equal, the text is the same.
    `clean` is applied to every document, by those who encode it. With `tail` everything is read as
    train, and of its tokens the last share `tail` is the valid split.
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
    """A corpus of which the share `valid` is held out, evenly spread (every 20th for 0.05).

    `measured()` yields documents, each with how much has been read. Of fewer than `FEW` documents
    the last `valid` of the tokens is held out instead.
    """
    if not 0 < valid < 1:
        raise Refusal(f"The share of valid text is {valid}: choose one between 0 and 1, as 0.05.")
    few = sum(1 for _ in islice(measured(), FEW)) < FEW
    share = 0.0 if few else valid

    def read() -> Iterator[Read]:
        for i, (text, done) in enumerate(measured()):
            # A rule without state: the share of documents so far passes another whole number.
            yield "valid" if int((i + 1) * share) > int(i * share) else "train", text, done

    held_out = f"{valid:g} of the {'tokens, the last' if few else 'documents'}"
    tail = valid if few else 0.0
    return Corpus(read, {**origin, "valid": held_out}, total, tail=tail, state=state)
