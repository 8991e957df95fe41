"""Judges from elsewhere: causal language models of the `transformers` library.

They read by the published protocol: a text as its writer spells it (its tokenizer, without special
tokens); nothing is put in front and the first token does not count; it is cut at what the judge can
read; tokens count up to the first end of a text, that one included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowlm.core.types import Tokens
from flowlm.errors import Refusal, reason
from flowlm.evaluate.judge import Judge, Scored
from flowlm.evaluate.ranks import nats_and_ranks, rank_counts, rank_edges
from flowlm.files import sha256_of

WEIGHTS = "model*.safetensors"
"""The files of weights; pickles are never read."""

LOGITS = 2**26
"""Logits that exist at once, at most; one text is always read."""


class Text(NamedTuple):
    """A text as the judge reads it."""

    ids: list[int]
    """Up to and including the first end of text, and no more than the model can read."""
    bytes: int
    """UTF-8 bytes of all tokens but the first."""


@dataclass(frozen=True, eq=False)
class CausalJudge(Judge):
    """A causal language model with a tokenizer of its own."""

    name: str
    fingerprint: str
    model: Any
    tokenizer: Any
    decode: Callable[[Sequence[int]], str]
    """Tokens of the model that wrote the texts to text, without special tokens."""
    vocab: int
    """Logits of a token."""
    width: int
    """Numbers of a hidden state."""
    length: int | None
    """Tokens that it can read; None where there is no limit."""
    device: torch.device

    @property
    def about(self) -> str:
        """The judge and the protocol."""
        return f"{self.name}, published protocol"

    def score(self, tokens: Tokens) -> Scored:
        """Score texts by the protocol; those of fewer than two tokens cost nothing."""
        texts = self.read([self.decode(row) for row in tokens.tolist()])
        count = len(texts)
        nats, features = torch.zeros(count, dtype=torch.float64), torch.zeros(count, self.width)
        ranks = torch.zeros(len(rank_edges(self.vocab)), dtype=torch.long)
        # Texts of one length are neighbours, so that little is filled up.
        order = sorted((i for i in range(count) if texts[i].ids), key=lambda i: len(texts[i].ids))
        while order:
            size = max(1, LOGITS // (self.vocab * len(texts[order[-1]].ids)))
            part, order = order[-size:], order[:-size]
            for i, (cost, seen, state) in zip(part, self._pass([texts[i].ids for i in part])):
                nats[i], features[i] = cost.double().sum(), state
                ranks += rank_counts(seen, self.vocab)
        scored = torch.tensor([max(0, len(text.ids) - 1) for text in texts])
        return Scored(nats, scored, torch.tensor([t.bytes for t in texts]), ranks, features)

    def read(self, texts: Sequence[str]) -> list[Text]:
        """Texts to the judge's own tokens."""
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True,
            truncation=self.length is not None, max_length=self.length,
        )  # fmt: skip
        found = []
        for text, ids, places in zip(texts, encoded["input_ids"], encoded["offset_mapping"]):
            end = self.tokenizer.eos_token_id
            last = ids.index(end) if end in ids else len(ids) - 1
            scored = text[places[0][1] : places[last][1]] if ids else ""
            found.append(Text(ids[: last + 1], len(scored.encode())))
        return found

    @torch.no_grad()
    def _pass(self, texts: Sequence[list[int]]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Nats and ranks of all tokens of a text but the first, and its mean last hidden state."""
        ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            ids[i, : len(text)], mask[i, : len(text)] = torch.tensor(text), 1
        ids = ids.to(self.device)
        said = self.model(
            input_ids=ids, attention_mask=mask.to(self.device), output_hidden_states=True,
            use_cache=False,
        )  # fmt: skip
        found = []
        for i, size in enumerate(map(len, texts)):
            logp = said.logits[i, : size - 1].float().log_softmax(-1)
            cost, seen = nats_and_ranks(logp, ids[i, 1:size])
            found.append((cost.cpu(), seen.cpu(), said.hidden_states[-1][i, :size].mean(0).cpu()))
        return found


def causal_judge(
    place: Path, name: str, decode: Callable[[Sequence[int]], str], device: torch.device
) -> CausalJudge:
    """The judge in a folder of config.json, tokenizer and safetensors. No code of it is run.

    A Refusal where the folder does not hold a whole causal language model.
    """
    files = sorted(place.glob(WEIGHTS))
    if not files:
        raise Refusal(
            f"The judge {name} has no weights in safetensors files: pickles are never read, so "
            "save it anew, or choose another --judge."
        )
    model, tokenizer, missing, length = _loaded(place, name)
    if missing:
        raise Refusal(
            f"The judge {name} is no whole causal language model (it lacks {missing[0]}): choose "
            "another --judge."
        )
    if not tokenizer.is_fast:
        raise Refusal(f"The judge {name} has no tokenizer.json: choose another --judge.")
    vocab, width = _require_causal(model.to(device), name, device)
    digests = [sha256_of(file) for file in files]
    whole = digests[0]  # of one file, as everybody states it
    if len(digests) > 1:
        whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    return CausalJudge(name, whole, model, tokenizer, decode, vocab, width, length, device)


def _loaded(place: Path, name: str) -> tuple[Any, Any, list[str], int | None]:
    """Model, tokenizer, names of tensors that are not there, and the tokens that it can read."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        safe = {"trust_remote_code": False, "local_files_only": True}
        kind: Any = AutoModelForCausalLM
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, **safe)
            model, told = kind.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, **safe
            )
    except Exception as error:  # the library raises many kinds for the faults of a folder
        raise Refusal(
            f"The judge {name} cannot be loaded by transformers ({reason(error)}): choose another "
            "--judge."
        ) from error
    most = tokenizer.model_max_length  # astronomical where it knows no limit
    with suppress(AttributeError):  # of a model without positions
        most = min(most, model.config.max_position_embeddings)
    length = most if most < 2**31 else None
    return model.float().eval(), tokenizer, sorted(told["missing_keys"]), length


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no remarks of the library: a fault becomes one sentence."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@torch.no_grad()
def _require_causal(model: Any, name: str, device: torch.device) -> tuple[int, int]:
    """Refuse a model that sees later tokens; returns the sizes of its logits and hidden states."""
    ids: Int[Tensor, "2 2"] = torch.tensor([[0, 0], [0, 1]], device=device)
    said = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    logits: Float[Tensor, "2 2 v"] = said.logits
    if not torch.allclose(logits[0, 0], logits[1, 0], rtol=1e-4, atol=1e-4):
        raise Refusal(
            f"The judge {name} sees the tokens that it is to predict: choose a causal language "
            "model as --judge."
        )
    return logits.shape[-1], said.hidden_states[-1].shape[-1]
