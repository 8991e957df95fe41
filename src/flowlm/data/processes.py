"""Work for several processes, handed out in order and given back in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import TypeVar

from flowlm.errors import CutShort

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: Callable | None = None  # of a worker process, which is given it once


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Generator[tuple[Item, Result], None, None]:
    """Every item with `work(item)`, in the order of the items.

    At most two items a process are under way, so that memory stays constant. One process, or one
    item, is worked on right here.
    """
    items = iter(items)
    first = list(islice(items, 2))
    items = chain(first, items)
    if processes == 1 or len(first) < 2:
        yield from ((item, work(item)) for item in items)
        return
    # A fresh interpreter: forking one with threads (torch's, the tokenizer's) may never wake up.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(work,))
    waiting = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_do, item)))
            if len(waiting) > 2 * processes:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    except BrokenProcessPool as error:
        raise CutShort(
            "A process of the work was killed, perhaps for want of memory: run the command again, "
            "with fewer processes (--jobs)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable) -> None:
    global _work
    _work = work
    # Ctrl-C reaches every process of a terminal: the first one tells the others to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # There is a process for every core already.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End with the first process, also if it is killed and can tell nobody."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os._exit(1)


def _do(item: object) -> object:
    assert _work is not None
    return _work(item)
