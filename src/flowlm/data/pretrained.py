"""Tokenizers of other people, from the files that they are published as.

BERT's WordPiece (`vocab.txt`) and GPT-2's byte-level BPE (`vocab.json` and `merges.txt`, or
`encoder.json` and `vocab.bpe`) are what the released models were trained with; a `tokenizer.json`
may hold any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal

GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""Names under which GPT-2's two files go about."""

GPT2_END = "<|endoftext|>"
PAD = "[PAD]"
"""The token that the released models add to GPT-2's."""

_BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_tokenizer(path: Path) -> Tokenizer | None:
    """The tokenizer of a file or a directory; None for a directory that holds none.

    A file is a `tokenizer.json` or a `vocab.txt`; in a directory, the first there is of
    `tokenizer.json`, `vocab.txt` and GPT-2's pairs. A Refusal if what is there cannot be read.
    """
    if not path.is_dir():
        return _wordpiece(path) if path.suffix == ".txt" else Tokenizer.load(path)
    if (path / "tokenizer.json").exists():
        return Tokenizer.load(path / "tokenizer.json")
    if (path / "vocab.txt").exists():
        return _wordpiece(path / "vocab.txt")
    for vocab, merges in GPT2_FILES:
        if (path / vocab).exists() and (path / merges).exists():
            return _byte_pairs(path / vocab, path / merges)
    return None


def wordpiece(ids: Mapping[str, int]) -> Tokenizer:
    """BERT's tokenizer for lower-cased text, from its pieces and their ids."""
    library = tokenizers.Tokenizer(models.WordPiece(dict(ids), unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    library.add_special_tokens([AddedToken(t, special=True) for t in _BERT_SPECIAL if t in ids])
    return Tokenizer(library)


def padded(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with one more id, the last, for padding."""
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    library.add_special_tokens([AddedToken(PAD, special=True)])
    return Tokenizer(library)


def _wordpiece(file: Path) -> Tokenizer:
    pieces = _text(file).removesuffix("\n").split("\n")
    ids = {piece.rstrip("\r"): i for i, piece in enumerate(pieces)}
    if len(ids) != len(pieces) or "[UNK]" not in ids:
        raise Refusal(f"{file} is not a vocabulary of BERT: one piece a line, [UNK] among them.")
    return wordpiece(ids)


def _byte_pairs(vocab: Path, merges: Path) -> Tokenizer:
    try:
        ids = json.loads(_text(vocab))
        lines = _text(merges).split("\n")
        if lines[0].startswith("#version"):
            del lines[0]
        pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip()]
        merged = [(left, right) for left, right in pairs]
        library = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merged))
    except Exception as error:  # the library raises the bare class for every fault of a file
        raise Refusal(
            f"{vocab} and {merges.name} are not a tokenizer of GPT-2: fetch them again."
        ) from error
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    if GPT2_END in ids:
        library.add_special_tokens([AddedToken(GPT2_END, special=True, normalized=False)])
    return Tokenizer(library)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file} cannot be read as text ({error}): check the file.") from error
