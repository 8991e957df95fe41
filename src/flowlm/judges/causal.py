"""A causal language model of the transformers library as a judge: the published protocol.

Texts are written out by the tokenizer of their writer, without its special tokens, and read by that
of the judge: nothing is put in front, the first token does not count, a text is cut at what the
judge can read, and tokens count up to the first end of a text, that one included. So perplexities
are those of papers; bits per byte compare judges with different tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowlm.core.types import Tokens
from flowlm.errors import Refusal, reason
from flowlm.evaluate.judge import Judge, Scored, histogram
from flowlm.model.weights import fingerprint

LOGITS = 2**27
"""Numbers that the judge's logits may have at once: 0.5 GiB."""


@dataclass(frozen=True, eq=False)
class CausalJudge(Judge):
    """Scores what `decode` makes of the tokens of a text."""

    name: str
    about: str
    fingerprint: str
    network: Any
    """A causal language model of transformers."""
    tokenizer: Any
    """Its tokenizer."""
    decode: Callable[[Sequence[int]], str]
    """The writer's tokens to text."""

    @property
    def most(self) -> int:
        """Tokens that it reads at once."""
        config = self.network.config.to_dict()
        named = ("max_position_embeddings", "n_positions", "n_ctx")
        return next((config[name] for name in named if config.get(name)), 2**20)

    def score(self, tokens: Tokens) -> Scored:
        """See `Judge`."""
        texts = [self.decode(row) for row in tokens.tolist()]
        read = [self._read(text) for text in texts]
        longest = max(map(len, read), default=0)
        vocab = self.network.config.vocab_size
        at_once = max(1, LOGITS // max(1, longest * vocab))
        parts = [self._scored(read[i : i + at_once]) for i in range(0, len(read), at_once)]
        size = torch.tensor([len(text.encode()) for text in texts])
        nats, ranks, states = (list(part) for part in zip(*parts))
        counts = torch.tensor([max(0, len(ids) - 1) for ids in read])
        pooled = torch.stack(ranks).sum(0)
        return Scored(torch.cat(nats), counts, size, pooled, torch.cat(states))

    def _read(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        ids, end = ids[: self.most], self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    @torch.no_grad()
    def _scored(self, read: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Nats and features of each text, and ranks of all."""
        device, config = self.network.device, self.network.config
        longest = max(2, *map(len, read), 2)
        ids = torch.zeros(len(read), longest, dtype=torch.long)
        known = torch.zeros(ids.shape, dtype=torch.bool)
        for row, own in enumerate(read):
            ids[row, : len(own)], known[row, : len(own)] = torch.tensor(own, dtype=torch.long), True
        # What fills a short text stands behind it, where a causal model does not look.
        answer = self.network(input_ids=ids.to(device), output_hidden_states=True)
        logp = answer.logits[:, :-1].float().log_softmax(-1).cpu()
        following, counted = ids[:, 1:, None], known[:, 1:]
        own = logp.gather(-1, following)
        nats = -(own.squeeze(-1).double() * counted).sum(1)
        ranks = (logp > own).sum(-1)[counted]
        states = answer.hidden_states[-1].float().cpu() * known[..., None]
        features = states.sum(1) / known.sum(1, keepdim=True).clamp(min=1)
        return nats, histogram(ranks, config.vocab_size), features


def load_causal(
    place: Path, name: str, decode: Callable[[Sequence[int]], str], device: str
) -> CausalJudge:
    """The model in a directory of transformers files, as the judge `name`.

    A Refusal if it is none, or needs code of its own, which is never run.
    """
    try:
        import transformers
    except ImportError as error:
        raise Refusal(
            f"The judge {name} needs the package transformers: `pip install 'flowlm[judge]'`."
        ) from error
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
        network: Any = transformers.AutoModelForCausalLM.from_pretrained(
            place, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # the library raises whatever its parts raise
        raise Refusal(
            f"{place} is not a causal language model that transformers can read "
            f"({reason(error)}): name one, or an autoregressive run."
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    about = f"{Path(name).name}, published protocol"  # a folder's place is nobody else's
    return CausalJudge(name, about, fingerprint(network.state_dict()), network, tokenizer, decode)
