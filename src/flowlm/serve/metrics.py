"""Figures of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass
class Histogram:
    """How many numbers lie at or under each bound, their sum and their count."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.bounds)

    def add(self, value: float) -> None:
        """One number more."""
        self.total += value
        self.number += 1
        for i, bound in enumerate(self.bounds):
            self.counts[i] += value <= bound

    def lines(self, name: str, about: str) -> list[str]:
        """In the text format."""
        said = [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
        said += [f'{name}_bucket{{le="{b}"}} {n}' for b, n in zip(self.bounds, self.counts)]
        return [
            *said,
            f'{name}_bucket{{le="+Inf"}} {self.number}',
            f"{name}_sum {self.total:.6f}",
            f"{name}_count {self.number}",
        ]


class Metrics:
    """Counts of a running server; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._latency = Histogram(SECONDS)
        self._trunk, self._batch = Histogram(SECONDS), Histogram(TEXTS)
        self._queue = self._tokens = 0

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        with self._lock:
            self._answers[path, status] += 1
            self._latency.add(seconds)

    def wrote(self, tokens: int) -> None:
        """Tokens have been written."""
        with self._lock:
            self._tokens += tokens

    def queued(self, requests: int) -> None:
        """So many requests wait."""
        with self._lock:
            self._queue = requests

    def ticked(self, texts: int, seconds: float) -> None:
        """A pass of the trunk was for so many texts; 0 if there was none."""
        if texts:
            with self._lock:
                self._batch.add(texts)
                self._trunk.add(seconds)

    def text(self) -> str:
        """All of it."""
        with self._lock:
            lines = [
                "# HELP flowlm_requests_total Answers by path and status.",
                "# TYPE flowlm_requests_total counter",
            ]
            lines += [
                f'flowlm_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._answers.items())
            ]
            lines += [
                "# HELP flowlm_tokens_total Tokens written.",
                "# TYPE flowlm_tokens_total counter",
                f"flowlm_tokens_total {self._tokens}",
                "# HELP flowlm_queue_requests Requests that wait.",
                "# TYPE flowlm_queue_requests gauge",
                f"flowlm_queue_requests {self._queue}",
            ]
            lines += self._latency.lines("flowlm_request_seconds", "Seconds to an answer.")
            lines += self._batch.lines("flowlm_batch_texts", "Texts in one pass of the trunk.")
            lines += self._trunk.lines("flowlm_pass_seconds", "Seconds from pass to pass.")
        return "\n".join(lines) + "\n"
