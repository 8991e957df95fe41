"""An autoregressive run of ours as a judge: it reads the very tokens of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowlm.chunked.prediction import HeadPrediction
from flowlm.core.types import Patch, Probs, Tokens
from flowlm.errors import Refusal
from flowlm.evaluate.extent import count_to_stop
from flowlm.evaluate.judge import Judge, Scored
from flowlm.evaluate.likelihood import AT_ONCE
from flowlm.evaluate.ranks import nats_and_ranks, rank_counts
from flowlm.model.language_model import LanguageModel


@dataclass(frozen=True, eq=False)
class RunJudge(Judge):
    """An autoregressive model of ours that was trained on the same tokens."""

    name: str
    fingerprint: str
    model: LanguageModel

    @property
    def about(self) -> str:
        """An autoregressive run: it reads the very tokens."""
        return "an autoregressive flowlm run"

    @torch.no_grad()
    def score(self, tokens: Tokens) -> Scored:
        """See `Judge`: every token counts, the first one too.

        Of texts that are rows of their own those up to their end, and that as well.
        """
        return Scored.joined([self._score(part) for part in tokens.split(AT_ONCE)])

    def _score(self, tokens: Tokens) -> Scored:
        method, tokenizer = self.model.experiment.method, self.model.tokenizer
        assert tokenizer is not None
        tokens = tokens.to(self.model.device)
        prediction = method.next_tokens(self.model.network, tokens)
        assert isinstance(prediction, HeadPrediction)

        def both(logp: Probs, patch: Patch) -> Tensor:
            nats, ranks = nats_and_ranks(logp, tokens[patch])
            return torch.stack([nats.double(), ranks.double()], -1)

        nats, ranks = prediction.reduce(both).unbind(-1)
        count = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if tokenizer.stop is not None:
            count = count_to_stop(tokens, tokenizer.stop)
        counts = torch.arange(tokens.shape[1], device=tokens.device) < count[:, None]
        features = prediction.features.float() * counts[..., None]
        return Scored(
            nats.masked_fill(~counts, 0).sum(1).cpu(),
            count.cpu(),
            torch.tensor([len(tokenizer.plain(row).encode()) for row in tokens.tolist()]),
            rank_counts(ranks[counts].long(), tokenizer.vocab),
            (features.sum(1) / count[:, None]).cpu(),
        )


def require_judge(judge: LanguageModel, model: LanguageModel) -> None:
    """Refuse a judge that cannot score the texts of a model."""
    if judge.experiment.method.likelihood != "exact":
        raise Refusal("The judge must be an autoregressive run: it needs exact likelihoods.")
    theirs, own = judge.tokenizer, model.tokenizer
    if theirs is None or own is None or theirs.fingerprint != own.fingerprint:
        raise Refusal("The judge has another tokenizer: give a run trained on the same text.")
    if theirs.stop != own.stop:
        raise Refusal(
            "Of the judge and the model one has learnt texts that are rows of their own, and the "
            "other packed text: give a run that was trained on text of the same layout."
        )
    if judge.length < model.length:
        raise Refusal(
            f"The judge reads {judge.length} tokens and the texts have {model.length}: give a run "
            "that was trained on texts as long."
        )
