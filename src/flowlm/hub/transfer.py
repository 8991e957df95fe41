"""The Hugging Face hub: what is fetched from it and published on it.

The only file that knows `huggingface_hub`: its cache, its offline mode (HF_HUB_OFFLINE=1), its
progress bars and its login are the user's own.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

from flowlm.errors import Notice, Refusal, reason
from flowlm.hub.names import FILES, SHIPPED, HubId, aside, hub_id, located, stated

_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    there = stated(name)
    if there is None or there.revision is not None:
        raise Refusal(f"{name} is not a place on the hub: write USER/NAME.")
    repository = there.repository
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
