"""Prompts: text, templates or tokens, turned into the tokens that a model is given.

A template is text with gaps: `[..3]` is a gap of 3 tokens, `[..]` one of the rest, which all gaps
without a number share evenly (the first ones have one token more where it does not divide). `[[..`
stands for the characters `[..`. Of texts that are rows of their own, a template without `[..]`
ends where it ends, and the rest of its row is given too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flowlm.core.types import FREE, Tokens
from flowlm.data.tokenizer import Tokenizer
from flowlm.data.unknown import Unknown
from flowlm.errors import Refusal
from flowlm.methods.method import Method
from flowlm.model.arguments import prompt_ids

Prompt = str | Sequence[str] | Tensor
"""Text that all texts begin with; one for each; or tokens (n, l), FREE where the model writes."""

_GAP = re.compile(r"\[\[\.\.|\[\.\.(\d{0,9})\]|\[\.\.")


@dataclass(frozen=True)
class Gap:
    """A place of a template where the model writes."""

    tokens: int | None
    """How many; None for its share of the rest."""


@dataclass(frozen=True)
class Page:
    """Texts of `length` tokens, and what stands at their first and last place."""

    tokenizer: Tokenizer
    length: int
    begin: int | None = None
    """The id at the first place of every text that the model has learnt from."""
    end: int | None = None
    """The id at the last place: the model writes it."""

    @property
    def room(self) -> int:
        """Tokens that stand for text."""
        return self.length - (self.begin is not None) - (self.end is not None)

    @cached_property
    def _unknown(self) -> Unknown:
        return Unknown.of(self.tokenizer)

    def context(self, text: str, what: str) -> list[int]:
        """The row that begins with a text and leaves the rest to the model."""
        ids = self.ids(text, what)
        if not ids:
            raise Refusal(f"{what} is empty: leave it out, or give it a word.")
        if len(ids) >= self.room:
            raise Refusal(
                f"{what} has {len(ids):,} tokens and there is room for {self.room:,}: shorten it, "
                "or ask for a longer text with length=."
            )
        return self._row([ids, [FREE] * (self.room - len(ids))])

    def filled(self, template: str, what: str) -> list[int]:
        """The row of a template, FREE in its gaps."""
        parts = parsed(template, what)
        gaps = [part for part in parts if isinstance(part, Gap)]
        if not gaps:
            raise Refusal(
                f"{what} has no gap: write [..] where the model is to go on, or [..3] for 3 tokens."
            )
        texts = [
            [] if isinstance(part, Gap) else self.ids(part, what, goes_on=i < len(parts) - 1)
            for i, part in enumerate(parts)
        ]
        shared = sum(gap.tokens is None for gap in gaps)
        stated = sum(map(len, texts)) + sum(gap.tokens or 0 for gap in gaps)
        rest = self.room - stated
        stop = self.tokenizer.stop
        if stop is not None and rest > 0 and not shared:
            return self._row([*self._given(parts, texts, []), [stop] * rest])
        if rest < shared or (rest and not shared):
            said = "shorten it, or ask for a longer text with length="
            if rest > 0 and not shared:
                said = "give it a gap [..] for the rest"
            elif rest >= 0:
                needs = (
                    "its gap [..] needs a token" if shared == 1 else "its gaps need a token each"
                )
                said = f"{needs}, so {said}"
            raise Refusal(
                f"{what} comes to {stated:,} tokens and there is room for {self.room:,}: {said}."
            )
        shares = [rest // shared + (i < rest % shared) for i in range(shared)]
        return self._row(self._given(parts, texts, shares))

    @staticmethod
    def _given(
        parts: Sequence[str | Gap], texts: Sequence[list[int]], shares: list[int]
    ) -> list[list[int]]:
        """Texts as their ids, and gaps as FREE, those without a number by their shares."""
        row: list[list[int]] = []
        for part, ids in zip(parts, texts):
            if isinstance(part, Gap):
                ids = [FREE] * (shares.pop(0) if part.tokens is None else part.tokens)
            row.append(ids)
        return row

    def _row(self, parts: Sequence[Sequence[int]]) -> list[int]:
        first = [] if self.begin is None else [self.begin]
        return [*first, *(id for part in parts for id in part), *[FREE] * (self.end is not None)]

    def ids(self, text: str, what: str, goes_on: bool = True) -> list[int]:
        """The ids of a text; a Refusal for what the tokenizer does not know.

        Where the model goes on after it, a space at its end is left to the next token if tokens
        bring theirs: a space that stands alone is what it has hardly ever seen.
        """
        if goes_on and self.tokenizer.joins_spaces and text.endswith(" "):
            text = text[:-1]
        if self._lost(text):
            word = next(filter(self._lost, text.split()), text)
            raise Refusal(
                f"{what} has {word[:40]!r}, which the tokenizer of this model does not know: use "
                "words and characters of the text that the model has learnt from."
            )
        return self.tokenizer.encode(text)

    def _lost(self, text: str) -> bool:
        try:
            return self._unknown.count([text], [self.tokenizer.encode(text)]) > 0
        except Refusal:
            return True


def parsed(template: str, what: str) -> list[str | Gap]:
    """The texts and gaps of a template, in order."""
    parts: list[str | Gap] = []
    text, end = "", 0
    for found in _GAP.finditer(template):
        text, end, said = text + template[end : found.start()], found.end(), found[0]
        if said == "[[..":
            text += "[.."
            continue
        if found[1] is None or (found[1] and not int(found[1])):
            raise Refusal(
                f"{what} has {template[found.start() :][:12]!r}, which is no gap: write [..], or "
                "[..3] for 3 tokens, or [[.. for these characters themselves."
            )
        parts += [text, Gap(int(found[1]) if found[1] else None)]
        text = ""
    parts.append(text + template[end:])
    return [part for part in parts if part != ""]


def how_many(n: int | None, prompt: object) -> object:
    """The number of texts: as stated, or one for each prompt."""
    if isinstance(prompt, list | tuple):
        if not prompt:
            raise Refusal("The list of prompts is empty: give at least one.")
        if n is not None and n != len(prompt):
            raise Refusal(
                f"The list has {len(prompt)} prompts, and the number of texts is {n}: give one for "
                "each, or leave the number out."
            )
        return len(prompt)
    if n is None and isinstance(prompt, Tensor) and prompt.ndim:
        return len(prompt)
    if n is None and isinstance(prompt, str):
        return 1
    if n is None:
        raise Refusal("Say how many texts to write, or give a prompt for each of them.")
    return n


def rows(
    given: object,
    n: int,
    page: Callable[[], Page],
    row: Callable[[Page, str, str], list[int]],
    what: str,
) -> Tokens:
    """The rows (n, l) of a text for all, or of a text for each; `row` makes one of them."""
    if isinstance(given, str):
        return torch.tensor([row(page(), given, f"The {what.lower()}")]).expand(n, -1)
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        kind = f"of the type {type(given).__name__}"
        if isinstance(given, list | tuple):
            kind = "a list with other things"
        tokens = ", or a tensor of tokens" * (what == "Prompt")
        raise Refusal(f"{what}s must be a str or a list of str{tokens}, not {kind}.")
    sheet = page()
    return torch.tensor([row(sheet, text, f"{what} {i}") for i, text in enumerate(given)])


def prompted(prompt: object, n: int, length: int, vocab: int, page: Callable[[], Page]) -> Tokens:
    """Any prompt as tokens (n, l), FREE where the model is to write."""
    if isinstance(prompt, Tensor):
        return prompt_ids(prompt, n, length, vocab)
    return rows(prompt, n, page, Page.context, "Prompt")


def require_read(method: Method, given: Tokens) -> None:
    """Refuse given tokens that what the method writes would not depend on."""
    known = given != FREE
    if not bool(known.any()):
        return
    if not method.reads_prompts:
        raise Refusal(
            f"{method.label}: it does not read given tokens, so write with its teacher, or with "
            "drafted() of flowlm.model.drafting."
        )
    if not method.infills and bool((known[:, 1:] & ~known[:, :-1]).any()):
        raise Refusal(
            f"{method.label}: it writes from left to right and cannot infill, so use a flow, a map "
            "or masked diffusion."
        )
