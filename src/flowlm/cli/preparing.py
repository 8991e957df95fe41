"""`flowlm prepare`: a corpus into memory-mapped files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from flowlm.checks import whole
from flowlm.errors import Refusal
from flowlm.experiment.experiment import LENGTH

if TYPE_CHECKING:
    from flowlm.data.corpora.corpus import Corpus
    from flowlm.data.layout import Layout
    from flowlm.data.tokenizer import Tokenizer

JOBS = 2**10
"""Processes that tokenise, at most: no machine has work for more."""


@dataclass(frozen=True)
class Prepare:
    """Tokenise text once, into memory-mapped files that many runs can share.

    Published corpora: lm1b, lm1b-cls, lm1b-unpacked, openwebtext, text8, wikitext103, fineweb-edu,
    tinystories.
    What was interrupted goes on with the same command.
    """

    path: tyro.conf.Positional[str]
    """A published corpus; a UTF-8 text file, a directory of .txt files, or a glob; a parquet or
    JSON file, or a directory of them; or hf:owner/name[@revision] on the Hugging Face hub."""
    out: Path | None = None
    """The new directory; by default data/NAME for a published corpus."""
    tokenizer: str | None = None
    """characters, bpe, a file or folder, bert-base-uncased, gpt2, or hf:owner/name; for a published
    corpus, a copy of its own."""
    vocab: int = 4096
    """Size of a BPE vocabulary trained here."""
    documents: Literal["line", "blank", "endoftext"] = "line"
    """What separates documents: the end of a line, a blank line, or <|endoftext|>."""
    layout: Literal["packed", "rows"] = "packed"
    """packed: documents one after the other, cut anywhere. rows: a text a row, filled up with the
    token of its end."""
    length: int = 128
    """Tokens of a row, with --layout rows."""
    texts: Literal["document", "sentence", "line"] = "document"
    """What gets a row of its own."""
    long: Literal["drop", "cut"] = "drop"
    """What becomes of a text that is longer than its row."""
    lower: bool = False
    """Read all text in lower case: the tokenizer does so, with prompts too."""
    valid: float = 0.05
    """Share of the documents held out for validation."""
    unknown: float = 0.01
    """Share of the text that the tokenizer may not know."""
    column: str = "text"
    """The column of a table that holds the text."""
    subset: str | None = None
    """Of a data set on the hub."""
    source: Path | None = None
    """A directory that holds the files of a published corpus."""
    whole: bool = False
    """Fetch everything from the hub before the first document is read."""
    jobs: int = 0
    """Processes that tokenise; 0 takes one a core."""


def prepare(chosen: Prepare) -> int:
    """Tokenise a corpus into memory-mapped files."""
    from rich.progress import Progress

    from flowlm.cli import show
    from flowlm.data import finding
    from flowlm.data.preparation import prepare
    from flowlm.machine.limits import cores

    _require_sound(chosen)
    if chosen.path in finding.PUBLISHED:
        out = chosen.out or Path("data") / chosen.path
        corpus, tokenizer, layout = _published(chosen)
    elif chosen.out is None:
        raise Refusal("Say where the tokens should go: --out DIRECTORY.")
    else:
        out = chosen.out
        corpus, tokenizer, layout = _as_chosen(chosen, _own_corpus(chosen), chosen.tokenizer)
    console = show.console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("encoding")

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        prepared = prepare(
            corpus, out, tokenizer, layout, chosen.jobs or cores(), resume=True, progress=progress,
            unknown=chosen.unknown,
        )  # fmt: skip
    length = "" if prepared.row is None else f" --data.length {prepared.row}"
    console.print(
        f"{out}: {len(prepared.train):,} tokens to train on, {len(prepared.valid):,} held out, a "
        f"vocabulary of {tokenizer.vocab:,}. Use it as --data.path {out}{length}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _published(chosen: Prepare) -> tuple[Corpus, Tokenizer, Layout]:
    """A published corpus as it is published, or, where no packing of it is, as it is wanted."""
    from flowlm.data import finding

    known = finding.PUBLISHED[chosen.path]
    usual = Prepare(chosen.path)
    fixed = ("documents", "valid", "column", "subset")
    own = ("vocab", "layout", "length", "texts", "long", "lower")
    for name in fixed if known.is_open else (*fixed, *own):
        if vars(chosen)[name] != vars(usual)[name]:
            raise Refusal(f"{chosen.path} is prepared as it is published: leave --{name} out.")
    learnt = chosen.tokenizer in ("bpe", "characters")
    if not known.is_open or not (
        learnt or any(vars(chosen)[name] != vars(usual)[name] for name in own)
    ):
        return finding.published(chosen.path, chosen.source, chosen.tokenizer, chosen.whole)
    corpus = known.source.corpus(chosen.path, chosen.source, chosen.whole)
    return _as_chosen(chosen, corpus, chosen.tokenizer or known.tokenizer)


def _own_corpus(chosen: Prepare) -> Corpus:
    """Text of files, or of a data set on the hub."""
    from flowlm.data import finding
    from flowlm.hub.names import hub_id

    elsewhere = hub_id(chosen.path)
    if chosen.source is not None:
        raise Refusal("--source is for a published corpus: name the files themselves.")
    if elsewhere is not None:
        return finding.hub_corpus(
            elsewhere, chosen.subset, chosen.column, chosen.valid, chosen.whole
        )
    if chosen.subset is not None:
        raise Refusal("--subset is for a data set on the hub: leave it out.")
    return finding.find_corpus(chosen.path, chosen.documents, chosen.valid, chosen.column)


def _as_chosen(
    chosen: Prepare, corpus: Corpus, tokenizer: str | None
) -> tuple[Corpus, Tokenizer, Layout]:
    """A corpus in the texts that are wanted, its tokenizer, and how its ids lie."""
    from flowlm.data.corpora.texts import in_texts
    from flowlm.data.finding import make_tokenizer
    from flowlm.data.layout import Rows, Stream

    usual = Prepare(chosen.path)
    if chosen.vocab != usual.vocab and tokenizer != "bpe":
        raise Refusal("--vocab is the size of what --tokenizer bpe learns: leave it out.")
    corpus = in_texts(corpus, chosen.texts)
    layout = Rows(chosen.length, chosen.long) if chosen.layout == "rows" else Stream()
    return corpus, make_tokenizer(tokenizer, chosen.vocab, corpus, chosen.lower), layout


def _require_sound(chosen: Prepare) -> None:
    """Refuse options that would be ignored, and values that cannot be."""
    if not 0 <= chosen.unknown <= 1:
        raise Refusal("--unknown is a share: choose one from 0 to 1, such as 0.01.")
    whole("--jobs", chosen.jobs, 0, JOBS)
    whole("--length", chosen.length, 2, LENGTH)
    usual = Prepare(chosen.path)
    for name in ("length", "texts", "long") if chosen.layout == "packed" else ():
        if vars(chosen)[name] != vars(usual)[name]:
            raise Refusal(f"--{name} is about rows: give --layout rows, or leave it out.")
