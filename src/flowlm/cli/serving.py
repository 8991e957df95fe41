"""The command `flowlm serve`."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import sys
from dataclasses import dataclass
from typing import Literal

import tyro

from flowlm.checks import whole
from flowlm.errors import Refusal
from flowlm.hub.names import SHIPPED
from flowlm.machine.device import device_name
from flowlm.model.finding import find_model

TOKEN = "FLOWLM_TOKEN"
"""The environment variable of the token that requests must carry."""


@dataclass(frozen=True)
class Serve:
    """Serve a model over HTTP: completions in OpenAI's shape, films, and a page to play with.

    Requests that arrive at different times are written together. The server listens to this machine
    alone; where the environment has FLOWLM_TOKEN, requests to /v1 must carry it as Bearer. Ctrl-C
    or SIGTERM ends it, after the requests that it has accepted.
    """

    run: tyro.conf.Positional[str]
    """A run directory, an export, a shipped model (demo), a released .ckpt file or folder, or
    hf:owner/name[@revision] on the Hugging Face hub."""
    port: int = 7860
    """The port; 0 takes a free one, and says which."""
    host: str = "127.0.0.1"
    """The address to listen at. Another one than this machine's own opens the model to a network:
    set FLOWLM_TOKEN, and put encryption in front."""
    names: tuple[str, ...] = ()
    """Further names by which clients ask it, such as models.example.org or the address that another
    machine uses: a request by any other name is refused."""
    cors: str | None = None
    """The origin whose pages may read answers, such as https://example.org."""
    frame: str | None = None
    """The origin whose pages may show the server's page in a frame."""
    queue: int = 64
    """Requests that may wait; more are answered 429."""
    timeout: float = 30.0
    """Seconds after which a request is given up, with 503."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1 and so on, mps, or auto, which takes cuda where it is."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's blocks and head; clock, state and softmax stay in float32."""
    tokenizer: str | None = None
    """A tokenizer.json or a hub id, where the model has none."""


def serve(chosen: Serve) -> int:
    """Serve a model until a signal says stop."""
    _require_sound(chosen)
    place = find_model(chosen.run)
    import torch

    from flowlm.machine.hardware import set_threads
    from flowlm.model.loading import load

    try:
        from flowlm.serve import running
        from flowlm.serve.guard import Access
    except ImportError as error:
        raise Refusal("flowlm serve needs two packages: pip install 'flowlm[serve]'.") from error
    dtype = torch.bfloat16 if chosen.dtype == "bfloat16" else torch.float32
    model = load(place, chosen.device, dtype, chosen.tokenizer)
    set_threads(0, model.network.size.width)
    token = os.environ.get(TOKEN) or None
    if not _is_own(chosen.host) and token is None:
        print(
            f"flowlm: whoever reaches {chosen.host} may ask this model: set {TOKEN} to ask for a "
            "token.",
            file=sys.stderr,
        )
    stated = (name.lower() for name in (chosen.host, *chosen.names))
    hosts = frozenset({"localhost", "127.0.0.1", "::1", *stated})
    name = chosen.run if chosen.run in SHIPPED else model.experiment.name
    offered = running.service(model, name, chosen.queue, chosen.timeout)
    access = Access(hosts, token, chosen.cors, chosen.frame)
    running.serve(offered, access, chosen.host, chosen.port)
    return 0


def _require_sound(chosen: Serve) -> None:
    device_name(chosen.device)
    whole("--port", chosen.port, 0, 65_535)
    whole("--queue", chosen.queue, 1, 100_000)
    if not 0 < chosen.timeout <= 86_400 or not math.isfinite(chosen.timeout):
        raise Refusal(f"--timeout is in seconds, above 0 and up to a day, not {chosen.timeout}.")
    for option, name in [("--host", chosen.host), *(("--names", name) for name in chosen.names)]:
        if not re.fullmatch(r"[A-Za-z0-9.:-]{1,255}", name):
            raise Refusal(f"{option} {name[:40]!r} is no address or name: give 127.0.0.1, say.")
    for option, origin in (("--cors", chosen.cors), ("--frame", chosen.frame)):
        if origin is not None and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin):
            raise Refusal(
                f"{option} {origin[:60]!r} is no origin: give one such as https://example.org."
            )


def _is_own(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
