"""An experiment: one frozen value that names everything a run needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flowlm.checks import require_fields, whole
from flowlm.errors import Refusal
from flowlm.methods.method import Method
from flowlm.nn.size import Size
from flowlm.sampling.sampler import Sampler
from flowlm.tasks.task import Task
from flowlm.train.plan import Plan

LENGTH = 2**24
"""Places are float32, which tells so many whole numbers apart."""
VOCAB = 2**20
"""Several times what the largest tokenizers know."""


@dataclass(frozen=True)
class Text:
    """Text from files."""

    path: str | None = None
    """What `flowlm prepare` wrote, or text: a UTF-8 text file, a directory of .txt files, a glob, a
    parquet or JSON file with a column `text`, or a directory of them."""
    length: int = 128
    """Tokens in a training text, or in a row; documents are packed to this length."""
    documents: Literal["line", "blank", "endoftext"] = "line"
    """What separates documents: the end of a line, a blank line, or <|endoftext|>."""
    layout: Literal["packed", "rows"] = "packed"
    """packed: documents one after the other, cut anywhere. rows: a text a row, filled up with the
    token of its end. Of prepared text its own."""
    texts: Literal["document", "sentence", "line"] = "document"
    """What gets a row of its own."""
    long: Literal["drop", "cut"] = "drop"
    """What becomes of a text that is longer than its row."""
    lower: bool = False
    """Read all text in lower case: the tokenizer does so, with prompts too."""
    tokenizer: str | None = None
    """characters, bpe, a file or folder, bert-base-uncased, gpt2, or hf:owner/name; by default the
    teacher's, or characters."""
    vocab: int = 4096
    """Size of a BPE vocabulary trained here; also what --dry-run assumes of a text that is not
    here, or too long to have its characters counted."""
    valid: float = 0.05
    """Share of the documents held out for validation."""
    unknown: float = 0.01
    """Share of the text that the tokenizer may not know."""
    begin: str | None = None
    """Special token at the first place of every text, such as [CLS]: by default, and at most, that
    which the prepared text was packed with."""
    end: str | None = None
    """The same for the last place."""

    def require(self) -> None:
        """Refuse lengths, sizes and shares that make no text."""
        whole("--data.length", self.length, 2, LENGTH)
        whole("--data.vocab", self.vocab, 2, VOCAB)
        if not 0 < self.valid < 1:
            raise Refusal("--data.valid is a share: choose one between 0 and 1, such as 0.05.")
        if not 0 <= self.unknown <= 1:
            raise Refusal("--data.unknown is a share: choose one from 0 to 1, such as 0.01.")
        if self.tokenizer == "bpe" and self.vocab < 300:
            raise Refusal("--data.vocab must be at least 300: byte-level BPE starts from 256.")
        if self.layout == "packed" and (self.texts, self.long) != ("document", "drop"):
            raise Refusal("--data.texts and --data.long are about rows: give --data.layout rows.")


AnyData = Text | Task


@dataclass(frozen=True)
class Experiment:
    """One run: what to learn, how to write, from which text, how large, and for how long."""

    name: str
    """Name of the recipe it came from."""
    method: Method
    sampler: Sampler
    """How its model writes unless another way is named."""
    data: AnyData
    size: Size
    train: Plan = field(default_factory=Plan)
    init: str | None = None
    """A run, or another model, whose weights training starts from, with a new optimizer and from
    step 0; the text's tokenizer is its own."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is built."""
        require_fields(self, "experiment.")
        require_fields(self.data, "--data.")
        self.data.require()
        self.size.require_reach(self.data.length)
        self.method.require_size(self.size)
        self.method.require_sampler(self.sampler)
        if self.init is not None and self.method.teacher is not None:
            raise Refusal(
                f"{self.method.label} starts from the weights of its teacher "
                f"{self.method.teacher}: leave --init out."
            )
