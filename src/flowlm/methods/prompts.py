"""Prompts in training: some tokens are given, so that a model learns to write around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowlm import core
from flowlm.checks import require_fields
from flowlm.errors import Refusal


@dataclass(frozen=True)
class Prompts:
    """Given tokens stand at time 1, clean, and pay nothing; the others are noised as always.

    A text with a prompt has the share f of its tokens given: each of them with chance f (FMLM+,
    arXiv 2606.24773), or, in the share `runs` of such texts, a run of them that goes on at the
    beginning of the text where it ends. So prompts are continued, led up to, and filled in. f is
    the square of a uniform number, not that number as published: a few given tokens among many
    noisy ones are the hardest to obey. In all other texts what could be given is noised with the
    rest and pays with it (noise-your-prompt, arXiv 2610.09145).
    """

    share: float = 0.0
    """Share of the texts that have a prompt; the others are noise all over."""
    runs: float = 0.5
    """Share of the prompts that are a run of tokens; the others are scattered."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_fields(self, "--method.prompts.")
        for name, share in (("share", self.share), ("runs", self.runs)):
            if not 0 <= share <= 1:
                raise Refusal(f"--method.prompts.{name} must lie between 0 and 1, not {share}.")

    def drawn(self, batch: core.Batch, rng: core.Streams) -> core.Batch:
        """The texts with prompts of their own, which count nothing."""
        if self.share == 0:
            return batch
        import torch  # not with the file: a recipe's options are shown without it

        length = batch.tokens.shape[1]
        chosen, in_runs, root, start = rng.uniform(4).split(1, 1)
        f = root.square()
        place = torch.arange(length, device=rng.device)
        first = (start * length).floor()
        run = (place - first) % length < (f * length).round()
        given = torch.where(in_runs < self.runs, run, rng.uniform(length) < f)
        given = given & (chosen < self.share)
        return replace(batch, weight=batch.weight.masked_fill(given, 0.0), given=given)
