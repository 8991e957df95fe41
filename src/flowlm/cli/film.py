"""Films: texts while they come into being, with the confidence of the model as colours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from rich.live import Live
from rich.text import Text
from torch import Tensor

from flowlm.cli.lines import one_line
from flowlm.core.distribution import TokenDistribution
from flowlm.core.types import FREE, Patch, Probs

if TYPE_CHECKING:
    from rich.console import Console

    from flowlm.data.tokenizer import Tokenizer
    from flowlm.sampling import Frame

HUES = ("#c05a00", "#e0902a", "#8c8c8c", "#4a9bd4", "#1f6fb4")
"""Colours of a fifth of the probabilities each, from 0 to 1: told apart by whoever sees no red or
no green, on a dark and on a light ground."""

GIVEN = "underline"
"""The style of given tokens: the model says nothing of how likely they are."""

DOT = "·"
"""A token that is not written yet."""


class Confidence:
    """The probability of every token that a film shows, by the model's own prediction.

    Where a point travels, all tokens are predicted anew in every frame. Where tokens do, one that
    stays keeps the probability with which it came.
    """

    def __init__(self) -> None:
        self._tokens: Int[Tensor, "b l"] | None = None
        self._known: Float[Tensor, "b l"] | None = None

    def of(self, frame: Frame) -> Float[Tensor, "b l"]:
        """Probabilities of `frame.tokens()`; NaN of a token that is given or to come."""
        tokens = frame.tokens()
        if self._tokens is None or self._known is None:
            self._tokens = torch.full_like(tokens, FREE)
            self._known = torch.full(tokens.shape, torch.nan, device=tokens.device)
        fresh = tokens != self._tokens
        if frame.decided is None or frame.x is not None:
            fresh = torch.ones_like(fresh)
        if frame.prompt is not None:
            fresh &= frame.prompt == FREE
        known = _of_new(frame.prediction, tokens, fresh).where(fresh, self._known)
        self._tokens, self._known = tokens, known
        return known


@torch.no_grad()
def _of_new(
    prediction: TokenDistribution, tokens: Int[Tensor, "b l"], fresh: Bool[Tensor, "b l"]
) -> Float[Tensor, "b l"]:
    """Probabilities of tokens; of a prediction at one place, that of the first fresh one alone."""
    if prediction.shape == tokens.shape:
        found = prediction.reduce(_probability, tokens.clamp(min=0))
        return found.masked_fill(tokens == FREE, torch.nan)
    place = fresh.int().argmax(-1, keepdim=True)
    own = prediction.reduce(_probability, tokens.gather(-1, place).clamp(min=0))
    return torch.full(tokens.shape, torch.nan, device=own.device).scatter(-1, place, own)


def _probability(logp: Probs, patch: Patch, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "n m"]:
    """Probability of a token of every row; free scores are made a distribution first."""
    return logp.log_softmax(-1).gather(-1, tokens[patch][..., None]).squeeze(-1).exp()


def show_film(
    console: Console, frames: Iterable[Frame], tokenizer: Tokenizer | None, fps: float
) -> None:
    """Show the frames in place on a terminal, `fps` a second at most, else a line a frame.

    The last frame stays.
    """
    if not console.is_terminal:
        for frame in frames:
            texts = [one_line(spelt(row, tokenizer)) for row in frame.tokens().tolist()]
            console.print(" | ".join(texts), soft_wrap=True)
        return
    confidence = Confidence()
    with Live(console=console, auto_refresh=False) as live:
        due = time.monotonic()
        for frame in frames:
            picture = _picture(frame, confidence.of(frame), tokenizer)
            time.sleep(max(0.0, due - time.monotonic()))
            live.update(picture, refresh=True)
            due = time.monotonic() + 1 / fps


def _picture(frame: Frame, confidence: Float[Tensor, "b l"], tokenizer: Tokenizer | None) -> Text:
    """A header with the time and what the styles mean, and the texts below it."""
    picture = Text(f"tau {float(frame.tau.min()):.3f}   probability 0 ")
    for hue in HUES:
        picture.append("##", hue)
    picture.append(" 1")
    tokens, prompt = frame.tokens(), frame.prompt
    given = torch.zeros_like(tokens, dtype=torch.bool) if prompt is None else prompt != FREE
    if given.any():
        picture.append("   ")
        picture.append("given", GIVEN)
    rows = list(zip(tokens.tolist(), confidence.tolist(), given.tolist(), strict=True))
    for number, (row, sure, theirs) in enumerate(rows):
        picture.append(f"\n[{number}]" * (len(rows) > 1), "dim")
        picture.append("\n")
        for piece, p, is_given in zip(_pieces(row, tokenizer), sure, theirs):
            hue = HUES[min(int(p * len(HUES)), len(HUES) - 1)] if p == p else ""
            picture.append(piece, GIVEN if is_given else hue)
    return picture


def _pieces(row: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """Characters of every token of a row, its number where there is no tokenizer."""
    if tokenizer is None:
        return [f"{DOT if token == FREE else token} " for token in row]
    found: list[str] = []
    for free, run in groupby(row, lambda token: token == FREE):
        tokens = list(run)
        found += [DOT] * len(tokens) if free else tokenizer.pieces(tokens)
    return found


def spelt(row: Sequence[int], tokenizer: Tokenizer | None) -> str:
    """A text in which tokens that are not written yet appear as a dot."""
    if tokenizer is None:
        return " ".join(DOT if token == FREE else str(token) for token in row)
    pieces: list[str] = []
    for free, run in groupby(row, lambda token: token == FREE):
        tokens = list(run)
        pieces += [DOT] * len(tokens) if free else [tokenizer.decode(tokens)]
    return " ".join(pieces)
