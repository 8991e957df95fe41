"""Distillation rules: how a flow map learns the jumps that no data shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from flowlm import core
from flowlm.sampling.point import Denoiser


class Rule(ABC):
    """A target for delta_{s,t}, s < t. A frozen dataclass: its fields are its settings."""

    @abstractmethod
    def loss(
        self,
        student: Denoiser,
        batch: core.Batch,
        rng: core.Streams,
        teacher: Denoiser | None = None,
    ) -> core.Loss:
        """Nats that the student pays, token by token.

        `teacher` answers D_t at the temperature that is distilled, in the student's space and
        clock; None where a map teaches itself.
        """
