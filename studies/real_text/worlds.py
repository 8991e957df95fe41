"""Worlds of real text: how it is read, and how large its networks are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flowlm.data.corpora.texts import in_texts
from flowlm.data.finding import find_corpus, make_tokenizer
from flowlm.data.layout import Rows, Stream
from flowlm.data.preparation import prepare
from flowlm.data.tokens import is_prepared
from flowlm.experiment import Experiment, Text
from flowlm.nn.size import Size
from flowlm.recipes import text
from flowlm.train.plan import Plan


@dataclass(frozen=True)
class World:
    """A way to cut a text into texts, and the trunk and the budget of all that learn from it."""

    name: str
    length: int
    """Tokens of a text."""
    vocab: int
    """Words of the BPE."""
    sentences: bool
    """Whether a text is a sentence in a row of its own; else it is cut from packed documents."""
    size: Size
    plan: Plan
    """Of all trainings; its steps are those of masked diffusion, which are the budget."""

    def within(self, budget: float) -> World:
        """The same world with another budget, in its own."""
        return replace(self, plan=replace(self.plan, steps=round(budget * self.plan.steps)))

    def place(self, out: Path) -> Path:
        """Where its text is prepared."""
        return out / f"text-{self.name}"

    def prepared(self, source: Path, out: Path) -> None:
        """Tokenise the text, unless that is done: a document a line, in lower case."""
        if is_prepared(self.place(out)):
            return
        unit = "sentence" if self.sentences else "document"
        corpus = in_texts(find_corpus(str(source), "line", 0.05), unit)
        tokenizer = make_tokenizer("bpe", self.vocab, corpus, lower_case=True)
        layout = Rows(self.length) if self.sentences else Stream()
        prepare(corpus, self.place(out), tokenizer, layout)

    def experiment(self, recipe: Experiment, out: Path) -> Experiment:
        """A text recipe in this world, with steps and rate as they are to masked diffusion's."""
        steps = round(self.plan.steps * recipe.train.steps / text.PLAN.steps)
        lr = self.plan.lr * recipe.train.lr / text.PLAN.lr
        return replace(
            recipe,
            data=Text(path=str(self.place(out).absolute()), length=self.length),
            size=self.size,
            train=replace(self.plan, steps=steps, lr=lr),
        )


SIZE = replace(text.SIZE, width=128, heads=4)
PLAN = Plan(
    steps=4000, batch=64, lr=2e-3, warmup=100, decay=0.5, beta2=0.99, ema=0.998, keep=1,
    log_every=50, validate_every=10**9, save_every=500, device="cpu", threads=1,
)  # fmt: skip

WORLDS = {
    "sentences": World("sentences", 24, 2048, True, replace(SIZE, positions="learned"), PLAN),
    "windows": World("windows", 64, 4096, False, SIZE, replace(PLAN, batch=32)),
}
"""By name."""
