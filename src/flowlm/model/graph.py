"""A network as an exporter traces it: tensors to log-probabilities, whole rows, no strips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowlm.chunked.evidence import Evidence
from flowlm.chunked.points import LazyPoint
from flowlm.core.clock import INTERVALS, Clock, Decoding
from flowlm.core.types import Patch, Time
from flowlm.experiment import Experiment
from flowlm.nn.dit import DiT
from flowlm.nn.encoder import Bayes, Posterior, Projected
from flowlm.nn.hollow import hollow

BUCKET = 128
"""Intervals of the clock's table that are told apart after those of the others."""


class Graph(nn.Module):
    """The network of a flow or a flow map, as a sampler asks it.

    It has the weights of `network`, in float32 and shared where they are so already.
    """

    def __init__(self, experiment: Experiment, network: DiT, length: int) -> None:
        super().__init__()
        vocab, width = network.vocab, experiment.size.width
        with hollow():
            own = experiment.method.network(experiment.size, vocab, length)
        if isinstance(own.encoder, Posterior):
            clock = experiment.method.time(vocab)
            assert clock is not None, "a posterior depends on the time"
            kind = WrittenBayes if own.encoder.has_evidence else WrittenPosterior
            t_of_tau = TimeTable(clock) if isinstance(clock, Decoding) else clock.t
            with hollow():
                own.encoder = kind(vocab, width, t_of_tau)
        weights = network.named_parameters()
        own.load_state_dict({name: w.detach().float() for name, w in weights}, assign=True)
        self.network = own
        self.of_rows = isinstance(own.encoder, Posterior)
        """Whether the encoder reads rows, not features or a product."""
        self.projected = isinstance(own.encoder, Projected)
        """Whether points are x @ E, (b, l, d): then the table E is an answer too."""
        self.shape = (length, width if self.projected else vocab)
        """Of the point of one text."""
        self.eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "b l k"], *taus: Time) -> tuple[Tensor, ...]:
        """Log-probabilities (b, l, v) at the point x and clock times (b, l); the table, if told.

        As many times as the network reads: now, and where a map is to land.
        """
        point = Rows(x.shape, x.device, (), x) if self.of_rows else x
        answer = self.network(point, *taus).log_probs()
        return (answer, self.network.encoder.table) if self.projected else (answer,)


@dataclass(frozen=True, eq=False)
class Rows(LazyPoint):
    """A point whose rows are all there, for as many texts as there are."""

    rows: Float[Tensor, "b l v"]

    def write(self, patch: Patch) -> Float[Tensor, "n m v"]:
        """A part of the rows."""
        return self.rows[patch]


class WrittenPosterior(Posterior):
    """`Posterior` of rows that are all there: a softmax in place of a loop over strips."""

    def views(self, evidence: Evidence) -> Float[Tensor, "b l d"]:
        """The same views."""
        count, length = evidence.x.shape[:2]
        rows = evidence.rows((slice(0, count), slice(0, length)))
        return self.views_of((rows + self.log_prior).softmax(-1) @ self.table)


class WrittenBayes(WrittenPosterior, Bayes):
    """`Bayes` of rows that are all there."""


class TimeTable(nn.Module):
    """t(tau) of a clock's table, by comparisons: ONNX has no search in a sorted list.

    The interval is the one that a search finds: first among every `BUCKET`-th one, then in its
    bucket, so that 192 numbers are compared a token and not 8,192.
    """

    taus: Tensor
    buckets: Tensor

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        taus = clock.tau(torch.linspace(0, 1, INTERVALS + 1)[None])[0]
        self.register_buffer("taus", taus, persistent=False)
        self.register_buffer("buckets", taus[:-1].unflatten(0, (-1, BUCKET)), persistent=False)

    def forward(self, tau: Time) -> Time:
        """As `Decoding.t`, bit for bit: knots of t are even, so an interval's number is its t."""
        bucket = (tau[..., None] >= self.buckets[:, 0]).sum(-1) - 1
        inside = (tau[..., None] >= self.buckets[bucket]).sum(-1) - 1
        left = bucket * BUCKET + inside
        start, end = self.taus[left], self.taus[left + 1]
        # Where rounding has made the curve flat, the right end: tau = 1 comes back as t = 1.
        rising = end > start
        share = torch.where(rising, tau - start, 1.0) / torch.where(rising, end - start, 1.0)
        return (left + share.clamp(0, 1)) / INTERVALS
