"""Texts that get a row of their own: documents, or the sentences or lines of each.

A document is held out with all of its sentences: it has its split before it is divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from flowlm.data.corpora.corpus import Corpus, Read

Unit = Literal["document", "sentence", "line"]
"""A text that gets a row of its own."""

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")

_END = re.compile(
    r"""(?<!\bmr)(?<!\bmrs)(?<!\bms)(?<!\bdr)  # a title, behind which a name comes
    [.!?…]+(?P<closed>["'”’»)\]]*)\s+""",
    re.IGNORECASE | re.VERBOSE,
)


def sentences(document: str) -> Iterator[str]:
    """The sentences of a document, each with single spaces in the place of its white space.

    A sentence ends at `.`, `!`, `?` or `…` before white space, with the quotes and brackets that
    close behind the mark, and at a blank line. Where something closes, it goes on if a lower-case
    letter follows: "Stop!" said Tom. And it does not end at Mr. Mrs. Ms. Dr.
    """
    for paragraph in _PARAGRAPH.split(document):
        begin = 0
        for end in _END.finditer(paragraph):
            if end["closed"] and paragraph[end.end() : end.end() + 1].islower():
                continue
            yield from _text(paragraph[begin : end.end()])
            begin = end.end()
        yield from _text(paragraph[begin:])


def lines(document: str) -> Iterator[str]:
    """The lines of a document that are not blank, without white space around them."""
    return (line.strip() for line in document.split("\n") if line.strip())


def in_texts(corpus: Corpus, unit: Unit) -> Corpus:
    """The corpus with its texts of that unit in the place of documents, each of the same split."""
    if unit == "document":
        return corpus
    parts = sentences if unit == "sentence" else lines

    def read() -> Iterator[Read]:
        for split, document, done in corpus.read():
            for text in parts(document):
                yield split, text, done

    return replace(corpus, read=read, origin={**corpus.origin, "texts": unit})


def _text(stretch: str) -> Iterator[str]:
    if text := " ".join(stretch.split()):
        yield text
