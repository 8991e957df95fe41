"""A headless Chromium that tests drive through its own pipe, without another package."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip
WRITTEN = "document.getElementById('said')?.textContent.trim()"
PATIENCE = 60
"""Seconds after which an answer that has not come is a fault."""


class Tab:
    """A page, and everything that it has said to its console or asked of a network."""

    def __init__(self, orders: int, answers: int, width: int) -> None:
        self._orders, self._answers = orders, answers
        self._number, self._rest, self._session = 0, b"", {}
        self.said: list[str] = []
        self.requests: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for part in ("Runtime", "Log", "Network", "Page"):
            self._ask(f"{part}.enable")
        # A window has a least width, and an emulated one has none.
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip

    def open(self, url: str, until: str = WRITTEN) -> None:
        """Go to an address and wait there: by default until the page says what it has written."""
        self._ask("Page.navigate", url=url)
        self.wait(until)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        answer = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression in the page is true."""
        until = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < until, condition
            time.sleep(0.02)

    def _ask(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        order = {"id": self._number, "method": method, "params": given, **self._session}
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._note(told.get("method"), told.get("params", {}))

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method in ("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(told))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], PATIENCE)[0], "Chromium does not answer"
            more = os.read(self._answers, 2**16)
            assert more, "Chromium has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def tab(home: Path, width: int = 1200) -> Iterator[Tab]:
    """A page of a new Chromium, whose profile is in `home`."""
    theirs, orders = (_high(end) for end in os.pipe())
    answers, told = (_high(end) for end in os.pipe())
    # Chromium reads from descriptor 3 and writes to 4.
    shell = f'exec "$0" "$@" 3<&{theirs} 4>&{told}'
    flags = (*FLAGS, f"--user-data-dir={home}")
    with subprocess.Popen(
        ["bash", "-c", shell, str(CHROMIUM), *flags], pass_fds=(theirs, told),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.close(told)
        try:
            yield Tab(orders, answers, width)
        finally:
            os.close(orders)  # the end of its orders is the end of Chromium
            os.close(answers)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _high(end: int) -> int:
    """The same end of a pipe under a number that the shell does not need."""
    other = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(end)
    return other
