"""Requests to a model, checked, and turned into a writer and the tokens that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from flowlm.checks import whole
from flowlm.core.types import FREE, Tokens
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.experiment import Experiment, Text
from flowlm.experiment.experiment import LENGTH
from flowlm.model.amounts import BYTES, amounts
from flowlm.model.arguments import text_ids
from flowlm.model.batch_size import max_batch_size
from flowlm.model.prompts import Page, Prompt, how_many, prompted, require_read, rows
from flowlm.model.scores import Scores, score
from flowlm.model.windows import Windows
from flowlm.model.writing import Writer
from flowlm.nn.dit import DiT
from flowlm.sampling.sampler import Sampler


@dataclass(frozen=True, eq=False)
class Parts:
    """A model as its requests need it: arguments are those of `LanguageModel.sample`."""

    experiment: Experiment
    network: DiT
    tokenizer: Tokenizer | None
    length: int

    def require_tokenizer(self, consequence: str) -> Tokenizer:
        """The tokenizer; a Refusal that says what cannot be done without."""
        if self.tokenizer is None:
            raise Refusal(
                f"This model has no tokenizer: {consequence}, or load it with tokenizer=, a "
                "tokenizer.json or a hub id."
            )
        return self.tokenizer

    def asked(
        self, n: int | None, steps: int, seed: int, prompt: Prompt | None, length: int | None
    ) -> tuple[Tokens, int, int]:
        """Given tokens (n, L), steps and seed."""
        count, steps, seed, _ = amounts(how_many(n, prompt), steps, seed)
        wanted = self._length(length)
        method = self.experiment.method
        if wanted > self.length and not method.reads_prompts:
            raise Refusal(
                f"{method.label}: it does not read given tokens, so no text of it has more than "
                f"{self.length:,}: write longer ones with its teacher."
            )
        return self.given(prompt, count, wanted), steps, seed

    def given(self, prompt: Prompt | None, n: int, length: int) -> Tokens:
        """The tokens (n, length) of a prompt, FREE where the model is to write."""
        if prompt is None:
            # One number that stands for all: as many texts may be asked for as there is time for.
            return torch.full((1, 1), FREE).expand(n, length)
        given = prompted(prompt, n, length, self.network.vocab, lambda: self.page(length))
        require_read(self.experiment.method, given[:1] if isinstance(prompt, str) else given)
        return given

    def template(self, template: object, n: int | None, length: int | None) -> Tokens:
        """The tokens (n, length) of one template, by default once, or of one for each text."""
        count, _, _, _ = amounts(how_many(n, template), 1, 0)
        wanted = self._length(length)
        return rows(template, count, lambda: self.page(wanted), Page.filled, "Template")

    def encode(self, text: object) -> Tokens:
        """The ids of a text, (1, k)."""
        if not isinstance(text, str):
            raise Refusal(f"A text must be a str, not of the type {type(text).__name__}.")
        ids = self.page(self.length).ids(text, "The text", goes_on=False)
        return torch.tensor([ids], dtype=torch.long)

    def decode(self, tokens: object) -> list[str]:
        """The text of every row of ids."""
        tokenizer = self.require_tokenizer("its tokens stand for no text")
        ids = text_ids(tokens, self.network.vocab)
        return [tokenizer.decode(row) for row in ids.tolist()]

    def score(self, texts: Sequence[str], draws: int, seed: int, memory: int) -> Scores:
        """Nats per token of each text."""
        tokenizer = self.require_tokenizer("it has no texts to score")
        draws = whole("The number of draws", draws, 4, 10**6)
        _, _, seed, _ = amounts(1, 1, seed)
        size = self.at_once(memory, self.experiment.sampler)
        return score(
            self.experiment.method, self.network, tokenizer, self.length, texts, draws, seed, size
        )

    def writer(self, sampler: Sampler | None, steps: int, seed: int) -> Writer:
        """The model's network, and how it is to write."""
        method = self.experiment.method
        chosen = self.experiment.sampler if sampler is None else sampler
        if not isinstance(chosen, Sampler):
            raise Refusal(
                "A sampler must be one of flowlm.sampling, such as Euler(), and it is of the type "
                f"{type(chosen).__name__}."
            )
        method.require_sampler(chosen)
        return Writer(method, self.network, chosen, steps, seed)

    def batches(
        self, given: Tokens, steps: int, seed: int, memory: int, most: int | None,
        sampler: Sampler | None,
    ) -> Iterator[Tokens]:  # fmt: skip
        """Texts from given tokens, in batches of which each is written when it is asked for."""
        writer = self.writer(sampler, steps, seed)
        size = self.at_once(memory, writer.sampler)
        if most is not None:
            size = min(size, max(1, most))
        windows = None
        if given.shape[1] > self.length:
            windows = Windows(self.length, *self._ends)

        def written(first: int) -> Tokens:
            return writer.texts(given[first : first + size], first, self.length, windows)

        return map(written, range(0, len(given), size))

    def page(self, length: int) -> Page:
        """How texts of `length` tokens are laid out."""
        tokenizer = self.require_tokenizer("give its prompts as tokens")
        return Page(tokenizer, length, *self._ends)

    def at_once(self, memory: int, sampler: Sampler) -> int:
        """Texts that are written at once in `memory` bytes."""
        memory = whole("The memory in bytes", memory, 0, BYTES)
        return max_batch_size(sampler, self.network, self.length, memory)

    @property
    def _ends(self) -> tuple[int | None, int | None]:
        """The ids at the first and the last place of every text that the model has learnt from."""
        data = self.experiment.data
        if not isinstance(data, Text) or (data.begin, data.end) == (None, None):
            return None, None
        tokenizer = self.require_tokenizer("its texts begin with a token that only it knows")
        begin, end = (
            None if name is None else tokenizer.id_of(name) for name in (data.begin, data.end)
        )
        return begin, end

    def _length(self, length: int | None) -> int:
        if length is None:
            return self.length
        wanted = whole("The length in tokens", length, 1, LENGTH)
        rows = self.tokenizer is not None and self.tokenizer.stop is not None
        if rows and wanted > self.length:
            raise Refusal(
                f"This model writes whole texts, each a row of {self.length:,} tokens at most: ask "
                "for none that is longer."
            )
        return wanted
