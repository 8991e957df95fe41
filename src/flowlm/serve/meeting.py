"""A trunk at which several writers meet, so that one pass serves steps of all of them.

Every sequence brings its own times, so a batch may mix texts at different steps, of different
samplers, with and without given tokens. Encoders and heads, and what a sampler does with an answer,
stay with each writer: the trunk is what costs, and it takes tensors to tensors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from threading import Condition

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowlm.nn.attention import Cache
from flowlm.nn.dit import DiT


@dataclass(eq=False)
class Evaluation:
    """An evaluation that a writer waits for: features of the trunk."""

    y: Float[Tensor, "b l d"]
    condition: Float[Tensor, "#b #n c"]
    given: Bool[Tensor, "b l"] | None
    features: Float[Tensor, "b l d"] | None = None
    error: BaseException | None = None


class Meeting:
    """The writers of a network. Each enters, asks any number of times in a thread, and leaves."""

    def __init__(self, network: DiT) -> None:
        self._network = network
        self._changed = Condition()
        self._inside = 0
        self._waiting: list[Evaluation] = []

    def network(self) -> DiT:
        """The network with its own weights, whose trunk is this meeting's."""
        shared = copy.copy(self._network)
        shared.trunk = self._trunk  # pyright: ignore[reportAttributeAccessIssue]
        return shared

    def enter(self) -> None:
        """One writer more, to be waited for from now on."""
        with self._changed:
            self._inside += 1

    def leave(self) -> None:
        """A writer has ended."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    @property
    def inside(self) -> int:
        """How many writers there are."""
        with self._changed:
            return self._inside

    def evaluate(self) -> int:
        """Wait until every writer asks or has left, and answer all; how many texts took part."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) == self._inside)
            asked, self._waiting = self._waiting, []
        if not asked:
            return 0
        try:
            for one, features in zip(asked, self._together(asked), strict=True):
                one.features = features
        except BaseException as error:
            for one in asked:
                one.error = error
        with self._changed:
            self._changed.notify_all()
        return sum(len(one.y) for one in asked)

    @torch.no_grad()
    def _together(self, asked: list[Evaluation]) -> list[Tensor]:
        trunk = self._network.trunk
        if len(asked) == 1:
            (one,) = asked
            return [trunk(one.y, one.condition, one.given)]
        counts = [len(one.y) for one in asked]
        given = None
        if any(one.given is not None for one in asked):
            # The others' texts are at one time: none of their tokens is at the second one.
            none = [torch.zeros_like(one.y[..., 0], dtype=torch.bool) for one in asked]
            given = torch.cat([n if o.given is None else o.given for n, o in zip(none, asked)])
        places = max(one.condition.shape[1] for one in asked)
        wide = torch.cat([one.condition.expand(n, places, -1) for n, one in zip(counts, asked)])
        features = trunk(torch.cat([one.y for one in asked]), wide, given)
        return list(features.split(counts))

    def _trunk(
        self,
        y: Float[Tensor, "b l d"],
        condition: Float[Tensor, "#b #n c"],
        given: Bool[Tensor, "b l"] | None = None,
        cache: Cache | None = None,
        seeds: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """`DiT.trunk`, answered by `evaluate` of another thread; with a cache, here and now."""
        if cache is not None:
            return self._network.trunk(y, condition, given, cache, seeds)
        mine = Evaluation(y, condition, given)
        with self._changed:
            self._waiting.append(mine)
            self._changed.notify_all()
            self._changed.wait_for(lambda: mine.features is not None or mine.error is not None)
        if mine.error is not None:
            raise RuntimeError("the trunk failed") from mine.error
        assert mine.features is not None
        return mine.features
