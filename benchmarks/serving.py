"""The server on the loopback: latency, clients at once, throughput, memory, the end.

python -m benchmarks.serving             about four minutes on two cores that nobody else uses
python -m benchmarks.serving --quick     fifteen seconds of the same, and nothing is written

The demo's model in one step. Server and client are two processes on the same cores.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import signal
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.cells import table
from benchmarks.loopback import Client, Server, cores, serving
from benchmarks.provenance import write_result

RATE = 20
"""Requests a second that arrive, whether earlier ones are answered or not."""
CROWD = 64
"""Clients that ask at once."""
CLIENTS = 32
"""Clients that each ask again as soon as they are answered."""

STEPS = 32
"""Of the requests that are being answered at the end: less than the seconds that a server takes to
stop, on a machine that does other things as well."""


@dataclass(frozen=True)
class Amounts:
    """How long each part takes."""

    arriving: float
    """Seconds of arrivals."""
    asking: float
    """Seconds of each number of clients."""
    rounds: int
    """Of all clients of the crowd at once; and of one client and of many, in turns."""
    requests: int
    """Between the two readings of memory."""


WHOLE = Amounts(60, 10, 5, 10_000)
QUICK = Amounts(4, 1, 2, 500)


def main() -> None:
    """Measure, print the table, write benchmarks/results/serving.json."""
    quick = sys.argv[1:] == ["--quick"]
    amounts = QUICK if quick else WHOLE
    with serving() as server:
        found = asyncio.run(measured(server, amounts))
    with serving() as server:
        found["stopped"] = asyncio.run(stopped(server))
    show(found)
    if not quick:
        loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
        facts = {"command": "python -m benchmarks.serving", "cores": cores(), "loop": loop}
        write_result("serving", facts | found)


async def measured(server: Server, amounts: Amounts) -> dict[str, Any]:
    """All that one server is asked, after a warm-up."""
    await asked(server, CLIENTS, 1.0)
    found: dict[str, Any] = {"arrivals": await arrivals(server, amounts.arriving)}
    found["crowd"] = await crowd(server, amounts.rounds)
    found["throughput"] = await throughput(server, amounts)
    found["growth"] = await growth(server, amounts.requests)
    return found


async def arrivals(server: Server, seconds: float) -> dict[str, Any]:
    """Milliseconds from arrival to answer, in an open loop: gaps are drawn, not waited for."""
    gaps, loop = random.Random(0), asyncio.get_running_loop()
    free: list[Client] = []
    times: list[float] = []
    statuses: Counter[int] = Counter()

    async def arrive(due: float, seed: int) -> None:
        client = free.pop() if free else Client(server)
        statuses[await client.ask(steps=1, seed=seed)] += 1
        times.append(1000 * (loop.time() - due))
        free.append(client)

    began = due = loop.time()
    arrived = []
    while (due := due + gaps.expovariate(RATE)) < began + seconds:
        await asyncio.sleep(due - loop.time())
        arrived.append(asyncio.create_task(arrive(due, len(arrived))))
    await asyncio.gather(*arrived)
    hang_up(free)
    times.sort()
    return {
        "rate": RATE, "seconds": seconds, "requests": len(times), "statuses": dict(statuses),
        "p50_ms": at(times, 0.5), "p95_ms": at(times, 0.95), "p99_ms": at(times, 0.99),
        "most_ms": times[-1],
    }  # fmt: skip


async def crowd(server: Server, rounds: int) -> dict[str, Any]:
    """Statuses of `CROWD` clients that connect and ask in the same moment, several times."""
    statuses: Counter[int] = Counter()
    for number in range(rounds):
        clients = [Client(server) for _ in range(CROWD)]
        asking = (c.ask(steps=1, seed=number * CROWD + i) for i, c in enumerate(clients))
        statuses.update(await asyncio.gather(*asking))
        hang_up(clients)
    return {"clients": CROWD, "rounds": rounds, "statuses": dict(statuses)}


async def throughput(server: Server, amounts: Amounts) -> dict[str, Any]:
    """Answers a second of one client and of many, in turns, and the ratio of the medians."""
    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    for _ in range(amounts.rounds):
        for clients, found in rates.items():
            found.append(await asked(server, clients, amounts.asking))
    one, many = (statistics.median(found) for found in rates.values())
    return {"clients": CLIENTS, "one": rates[1], "many": rates[CLIENTS], "ratio": many / one}


async def growth(server: Server, requests: int) -> dict[str, Any]:
    """MiB that the server holds before and after so many requests, each of another seed."""
    before = server.memory()
    seeds = iter(range(requests))

    async def ask(client: Client) -> None:
        for seed in seeds:
            await answered(client, seed)

    clients = [Client(server) for _ in range(CLIENTS)]
    await asyncio.gather(*map(ask, clients))
    hang_up(clients)
    after = server.memory()
    return {"requests": requests, "before": before, "after": after, "grown": after - before}


async def stopped(server: Server) -> dict[str, Any]:
    """Statuses of requests that are being answered when the server is told to stop."""
    clients = [Client(server) for _ in range(CLIENTS)]
    for client in clients:
        await client.ask(steps=1)
    asking = [asyncio.create_task(c.ask(steps=STEPS, seed=i)) for i, c in enumerate(clients)]
    await asyncio.sleep(0.2)
    answers = sum(one.done() for one in asking)
    server.process.send_signal(signal.SIGTERM)
    statuses = Counter(await asyncio.gather(*asking))
    hang_up(clients)
    return {"answered_before": answers, "statuses": dict(statuses)}


async def asked(server: Server, clients: int, seconds: float) -> float:
    """Answers a second, of clients that each ask again as soon as they are answered."""
    loop = asyncio.get_running_loop()
    count, began = 0, loop.time()

    async def ask(client: Client, seed: int) -> None:
        nonlocal count
        while loop.time() < began + seconds:
            await answered(client, seed)
            count += 1

    those = [Client(server) for _ in range(clients)]
    await asyncio.gather(*(ask(client, i) for i, client in enumerate(those)))
    taken = loop.time() - began
    hang_up(those)
    return count / taken


async def answered(client: Client, seed: int) -> None:
    """Ask for a text in one step; anything but a text ends the measurement."""
    status = await client.ask(steps=1, seed=seed)
    if status != 200:
        raise SystemExit(f"a request was answered {status}: nothing is measured")


def hang_up(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def at(ordered: list[float], share: float) -> float:
    """The number below which a share of the ordered ones lies."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def show(found: dict[str, Any]) -> None:
    """The table of docs/serving.md."""
    late, rates, memory = found["arrivals"], found["throughput"], found["growth"]
    one, many = statistics.median(rates["one"]), statistics.median(rates["many"])
    lines = [
        [f"latency at {RATE} requests a second, ms: p50, p95, p99",
         f"{late['p50_ms']:.1f}, {late['p95_ms']:.1f}, {late['p99_ms']:.1f}", "p95 under 60"],
        [f"{CROWD} clients at once, answers by status", said(found["crowd"]), "200 or 429"],
        ["answers a second, one client", f"{one:.0f}", ""],
        [f"answers a second, {CLIENTS} clients",
         f"{many:.0f}: {rates['ratio']:.1f} times", "4 times"],
        [f"memory over {memory['requests']:,} requests, MiB",
         f"{memory['before']:.0f}, {memory['grown']:+.1f}", "under 20 more"],
        [f"SIGTERM with {CLIENTS} requests accepted, by status", said(found["stopped"]), "all 200"],
    ]  # fmt: skip
    print(table(["", "measured", "wanted"], lines), flush=True)


def said(found: dict[str, Any]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(found["statuses"].items()))


if __name__ == "__main__":
    main()
