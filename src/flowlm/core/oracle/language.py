"""Exactly solvable languages: the judge of the tests, of the demo and of the tasks.

Given independent evidence about every token (a noisy one-hot row, a mask, a token heard through a
bad line), a language gives the exact evidence and the exact posterior of every token. So the
denoiser of the flow, and with it the velocity and the flow map, the reverse posterior of masked
diffusion, and likelihoods are all exact. `Automaton` and `Listed` are its two forms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowlm.core.distribution import Dense
from flowlm.core.flow import beta
from flowlm.core.rng import Streams
from flowlm.core.types import Probs, Time, Tokens


class Language(ABC):
    """Sentences of exactly `length` tokens, each with its probability."""

    vocab: int
    length: int

    @abstractmethod
    def log_evidence(self, evidence: Probs) -> Float[Tensor, " b"]:
        """log E[prod_i evidence_i(token_i)] over sentences of the language, nats."""

    @abstractmethod
    def log_posterior(self, log_evidence: Probs) -> Probs:
        """Log of the posterior of every token, from the log of `evidence` (see `posterior`)."""

    @abstractmethod
    def log_total(self, evidence: Probs) -> Float[Tensor, " b"]:
        """log of the sum over sentences of prod_i evidence_i(token_i), each counted once, nats.

        Of evidence that is 1 everywhere it is the log of the number of sentences.
        """

    @abstractmethod
    def sample(self, rng: Streams) -> Tokens:
        """Exact samples, (b, l)."""

    @abstractmethod
    def support(self, most: int = 100_000) -> tuple[Tokens, Float[Tensor, " n"]]:
        """Every sentence with its probability, for a language of at most `most` sentences."""

    @cached_property
    @abstractmethod
    def entropy(self) -> float:
        """Exact entropy rate: nats per token."""

    # --- posteriors ---------------------------------------------------------------------------

    def posterior(self, evidence: Probs) -> Probs:
        """Posterior of every token given `evidence` about all: rows on the simplex, float64.

        `evidence[b, i, w]` is the likelihood, up to a factor a row, of what is known of token i if
        it is w.
        """
        return self.log_posterior(evidence.double().log()).exp()

    def leave_one_out(self, evidence: Probs) -> Probs:
        """Posterior of every token given `evidence`, none of it 0, about all tokens but itself."""
        logs = evidence.double().log()
        return (self.log_posterior(logs) - logs).softmax(-1)

    @property
    def nothing(self) -> Probs:
        """The evidence that says nothing: ones, (1, l, v)."""
        return torch.ones(1, self.length, self.vocab, dtype=torch.float64)

    @cached_property
    def marginals(self) -> Float[Tensor, "l v"]:
        """Exact probability of each token at each position."""
        return self.posterior(self.nothing)[0]

    # --- sentences ----------------------------------------------------------------------------

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

    # --- exact networks ---------------------------------------------------------------------

    def denoiser(self, x: Float[Tensor, "b l v"], t: Time) -> Dense:
        """D_t(x) = E[x1 | x_t = x], exactly, for a one-hot-space point (float64).

        A noisy row (1 - t) z + t e_w has likelihood proportional to exp(beta_t x_w): all other
        terms do not depend on w.
        """
        return Dense(self.log_posterior(beta(t.double())[..., None] * x.double()))

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
