"""Text that a tokenizer does not know: it becomes the unknown token, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import pre_tokenizers

from flowlm.data.tokenizer import Tokenizer

_MARK = "\ufffd<|nothing|>"


@dataclass(frozen=True)
class Unknown:
    """How a tokenizer loses text. Made by `of`.

    `token` is its unknown token, if it has one; `id` that of this token, which text may spell too
    (`spelled`). A tokenizer without one that drops what it does not know has a `twin`, which puts
    the id `id` in such places.
    """

    id: int | None = None
    token: str = ""
    spelled: bool = False
    twin: Tokenizer | None = None

    @staticmethod
    def of(tokenizer: Tokenizer) -> Unknown:
        """How `tokenizer` loses text, by what is in its file."""
        stated = json.loads(tokenizer.to_json())
        model = stated["model"]
        if model["type"] == "Unigram":
            return Unknown(model["unk_id"])
        token = model["unk_token"] or ""
        id = tokenizer.id_of(token) if token else None
        if id is not None:
            return Unknown(id, token, tokenizer.encode(token) == [id])
        if model["type"] == "BPE" and not _of_bytes(stated):
            model["unk_token"], model["fuse_unk"] = _MARK, False
            model["vocab"][_MARK] = tokenizer.vocab
            return Unknown(tokenizer.vocab, twin=Tokenizer.from_json(json.dumps(stated), "A twin"))
        return Unknown()

    def count(self, texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> int:
        """Unknown tokens in `encoded`, which are the ids of `texts`, and characters left out of it.

        Where a text spells the unknown token itself, nothing is lost.
        """
        if self.id is None:
            return 0
        if self.twin is not None:
            encoded = self.twin.encode_many(texts)
        return sum(self._in(text, ids) for text, ids in zip(texts, encoded))

    def _in(self, text: str, ids: Sequence[int]) -> int:
        found = ids.count(self.id)
        return max(0, found - text.count(self.token)) if found and self.spelled else found


def _of_bytes(stated: dict[str, Any]) -> bool:
    """Whether a BPE falls back to bytes, and has all of them: then nothing is ever dropped."""
    model = stated["model"]
    known = model["vocab"].keys()
    if model["byte_fallback"] and known >= {f"<0x{byte:02X}>" for byte in range(256)}:
        return True
    before = json.dumps([stated["pre_tokenizer"], stated["normalizer"]])
    return '"ByteLevel"' in before and known >= set(pre_tokenizers.ByteLevel.alphabet())
