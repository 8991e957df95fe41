"""Exactly solvable languages: the judge of the tests and of the demo.

A language is a weighted automaton that writes sentences of one length. Given independent evidence
about every token (a noisy one-hot row, a mask, a token heard through a bad line), one forward and
one backward pass give the exact evidence and the exact posterior of every token. So the denoiser of
the flow, and with it the velocity and the flow map, the reverse posterior of masked diffusion, and
likelihoods are all exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowlm.core.distribution import Dense
from flowlm.core.flow import beta
from flowlm.core.rng import Streams
from flowlm.core.types import Probs, Time, Tokens


@dataclass(frozen=True, eq=False)
class Language:
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
        """log E[prod_i evidence_i(word_i)] over sentences of the language, nats."""
        return self.log_weight(evidence) - self._log_weight

    def posterior(self, evidence: Probs) -> Probs:
        """Posterior of every token given `evidence` about all: rows on the simplex, float64.

        `evidence[b, i, w]` is the likelihood, up to a factor a row, of what is known of token i if
        it is w.
        """
        return self._log_posterior(evidence.double().log()).exp()

    def _log_posterior(self, log_evidence: Probs) -> Probs:
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
    def _nothing(self) -> Probs:
        return torch.ones(1, self.length, self.vocab, dtype=torch.float64)

    @cached_property
    def _log_weight(self) -> Tensor:
        return self.log_weight(self._nothing)

    # --- what the language is ---------------------------------------------------------------

    @cached_property
    def marginals(self) -> Float[Tensor, "l v"]:
        """Exact probability of each token at each position."""
        return self.posterior(self._nothing)[0]

    @cached_property
    def entropy(self) -> float:
        """Exact entropy rate: nats per token. Only for a deterministic automaton."""
        if not self.deterministic:
            raise ValueError("the entropy of an ambiguous automaton has no closed form")
        before, _ = self._forward(self._nothing.log())
        after = self._backward(self._nothing.log())
        # H = log Z - E[sum of log weights along the path]: the path is a function of the sentence.
        mean_log = torch.zeros((), dtype=torch.float64)
        for i in range(self.length):
            arcs = before[i][0, self.source] + self._log_chance + after[i][0, self.target]
            mean_log = mean_log + (arcs.softmax(0) * self._log_chance).sum()
        return float((self._log_weight - mean_log) / self.length)

    def log_prob(self, tokens: Tokens, flip: float = 0.0) -> Float[Tensor, " b"]:
        """Exact log-probability of sentences, nats; minus infinity for an invalid one.

        With `flip` > 0 the sentences are heard through a line that replaces each token, with that
        probability, by one drawn from the whole vocabulary: finite for every sentence, and the
        language's own sentences lose at most -log(1 - flip) nats a token.
        """
        heard = torch.nn.functional.one_hot(tokens.cpu(), self.vocab).double()
        return self.log_evidence((1 - flip) * heard + flip / self.vocab)

    def valid(self, tokens: Tokens) -> Bool[Tensor, " b"]:
        """Whether each sentence belongs to the language."""
        return self.log_prob(tokens).isfinite()

    def sample(self, rng: Streams) -> Tokens:
        """Exact samples, (b, l)."""
        after = self._backward(self._nothing.log())
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

    # --- exact networks ---------------------------------------------------------------------

    def denoiser(self, x: Float[Tensor, "b l v"], t: Time) -> Dense:
        """D_t(x) = E[x1 | x_t = x], exactly, for a one-hot-space point (float64).

        A noisy row (1 - t) z + t e_w has likelihood proportional to exp(beta_t x_w): all other
        terms do not depend on w.
        """
        return Dense(self._log_posterior(beta(t.double())[..., None] * x.double()))

    def unmasker(self, tokens: Tokens, mask_id: int, flip: float = 0.0) -> Dense:
        """Exact posterior of every token given the tokens that are not masked.

        With `flip` > 0 these are only heard (see `log_prob`): tokens that contradict each other,
        which have no posterior, then get one.
        """
        heard = torch.nn.functional.one_hot(tokens.clamp(max=self.vocab - 1), self.vocab).double()
        heard = (1 - flip) * heard + flip / self.vocab
        return Dense(self.posterior(heard.where((tokens != mask_id)[..., None], 1.0)).log())

    def next_token(self, tokens: Tokens, position: int) -> Dense:
        """Exact distribution of the token at `position` given the tokens before it, (b, 1, v)."""
        hidden = torch.full_like(tokens, self.vocab)
        hidden[:, :position] = tokens[:, :position]
        rows = self.unmasker(hidden, self.vocab).logp
        return Dense(rows[:, position : position + 1])

    def support(self, most: int = 100_000) -> tuple[Tokens, Float[Tensor, " n"]]:
        """Every sentence with its probability, for a language of at most `most` sentences."""
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
