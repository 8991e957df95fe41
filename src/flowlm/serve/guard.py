"""A guard before every request: who may ask, how much, and what answers carry."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowlm.serve.metrics import Metrics

BODY = 2**16
"""Most bytes of a body."""

POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors "
)
"""Content security policy of every answer: a page runs what this server sends, and nothing else.
Who may show it in a frame comes at the end."""


def error_of(sentence: str, kind: str, field: str | None = None) -> dict[str, Any]:
    """An error in the shape of OpenAI's."""
    return {"error": {"message": sentence, "type": kind, "param": field, "code": None}}


def refused(status: int, sentence: str, kind: str, field: str | None = None) -> JSONResponse:
    """The answer that says what is wrong."""
    return JSONResponse(error_of(sentence, kind, field), status)


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    hosts: frozenset[str]
    """Names by which this server may be asked; others are a page's that found its address."""
    token: str | None = None
    """What `Authorization: Bearer` must carry, where it is set."""
    origin: str | None = None
    """The origin whose pages may read answers."""
    frame: str | None = None
    """The origin whose pages may show the server's own in a frame."""

    def refusal(self, headers: Headers, path: str) -> JSONResponse | None:
        """The answer to whoever may not ask."""
        host = headers.get("host", "").rsplit(":", 1)[0].strip("[]").lower()
        if host not in self.hosts:
            return refused(400, "This server has another name: ask it by its own.", "invalid_host")
        if self.token is not None and path.startswith("/v1/"):
            said = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(said.encode(), self.token.encode()):
                return refused(401, "Give the token of this server as Bearer.", "unauthorized")
        return None


class Guard:
    """ASGI middleware: access, sizes of bodies, headers of answers, and their count."""

    def __init__(
        self, app: ASGIApp, access: Access, paths: frozenset[str], metrics: Metrics
    ) -> None:
        self._app, self._access, self._paths, self._metrics = app, access, paths, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._adorn(MutableHeaders(scope=message))
            await send(message)

        headers = Headers(scope=scope)
        asks_first = scope["method"] == "OPTIONS" and self._access.origin is not None
        said = self._access.refusal(headers, "" if asks_first else scope["path"])
        said = said or _too_large(headers)
        try:
            if said is not None:
                await said(scope, receive, answer)
            elif asks_first:  # a browser, whether a page may; it sends no token yet
                await JSONResponse(None, 204)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        finally:
            self._metrics.answered(path, status, time.perf_counter() - began)

    def _adorn(self, headers: MutableHeaders) -> None:
        headers["content-security-policy"] = POLICY + (self._access.frame or "'none'")
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "no-referrer"
        headers["cross-origin-resource-policy"] = "same-origin"
        if self._access.origin is not None:
            headers["access-control-allow-origin"] = self._access.origin
            headers["access-control-allow-headers"] = "authorization, content-type"
            headers["cross-origin-resource-policy"] = "cross-origin"


def _too_large(headers: Headers) -> JSONResponse | None:
    stated = headers.get("content-length")
    if stated is not None and stated.isdecimal() and int(stated) <= BODY:
        return None
    if stated is None and "transfer-encoding" not in headers:
        return None  # no body
    if stated is None:
        return refused(411, "State the length of the body.", "length_required")
    return refused(413, f"A body may have {BODY:,} bytes: ask for fewer texts.", "too_large")
