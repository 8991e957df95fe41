"""Lower case as a part of a tokenizer, so that prompts are read as the training text was."""

from __future__ import annotations

import tokenizers
from tokenizers import normalizers

from flowlm.data.tokenizer import Tokenizer


def lower(text: str) -> str:
    """The text as a tokenizer of lower case reads it, character by character."""
    return normalizers.Lowercase().normalize_str(text)


def lowered(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which reads all text in lower case; itself if it does so already."""
    if tokenizer.lowers:
        return tokenizer
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    before = [] if library.normalizer is None else [library.normalizer]
    library.normalizer = normalizers.Sequence([*before, normalizers.Lowercase()])
    return Tokenizer(library)
