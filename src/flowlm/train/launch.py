"""Processes that torchrun started together, by the environment. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from flowlm.errors import Refusal


@dataclass(frozen=True)
class Launch:
    """The rank of this process among those that were started together. By default it is alone."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number of this process on its machine."""
    local_size: int = 1
    """How many there are on this machine."""
    watched: bool = False
    """Whether torchrun watches over them: it ends all if one of them ends."""


ALONE = Launch()
"""One process."""


def launched(environ: Mapping[str, str] = os.environ) -> Launch:
    """The rank that the environment gives this process.

    A WORLD_SIZE of more than one counts with all that torchrun sets beside it; a Refusal names
    what is missing or malformed, such as what another program has left behind.
    """
    size = _number(environ, "WORLD_SIZE", 1)
    if size == 1:
        return ALONE
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in environ]
    if missing:
        raise Refusal(
            f"The environment says WORLD_SIZE={size} without {' and '.join(missing)}: start "
            "several processes with torchrun, or one with WORLD_SIZE unset."
        )
    if not 0 < _number(environ, "MASTER_PORT", 0) < 2**16:
        raise Refusal(
            f"The environment says MASTER_PORT={environ['MASTER_PORT']}, which is no port: start "
            "several processes with torchrun, or one with WORLD_SIZE unset."
        )
    launch = Launch(
        _number(environ, "RANK", 0),
        size,
        _number(environ, "LOCAL_RANK", 0),
        _number(environ, "LOCAL_WORLD_SIZE", 1),
        "TORCHELASTIC_RUN_ID" in environ,
    )
    if size < 1 or not 0 <= launch.rank < size or launch.local < 0 or launch.local_size < 1:
        raise Refusal(
            f"The environment says RANK={environ['RANK']} of WORLD_SIZE={size}, which cannot be: "
            "start several processes with torchrun, or one with WORLD_SIZE unset."
        )
    return launch


def _number(environ: Mapping[str, str], name: str, usual: int) -> int:
    stated = environ.get(name, str(usual))
    try:
        return int(stated)
    except ValueError:
        raise Refusal(
            f"The environment says {name}={stated}, which is no whole number: unset it, or start "
            "with torchrun."
        ) from None
