"""Inputs of a run: batches by step, held-out text, and the tokenizer between."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch
from flowlm.data.corpora.texts import in_texts
from flowlm.data.finding import find_corpus, make_tokenizer
from flowlm.data.layout import Rows, Stream
from flowlm.data.loader import Ahead, Windows, sequential
from flowlm.data.lower import lowered
from flowlm.data.preparation import prepare
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import Prepared, is_prepared, open_tokens
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.tasks.drawn import AHEAD, Drawn
from flowlm.tasks.task import Task

HELD_OUT = 512
"""Texts on which a run validates: the first of the held-out part, or all if there are fewer."""

COUNTED = 2**24
"""Tokens whose frequencies are counted, at most: those at the beginning of the text."""


@dataclass(frozen=True)
class Inputs:
    """Where batches come from."""

    batches: Callable[[int], Batch]
    counts: Callable[[], Int[Tensor, " v"]]
    """How often every token comes up in the text to learn from, or in a long beginning of it."""
    valid: Batch
    """The held-out texts: the same whatever the training batch and the number of processes."""
    tokenizer: Tokenizer
    length: int
    fingerprint: str
    """sha256, in hex, of all that the text is."""
    text: Integer[np.ndarray, " n"] | None = None
    """All tokens to learn from, one after another; None where they are drawn anew."""
    packing: Mapping[str, Any] = field(default_factory=dict)
    """How prepared texts lie, as the fields of an experiment's data by name."""


def open_inputs(
    experiment: Experiment,
    tokens: Path,
    teacher_tokenizer: Tokenizer | None = None,
    rank: int = 0,
    world: int = 1,
) -> Inputs:
    """Open an experiment's data, preparing raw text into the directory `tokens` if need be.

    `teacher_tokenizer` is used unless the experiment names another tokenizer, and is the one that
    the data must have been made with. `batches(step)` are the rows of process `rank`
    of `world`; the held-out texts are the same everywhere. Of several processes the first opens
    before the others: it prepares what is missing and checks what is there.
    """
    plan = experiment.train
    match experiment.data:
        case Task() as task:
            streams = Streams.of(plan.seed + 1, 0, 1, count=HELD_OUT)
            drawn = task.sample(streams, "held out")
            valid = Batch(drawn, torch.ones(drawn.shape))
            batches = Drawn(task, plan.batch, plan.seed, rank, world)

            def drawn_counts() -> Tensor:
                whole = Drawn(task, plan.batch, plan.seed)
                tokens = torch.cat([whole(step).tokens for step in range(AHEAD)])
                return tokens.flatten().bincount(minlength=task.vocab)

            return Inputs(
                batches, drawn_counts, valid, task.tokenizer(), task.length, task.fingerprint
            )
        case Text() as text:
            prepared = _prepared(text, tokens, teacher_tokenizer, verify=rank == 0)
            _require_rows(prepared, text)
            row, pad = prepared.row is not None, prepared.pad
            cut = (prepared.train, text.length, plan.batch, plan.seed, rank, world, row, pad)
            batches = Ahead(Windows(*cut), pinned=torch.cuda.is_available())
            if len(prepared.valid) < text.length:
                raise Refusal(
                    f"The held-out part of the text has {len(prepared.valid):,} tokens and one "
                    f"window needs {text.length:,}: choose a shorter --data.length, a larger "
                    "--data.valid, or give more text."
                )
            valid = next(sequential(prepared.valid, text.length, HELD_OUT, pad))
            tokenizer = prepared.tokenizer
            if prepared.packing["layout"] == "rows":
                tokenizer = tokenizer.of_rows()
            # What a run prepares itself lies as its experiment says.
            packing = prepared.packing if is_prepared(os.path.expanduser(text.path or "")) else {}

            def read_counts() -> Tensor:
                beginning = torch.from_numpy(prepared.train[:COUNTED].astype(np.int64))
                return beginning.bincount(minlength=tokenizer.vocab)

            return Inputs(
                batches, read_counts, valid, tokenizer, text.length, prepared.fingerprint,
                prepared.train, packing,
            )  # fmt: skip
        case other:
            assert_never(other)


def as_packed(experiment: Experiment, inputs: Inputs) -> Experiment:
    """The experiment, with how the texts lie that it learns from."""
    data = experiment.data
    if not isinstance(data, Text):
        return experiment
    return replace(experiment, data=replace(data, **inputs.packing))


def text_name(experiment: Experiment) -> str:
    """Name of the text that an experiment trains on, to begin a sentence."""
    data = experiment.data
    if isinstance(data, Text):
        return f"{data.path}"
    return f"The task ({data.about})"


def _prepared(
    text: Text, tokens: Path, teacher_tokenizer: Tokenizer | None, verify: bool
) -> Prepared:
    if text.path is None:
        raise Refusal("There is no text to learn from: give --data.path FILE.")
    path = os.path.expanduser(text.path)
    if is_prepared(path):
        prepared = open_tokens(path, verify)
        _require_same(prepared.tokenizer, teacher_tokenizer)
        return prepared
    if is_prepared(tokens):
        return open_tokens(tokens, verify)
    corpus = in_texts(find_corpus(path, text.documents, text.valid), text.texts)
    if text.tokenizer is None and teacher_tokenizer is not None:
        tokenizer = lowered(teacher_tokenizer) if text.lower else teacher_tokenizer
    else:
        tokenizer = make_tokenizer(text.tokenizer, text.vocab, corpus, text.lower)
    _require_same(tokenizer, teacher_tokenizer)
    layout = Rows(text.length, text.long) if text.layout == "rows" else Stream()
    return prepare(corpus, tokens, tokenizer, layout, unknown=text.unknown)


def _require_rows(prepared: Prepared, text: Text) -> None:
    if prepared.row not in (None, text.length):
        raise Refusal(
            f"The texts in {text.path} are rows of {prepared.row} tokens: give --data.length "
            f"{prepared.row}."
        )
    packing = prepared.packing
    for name in ("begin", "end"):
        stated = vars(text)[name]
        if stated not in (None, packing[name]):
            raise Refusal(
                f"The texts in {text.path} do not {name} with {stated}: leave --data.{name} out."
            )
    for name in ("layout", "texts", "long", "lower"):
        stated = vars(text)[name]
        if stated not in (vars(Text())[name], packing[name]):
            raise Refusal(
                f"The texts in {text.path} were prepared without --{name}"
                f"{f' {stated}' if name != 'lower' else ''}: leave --data.{name} out, or prepare "
                "them with it."
            )


def _require_same(tokenizer: Tokenizer, teacher_tokenizer: Tokenizer | None) -> None:
    if teacher_tokenizer is not None and tokenizer.fingerprint != teacher_tokenizer.fingerprint:
        raise Refusal(
            "The text is tokenised differently from what the teacher, or the run of --init, has "
            "learnt: leave --data.tokenizer out, or give the text that it was trained on."
        )
