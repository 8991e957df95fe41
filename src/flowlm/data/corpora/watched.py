"""Files that must stay as they are for as long as something is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flowlm.errors import Refusal

Item = TypeVar("Item")

State = tuple[str, int, int, int]
"""A file's name, bytes, time of its last change in nanoseconds, and inode."""


@dataclass(frozen=True)
class Files:
    """Files as they were when they were first looked at."""

    states: tuple[State, ...]

    @staticmethod
    def seen(files: Iterable[Path]) -> Files:
        """The files as they are now. A Refusal if one cannot be looked at."""
        return Files(tuple(_state(file) for file in files))

    @property
    def sources(self) -> list[dict[str, str | int]]:
        """Names and sizes for a manifest: the same for the same text, whenever it was written."""
        return [{"name": name, "bytes": size} for name, size, _, _ in self.states]

    def unchanged(self, items: Iterable[Item]) -> Iterator[Item]:
        """Items read of the files. A Refusal, before them or after them, if a file has changed."""
        self._require()
        yield from items
        self._require()

    def _require(self) -> None:
        for known in self.states:
            if _state(Path(known[0])) != known:
                raise Refusal(
                    f"{known[0]} has changed while it was being read: wait until nobody writes it, "
                    "and begin again."
                )


def _state(file: Path) -> State:
    try:
        found = file.stat()
    except OSError as error:
        raise Refusal(
            f"{file} cannot be read ({error.strerror or error}): check the file and its "
            "permissions."
        ) from error
    return str(file), found.st_size, found.st_mtime_ns, found.st_ino
