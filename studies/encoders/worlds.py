"""What the encoders learn from: a solvable language in many dialects, and real text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from flowlm.core import Automaton, Batch, Streams
from flowlm.data.finding import find_corpus, make_tokenizer
from flowlm.data.language import demo_language
from flowlm.data.loader import Windows, sequential
from flowlm.data.preparation import prepare
from flowlm.data.tokens import is_prepared, open_tokens
from flowlm.tasks.drawn import AHEAD, Drawn
from flowlm.tasks.generated import Generated
from flowlm.tasks.sentences import Sentences
from flowlm.tasks.task import Task

DIALECTS = 4
VOCABULARIES = {"text": 8192, "text-2048": 2048, "text-512": 512, "characters": None}
"""Words of the BPE by which the text is read; None for its characters."""
LENGTH = 64
HELD_OUT = 128
"""Texts on which cross-entropies are measured."""


@dataclass(frozen=True, eq=False)
class World:
    """A text to learn from, and its task where it is one."""

    vocab: int
    length: int
    batches: Callable[[int], Batch]
    counts: Tensor
    valid: Batch
    task: Task | None


def world(name: str, batch: int, seed: int, folder: Path) -> World:
    """`demo`, `dialects`, or the text in one of its VOCABULARIES, prepared in the folder."""
    if name in VOCABULARIES:
        text = open_tokens(folder / "tokens" / name, verify=False)
        vocab = text.tokenizer.vocab
        counts = torch.from_numpy(text.train.astype(np.int64)).bincount(minlength=vocab)
        valid = next(sequential(text.valid, LENGTH, HELD_OUT))
        return World(vocab, LENGTH, Windows(text.train, LENGTH, batch, seed), counts, valid, None)
    task = Generated() if name == "demo" else Dialects()
    batches = Drawn(task, batch, seed)
    # A seed of their own, the same for every run: held-out sentences.
    held_out = task.sample(Streams.of(977, 0, 1, count=HELD_OUT), "held out")
    counts = torch.cat([batches(step).tokens for step in range(AHEAD)]).flatten()
    return World(
        task.vocab, task.length, batches, counts.bincount(minlength=task.vocab),
        Batch(held_out, torch.ones(held_out.shape)), task,
    )  # fmt: skip


@cache
def dialects() -> Automaton:
    """The demo's language in DIALECTS dialects that share no word, each sentence in one of them."""
    one, _ = demo_language()
    # All begin in state 0; the copies' own states 0 are never reached.
    first = one.source == 0
    parts = [
        (
            torch.where(first, 0, one.source + k * one.states), one.token + k * one.vocab,
            one.target + k * one.states, torch.where(first, one.chance / DIALECTS, one.chance),
            one.final,
        )
        for k in range(DIALECTS)
    ]  # fmt: skip
    return Automaton(DIALECTS * one.vocab, one.length, *map(torch.cat, zip(*parts)))


@dataclass(frozen=True)
class Dialects(Sentences):
    """The language in dialects as a task."""

    about: ClassVar[str] = "sentences of the demo's language in dialects"
    itself: ClassVar[str] = "The language itself"

    @property
    def language(self) -> Automaton:
        """The language."""
        return dialects()

    @property
    def words(self) -> tuple[str, ...]:
        """Numbers: nobody reads them."""
        return tuple(map(str, range(dialects().vocab)))


def prepare_text(text: Path, folder: Path) -> None:
    """Tokenise a text in each of VOCABULARIES, by a byte-level BPE or by characters, once."""
    corpus = find_corpus(str(text), "line", 0.05)
    for name, vocab in VOCABULARIES.items():
        if not is_prepared(folder / "tokens" / name):
            kind = "characters" if vocab is None else "bpe"
            prepare(corpus, folder / "tokens" / name, make_tokenizer(kind, vocab or 0, corpus))
