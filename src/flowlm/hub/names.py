"""Names: of a directory, of a model shipped with the package, or of the Hugging Face hub.

Whether a name means a path or something on the hub is decided here, for models, tokenizers and data
sets alike.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from flowlm.errors import Refusal

SHIPPED = {"demo": Path(__file__).parent.parent / "weights" / "demo"}
"""Models that come with the package, by the names that stand for them."""

TOKENIZERS = {
    "bert-base-uncased": "hf:google-bert/bert-base-uncased",
    "gpt2": "hf:openai-community/gpt2",
}
"""Short names of the tokenizers that the released models use, and where they are on the hub."""

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
)  # fmt: skip
FILES = (
    "experiment.json", "fingerprints.json", "config.json", "model.safetensors", *TOKENIZER_FILES,
)  # fmt: skip
"""What is fetched of a repository. Nothing else, and above all no pickle."""

JUDGES = {
    name: f"hf:openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
}
"""Short names of the judges of published tables, and where they are on the hub."""

JUDGE_FILES = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *TOKENIZER_FILES,
)  # fmt: skip
"""Files fetched of a judge's repository, as patterns."""

CHAIN = "chain.json"
"""The file of a directory that holds the runs of a chain: which they are, in order."""

PREFIX = "hf:"
"""What a hub id begins with wherever it is stored, and wherever it could be taken for a path."""

_PART = r"[\w-][\w.-]{0,95}"
_HUB_ID = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>[\w./-]{{1,200}}))?", re.ASCII
)

_OURS = ("runs", "data", "reports")
"""Directories that this package writes by default: their names are never an owner."""

_ENDINGS = (
    ".json", ".jsonl", ".parquet", ".txt", ".gz", ".zst", ".xz", ".bz2", ".ckpt", ".safetensors",
    ".pt", ".pth", ".bin",
)  # fmt: skip


@dataclass(frozen=True)
class HubId:
    """A repository on the hub, and a branch, a tag or a commit of it; None is its newest."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        """The id as it is written where nothing else could be meant."""
        return f"{PREFIX}{self.repository}{f'@{self.revision}' if self.revision else ''}"


def stated(name: str) -> HubId | None:
    """Parse owner/name or owner/name@revision, with or without `hf:`; None if it is neither."""
    parts = _HUB_ID.fullmatch(name.removeprefix(PREFIX))
    return None if parts is None else HubId(parts["repository"], parts["revision"])


def hub_id(name: str | Path) -> HubId | None:
    """The hub id that a name means, or None if it means a path.

    `hf:owner/name` and `hf:owner/name@revision` are hub ids. Without `hf:` they are where no path
    could be meant: nothing here has the name of the owner, nor a directory that this package
    writes, and the name has not the ending of a file. A `Path` is a path. A Refusal if no hub id
    follows `hf:`.
    """
    if isinstance(name, Path):
        return None
    prefixed, found = name.startswith(PREFIX), stated(name)
    if found is None:
        if prefixed:
            raise Refusal(f"{name} is not a hub id: write hf:owner/name or hf:owner/name@revision.")
        return None
    owner, _, own = found.repository.partition("/")
    path = owner in _OURS or os.path.lexists(owner) or PurePath(own).suffix.lower() in _ENDINGS
    return None if path and not prefixed else found


def aside(name: str | Path) -> str:
    """Addition to a sentence about a path that does not exist, if the hub could be meant; or ""."""
    there = _HUB_ID.fullmatch(str(name)) is not None
    return f" (on the Hugging Face hub that would be {PREFIX}{name})" if there else ""


def located(path: str | Path) -> Path:
    """The place here that a name means: itself, `~` being home, or the shipped model it is.

    The directory of a chain means its last run.
    """
    place = Path(os.path.expanduser(path))
    return last_run(place if os.path.exists(place) else SHIPPED.get(str(path), place))


def last_run(place: Path) -> Path:
    """The last run of a chain's directory, which must have begun; any other place itself."""
    if not os.path.exists(place / CHAIN):  # False, too, for names that no file can have
        return place
    stages = list(stored_chain(place)["stages"])
    last = place / stages[-1]
    if not (last / "experiment.json").exists():
        raise Refusal(
            f"{place} is a chain whose last run, {stages[-1]}, has not begun: go on with flowlm "
            f"train --resume {place}, or name a run that is there, such as {place / stages[0]}."
        )
    return last


def stored_chain(directory: Path) -> dict[str, Any]:
    """The content of chain.json: `stages`, experiments by run, and how many are `finished`."""
    file = directory / CHAIN
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        stages, finished = stored["stages"], stored["finished"]
        fits = stages and all(PurePath(name).name == name for name in stages)
        if fits and type(finished) is int and 0 <= finished <= len(stages):
            return stored
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    raise Refusal(f"{file} does not say which runs make up a chain: put back what was there.")
