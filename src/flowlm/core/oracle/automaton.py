"""A language as a weighted automaton: one forward and one backward pass answer everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowlm.core.oracle.language import Language
from flowlm.core.rng import Streams
from flowlm.core.types import Probs, Tokens


@dataclass(frozen=True, eq=False)
class Automaton(Language):
    """Sentences of exactly `length` tokens, read along the arcs of a weighted automaton.

    Arc k leads from state `source[k]` to state `target[k]`, writes `token[k]` and has weight
    `chance[k]`. A sentence starts in state 0 and counts if it ends in a state that `final` allows;
    its probability is the weight of its paths over the weight of all sentences.
    """

    vocab: int
    length: int
    source: Int[Tensor, " arcs"]
    token: Int[Tensor, " arcs"]
    target: Int[Tensor, " arcs"]
    chance: Float[Tensor, " arcs"]
    final: Bool[Tensor, " states"]

    def __post_init__(self) -> None:
        if not bool((self.chance > 0).all()):
            raise ValueError("every arc of a language needs a positive weight")

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.final)

    @cached_property
    def deterministic(self) -> bool:
        """Whether a state and a token name at most one arc, so that a sentence has one path."""
        pairs = self.source * self.vocab + self.token
        return len(pairs.unique()) == len(pairs)

    # --- the two passes -------------------------------------------------------------------

    def _forward(self, log_evidence: Probs) -> tuple[list[Tensor], Tensor]:
        """Log forward messages before each token and after the last, and the log total weight."""
        message = torch.full((len(log_evidence), self.states), -torch.inf, dtype=torch.float64)
        message[:, 0] = 0.0
        messages = [message]
        for i in range(self.length):
            arcs = message[:, self.source] + self._log_chance + log_evidence[:, i, self.token]
            message = _gathered(arcs, self.target, self.states)
            messages.append(message)
        return messages, message.masked_fill(~self.final, -torch.inf).logsumexp(1)

    def _backward(self, log_evidence: Probs) -> list[Tensor]:
        """Log backward messages after each token."""
        end = torch.zeros(self.states, dtype=torch.float64).masked_fill(~self.final, -torch.inf)
        messages = [end.expand(len(log_evidence), -1)]
        for i in reversed(range(1, self.length)):
            onward = messages[-1][:, self.target] + self._log_chance
            arcs = onward + log_evidence[:, i, self.token]
            messages.append(_gathered(arcs, self.source, self.states))
        return messages[::-1]

    def log_weight(self, evidence: Probs) -> Float[Tensor, " b"]:
        """log of the sum over paths of their weight times their evidence, nats."""
        return self._forward(evidence.double().log())[1]

    def log_evidence(self, evidence: Probs) -> Float[Tensor, " b"]:
        """See `Language`."""
        return self.log_weight(evidence) - self._log_weight

    def log_total(self, evidence: Probs) -> Float[Tensor, " b"]:
        """See `Language`. ValueError for an ambiguous automaton, which counts paths."""
        if not self.deterministic:
            raise ValueError("an ambiguous automaton counts a sentence once for every path")
        return replace(self, chance=torch.ones_like(self.chance)).log_weight(evidence)

    def log_posterior(self, log_evidence: Probs) -> Probs:
        """See `Language`."""
        before, _ = self._forward(log_evidence)
        after = self._backward(log_evidence)
        rows = []
        for i in range(self.length):
            arcs = before[i][:, self.source] + self._log_chance + after[i][:, self.target]
            arcs = arcs + log_evidence[:, i, self.token]
            rows.append(_gathered(arcs, self.token, self.vocab))
        return torch.stack(rows, 1).log_softmax(-1)

    @cached_property
    def _log_chance(self) -> Tensor:
        return self.chance.double().log()

    @cached_property
    def _log_weight(self) -> Tensor:
        return self.log_weight(self.nothing)

    # --- what the language is ---------------------------------------------------------------

    @cached_property
    def entropy(self) -> float:
        """Exact entropy rate: nats per token. Only for a deterministic automaton."""
        if not self.deterministic:
            raise ValueError("the entropy of an ambiguous automaton has no closed form")
        before, _ = self._forward(self.nothing.log())
        after = self._backward(self.nothing.log())
        # H = log Z - E[sum of log weights along the path]: the path is a function of the sentence.
        mean_log = torch.zeros((), dtype=torch.float64)
        for i in range(self.length):
            arcs = before[i][0, self.source] + self._log_chance + after[i][0, self.target]
            mean_log = mean_log + (arcs.softmax(0) * self._log_chance).sum()
        return float((self._log_weight - mean_log) / self.length)

    def sample(self, rng: Streams) -> Tokens:
        """See `Language`."""
        after = self._backward(self.nothing.log())
        state = torch.zeros(len(rng), dtype=torch.long)
        u = rng.uniform(self.length, dtype=torch.float64).cpu()
        tokens = []
        for i in range(self.length):
            onward = (self._log_chance + after[i][0, self.target]).softmax(0)
            weights = onward * (self.source == state[:, None])
            cumulative = weights.cumsum(1)
            arc = torch.searchsorted(cumulative, u[:, i, None] * cumulative[:, -1:], right=True)
            arc = arc.squeeze(1).clamp(max=len(self.source) - 1)
            tokens.append(self.token[arc])
            state = self.target[arc]
        return torch.stack(tokens, 1)

    def support(self, most: int = 100_000) -> tuple[Tokens, Float[Tensor, " n"]]:
        """See `Language`."""
        prefixes = [((), 0)]
        arcs = list(zip(self.source.tolist(), self.token.tolist(), self.target.tolist()))
        for _ in range(self.length):
            prefixes = [
                ((*prefix, token), target)
                for prefix, state in prefixes
                for source, token, target in arcs
                if source == state
            ]
            if len(prefixes) > most:
                raise ValueError(f"the language has more than {most} sentences; sample it instead")
        sentences = sorted({prefix for prefix, state in prefixes if bool(self.final[state])})
        tokens = torch.tensor(sentences)
        return tokens, self.log_prob(tokens).exp()


def _gathered(logs: Float[Tensor, "b n"], index: Int[Tensor, " n"], size: int) -> Tensor:
    """log of the sums of exp(logs) that share an index, (b, size). Nothing underflows."""
    top = torch.full((len(logs), size), -torch.inf, dtype=logs.dtype)
    top = top.scatter_reduce(1, index.expand_as(logs), logs, "amax").nan_to_num(neginf=0.0)
    sums = torch.zeros_like(top).index_add_(1, index, (logs - top[:, index]).exp())
    return sums.log() + top
