"""`flowlm prepare`: a corpus into memory-mapped files."""

from __future__ import annotations

from pathlib import Path

from flowlm.checks import whole
from flowlm.cli import options
from flowlm.errors import Refusal

JOBS = 2**10
"""Processes that tokenise, at most: no machine has work for more."""


def prepare(chosen: options.Prepare) -> int:
    """Tokenise a corpus into memory-mapped files."""
    from rich.progress import Progress

    from flowlm.cli import show
    from flowlm.data import finding
    from flowlm.data.corpora.published import PUBLISHED
    from flowlm.data.layout import Stream
    from flowlm.data.preparation import prepare
    from flowlm.hub.names import hub_id
    from flowlm.machine.limits import cores

    known = chosen.path in PUBLISHED
    elsewhere = None if known else hub_id(chosen.path)
    _require_fitting(chosen, known, elsewhere is not None)
    if known:
        out = chosen.out or Path("data") / chosen.path
        corpus, tokenizer, layout = finding.published(
            chosen.path, chosen.source, chosen.tokenizer, chosen.whole
        )
    elif chosen.out is None:
        raise Refusal("Say where the tokens should go: --out DIRECTORY.")
    else:
        out, layout = chosen.out, Stream()
        if elsewhere is not None:
            corpus = finding.hub_corpus(
                elsewhere, chosen.subset, chosen.column, chosen.valid, chosen.whole
            )
        else:
            corpus = finding.find_corpus(chosen.path, chosen.documents, chosen.valid, chosen.column)
        tokenizer = finding.make_tokenizer(chosen.tokenizer, chosen.vocab, corpus)
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


def _require_fitting(chosen: options.Prepare, published: bool, elsewhere: bool) -> None:
    """Refuse options that would be ignored, and values that cannot be."""
    if not 0 <= chosen.unknown <= 1:
        raise Refusal("--unknown is a share: choose one from 0 to 1, such as 0.01.")
    whole("--jobs", chosen.jobs, 0, JOBS)
    if not published:
        if chosen.vocab != options.Prepare(chosen.path).vocab and chosen.tokenizer != "bpe":
            raise Refusal("--vocab is the size of what --tokenizer bpe learns: leave it out.")
        if chosen.source is not None:
            raise Refusal("--source is for a published corpus: name the files themselves.")
        if chosen.subset is not None and not elsewhere:
            raise Refusal("--subset is for a data set on the hub: leave it out.")
        return
    usual = options.Prepare(chosen.path)
    for name, own, its in (
        ("documents", chosen.documents, usual.documents),
        ("vocab", chosen.vocab, usual.vocab),
        ("valid", chosen.valid, usual.valid),
        ("column", chosen.column, usual.column),
        ("subset", chosen.subset, usual.subset),
    ):
        if own != its:
            raise Refusal(f"{chosen.path} is prepared as it is published: leave --{name} out.")
