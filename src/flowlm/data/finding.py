"""Corpora and tokenizers, found by their names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from flowlm.data.corpora.corpus import Corpus
from flowlm.data.corpora.plain import Separator, text_corpus
from flowlm.data.corpora.published import PUBLISHED
from flowlm.data.corpora.tables import Table, is_table, table_corpus, table_files
from flowlm.data.corpora.text8 import LETTERS
from flowlm.data.layout import Layout, Stream
from flowlm.data.lower import lower, lowered
from flowlm.data.pretrained import padded, read_tokenizer
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.hub.names import TOKENIZER_FILES, TOKENIZERS, HubId, aside, hub_id
from flowlm.hub.transfer import announce, fetch, pinned


def find_corpus(path: str, separator: Separator, valid: float, column: str = "text") -> Corpus:
    """The corpus that a path means, of which the share `valid` is held out.

    Parquet or JSON files with a text in `column`, or else plain text with a `separator` between
    documents. A Refusal if there is no such file, or if it is of a model.
    """
    path = os.path.expanduser(path)
    name = Path(path).name
    if not os.path.exists(path):
        if name in PUBLISHED:
            raise Refusal(
                f"{path} does not exist: make it with `flowlm prepare {name} --out {path}`."
            )
        if elsewhere := hub_id(path):
            raise Refusal(
                f"{path} does not exist here: prepare a data set on the Hugging Face hub first, "
                f"with `flowlm prepare {elsewhere} --out DIRECTORY`."
            )
        if said := aside(path):
            raise Refusal(f"{path} does not exist{said}: name a file, a directory or a pattern.")
    if path and is_table(path):
        return table_corpus(replace(table_files(path), column=column), valid)
    return text_corpus(path, separator, valid)


def hub_corpus(wanted: HubId, subset: str | None, column: str, valid: float, whole: bool) -> Corpus:
    """A data set on the hub, of which `valid` is held out.

    It is read as it comes, or fetched first if it is to be `whole`; always from one commit, which
    is the newest now where no other is named, and which its manifest names.
    """
    announce(wanted)
    wanted = pinned(wanted)
    table = Table(wanted.repository, (), column, subset, wanted.revision, whole)
    return table_corpus(table, valid)


def find_tokenizer(name: str | Path) -> Tokenizer:
    """A tokenizer from a file, a folder, a short name of `TOKENIZERS`, or the hub."""
    place = Path(os.path.expanduser(name))
    if name == "" or not os.path.exists(place):
        there = hub_id(TOKENIZERS.get(str(name), name))
        if there is None:
            raise Refusal(
                f"{name or 'The empty path'} is no tokenizer here{aside(name)}: give a "
                "tokenizer.json, a vocab.txt, a folder of either, "
                f"{', '.join(TOKENIZERS)}, or hf:owner/name."
            )
        place = fetch(there, TOKENIZER_FILES)
    found = read_tokenizer(place)
    if found is None:
        raise Refusal(f"{name} has no tokenizer.json, vocab.txt, or vocab.json with merges.txt.")
    return found


def make_tokenizer(
    chosen: str | None, vocab: int, corpus: Corpus, lower_case: bool = False
) -> Tokenizer:
    """The tokenizer that is `chosen`: one that learns from the corpus, or one that exists.

    "characters" (also None) and "bpe" with `vocab` ids learn; anything else is a file, a folder or
    a name, as everywhere. With `lower_case` it reads all text in lower case.
    """
    documents = map(lower, corpus.documents()) if lower_case else corpus.documents()
    match chosen:
        case None | "characters":
            found = Tokenizer.characters(documents)
        case "bpe":
            found = Tokenizer.bpe(documents, vocab)
        case name:
            found = find_tokenizer(name)
    return lowered(found) if lower_case else found


def published(
    name: str, place: Path | None = None, tokenizer: str | None = None, whole: bool = False
) -> tuple[Corpus, Tokenizer, Layout]:
    """Corpus, tokenizer and layout of a corpus of `PUBLISHED`, exactly as it is published.

    `place` holds its files, otherwise they come from the hub, at once if `whole`; `tokenizer` says
    where a copy of its tokenizer is, if not on the hub.
    """
    known = PUBLISHED[name]
    corpus = known.source.corpus(name, place, whole)
    if known.tokenizer == "characters":
        return corpus, Tokenizer.characters([LETTERS]), known.layout
    own = find_tokenizer(tokenizer or known.tokenizer)
    if own.vocab == known.vocab - 1:
        own = padded(own)
    if own.vocab != known.vocab and not isinstance(known.layout, Stream):
        raise Refusal(
            f"{name} is published with {known.tokenizer}, which has {known.vocab:,} ids here, and "
            f"{tokenizer} has {own.vocab:,}: leave --tokenizer out, or name a copy of it."
        )
    return corpus, own, known.layout
