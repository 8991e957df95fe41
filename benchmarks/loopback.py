"""A server in a process of its own, and a client of it: HTTP by plain sockets on the loopback.

The client takes as little of the two cores as it can: they are the server's as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    host: str
    port: int

    def memory(self) -> float:
        """MiB that its process holds now (VmRSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """The demo's model, served while the block runs."""
    words = [sys.executable, "-m", "flowlm", "serve", "demo", "--port", "0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            host, port = re.findall(r"http://([\d.]+):(\d+)", said)[0]
            yield Server(process, host, int(port))
        finally:
            process.kill()


class Client:
    """One client: a connection that is kept, and opened again where the server has closed it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, **body: Any) -> int:
        """The status of the answer to a completion; 0 where the connection breaks."""
        said = json.dumps(body).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: {self._server.host}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
        )
        try:
            if self._line is None:
                await self.connect()
            assert self._line is not None
            reader, writer = self._line
            writer.write(head.encode() + said)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", answer)[0]))
        except (OSError, EOFError):
            self.close()
            return 0
        if b"connection: close" in answer:
            self.close()
        return int(answer[9:12])

    async def connect(self) -> None:
        """Open the connection before it is wanted."""
        self._line = await asyncio.open_connection(self._server.host, self._server.port)

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line[1].close()
            self._line = None


def cores() -> int:
    """Processors that this process, and so its server, may use."""
    return len(os.sched_getaffinity(0))
