"""The engine: texts of many orders, admitted as memory allows, written together."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Thread

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import FREE
from flowlm.model.language_model import LanguageModel
from flowlm.sampling.sampler import Frame
from flowlm.serve.meeting import Meeting
from flowlm.serve.metrics import Metrics
from flowlm.serve.orders import ALTERNATIVES, Line, Order, Shot, Way

LOG = logging.getLogger("flowlm.serve")


class Full(Exception):
    """The queue has no room."""


class Engine:
    """Writes orders in threads of its own. One trunk pass at a time serves all texts in hand.

    Texts of one way that wait together become one batch, written by its sampler as anywhere else;
    the trunks of all batches meet (`Meeting`), whatever step each is at. So an order gets the texts
    that it would get alone. An autoregressive model, which keeps a cache of its own, writes its
    batches side by side instead.
    """

    def __init__(self, model: LanguageModel, at_once: int, queue: int, metrics: Metrics) -> None:
        self._meeting = Meeting(model.network)
        self._method, self._network = model.experiment.method, self._meeting.network()
        self._device, self._at_once, self._queue = model.device, at_once, queue
        self._changed, self._metrics = Condition(), metrics
        self._waiting: deque[Order] = deque()
        self._in_hand = 0
        self._closing = False
        self._writers = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="flowlm-writer")
        self._thread = Thread(target=self._run, name="flowlm-engine", daemon=True)
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Take an order; Full if as many wait already as the queue holds, or if it is closing."""
        with self._changed:
            if self._closing or len(self._waiting) >= self._queue:
                raise Full
            self._waiting.append(order)
            self._metrics.queued(len(self._waiting))
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Take no more orders, and wait so long for those there are."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            left, self._waiting = list(self._waiting), deque()
        for order in left:
            order.fail()
        self._writers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._waiting or self._meeting.inside
                )
                if self._closing and not self._waiting and not self._meeting.inside:
                    return
                batches = list(self._admitted())
            for way, lines in batches:
                self._meeting.enter()
                self._writers.submit(self._write, way, lines)
            began = time.perf_counter()
            texts = self._meeting.evaluate()
            self._metrics.ticked(texts, time.perf_counter() - began)

    def _admitted(self) -> Iterator[tuple[Way, list[Line]]]:
        """Batches of the first in the queue, as far as there is room; a batch is of one way."""
        found: dict[Way, list[Line]] = {}
        while self._waiting and self._in_hand < self._at_once:
            order, room = self._waiting[0], self._at_once - self._in_hand
            if not order.cancelled:
                more = range(order.begun, min(order.begun + room, len(order.given)))
                found.setdefault(order.way, []).extend(Line(order, i) for i in more)
                self._in_hand += len(more)
                order.begun = more.stop
            if order.cancelled or order.begun == len(order.given):
                self._waiting.popleft()
        self._metrics.queued(len(self._waiting))
        yield from found.items()

    def _write(self, way: Way, lines: Sequence[Line]) -> None:
        try:
            self._written(way, lines)
        except Exception:
            LOG.exception("a batch could not be written")
            for line in lines:
                line.order.fail()
        finally:
            with self._changed:
                self._in_hand -= len(lines)
                self._changed.notify_all()
            self._meeting.leave()

    @torch.no_grad()
    def _written(self, way: Way, lines: Sequence[Line]) -> None:
        prompt = torch.tensor([line.order.given[line.number] for line in lines]).to(self._device)
        rng = streams(lines, self._device)
        last: Frame | None = None
        denoiser = self._method.denoiser(self._network)  # of a batch alone: it may keep a cache
        for step, frame in enumerate(way.sampler.frames(denoiser, prompt, way.steps, rng)):
            last = frame
            if all(line.order.cancelled for line in lines):
                return
            if way.filmed:
                for line, shot in zip(lines, shots(step, frame)):
                    line.order.shot(shot)
        assert last is not None
        for line, tokens in zip(lines, last.tokens().tolist()):
            line.order.finish(line.number, tokens)


def streams(lines: Sequence[Line], device: torch.device) -> Streams:
    """Of each text the stream that it has in its own order."""
    each = [
        Streams.of(line.order.seed, count=1, first=line.number, device=device) for line in lines
    ]
    index = tuple(line.number for line in lines)
    return Streams([one.generators[0] for one in each], index, max(index) + 1)


def shots(step: int, frame: Frame) -> Iterator[Shot]:
    """The texts of a frame, one by one."""
    tokens, confidence = frame.tokens(), frame.confidence()
    taus = frame.tau.expand(len(tokens), -1)
    prompt = torch.full_like(tokens, FREE) if frame.prompt is None else frame.prompt
    for i, row in enumerate(tokens):
        tau = float(taus[i].min())
        if confidence is None:
            yield Shot(step, tau, row.tolist(), [], [])
            continue
        rows = frame.prediction.log_probs((slice(i, i + 1), slice(0, len(row))))[0].exp()
        top = rows.topk(min(ALTERNATIVES, rows.shape[-1]))
        likely: list[list[tuple[int, float]]] = []
        for own, ids, chances in zip(prompt[i].tolist(), top.indices.tolist(), top.values.tolist()):
            likely.append(list(zip(ids, chances)) if own == FREE else [(own, 1.0)])
        yield Shot(step, tau, row.tolist(), confidence[i].tolist(), likely)
