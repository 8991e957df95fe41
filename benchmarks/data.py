"""Preparing text and reading it back: seconds, memory, and tokens a second.

python -m benchmarks.data                             about two minutes on two cores, synthetic text
python -m benchmarks.data --text FILE --tokenizer T   text of one's own; T as in flowlm prepare

Every preparation is a process of its own, with a process a core below it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.cells import Numbers, in_a_process, table
from benchmarks.provenance import write_result
from flowlm.data.corpora.plain import text_corpus
from flowlm.data.finding import make_tokenizer
from flowlm.data.layout import Layout, Packed, Stream
from flowlm.data.loader import Ahead, Windows
from flowlm.data.preparation import prepare
from flowlm.data.tokenizer import Tokenizer
from flowlm.machine.limits import cores

MEGABYTES = (12.5, 50)
LAYOUTS = ("stream", "packed")
SHAPES = ((128, 512), (1024, 512))
"""Length and batch of the windows, as in the published recipes."""


def main() -> None:
    """Measure, print the tables, write benchmarks/results/data.json."""
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        print(json.dumps(preparation_cell(**json.loads(sys.argv[1]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokenizer")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        prepared = preparations(place, chosen.text, chosen.tokenizer)
        read = [loading(place, *shape) for shape in SHAPES]
    show(prepared, read)
    command = " ".join(["python -m benchmarks.data", *sys.argv[1:]])
    result = {"command": command, "cores": cores(), "preparation": prepared, "loader": read}
    write_result("data" if chosen.text is None else "data-own-text", result)


def preparations(place: Path, text: Path | None, tokenizer: str | None) -> list[Numbers]:
    """Seconds and peak memory of preparing more and more of a text, in every layout."""
    whole = place / "whole.txt"
    whole.write_bytes(synthetic(MEGABYTES[-1]) if text is None else text.read_bytes())
    corpus = text_corpus(str(part(whole, 5)), "line", 0.05)
    make_tokenizer(tokenizer or "bpe", 16_384, corpus).save(place / "tokenizer.json")
    found = []
    for name in LAYOUTS:
        for size in MEGABYTES:
            cell = {"text": str(part(whole, size)), "layout": name, "place": scratch_of(place)}
            found.append({"layout": name} | in_a_process("benchmarks.data", cell))
            print(found[-1], flush=True)
    return found


def scratch_of(place: Path) -> str:
    """A new directory below `place` that has its tokenizer."""
    own = Path(tempfile.mkdtemp(dir=place))
    (own / "tokenizer.json").write_bytes((place / "tokenizer.json").read_bytes())
    return str(own)


def part(whole: Path, megabytes: float) -> Path:
    """A file with the first lines of another."""
    file = whole.with_name(f"{megabytes}.txt")
    with whole.open("rb") as source:
        file.write_bytes(source.read(int(megabytes * 1e6)) + source.readline())
    return file


def synthetic(megabytes: float) -> bytes:
    """Lines of words as frequent as in a language (Zipf), of 2 to 12 letters, from 60,000."""
    rng = np.random.default_rng(0)
    letters = rng.choice(list("etaoinshrdlucmfwypvbgkjqxz"), (60_000, 12))
    words = ["".join(row[: 2 + i % 11]) for i, row in enumerate(letters)]
    chance = 1 / np.arange(10, 60_010)
    lines: list[str] = []
    size = 0
    while size < megabytes * 1e6:
        drawn = rng.choice(60_000, 200_000, p=chance / chance.sum())
        lines += [" ".join(words[i] for i in row) + "." for row in drawn.reshape(-1, 20)]
        size += sum(map(len, lines[-10_000:]))
    return "\n".join(lines).encode()


def layout_of(name: str, tokenizer: Tokenizer) -> Layout:
    """A stream, or rows of 128 with whatever token ends a document around and between."""
    if name == "stream":
        return Stream()
    marks = ("<|end|>", "<|endoftext|>", "[SEP]")
    mark = next(mark for mark in marks if tokenizer.id_of(mark) is not None)
    return Packed(128, mark, mark, mark)


def preparation_cell(text: str, layout: str, place: str) -> Numbers:
    """One preparation. Memory is that of all its processes, looked at 20 times a second."""
    tokenizer = Tokenizer.load(Path(place) / "tokenizer.json")
    corpus = text_corpus(text, "line", 0.05)
    over, most = threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.05):
            pids = [child.pid for child in multiprocessing.active_children()]
            most[0] = max(most[0], resident("self") + sum(resident(pid) for pid in pids))

    before = resident("self")
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    out = Path(place) / "out"
    made = prepare(corpus, out, tokenizer, layout_of(layout, tokenizer), cores(), resume=True)
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    tokens = len(made.train) + len(made.valid)
    size = Path(text).stat().st_size / 1e6
    return {
        "megabytes": size,
        "seconds": seconds,
        "tokens": tokens,
        "processes": cores(),
        "bytes": most[0],
        "bytes_before": before,
    }


def resident(pid: int | str | None) -> int:
    """Bytes of memory that a process holds; none if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return 1024 * int(status.split("VmRSS:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def loading(place: Path, length: int, batch: int) -> Numbers:
    """Tokens a second of batches, asked for one after the other, from 200 million tokens."""
    file = place / "tokens.bin"
    if not file.exists():
        block = np.random.default_rng(0).integers(0, 50_000, 20_000_000).astype("<u2")
        with file.open("wb") as target:
            for _ in range(10):
                block.tofile(target)
    tokens = np.memmap(file, dtype="<u2", mode="r")
    result: Numbers = {"length": length, "batch": batch}
    for name, world in (("one process", 1), ("one of eight", 8)):
        batches = Windows(tokens, length, batch, seed=0, world=world)
        result[name] = speed(batches, length * batch // world)
    result["made ahead"] = speed(Ahead(Windows(tokens, length, batch, 0), False), length * batch)
    return result


def speed(batches: Windows | Ahead, tokens: int) -> float:
    """Tokens a second, over about two seconds, after the order of the epoch is drawn."""
    batches(0)
    steps = 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < 2:
        steps += 1
        batches(steps)
    return steps * tokens / passed


def show(prepared: list[Numbers], read: list[Numbers]) -> None:
    """Both tables."""
    rows = [
        [
            f"{m['layout']}, {m['megabytes']:.1f} MB",
            f"{m['seconds']:.1f}",
            f"{m['megabytes'] / m['seconds']:.1f}",
            f"{m['tokens'] / m['seconds'] / 1e6:.2f}",
            f"{m['bytes'] / 2**20:.0f}",
        ]
        for m in prepared
        if "failed" not in m
    ]
    head = ["preparing", "seconds", "MB/s", "million tokens/s", "MiB, all processes"]
    print(table(head, rows))
    names = ("one process", "one of eight", "made ahead")
    rows = [
        [f"{m['batch']} x {m['length']}", *(f"{m[name] / 1e6:.0f}" for name in names)] for m in read
    ]
    print(table(["million tokens/s", *names], rows), flush=True)


if __name__ == "__main__":
    main()
