"""A headless Chromium, told what to do through a pipe by its own protocol."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Page:
    """A page of the browser."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers
        self._rest, self._number = b"", 0
        self.problems: list[str] = []
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Runtime.enable")
        self._call("Page.enable")

    def open(self, address: str) -> None:
        """Go to an address."""
        self._call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < end, f"{script} does not come true; {self.problems}"
            time.sleep(0.05)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                said = os.read(self._answers, 2**16)
                assert said, "the browser has ended"
                self._rest += said
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(answer["params"]))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]


@contextmanager
def browsing(place: Path) -> Iterator[Page]:
    """A browser whose files are in a directory."""
    theirs, orders = os.pipe()
    answers, theirs_too = os.pipe()
    # Its ends are descriptors 3 and 4: away with what is there, and of one digit for the shell.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 5) for end in (theirs, theirs_too)]
    shell = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
    words = [*QUIET, f"--user-data-dir={place}", "--remote-debugging-pipe"]
    command = ["bash", "-c", shell, str(CHROMIUM), *words]
    with subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL) as process:
        for end in (theirs, theirs_too, *ends):
            os.close(end)
        try:
            yield Page(orders, answers)
        finally:
            process.terminate()
            os.close(orders)
            os.close(answers)
