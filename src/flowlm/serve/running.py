"""A server of one model, from its first request to its last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import uvicorn

from flowlm.model.batch_size import BUDGET
from flowlm.model.language_model import LanguageModel
from flowlm.serve.app import Service, application
from flowlm.serve.engine import Engine
from flowlm.serve.guard import Access
from flowlm.serve.metrics import Metrics
from flowlm.serve.texts import Texts

AT_ONCE = 256
"""Most texts in hand: more in one pass of the trunk gain nothing, and each waits for all."""
DRAIN = 5
"""Seconds in which a server that is told to stop answers whoever waits."""


def service(model: LanguageModel, name: str, queue: int, patience: float) -> Service:
    """A model as a service; its first text is written here, so that no request waits for it."""
    metrics, texts = Metrics(), Texts(model)
    model.sample(1, 1)
    at_once = min(AT_ONCE, model.parts.at_once(BUDGET, model.experiment.sampler))
    return Service(name, texts, Engine(model, at_once, queue, metrics), metrics, patience)


def serve(offered: Service, access: Access, host: str, port: int) -> None:
    """Answer requests until a signal says stop; then those that wait, for `DRAIN` seconds."""
    config = uvicorn.Config(
        application(offered, access), host, port, log_level="warning", access_log=False,
        server_header=False, date_header=False, timeout_graceful_shutdown=DRAIN, lifespan="off",
        h11_max_incomplete_event_size=2**15, timeout_keep_alive=30, ws="none",
    )  # fmt: skip
    try:
        Started(config, offered.name).run()
    finally:
        offered.engine.close(DRAIN)


class Started(uvicorn.Server):
    """A server that says where it is once it can be asked."""

    def __init__(self, config: uvicorn.Config, name: str) -> None:
        super().__init__(config)
        self._name = name

    async def startup(self, sockets: Sequence[Any] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(None if sockets is None else list(sockets))
        if self.started and not self.should_exit:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"{self._name} is served at http://{_shown(self.config.host)}:{port}", flush=True)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
