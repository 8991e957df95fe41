"""How large a vocabulary will be, found out without preparing the text."""

from __future__ import annotations

import os
from pathlib import Path

from flowlm.data.finding import find_corpus, make_tokenizer
from flowlm.data.pretrained import read_tokenizer
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.tokens import is_prepared
from flowlm.experiment import Experiment, Text
from flowlm.hub.names import located

KNOWN = {"gpt2": 50_257, "bert-base-uncased": 30_522}
"""Of tokenizers that are on the hub, so that nothing has to be fetched."""

COUNTED = 2**26
"""Bytes of text whose characters are counted, at most: seconds."""


def vocabulary(experiment: Experiment) -> tuple[int, bool]:
    """The number of tokens, and whether it is only what the experiment states."""
    data = experiment.data
    if not isinstance(data, Text):
        return data.vocab, False
    if data.path is not None and is_prepared(data.path):
        return Tokenizer.load(Path(data.path) / "tokenizer.json").vocab, False
    counted = _taught(experiment) if data.tokenizer is None else _chosen(data.tokenizer, data.vocab)
    if counted is None and data.tokenizer in (None, "characters"):
        counted = _characters(data)
    return (data.vocab, True) if counted is None else (counted, False)


def _taught(experiment: Experiment) -> int | None:
    """Of the teacher, or of the run to start from, whose tokenizer is taken."""
    before = experiment.method.teacher or experiment.init
    if before is None:
        return None
    file = located(before) / "tokenizer.json"
    return Tokenizer.load(file).vocab if file.exists() else None


def _chosen(name: str, stated: int) -> int | None:
    if name == "bpe":
        return stated
    if name in KNOWN:
        return KNOWN[name]
    if name == "characters" or not os.path.exists(name):
        return None
    found = read_tokenizer(Path(name))
    return None if found is None else found.vocab


def _characters(data: Text) -> int | None:
    if data.path is None or not os.path.exists(data.path):
        return None
    corpus = find_corpus(data.path, data.documents, data.valid)
    sizes = [source["bytes"] for source in corpus.origin["sources"]]
    if sum(sizes) > COUNTED:
        return None
    return make_tokenizer("characters", data.vocab, corpus, data.lower).vocab
