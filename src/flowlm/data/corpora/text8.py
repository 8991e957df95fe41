"""text8: the first 10^8 characters of a clean Wikipedia, one text without lines."""

from __future__ import annotations

import re
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowlm.data.corpora.corpus import Corpus, Read, Split
from flowlm.data.corpora.watched import Files
from flowlm.data.tokenizer import PIECE
from flowlm.errors import Refusal

LETTERS = "abcdefghijklmnopqrstuvwxyz "
"""Every character that is in it."""

_FOREIGN = re.compile(f"[^{LETTERS}]".encode())


@dataclass(frozen=True)
class Text8:
    """The usual splits of text8, in characters; what is left after both is for testing."""

    url: str = "http://mattmahoney.net/dc/text8.zip"
    train: int = 90_000_000
    valid: int = 5_000_000
    size: int = 100_000_000

    def corpus(self, name: str, place: Path | None, whole: bool) -> Corpus:
        """The corpus, read in characters, from `text8` or `text8.zip` in `place`, or from its site.

        It is always fetched whole: 31 MB.
        """
        file = None if place is None else _found(place)
        files = Files.seen(() if file is None else (file,))

        def read() -> Iterator[Read]:
            done = 0
            with self._opened(file) as stream:
                while text := stream.read(self._until(done)):
                    if _FOREIGN.search(text):
                        raise Refusal(
                            f"{file or self.url} is not text8, which has nothing but a to z and "
                            "spaces: fetch it again."
                        )
                    split: Split = "train" if done < self.train else "valid"
                    done += len(text)
                    if done <= self.train + self.valid:
                        yield split, text.decode("ascii"), done
            if done != self.size:
                raise Refusal(
                    f"{file or self.url} has {done:,} characters and text8 has {self.size:,}: "
                    "fetch it again."
                )

        return Corpus(
            lambda: files.unchanged(read()),
            {
                "corpus": name,
                "sources": [{"name": str(file or self.url)}],
                "valid": f"characters {self.train:,} to {self.train + self.valid:,}",
            },
            self.size,
            state=files.states,
        )

    def _until(self, done: int) -> int:
        """Characters to read next: never over the end of a split."""
        ends = (self.train, self.train + self.valid, self.size)
        return min(PIECE, next((end for end in ends if end > done), done + 1) - done)

    @contextmanager
    def _opened(self, file: Path | None) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            if file is None:
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                file = scratch / "text8.zip"
                self._fetch(file)
            if not zipfile.is_zipfile(file):
                yield stack.enter_context(file.open("rb"))
                return
            try:
                archive = stack.enter_context(zipfile.ZipFile(file))
                yield stack.enter_context(archive.open("text8"))
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
                raise Refusal(f"{file} is not a whole text8.zip: fetch it again.") from error

    def _fetch(self, file: Path) -> None:
        try:
            with urllib.request.urlopen(self.url, timeout=60) as answer, file.open("wb") as target:
                shutil.copyfileobj(answer, target)
        except OSError as error:
            raise Refusal(
                f"text8 could not be fetched ({error}): check the connection, or place "
                f"{self.url} in a directory and name it with --source."
            ) from error


def _found(place: Path) -> Path:
    for file in (place / "text8", place / "text8.zip", place):
        if file.is_file():
            return file
    raise Refusal(f"{place} does not hold text8: place text8.zip or text8 in it.")
