"""Where models are: in a directory, shipped with the package, or on the Hugging Face hub.

The only file that knows `huggingface_hub`: its cache, its offline mode (HF_HUB_OFFLINE=1), its
progress bars and its login are the user's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from flowlm.errors import Refusal, reason
from flowlm.experiment import located

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
)  # fmt: skip
FILES = (
    "experiment.json", "fingerprints.json", "config.json", "model.safetensors", *TOKENIZER_FILES,
)  # fmt: skip
"""What is fetched of a repository. Nothing else, and above all no pickle."""

_HUB_ID = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")


def locate(name: str | Path) -> Path:
    """The local path that a RUN argument means; a model on the hub is fetched into its cache.

    What exists on disk comes first, then shipped models, then `owner/name` or
    `owner/name@revision` (a branch, a tag or a commit) on the hub. A `Path` is never a hub id,
    and neither is a name whose first part is a directory here. A Refusal if the hub does not have
    it or cannot be reached; a path that does not exist is returned as it is.
    """
    place = located(name)
    if place.exists() or isinstance(name, Path) or not is_hub_id(name):
        return place
    return fetch(name, FILES)


def is_hub_id(name: str) -> bool:
    """Whether a name reads as owner/name[@revision] and not as a path into a directory here."""
    return _HUB_ID.fullmatch(name) is not None and not Path(Path(name).parts[0]).is_dir()


def fetch(hub_id: str, files: tuple[str, ...]) -> Path:
    """The directory in the hub's cache that holds those of `files` that a repository has."""
    parts = _HUB_ID.fullmatch(hub_id)
    if parts is None:
        raise Refusal(f"{hub_id} is not a hub id: write owner/name or owner/name@revision.")
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                parts["repository"], revision=parts["revision"], allow_patterns=list(files)
            )
        )
    except ImportError as error:
        raise _no_library() from error
    except Exception as error:  # the library passes on whatever its transport raises
        raise Refusal(
            f"{hub_id} does not exist here and could not be fetched from the Hugging Face hub "
            f"({reason(error)}): check the name, and the connection."
        ) from error


def upload(directory: Path, hub_id: str, private: bool) -> str:
    """Upload a directory as one commit, creating the repository if need be; returns its URL."""
    parts = _HUB_ID.fullmatch(hub_id)
    if parts is None or parts["revision"] is not None:
        raise Refusal(f"{hub_id} is not a place on the hub: write USER/NAME.")
    try:
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(hub_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=hub_id, folder_path=directory, commit_message="Published with flowlm"
        )
        return str(url)
    except ImportError as error:
        raise _no_library() from error
    except Exception as error:  # the library passes on whatever its transport raises
        raise Refusal(
            f"{hub_id} could not be published ({reason(error)}): log in with `hf auth login`, and "
            "check the name and the connection."
        ) from error


def _no_library() -> Refusal:
    return Refusal("This needs the package huggingface_hub: `pip install 'flowlm[hub]'`.")
