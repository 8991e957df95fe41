"""Where models are: in a directory, shipped with the package, or on the Hugging Face hub.

Whether a name means a path or something on the hub is decided here, for models, tokenizers and data
sets alike. The only file that knows `huggingface_hub`: its cache, its offline mode
(HF_HUB_OFFLINE=1), its progress bars and its login are the user's own.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from flowlm.errors import Notice, Refusal, reason

SHIPPED = {"demo": Path(__file__).parent / "weights" / "demo"}
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

PREFIX = "hf:"
"""What a hub id begins with wherever it is stored, and wherever it could be taken for a path."""

_PART = r"[\w-][\w.-]{0,95}"
_HUB_ID = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>[\w./-]{{1,200}}))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")

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


def hub_id(name: str | Path) -> HubId | None:
    """The hub id that a name means, or None if it means a path.

    `hf:owner/name` and `hf:owner/name@revision` are hub ids. Without `hf:` they are where no path
    could be meant: nothing here has the name of the owner, nor a directory that this package
    writes, and the name has not the ending of a file. A `Path` is a path. A Refusal if no hub id
    follows `hf:`.
    """
    if isinstance(name, Path):
        return None
    prefixed = name.startswith(PREFIX)
    parts = _HUB_ID.fullmatch(name.removeprefix(PREFIX))
    if parts is None:
        if prefixed:
            raise Refusal(f"{name} is not a hub id: write hf:owner/name or hf:owner/name@revision.")
        return None
    owner, _, own = parts["repository"].partition("/")
    path = owner in _OURS or os.path.lexists(owner) or PurePath(own).suffix.lower() in _ENDINGS
    return None if path and not prefixed else HubId(parts["repository"], parts["revision"])


def aside(name: str | Path) -> str:
    """What a sentence about a path that does not exist adds, if the hub could be meant; or ""."""
    there = _HUB_ID.fullmatch(str(name)) is not None
    return f" (on the Hugging Face hub that would be {PREFIX}{name})" if there else ""


def located(path: str | Path) -> Path:
    """The place here that a name means: itself, `~` being home, or the shipped model it is."""
    place = Path(os.path.expanduser(path))
    return place if os.path.exists(place) else SHIPPED.get(str(path), place)


def locate(name: str | Path) -> Path:
    """The local path that a RUN argument means; a model on the hub is fetched into its cache.

    What exists on disk comes first, then shipped models, then hub ids. A Refusal if there is
    nothing of that name, or if the hub does not have it or cannot be reached.
    """
    there = hub_id(name)
    if there is not None:
        return fetch(there, FILES)
    place = located(name)
    if name == "" or not os.path.exists(place):  # the place of "" would be the directory of now
        raise Refusal(
            f"{name or 'The empty path'} does not exist here{aside(name)}: give a directory that "
            "`flowlm train` wrote, a released .ckpt file or folder, a shipped model "
            f"({', '.join(SHIPPED)}), or hf:owner/name for a model on the hub."
        )
    return place


def fetch(wanted: HubId, files: tuple[str, ...]) -> Path:
    """The directory in the hub's cache that holds those of `files` that a repository has.

    A Notice comes first: nobody should use what a stranger wrote without knowing.
    """
    announce(wanted)
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                wanted.repository, revision=wanted.revision, allow_patterns=list(files)
            )
        )
    except ImportError as error:
        raise _no_library() from error
    except Exception as error:  # the library passes on whatever its transport raises
        raise _not_fetched(wanted, error) from error


def announce(wanted: HubId) -> None:
    """Say that something is looked for on the hub."""
    said = f"{wanted} is not a path here: looking for it on the Hugging Face hub."
    warnings.warn(said, Notice, stacklevel=1)  # one place in the code: Python says it once


def pinned(wanted: HubId) -> HubId:
    """The same data set at the commit that its branch or tag, or its newest, is at now.

    Offline, where the cache of `datasets` decides, the id is returned as it is. A Refusal if the
    hub does not have it or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi, constants

        if constants.HF_HUB_OFFLINE or _COMMIT.fullmatch(wanted.revision or ""):
            return wanted
        found = HfApi().dataset_info(wanted.repository, revision=wanted.revision)
        return replace(wanted, revision=found.sha)
    except ImportError as error:
        raise _no_library() from error
    except Exception as error:  # the library passes on whatever its transport raises
        raise _not_fetched(wanted, error) from error


def upload(directory: Path, name: str, private: bool) -> str:
    """Upload a directory as one commit to owner/name, which is created if need be; returns its URL.

    What is named here is always on the hub, `hf:` or not.
    """
    parts = _HUB_ID.fullmatch(name.removeprefix(PREFIX))
    if parts is None or parts["revision"] is not None:
        raise Refusal(f"{name} is not a place on the hub: write USER/NAME.")
    repository = parts["repository"]
    try:
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=directory, commit_message="Published with flowlm"
        )
        return str(url)
    except ImportError as error:
        raise _no_library() from error
    except Exception as error:  # the library passes on whatever its transport raises
        raise Refusal(
            f"{repository} could not be published ({reason(error)}): log in with `hf auth login`, "
            "and check the name and the connection."
        ) from error


def _not_fetched(wanted: HubId, error: Exception) -> Refusal:
    return Refusal(
        f"{wanted} does not exist here and could not be fetched from the Hugging Face hub "
        f"({reason(error)}): check the name, and the connection."
    )


def _no_library() -> Refusal:
    return Refusal("This needs the package huggingface_hub: `pip install 'flowlm[hub]'`.")
