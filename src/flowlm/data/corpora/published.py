"""The corpora that results are published on: where each is, and how it becomes tokens.

Revisions are pinned and the number of documents is known, so that nothing else is prepared under
the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowlm.data.corpora.cleaning import articles, detokenised
from flowlm.data.corpora.corpus import Corpus, Read, Split
from flowlm.data.corpora.plain import documents
from flowlm.data.corpora.tables import Table, is_table
from flowlm.data.corpora.text8 import Text8
from flowlm.data.layout import Layout, Packed, Padded, Stream
from flowlm.errors import Refusal


def singly(rows: Iterator[str]) -> Iterator[tuple[str, int]]:
    """Every row is a document; each with the rows read."""
    return ((text, i) for i, text in enumerate(rows, start=1))


@dataclass(frozen=True)
class Part:
    """A split: its files in the repository, names that placed ones may have, and its rows."""

    files: str
    placed: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Hub:
    """Parquet files of one revision of a data set on the hub, with a column `text`.

    `valid` is a split of its own, or how many rows at the end of `train` are held out. `gather`
    makes documents of rows, each with the rows read so far, and `clean` is applied to them.
    """

    repository: str
    revision: str
    train: Part
    valid: Part | int
    clean: Callable[[str], str] = str
    gather: Callable[[Iterator[str]], Iterator[tuple[str, int]]] = singly

    def corpus(self, name: str, place: Path | None, whole: bool) -> Corpus:
        """The corpus `name`, from files that somebody placed in `place`, or from the hub.

        With `whole` everything is fetched before the first document is read.
        """
        parts: list[tuple[Split, Part, int]] = []
        if isinstance(self.valid, Part):
            parts = [("train", self.train, 0), ("valid", self.valid, 0)]
        else:
            parts = [("train", self.train, self.valid)]
        tables = [self._table(name, part, place, whole) for _, part, _ in parts]
        local = [table.local for table in tables]

        def read() -> Iterator[Read]:
            before = 0
            for (split, part, held_out), table, files in zip(parts, tables, local):
                kept = part.rows - held_out
                for text, done in self.gather(files.unchanged(_counted(name, part, table))):
                    yield split if done <= kept else "valid", text, before + done
                before += part.rows

        sources = [source for table in tables for source in table.sources]
        origin: dict[str, Any] = {"corpus": name, "sources": sources}
        total = sum(part.rows for _, part, _ in parts)
        state = tuple(state for files in local for state in files.states)
        return Corpus(read, origin, total, self.clean, state=state)

    def _table(self, name: str, part: Part, place: Path | None, whole: bool) -> Table:
        wanted = (
            f"place {part.files} of https://huggingface.co/datasets/{self.repository} (revision "
            f"{self.revision}) in a directory and name it with --source"
        )
        if place is None:
            # The revision is part of the address, and with it of the manifest.
            address = f"hf://datasets/{self.repository}@{self.revision}/{part.files}"
            return Table(name, (address,), whole=whole, advice=f"check the connection, or {wanted}")
        found = sorted({file for pattern in part.placed for file in place.rglob(pattern)})
        if not found:
            raise Refusal(f"{place} does not hold {part.files} of {name}: {wanted}.")
        return Table(str(place), tuple(map(str, found)))


def _counted(name: str, part: Part, table: Table) -> Iterator[str]:
    """The rows of a split; refused if there are more or fewer than there should be."""
    rows = table.rows()
    if not is_table(table.files[0]):
        rows = (text for file in table.files for text in documents(file, "line"))
    read = 0
    for text in rows:
        read += 1
        if read > part.rows:
            break
        yield text
    if read != part.rows:
        found = f"more than the {part.rows:,}" if read > part.rows else f"{read:,} of {part.rows:,}"
        raise Refusal(
            f"{table.name} holds {found} rows of {part.files} of {name}: place exactly its files."
        )


@dataclass(frozen=True)
class Published:
    """Everything that decides the tokens of a corpus.

    `tokenizer` is "characters" or the name of a published one; `vocab` is the number of its ids, a
    padding token that is added to it included.
    """

    source: Hub | Text8
    tokenizer: str
    vocab: int
    layout: Layout

    @property
    def is_open(self) -> bool:
        """Whether no packing of it is published, so that it takes any tokenizer and layout."""
        return isinstance(self.layout, Stream) and self.layout.ended


LM1B = Hub(
    "billion-word-benchmark/lm1b",
    "8d52bfd3cc2819fc1166dbb8144c328e2690de3e",
    # The second name is that of the shards in the original archive.
    Part("plain_text/train/*.parquet", ("train/*.parquet", "news.en-*-of-*"), 30_301_028),
    Part("plain_text/test/*.parquet", ("test/*.parquet", "news.en.heldout-*-of-*"), 306_688),
    clean=detokenised,
)
OPENWEBTEXT = Hub(
    "Skylion007/openwebtext",
    "79d93d786212f7344586290adb811d4ae6a1762c",
    Part("plain_text/train-*.parquet", ("train-*.parquet",), 8_013_769),
    valid=100_000,
)
WIKITEXT103 = Hub(
    "Salesforce/wikitext",
    "b08601e04326c79dfdd32d625aee71d232d685c3",
    Part("wikitext-103-raw-v1/train-*.parquet", ("train-*.parquet",), 1_801_350),
    Part("wikitext-103-raw-v1/validation-*.parquet", ("validation-*.parquet",), 3_760),
    gather=articles,
)
FINEWEB_EDU = Hub(
    "HuggingFaceFW/fineweb-edu",
    "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
    Part("sample/10BT/*.parquet", ("[0-9]*.parquet",), 9_672_101),
    valid=10_000,
)

TINYSTORIES = Hub(
    "roneneldan/TinyStories",
    "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    Part("data/train-*.parquet", ("train-*.parquet",), 2_119_719),
    Part("data/validation-*.parquet", ("validation-*.parquet",), 21_990),
)

BERT, GPT2, END = "bert-base-uncased", "gpt2", "<|endoftext|>"
SENTENCES = Packed(128, "[CLS]", "[SEP]", "[SEP]")

PUBLISHED = {
    "lm1b": Published(LM1B, BERT, 30_522, SENTENCES),
    # What the official code writes: it takes the first id of "[SEP]" encoded, which is [CLS].
    "lm1b-cls": Published(LM1B, BERT, 30_522, Packed(128, "[CLS]", "[CLS]", "[CLS]")),
    "lm1b-unpacked": Published(LM1B, BERT, 30_522, Padded(128, "[CLS]", "[SEP]", "[PAD]")),
    "openwebtext": Published(OPENWEBTEXT, GPT2, 50_258, Packed(1024, END, END, END)),
    "text8": Published(Text8(), "characters", 29, Stream(ended=False)),
    "wikitext103": Published(WIKITEXT103, GPT2, 50_258, Stream()),
    "fineweb-edu": Published(FINEWEB_EDU, GPT2, 50_258, Stream()),
    "tinystories": Published(TINYSTORIES, GPT2, 50_258, Stream()),
}
"""By the names that `flowlm prepare` takes."""
