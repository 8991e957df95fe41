"""The server as an ASGI application: paths, and what each answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from random import Random
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from flowlm.serve import answers
from flowlm.serve.bodies import BadField, Completion, Film, read
from flowlm.serve.engine import Engine, Full
from flowlm.serve.guard import Access, Guard, error_of, refused
from flowlm.serve.metrics import Metrics
from flowlm.serve.orders import Order, Shot, Way
from flowlm.serve.texts import Texts, Wanted

PAGE = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Kinds of files of the page."""


_SEEDS = Random()
"""Of texts whose request states none."""

LATE = error_of("The texts could not be written in time: ask for fewer.", "server_error")
"""The answer where texts have not come."""


class NotWritten(Exception):
    """Texts that will not come: the engine failed, or the time was over."""


@dataclass(frozen=True)
class Service:
    """Parts that the answers need."""

    name: str
    texts: Texts
    engine: Engine
    metrics: Metrics
    patience: float
    """Seconds after which a request is given up."""

    async def model(self, request: Request) -> Response:
        """GET /v1/models."""
        entry = {
            "id": self.name, "object": "model", "created": 0, "owned_by": "flowlm",
            "flowlm": self.texts.described(),
        }  # fmt: skip
        return JSONResponse({"object": "list", "data": [entry]})

    async def vocabulary(self, request: Request) -> Response:
        """GET /v1/vocabulary."""
        return JSONResponse({"words": self.texts.words})

    async def health(self, request: Request) -> Response:
        """GET /healthz and /readyz: the server answers once its model is loaded."""
        return PlainTextResponse("ok\n")

    async def figures(self, request: Request) -> Response:
        """GET /metrics."""
        return PlainTextResponse(self.metrics.text())

    # --- texts ------------------------------------------------------------------------------------

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = read(await request.body(), Completion)
        self._require_name(asked.model)
        wanted, seed = self.texts.wanted(asked, asked.n), _seed(asked.seed)
        began = time.perf_counter()
        written = self._begun(wanted, seed)
        if asked.stream:
            return StreamingResponse(
                self._events(written, asked, wanted, seed), media_type="text/event-stream"
            )
        texts = await _unless_gone(request, written)
        seconds = time.perf_counter() - began
        return JSONResponse(self._completion(texts, asked, wanted, seed, seconds))

    async def film(self, request: Request) -> Response:
        """POST /v1/film."""
        asked = read(await request.body(), Film)
        self._require_name(asked.model)
        wanted, seed = self.texts.wanted(asked), _seed(asked.seed)
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def tell(what: Any) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, what)

        order = self._order(wanted, seed, tell, tell, filmed=True)
        return StreamingResponse(
            self._lines(order, heard, wanted, seed), media_type="application/x-ndjson"
        )

    def _order(
        self, wanted: Wanted, seed: int, shot: Callable[[Shot], None],
        done: Callable[[list[list[int]] | None], None], filmed: bool,
    ) -> Order:  # fmt: skip
        way = Way(wanted.sampler, wanted.steps, wanted.prompted, filmed)
        order = Order(way, seed, wanted.given, shot, done)
        self.engine.submit(order)
        return order

    def _begun(self, wanted: Wanted, seed: int) -> Awaitable[list[list[int]]]:
        """The tokens of all texts, which are ordered now: Full comes before any answer does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[list[int]] | None] = loop.create_future()

        def done(texts: list[list[int]] | None) -> None:
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(texts))

        return self._awaited(self._order(wanted, seed, lambda shot: None, done, False), future)

    async def _awaited(
        self, order: Order, future: asyncio.Future[list[list[int]] | None]
    ) -> list[list[int]]:
        """The tokens; whoever stops waiting takes the order back."""
        try:
            texts = await asyncio.wait_for(future, self.patience)
        except TimeoutError:
            raise NotWritten from None
        finally:
            order.cancelled = True
        if texts is None:
            raise NotWritten
        self.metrics.wrote(sum(map(len, texts)))
        return texts

    async def _events(
        self, written: Awaitable[list[list[int]]], asked: Completion, wanted: Wanted, seed: int
    ) -> AsyncIterator[str]:
        """Server-sent events: tokens may change until a text is written, so it comes whole."""
        began = time.perf_counter()
        try:
            texts = await written
        except NotWritten:
            yield f"data: {json.dumps(LATE)}\n\n"
            return
        seconds = time.perf_counter() - began
        answer = self._completion(texts, asked, wanted, seed, seconds)
        for choice in answer["choices"]:
            yield f"data: {json.dumps(answer | {'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"

    async def _lines(
        self, order: Order, heard: asyncio.Queue[Any], wanted: Wanted, seed: int
    ) -> AsyncIterator[str]:
        """A film: one line of JSON a step, and one with the answer."""
        began = time.perf_counter()
        try:
            while True:
                left = self.patience - (time.perf_counter() - began)
                said = await asyncio.wait_for(heard.get(), max(left, 0.001))
                if not isinstance(said, Shot):
                    break
                yield json.dumps(answers.frame(self.texts, said, wanted)) + "\n"
        except TimeoutError:
            said = None
        finally:
            order.cancelled = True
        if said is None:
            yield json.dumps(LATE) + "\n"
            return
        (tokens,) = said
        self.metrics.wrote(len(tokens))
        seconds = time.perf_counter() - began
        last = answers.ended(self.texts, tokens, wanted, seed, seconds)
        yield json.dumps(last) + "\n"

    def _completion(
        self, texts: Sequence[Sequence[int]], asked: Completion, wanted: Wanted, seed: int,
        seconds: float,
    ) -> dict[str, Any]:  # fmt: skip
        return answers.completion(self.name, self.texts, texts, asked, wanted, seed, seconds)

    def _require_name(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise BadField(f"This server has the model {self.name!r} alone.", "model")


def application(service: Service, access: Access) -> Starlette:
    """The application: its paths are all there are."""
    routes = [
        Route("/v1/completions", service.complete, methods=["POST"]),
        Route("/v1/film", service.film, methods=["POST"]),
        Route("/v1/models", service.model),
        Route("/v1/vocabulary", service.vocabulary),
        Route("/healthz", service.health),
        Route("/readyz", service.health),
        Route("/metrics", service.figures),
        *(Route(path, answer) for path, answer in _page().items()),
    ]
    known = frozenset(route.path for route in routes)
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access, paths=known, metrics=service.metrics)],
        exception_handlers={
            BadField: _bad,
            Full: _full,
            ClientDisconnect: lambda _, e: Response(status_code=499),
            NotWritten: lambda _, e: JSONResponse(LATE, 503),
            404: lambda _, e: refused(404, "There is nothing here: try /v1/models.", "not_found"),
            405: lambda _, e: refused(
                405, "Texts are asked for by POST, all else by GET.", "method"
            ),
            500: lambda _, e: refused(500, "The server failed; its log says how.", "server_error"),
        },  # pyright: ignore[reportArgumentType]
    )


def _bad(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadField)
    return refused(400, str(error), "invalid_request_error", error.field)


def _full(request: Request, error: Exception) -> Response:
    answer = refused(429, "Too many requests wait: try again in a second.", "overloaded")
    answer.headers["retry-after"] = "1"
    return answer


def _page() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """The files of the page, read once: a path names one of them or nothing."""
    found: dict[str, Callable[[Request], Awaitable[Response]]] = {}
    for file in files("flowlm.page").iterdir():
        kind = PAGE.get("." + file.name.rpartition(".")[2])
        if kind is None:
            continue
        response = Response(file.read_bytes(), media_type=kind)

        async def answer(request: Request, response: Response = response) -> Response:
            return response

        found["/" if file.name == "index.html" else f"/page/{file.name}"] = answer
    return found


def _seed(stated: int | None) -> int:
    return _SEEDS.getrandbits(32) if stated is None else stated


async def _unless_gone(request: Request, written: Awaitable[list[list[int]]]) -> list[list[int]]:
    """The awaited texts, unless whoever asked has gone: then nobody waits for it any more."""
    task = asyncio.ensure_future(written)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
