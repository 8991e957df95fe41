"""Writing with a network: frames of one batch, and its texts, in as many windows as they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flowlm.core.rng import Streams
from flowlm.core.types import FREE, Tokens
from flowlm.methods.method import Method
from flowlm.model.windows import Windows
from flowlm.nn.dit import DiT
from flowlm.sampling.sampler import Frame, Sampler


@dataclass(frozen=True, eq=False)
class Writer:
    """A network, and how it writes. Texts depend on (seed, number of the text) alone."""

    method: Method
    network: DiT
    sampler: Sampler
    steps: int
    seed: int

    @torch.no_grad()
    def frames(self, prompt: Tokens, first: int = 0, window: int = 0) -> Iterator[Frame]:
        """Texts from number `first` on while they come into being.

        `window` is the number of a window of a longer text: each has noise of its own.
        """
        device = self.network.head.weight.device
        seed = (self.seed, window) if window else (self.seed,)
        rng = Streams.of(*seed, count=len(prompt), first=first, device=device)
        denoiser = self.method.denoiser(self.network)
        yield from self.sampler.frames(denoiser, prompt.contiguous().to(device), self.steps, rng)

    def texts(self, given: Tokens, first: int, length: int, windows: Windows | None) -> Tokens:
        """Texts (b, L) from given tokens, FREE elsewhere.

        The network writes `length` tokens: fewer are the first of these, more come in `windows`.
        """

        def write(prompt: Tokens, window: int) -> Tokens:
            # Frames are let go as they come: each holds a whole state.
            (last,) = deque(self.frames(prompt, first, window), maxlen=1)
            return last.tokens()

        if windows is None:
            wanted = given.shape[1]
            behind = given.new_full((len(given), length - wanted), FREE)
            return write(torch.cat([given, behind], 1), 0)[:, :wanted]
        return windows.fill(given.to(self.network.head.weight.device), write)
