"""Fingerprints of the text and the weights that a model has learnt from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from flowlm.errors import Refusal
from flowlm.files import write_text

FILE = "fingerprints.json"
"""Their file in the directory of a run or of an export."""


@dataclass(frozen=True)
class Fingerprints:
    """sha256, in hex, of what a model has learnt from."""

    data: str
    """Of its tokens, those held out included, and of the tokenizer."""
    teacher: str | None
    """Of the weights of its teacher, if it has one."""
    init: str | None = None
    """Of the weights that it started from, where they were those of another model."""

    def require(self, now: Fingerprints, text: str, teacher: str | None, run: Path) -> None:
        """A Refusal that says which of the two is not what the run began with.

        `now` is what stands at the places called `text` and `teacher`.
        """
        if now.teacher != self.teacher:
            raise Refusal(
                f"The teacher {teacher} is not the one that {run} began with (its weights have "
                "changed): put that one back, or train anew with another --out."
            )
        if now.data != self.data:
            raise Refusal(
                f"{text} is not the text that {run} began with (its tokens have changed): put that "
                "one back, or train anew with another --out."
            )

    def write(self, directory: Path) -> None:
        """Write them into the directory of a model."""
        write_text(json.dumps(asdict(self), indent=2) + "\n", directory / FILE)


def read_fingerprints(directory: Path) -> Fingerprints | None:
    """Those in the directory of a model; None where there are none, as in a released one."""
    file = directory / FILE
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        data, weights = stated["data"], (stated["teacher"], stated.get("init"))
        if not isinstance(data, str) or not all(isinstance(w, str | None) for w in weights):
            raise TypeError
        return Fingerprints(data, *weights)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refusal(
            f"{file} is damaged: remove it, and nobody can tell whether the text is the same."
        ) from error
