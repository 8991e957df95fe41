"""Text to ids and back: one small face over the `tokenizers` library.

Everything a tokenizer is lives in one file, `tokenizer.json`, the format of that library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, final

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from flowlm.errors import Refusal
from flowlm.files import replacing

END = "<|end|>"
"""The token between packed documents. It has id 0 and `decode` writes it as a newline."""

UNKNOWN = "\ufffd"
"""What a character outside the alphabet becomes: the replacement character of Unicode."""

PIECE = 2**17
"""Characters of a long text that are encoded at once. The library keeps hundreds of bytes per
character while it works, so a corpus that is one line of 100 MB has to come in pieces."""

_SPACES = "\u0120\u2581"
"""How byte-level BPE and SentencePiece spell a space."""

_USUAL_ENDS = (END, "<|endoftext|>", "[SEP]", "</s>")


@final
class Tokenizer:
    """Text to ids and back. Ids are 0 to `vocab` - 1.

    Text can never spell a special token: the characters `<|end|>` in a document are encoded as
    ordinary text, so `end` is where the packing put it and nowhere else. Nothing is added, padded
    or truncated, whatever the file asks for. Built by `characters`, `bpe`, `words` or `load`.

    With `ends_texts` a text is a row of its own: its first `end` ends it, and nothing behind that
    is read.
    """

    def __init__(self, library: tokenizers.Tokenizer, ends_texts: bool = False) -> None:
        library.no_padding()
        library.no_truncation()
        library.encode_special_tokens = True
        self._library, self._ends_texts = library, ends_texts

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process as JSON: the library's own way forgets `encode_special_tokens`.
        return Tokenizer.from_json, (self.to_json(), "A tokenizer", self._ends_texts)

    def of_rows(self) -> Tokenizer:
        """The same tokenizer for texts that are rows of their own. A Refusal if it has no end."""
        if self.end is None:
            raise Refusal(
                "This tokenizer has no token for the end of a text, with which rows are filled up: "
                f"use one that has {', '.join(_USUAL_ENDS[:-1])} or {_USUAL_ENDS[-1]}."
            )
        return Tokenizer(self._library, ends_texts=True)

    @staticmethod
    def characters(documents: Iterable[str]) -> Tokenizer:
        """Every character of `documents` is a token: ids 2 and up, in the order of code points.

        Id 0 is the end of a document, id 1 stands for characters that were not seen. Over the
        alphabet, newlines included, `decode(encode(text)) == text`.
        """
        seen: set[str] = set()
        for document in documents:
            seen.update(document)
        if not seen:
            raise Refusal("There is no text to take characters from: give at least one document.")
        alphabet = [END, UNKNOWN, *sorted(seen - {UNKNOWN})]
        # BPE without merges leaves single characters, three times faster than splitting the text.
        vocab = {token: id for id, token in enumerate(alphabet)}
        library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNKNOWN))
        library.decoder = decoders.Fuse()
        library.add_special_tokens([AddedToken(END, special=True, normalized=False)])
        return Tokenizer(library)

    @staticmethod
    def bpe(documents: Iterable[str], vocab: int) -> Tokenizer:
        """Byte-level byte pair encoding with `vocab` ids, trained on `documents`.

        The same documents give the same tokenizer. Any text survives: `decode(encode(text)) ==
        text`. A small corpus may run out of pairs to merge, then there are fewer ids than asked
        for. A Refusal for fewer than 257 ids (256 bytes and the end of a document).
        """
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        least = len(alphabet) + 1
        if vocab < least:
            raise Refusal(
                f"A vocabulary of {vocab} is too small for bytes: ask for {least} or more."
            )
        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[AddedToken(END, special=True, normalized=False)],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        library.train_from_iterator((p for text in documents for p in pieces(text)), trainer)
        return Tokenizer(library)

    @staticmethod
    def words(words: Sequence[str]) -> Tokenizer:
        """One token a word, id i for `words[i]`, a space between words: for generated languages.

        There is no unknown word (encoding one is refused) and no token between documents.
        """
        for word in words:
            if not word or word.split() != [word]:
                raise Refusal(f"{word!r} is not one word: give words without white space.")
        vocab = {word: id for id, word in enumerate(words)}
        if not vocab or len(vocab) != len(words):
            raise Refusal("The words of a tokenizer must be there and be distinct: list each once.")
        library = tokenizers.Tokenizer(models.WordLevel(vocab=vocab))
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return Tokenizer(library)

    @staticmethod
    def load(path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`, from `save` or from anybody else. A Refusal if it is none."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise Refusal(f"{path} does not exist: name a tokenizer.json file.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(f"{path} cannot be read as text ({error}): check the file.") from error
        return Tokenizer.from_json(text, str(path))

    @staticmethod
    def from_json(text: str, source: str, ends_texts: bool = False) -> Tokenizer:
        """Read what `to_json` wrote, or the text of anybody's `tokenizer.json`.

        A Refusal that names the `source` if it is none.
        """
        try:
            library = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises the bare class for every fault of a file
            raise Refusal(
                f"{source} is not a tokenizer of the tokenizers library ({error}): "
                "name a tokenizer.json file."
            ) from error
        return Tokenizer(library, ends_texts)

    def to_json(self) -> str:
        """Everything that the tokenizer is, as the text of its `tokenizer.json`."""
        return self._library.to_str(pretty=True)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. A text of millions of characters should come in `pieces`."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of every text, worked out in parallel inside the library."""
        try:
            encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:
            if type(error) is not Exception:  # the bare class is what the library raises here too
                raise
            raise Refusal(
                f"The text has a word that this tokenizer lacks ({error}): "
                "use a tokenizer that was made for this text."
            ) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`. `end` becomes a newline, other special tokens are written out.

        Of a row of its own it is the text up to its end.
        Ids from `vocab` on stand for nothing and leave nothing in the text.
        """
        return self._decoded(ids, skip=False)

    def _decoded(self, ids: Sequence[int], skip: bool) -> str:
        if self.end is None:
            return self._library.decode(ids, skip_special_tokens=skip)
        if self._ends_texts:
            text = list(takewhile(lambda id: id != self.end, ids))
            return self._library.decode(text, skip_special_tokens=skip)
        documents: list[list[int]] = [[]]
        for id in ids:
            if id == self.end:
                documents.append([])
            else:
                documents[-1].append(id)
        return "\n".join(self._library.decode_batch(documents, skip_special_tokens=skip))

    def plain(self, ids: Sequence[int]) -> str:
        """The text of `ids` as `decode` has it, without special tokens."""
        return self._decoded(ids, skip=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The characters that each token adds to the text of those before it, one string a token.

        One that begins a word has its space in front. Together they are `decode(ids)`, unless a
        token changes what stands before it.
        """
        found, done = [], ""
        for count in range(1, len(ids) + 1):
            text = self.decode(ids[:count])
            kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(done, text)))
            found.append(text[kept:])
            done = text
        return found

    def id_of(self, token: str) -> int | None:
        """The id of the token of this spelling, special ones included, or None."""
        return self._library.token_to_id(token)

    @cached_property
    def joins_spaces(self) -> bool:
        """Whether there are tokens of a space and the word after it, as byte-level BPE has them."""
        spellings = self._library.get_vocab(with_added_tokens=False)
        return any(len(token) > 1 and token[0] in _SPACES for token in spellings)

    @cached_property
    def vocab(self) -> int:
        """How many ids there are: one more than the largest, so that it sizes a table."""
        return max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def end(self) -> int | None:
        """The id that stands between packed documents, or None.

        It is the first of `<|end|>`, `<|endoftext|>`, `[SEP]`, `</s>` that the tokenizer knows: the
        last three are what tokenizers from elsewhere call it.
        """
        found = (self._library.token_to_id(name) for name in _USUAL_ENDS)
        return next((id for id in found if id is not None), None)

    @property
    def stop(self) -> int | None:
        """The id at which a text ends that is a row of its own; None where texts are packed."""
        return self.end if self._ends_texts else None

    @property
    def lowers(self) -> bool:
        """Whether it reads all text in lower case."""
        normalizer = self._library.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == "a"

    @cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, of what the tokenizer does: equal before `save` and after `load`.

        Taken over JSON with sorted keys and without the fields that are null or false, since that
        is how options that a later version of the library adds arrive in older tokenizers.
        """
        canonical = json.dumps(_stated(json.loads(self.to_json())), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, all of it or nothing. A Refusal if it cannot be written."""
        try:
            with replacing(Path(path)) as partial:
                partial.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise Refusal(
                f"{path} cannot be written ({error.strerror or error}): "
                "free some space or choose another place."
            ) from error


def pieces(text: str, limit: int = PIECE) -> Iterator[str]:
    """Cut `text` into consecutive pieces of at most `limit` characters; "" has one piece, "".

    The cut is before a space between two letters or digits, where tokenizers begin a new word
    anyway, so that the ids of the pieces are the ids of the text. Where a stretch of `limit`
    characters has no such place (a genome), it is cut at `limit`.
    """
    start = 0
    while len(text) - start > limit:
        cut = text.rfind(" ", start + 1, start + limit)
        while cut > start and not (text[cut - 1].isalnum() and text[cut + 1].isalnum()):
            cut = text.rfind(" ", start + 1, cut)
        cut = cut if cut > start else start + limit
        yield text[start:cut]
        start = cut
    yield text[start:]


def _stated(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stated(v) for k, v in value.items() if v is not None and v is not False}
    if isinstance(value, list):
        return [_stated(item) for item in value]
    return value
