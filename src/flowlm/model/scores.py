"""How likely a model finds given texts, with what the number is and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.rng import Streams
from flowlm.core.types import Batch
from flowlm.data.tokenizer import Tokenizer
from flowlm.errors import Refusal
from flowlm.evaluate.extent import count_to_stop
from flowlm.methods.method import Method
from flowlm.nn.dit import DiT

REPEATS = 4
"""Independent readings of a bound, whose spread is its error."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Negative log-likelihoods of texts."""

    nats: Float[Tensor, " n"]
    """Per token of each text."""
    error: Float[Tensor, " n"]
    """Standard error of the noise with which a bound is read, nats per token; 0 where exact."""
    tokens: Int[Tensor, " n"]
    """Tokens that were scored; of a row of its own those of the text and its end."""
    bytes: Int[Tensor, " n"]
    """Their UTF-8 bytes: nats * tokens / (bytes ln 2) are bits per byte."""
    kind: str
    """exact, or upper bound."""
    of: str
    """The sampler whose law of texts it is about; "" where there is one law only."""


@dataclass(frozen=True)
class Windows:
    """Texts, cut to what a model reads at once."""

    ids: list[list[int]]
    owner: list[int]
    """The text of each."""

    def batch(self, length: int) -> Batch:
        """All of them, filled up behind their end: filling has no weight."""
        tokens = torch.zeros(len(self.ids), length, dtype=torch.long)
        weight = torch.zeros(tokens.shape)
        for i, window in enumerate(self.ids):
            tokens[i, : len(window)] = torch.tensor(window)
            weight[i, : len(window)] = 1
        return Batch(tokens, weight)


def windows(tokenizer: Tokenizer, texts: Sequence[str], length: int, short: bool) -> Windows:
    """Every text in windows of `length` tokens; `short` ones count where the model can read them.

    A Refusal for a text without a window.
    """
    found = Windows([], [])
    for i, text in enumerate(texts):
        ids = tokenizer.encode(text)
        least = 1 if short else length
        if len(ids) < least:
            raise Refusal(
                f"Text {i} has {len(ids)} tokens, and this model scores {length} at once: give "
                "longer texts, or join them."
            )
        parts = [ids[first : first + length] for first in range(0, len(ids), length)]
        parts = [part for part in parts if len(part) >= least]
        found.ids.extend(parts)
        found.owner.extend([i] * len(parts))
    return found


def rows(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Windows:
    """Every text as a row of its own, filled up with its end. A Refusal for one without room."""
    found = Windows([], list(range(len(texts))))
    assert tokenizer.stop is not None
    for i, ids in enumerate(map(tokenizer.encode, texts)):
        if len(ids) > length:
            raise Refusal(
                f"Text {i} has {len(ids):,} tokens, and this model scores whole texts of "
                f"{length:,} at most: give shorter ones."
            )
        found.ids.append(ids + [tokenizer.stop] * (length - len(ids)))
    return found


def score(
    method: Method, network: DiT, tokenizer: Tokenizer, length: int, texts: Sequence[str],
    draws: int, seed: int, at_once: int,
) -> Scores:  # fmt: skip
    """Read every text in windows of `length` tokens, each at `draws` times.

    A model that reads from left to right also reads a last window that is shorter, and sees nothing
    of its filling. Others read whole windows; what is left at the end of a text is not scored.
    Texts that are rows of their own are read whole, with their padding: its nats count as the
    text's, whose tokens are its own and its end.
    """
    if method.likelihood is None:
        raise Refusal(
            f"{method.label} has no likelihood, nor a bound: score texts with a flow, a diffusion "
            "or an autoregressive model."
        )
    listed = isinstance(texts, Sequence) and not isinstance(texts, str)
    if not listed or not all(isinstance(text, str) for text in texts):
        raise Refusal("Texts to score must be a list of str.")
    if not texts:
        raise Refusal("There is no text to score: give at least one.")
    exact = method.likelihood == "exact"
    stop = tokenizer.stop
    if stop is None:
        cut = windows(tokenizer, texts, length, short=exact)
    else:
        cut = rows(tokenizer, texts, length)
    whole, owner = cut.batch(length), torch.tensor(cut.owner)
    repeats = 1 if exact else REPEATS
    paid = torch.zeros(repeats, len(texts), dtype=torch.float64)
    for repeat in range(repeats):
        for first in range(0, len(owner), at_once):
            part = slice(first, first + at_once)
            nats = _read(method, network, whole, part, draws // repeats, (seed, repeat))
            paid[repeat].index_add_(0, owner[part], nats)
    tokens, sizes = torch.zeros(2, len(texts), dtype=torch.long)
    for i, window in zip(cut.owner, cut.ids):
        row = torch.tensor([window])
        tokens[i] += len(window) if stop is None else count_to_stop(row, stop)[0]
        sizes[i] += len(tokenizer.decode(window).encode())
    nats = paid / tokens
    error = torch.zeros(len(texts)) if exact else nats.std(0) / repeats**0.5
    return Scores(
        nats.mean(0).float(), error.float(), tokens, sizes, method.likelihood, method.likelihood_of
    )


@torch.no_grad()
def _read(
    method: Method, network: DiT, whole: Batch, part: slice, draws: int, seed: tuple[int, int]
) -> Float[Tensor, " b"]:
    """Nats of some windows."""
    device = network.head.weight.device
    batch = Batch(whole.tokens[part].to(device), whole.weight[part].to(device))
    count = len(batch.tokens)
    rng = Streams.of(*seed, count=count, first=part.start, device=device)
    # Alone in its stratum: unbiased for every text, not only for all of them together.
    alone = replace(rng, index=(0,) * count, total=1)
    nats = method.nll(network, batch, alone, max(1, draws))
    assert nats is not None
    return (nats * batch.weight).cpu().double().sum(1)
